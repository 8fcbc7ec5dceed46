"""The one model call, over OpenAI's protocol: what is sent, what is read, which failures are tried again."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from agents.failures import ProviderError
from agents.ledger import CampaignStopping
from agents.llm import LanguageModel, Reply, fold_system
from agents.preflight import PreflightError, check
from agents.rehearsal.server import ServerSettings, serving
from agents.secrets import KeyMissingError
from configs.model_settings import ModelSettings, PriceSettings
from configs.settings import BudgetSettings
from tests.scripted import HELLO, PatientLedger, language_model, said, scripted_model, site
from tests.servers import CutOff, LocalServer, failure, openai_completion, scripted_server
from tests.servers import Reply as Scripted

OPENAI_SPEAKERS = ("openai/x", "hosted_vllm/x")
TRANSPORTS = ("direct", "litellm")
Test = TypeVar("Test", bound=Callable[..., None])


def over_both(test: Test) -> Test:
    """Each provider that speaks OpenAI's protocol, posted to by ourselves and through LiteLLM."""
    found: Test = pytest.mark.parametrize("transport", TRANSPORTS)(
        pytest.mark.parametrize("model", OPENAI_SPEAKERS)(test)
    )
    return found


def ask(model: LanguageModel) -> Reply:
    return asyncio.run(model.complete(HELLO, site()))


def play(*script: Scripted, model: str, **settings: Any) -> tuple[Reply | ProviderError, PatientLedger, LocalServer]:
    """One call against a script: its reply or error, the ledger it used, and the server."""
    ledger = PatientLedger()
    with scripted_server(*script) as server:
        asked = language_model(model, ledger=ledger, api_base=server.url, **settings)
        try:
            return ask(asked), ledger, server
        except ProviderError as error:
            return error, ledger, server


@over_both
def test_a_call_is_noted_as_started_and_as_done_with_its_usage(model: str, transport: str) -> None:
    reply, ledger, _ = play("hi there", model=model, transport=transport)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish_reason) == ("hi there", "stop")
    started, done = ledger.notes
    assert (started.status, started.attempts, started.messages) == ("started", 1, None)
    assert (done.status, done.attempts, done.messages, done.response) == ("done", 1, HELLO, "hi there")
    assert (done.prompt_tokens, done.completion_tokens) == (11, 7)
    assert done.latency_ms is not None
    assert ledger.spent.tokens == 18


@over_both
def test_an_unknown_price_is_null(model: str, transport: str) -> None:
    _, ledger, _ = play("hi", model=model, transport=transport)
    assert ledger.notes[-1].cost_usd is None
    assert ledger.spent.unpriced_calls == 1


@over_both
def test_a_price_of_ones_own_is_counted_and_not_sent(model: str, transport: str) -> None:
    prices = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}
    name = model.replace("/x", "/priced")  # LiteLLM keeps the price for the whole process
    _, ledger, server = play("hi", model=name, transport=transport, params=prices)
    assert ledger.notes[-1].cost_usd == pytest.approx(11 * 0.001 + 7 * 0.002)
    assert not prices.keys() & server.requests[0].body.keys()


@over_both
def test_a_price_a_million_tokens_is_counted_and_neither_sent_nor_left_in_litellm(model: str, transport: str) -> None:
    price = PriceSettings(input=3.0, output=15.0)
    _, ledger, server = play("hi", model=model, transport=transport, price=price)
    assert ledger.notes[-1].cost_usd == pytest.approx((11 * 3.0 + 7 * 15.0) / 1e6)
    assert "price" not in server.requests[0].body
    _, unpriced, _ = play("hi", model=model, transport=transport)
    assert unpriced.notes[-1].cost_usd is None


@over_both
def test_sampling_and_extra_parameters_are_sent(model: str, transport: str) -> None:
    settings = {"temperature": 0.25, "top_p": 0.5, "max_tokens": 9, "params": {"stop": ["\n"], "top_k": 3}}
    _, ledger, server = play("hi", model=model, transport=transport, **settings)
    body = server.requests[0].body
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("x", 0.25, 0.5, 9)
    assert (body["stop"], body["top_k"]) == (["\n"], 3)
    assert body["seed"] == ledger.notes[0].parameters["seed"]


@over_both
def test_the_random_seed_belongs_to_the_place_of_the_call(model: str, transport: str) -> None:
    async def both(asked: LanguageModel) -> None:
        for place in (site(ordinal=0), site(ordinal=1), site(ordinal=0)):
            await asked.complete(HELLO, place)

    with scripted_server("hi") as server:
        asyncio.run(both(language_model(model, transport=transport, api_base=server.url)))
    first, second, again = (request.body["seed"] for request in server.requests)
    assert first == again != second


@over_both
def test_the_key_and_the_headers_come_from_the_environment(
    model: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "k-1")
    monkeypatch.setenv("MY_HEADER", "h-1")
    _, _, server = play(
        "hi", model=model, transport=transport, api_key="env:MY_KEY", headers={"X-Team": "env:MY_HEADER"}
    )
    assert server.requests[0].headers["authorization"] == "Bearer k-1"
    assert server.requests[0].headers["x-team"] == "h-1"


@over_both
@pytest.mark.parametrize(
    "trouble",
    [
        failure(429),
        failure(500),
        Response("<html>502 Bad Gateway</html>", 502),
        failure(503),
        CutOff(),
        Response('{"id": "x", "choices": [{"mess', media_type="application/json"),
        JSONResponse(openai_completion("", {}) | {"choices": []}),
        JSONResponse([1, 2]),
        Response("<html>a proxy's page</html>", media_type="text/html"),
    ],
    ids=["429", "500", "502", "503", "cut off", "truncated", "no choices", "a list", "html"],
)
def test_a_failure_that_passes_is_tried_again(model: str, transport: str, trouble: Response) -> None:
    reply, ledger, server = play(trouble, trouble, "at last", model=model, transport=transport)
    assert isinstance(reply, Reply)
    assert reply.text == "at last"
    assert [(call.status, call.attempts) for call in ledger.notes] == [
        ("started", 1),
        ("started", 2),
        ("started", 3),
        ("done", 3),
    ]
    assert len(server.requests) == len(ledger.pauses) + 1 == ledger.spent.calls == 3


@over_both
def test_a_connection_reset_is_tried_again_and_every_request_counted(
    model: str, transport: str, tmp_path: Path
) -> None:
    log = tmp_path / "requests.jsonl"
    faults = ServerSettings(fault_rate=0.5, faults=("reset",), random_seed=3, log=str(log))
    with serving(faults) as address:
        name = model.replace("/x", "/default")
        ledger = PatientLedger()
        asked = language_model(name, transport=transport, ledger=ledger, api_base=address, attempts=20)
        for depth in range(6):
            asyncio.run(asked.complete(HELLO, site(depth=depth)))
    assert max(call.attempts for call in ledger.notes) > 1
    assert ledger.spent.calls == sum(call.attempts for call in ledger.notes if call.status == "done")
    assert ledger.spent.calls == len(log.read_text().splitlines())


@over_both
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(model: str, transport: str, status: int) -> None:
    _, ledger, _ = play(failure(status, retry_after="0.6"), "hi", model=model, transport=transport)
    assert ledger.pauses == [0.6]


@over_both
@pytest.mark.parametrize(
    ("trouble", "kind", "fatal"),
    [
        (failure(400, "what is this"), "bad_request", False),
        (failure(413), "bad_request", False),
        (failure(422), "bad_request", False),
        (failure(401, "wrong key"), "bad_key", True),
        (failure(403, "not for you"), "bad_key", True),
        (failure(404, "no such model"), "unknown_model", True),
        (failure(400, "This model's maximum context length is 8 tokens"), "context_overflow", False),
        (failure(400, "filtered by our content management policy"), "content_filter", False),
        (JSONResponse(openai_completion("", {}, finish_reason="content_filter")), "content_filter", False),
    ],
    ids=["400", "413", "422", "401", "403", "404", "context", "filtered request", "filtered answer"],
)
def test_a_failure_that_stays_is_not_tried_again(
    model: str, transport: str, trouble: Response, kind: str, fatal: bool
) -> None:
    error, ledger, server = play(trouble, model=model, transport=transport)
    assert isinstance(error, ProviderError)
    assert (error.kind, error.fatal, error.passing) == (kind, fatal, False)
    assert len(server.requests) == 1
    assert (ledger.notes[-1].status, ledger.notes[-1].attempts) == ("failed", 1)
    assert (ledger.notes[-1].error or "").startswith(f"{kind}: ")


@over_both
def test_after_the_last_attempt_the_call_is_noted_as_failed(model: str, transport: str) -> None:
    error, ledger, server = play(failure(500, "on fire"), model=model, transport=transport, attempts=3)
    assert isinstance(error, ProviderError)
    assert (error.kind, error.fatal) == ("server_error", False)
    assert "on fire" in str(error)
    assert (ledger.notes[-1].status, ledger.notes[-1].attempts, len(server.requests)) == ("failed", 3, 3)


def test_an_endpoint_that_went_away_is_fatal_though_it_answered_when_the_call_began() -> None:
    with serving(ServerSettings()) as address:
        asked = language_model("hosted_vllm/default", api_base=address, attempts=2)
        ask(asked)
    with pytest.raises(ProviderError, match="run the same command to go on") as raised:
        asyncio.run(asked.complete(HELLO, site(depth=3)))
    assert (raised.value.kind, raised.value.fatal, raised.value.attempts) == ("connection", True, 2)


def test_a_lost_connection_to_an_endpoint_that_answers_others_ends_one_dialogue_only() -> None:
    ledger = PatientLedger()
    dead = language_model("hosted_vllm/x", ledger=ledger, api_base="http://127.0.0.1:9/v1", attempts=1)
    ledger.heard_from["hosted_vllm/x", "http://127.0.0.1:9/v1"] = float("inf")  # another call has just been answered
    with pytest.raises(ProviderError) as raised:
        ask(dead)
    assert (raised.value.kind, raised.value.fatal) == ("connection", False)


@over_both
def test_an_answer_that_cannot_be_read_is_no_lost_connection(model: str, transport: str) -> None:
    error, _, _ = play(JSONResponse([1, 2]), model=model, transport=transport, attempts=1)
    assert isinstance(error, ProviderError)
    assert not error.fatal


@over_both
def test_an_endpoint_that_is_gone_is_fatal(model: str, transport: str) -> None:
    with pytest.raises(ProviderError, match="cannot reach") as raised:
        ask(language_model(model, transport=transport, api_base="http://127.0.0.1:9/v1", attempts=2))
    assert raised.value.kind == "connection"
    assert raised.value.fatal


async def _drip() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0.05)


async def _nothing() -> AsyncIterator[bytes]:
    await asyncio.sleep(30)
    yield b""


@over_both
@pytest.mark.parametrize("body", [_drip, _nothing])
def test_a_slow_answer_is_cut_off(model: str, transport: str, body: Any) -> None:
    began = time.monotonic()
    error, ledger, _ = play(
        lambda _: StreamingResponse(body(), media_type="application/json"),
        model=model,
        transport=transport,
        timeout_seconds=0.1,
        attempts=1,
    )
    assert isinstance(error, ProviderError)
    assert error.kind == "timeout"
    assert ledger.notes[-1].status == "failed"
    assert time.monotonic() - began < 5.0


def test_a_broken_character_in_an_answer_is_replaced() -> None:
    broken = json.dumps(openai_completion("half \ud83d a smile", {}))
    reply, _, _ = play(Response(broken, media_type="application/json"), model="hosted_vllm/x")
    assert isinstance(reply, Reply)
    assert reply.text == "half � a smile"


def test_a_system_message_is_folded_unless_the_model_has_the_role() -> None:
    messages = (said("system", "Be brief."), said("user", "hello"))
    with scripted_server("hi") as server:
        for system_role in ("fold", "native"):
            asked = language_model("hosted_vllm/x", api_base=server.url, system_role=system_role)
            asyncio.run(asked.complete(messages, site()))
    folded, native = (request.body["messages"] for request in server.requests)
    assert folded == [{"role": "user", "content": "Be brief.\n\nhello"}]
    assert [message["role"] for message in native] == ["system", "user"]


def test_folding_leaves_other_conversations_as_they_are() -> None:
    answer_first = (said("system", "s"), said("assistant", "a"))
    assert fold_system(HELLO) == HELLO
    assert fold_system(()) == ()
    assert [message.role for message in fold_system(answer_first)] == ["user", "assistant"]


def test_a_draining_campaign_ends_the_wait_for_a_retry() -> None:
    ledger = PatientLedger()

    def fail_and_stop(_: Any) -> Response:
        ledger.stop("enough")
        return failure(500)

    with scripted_server(fail_and_stop) as server, pytest.raises(CampaignStopping, match="enough"):
        ask(language_model("hosted_vllm/x", ledger=ledger, api_base=server.url))
    assert [(call.status, call.attempts) for call in ledger.notes] == [("started", 1), ("started", 1)]
    on_its_way, left = ledger.notes
    assert on_its_way.lost_tokens
    assert (left.lost_tokens, left.lost_usd) == (0, 0.0)  # a 500 is not paid for, and it has come back


def test_a_call_that_was_never_sent_leaves_no_row() -> None:
    ledger = PatientLedger(caps=BudgetSettings(tokens=1))
    with scripted_server("hi") as server, pytest.raises(CampaignStopping, match="1 tokens"):
        ask(language_model("hosted_vllm/x", ledger=ledger, api_base=server.url))
    assert (server.requests, ledger.notes) == ([], [])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"model": "no-such-provider/x"}, "unknown model provider in 'no-such-provider/x'"),
        ({"model": "gpt"}, "unknown model provider in 'gpt'"),
        ({"model": "rehearsal/defualt"}, "the models are rehearsal/default"),
        ({"model": "hosted_vllm/x"}, "no api_base says where"),
        ({"model": "openai/gpt-4o"}, "OPENAI_API_KEY"),
        ({"model": "anthropic/claude-x"}, "ANTHROPIC_API_KEY"),
        ({"model": "anthropic/claude-x", "api_base": "http://127.0.0.1:9"}, "ANTHROPIC_API_KEY"),
        ({"model": "openai/x", "api_key": "env:NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"model": "openai/x", "api_base": "http://127.0.0.1:9/v1"}, "nobody answers at 'http://127.0.0.1:9/v1'"),
    ],
)
def test_what_cannot_work_is_found_before_the_first_call(
    settings: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises((PreflightError, KeyMissingError), match=expected):
        check([ModelSettings(**settings)])


def test_a_scripted_model_goes_the_same_way() -> None:
    ledger = PatientLedger(caps=BudgetSettings(calls=1))
    with scripted_model(["one", "two"]) as model:
        assert ask(language_model(model, ledger=ledger)).text == "one"
        with pytest.raises(CampaignStopping, match="budget of 1 calls is spent"):
            asyncio.run(language_model(model, ledger=ledger).complete(HELLO, site(depth=2)))
