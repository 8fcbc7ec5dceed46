"""Each fault of a backend, met over both transports: what is tried again, what the journal says, what is counted."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.responses import JSONResponse

from agents.failures import ProviderError
from agents.llm import Reply
from agents.rehearsal.faults import FAULTS, Fault, wrong_shapes
from agents.rehearsal.request_log import Arrival, read_log
from agents.rehearsal.server import ServerSettings, serving
from store.records import Call
from tests.scripted import HELLO, PatientLedger, language_model, site
from tests.servers import failure, openai_completion, scripted_server

TRANSPORTS = ("direct", "litellm")
WAYS = (*TRANSPORTS, "litellm, openai's client")
"""How requests travel: LiteLLM has a client of its own, and one of OpenAI's."""
MODEL = "hosted_vllm/default"
ATTEMPTS = 2
IMPATIENT_SECONDS, PATIENT_SECONDS = 0.25, 10.0
"""Where nothing will come, and where something will, on however slow a machine."""
HELD: tuple[Fault, ...] = ("timeout", "slow_drip")
SEED_OF_ONE_FAULT = 4
"""Of a server that fails every second request: the first is met by a fault, and the second is not."""
WHEN = {"created_at", "latency_ms", "error"}
WHOM = {"model", "request_hash"}


class Deserved(NamedTuple):
    """What a fault's call comes to."""

    kind: str
    is_retried: bool
    lost: str
    """What its requests may have cost: `nothing`, the `usage` that came with them, or `all` that was held."""


DESERVED: dict[Fault, Deserved] = {
    "rate_limit": Deserved("rate_limited", True, "nothing"),
    "server_error": Deserved("server_error", True, "nothing"),
    "bad_gateway": Deserved("server_error", True, "nothing"),
    "unavailable": Deserved("server_error", True, "nothing"),
    "timeout": Deserved("timeout", True, "all"),
    "reset": Deserved("connection", True, "all"),
    "hang_up": Deserved("connection", True, "all"),
    "slow_drip": Deserved("timeout", True, "all"),
    "truncated": Deserved("bad_response", True, "all"),
    "empty_choices": Deserved("empty_choices", True, "all"),
    "invalid_schema": Deserved("bad_response", True, "all"),
    "wrong_model": Deserved("unknown_model", True, "nothing"),
    "refusal": Deserved("refusal", False, "usage"),
    "content_filter": Deserved("content_filter", False, "usage"),
    "prompt_filter": Deserved("content_filter", False, "nothing"),
    "context_overflow": Deserved("context_overflow", False, "nothing"),
}


class Met(NamedTuple):
    """How one call went."""

    outcome: Reply | ProviderError
    ledger: PatientLedger
    log: list[Arrival]

    @property
    def last(self) -> Call:
        return self.ledger.notes[-1]


def meet(settings: ServerSettings, way: str, log: Path, *, answers_others: bool = True, **given: Any) -> Met:
    """One call to a faulty server, which has answered others before unless it is said not to have."""
    ledger = PatientLedger()
    transport, _, client = way.partition(", ")
    model = "openai/default" if client else MODEL
    patience = IMPATIENT_SECONDS if settings.faults[0] in HELD else PATIENT_SECONDS
    given = {"attempts": ATTEMPTS, "timeout_seconds": patience} | given
    with serving(settings.model_copy(update={"log": str(log)})) as address:
        if answers_others:
            ledger.heard_from[model, address] = float("inf")
        asked = language_model(model, transport=transport, ledger=ledger, api_base=address, **given)
        try:
            outcome: Reply | ProviderError = asyncio.run(asked.complete(HELLO, site()))
        except ProviderError as error:
            outcome = error
    return Met(outcome, ledger, read_log(log))


@pytest.fixture(scope="module", autouse=True)
def _litellm_is_warm() -> None:
    """Its first call takes longer than a short time-out."""
    with scripted_server("hi") as server:
        for model in ("hosted_vllm/x", "openai/x"):
            asyncio.run(language_model(model, transport="litellm", api_base=server.url).complete(HELLO, site()))


def test_every_fault_has_what_it_deserves() -> None:
    assert DESERVED.keys() | {"slow"} == set(FAULTS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("fault", DESERVED)
def test_a_fault_that_stays_ends_the_call_as_it_deserves(fault: Fault, way: str, tmp_path: Path) -> None:
    met = meet(ServerSettings(fault_rate=1.0, faults=(fault,)), way, tmp_path / "log")
    deserved = DESERVED[fault]
    assert isinstance(met.outcome, ProviderError)
    assert (met.outcome.kind, met.outcome.fatal) == (deserved.kind, False)
    requests = ATTEMPTS if deserved.is_retried else 1
    assert len(met.log) == met.ledger.spent.calls == met.outcome.attempts == requests
    assert {arrival.fault for arrival in met.log} == {fault}
    assert [(call.status, call.attempts) for call in met.ledger.notes] == [
        *(("started", number) for number in range(1, requests + 1)),
        ("failed", requests),
    ]
    assert met.last.finish_reason == deserved.kind
    assert met.last.error == f"{deserved.kind}: {met.outcome}"
    assert (met.last.response, met.last.prompt_tokens, met.last.completion_tokens) == (None, None, None)
    held = met.ledger.notes[0].lost_tokens
    assert held
    assert met.last.lost_tokens == {"nothing": 0, "all": requests * held, "usage": 12}[deserved.lost]
    assert met.ledger.spent.lost_tokens == met.last.lost_tokens
    assert len(met.ledger.pauses) == requests - 1
    if fault == "rate_limit":
        assert min(met.ledger.pauses) >= 1.0  # the server's Retry-After


@pytest.mark.parametrize("fault", [fault for fault, deserved in DESERVED.items() if deserved.is_retried])
def test_a_fault_that_passes_costs_a_retry_and_nothing_else_whichever_way(fault: Fault, tmp_path: Path) -> None:
    settings = ServerSettings(fault_rate=0.5, faults=(fault,), random_seed=SEED_OF_ONE_FAULT)
    rows = []
    for way in WAYS:
        patience = 1.0 if fault in HELD else PATIENT_SECONDS
        met = meet(settings, way, tmp_path / way, timeout_seconds=patience)
        assert isinstance(met.outcome, Reply), str(met.outcome)
        assert [arrival.fault for arrival in met.log] == [fault, None]
        assert met.log[1].content == met.outcome.text
        assert met.log[0].call == met.log[1].call
        assert (met.last.status, met.last.attempts, met.ledger.spent.calls) == ("done", 2, 2)
        assert met.ledger.spent.tokens == (met.last.prompt_tokens or 0) + (met.last.completion_tokens or 0) > 0
        rows.append([call.model_dump(exclude=WHEN | WHOM) for call in met.ledger.notes])
    assert rows[0] == rows[1] == rows[2]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("shape", range(len(wrong_shapes(openai_completion("hello", {})))))
def test_no_wrong_shape_of_an_answer_is_taken_for_one(shape: int, transport: str) -> None:
    ledger = PatientLedger()
    wrong = JSONResponse(wrong_shapes(openai_completion("hello", {}))[shape])
    with scripted_server(wrong, "at last") as server:
        asked = language_model("hosted_vllm/x", transport=transport, ledger=ledger, api_base=server.url)
        reply = asyncio.run(asked.complete(HELLO, site()))
    assert (reply.text, len(server.requests)) == ("at last", 2)
    held = ledger.notes[0].lost_tokens
    is_error = isinstance(wrong_shapes(openai_completion("hello", {}))[shape], dict) and b'"error"' in wrong.body
    assert ledger.notes[-1].lost_tokens == (0 if is_error else held)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("usage", [None, {}, "none"])
def test_an_answer_without_usage_counts_as_all_that_was_held(usage: Any, transport: str) -> None:
    ledger = PatientLedger()
    whole = openai_completion("hello", {}) | {"usage": usage}
    if usage == "none":
        del whole["usage"]
    with scripted_server(JSONResponse(whole)) as server:
        asked = language_model("hosted_vllm/x", transport=transport, ledger=ledger, api_base=server.url)
        assert asyncio.run(asked.complete(HELLO, site())).text == "hello"
    started, done = ledger.notes
    assert (done.prompt_tokens, done.completion_tokens) == (None, None)
    assert done.lost_tokens == started.lost_tokens == ledger.spent.lost_tokens


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_model_that_nobody_was_answered_by_is_unknown_at_once(transport: str, tmp_path: Path) -> None:
    settings = ServerSettings(fault_rate=1.0, faults=("wrong_model",))
    met = meet(settings, transport, tmp_path / "log", answers_others=False, attempts=5)
    assert isinstance(met.outcome, ProviderError)
    assert (met.outcome.kind, met.outcome.fatal, len(met.log)) == ("unknown_model", True, 1)
    assert "does not know 'hosted_vllm/default'" in str(met.outcome)
    assert "\n" not in str(met.outcome)


@contextmanager
def two_at_once(*script: Any) -> Iterator[tuple[list[Reply | BaseException], PatientLedger]]:
    """Two calls side by side at an endpoint that nobody has heard from."""
    ledger = PatientLedger()
    with scripted_server(*script) as server:
        asked = language_model("hosted_vllm/x", ledger=ledger, api_base=server.url)

        async def both() -> list[Reply | BaseException]:
            calls = (asked.complete(HELLO, site(depth=depth)) for depth in (1, 3))
            return await asyncio.gather(*calls, return_exceptions=True)

        yield asyncio.run(both()), ledger


def test_a_model_that_is_unknown_to_one_call_while_it_answers_another_is_asked_again() -> None:
    with two_at_once(failure(404, "not loaded"), "late", "again") as (outcomes, ledger):
        assert {outcome.text for outcome in outcomes if isinstance(outcome, Reply)} == {"late", "again"}
        assert ledger.spent.calls == 3


def test_a_model_that_is_unknown_to_all_who_ask_is_asked_no_more() -> None:
    with two_at_once(failure(404, "no such model")) as (outcomes, ledger):
        assert [isinstance(outcome, ProviderError) and outcome.fatal for outcome in outcomes] == [True, True]
        assert ledger.spent.calls == 2
