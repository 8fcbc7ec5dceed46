"""Servers that answer as nobody should: the same is made of it directly and through LiteLLM, and no key gets out."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from agents import direct
from agents.direct import takes_directly
from agents.failures import ProviderError
from agents.llm import LanguageModel, Reply
from agents.providers import load_litellm
from configs.model_settings import ModelSettings, PriceSettings
from configs.settings import BudgetSettings
from tests.scripted import HELLO, PatientLedger, language_model, site
from tests.servers import Reply as Scripted
from tests.servers import failure, openai_completion, scripted_server

KEY = "kJ3-plain-words-9"
over_both = pytest.mark.parametrize("transport", ["direct", "litellm"])
every_way = pytest.mark.parametrize(
    ("transport", "model"),
    [("direct", "hosted_vllm/x"), ("litellm", "hosted_vllm/x"), ("litellm", "openai/x")],  # two clients of LiteLLM's
)


def ask(model: LanguageModel) -> Reply | ProviderError:
    try:
        return asyncio.run(model.complete(HELLO, site()))
    except ProviderError as error:
        return error


def play(
    *script: Scripted, budget: BudgetSettings | None = None, model: str = "hosted_vllm/x", **settings: Any
) -> tuple[Reply | ProviderError, PatientLedger]:
    ledger = PatientLedger(caps=budget)
    with scripted_server(*script) as server:
        return ask(language_model(model, ledger=ledger, api_base=server.url, **settings)), ledger


def completion(**changes: Any) -> JSONResponse:
    return JSONResponse(openai_completion("hi", {}) | changes)


@over_both
@pytest.mark.parametrize("status", [200, 500])
def test_json_without_bottom_is_one_bad_answer(transport: str, status: int) -> None:
    reply, _ = play(Response(b'{"error":' * 100_000, status), "hi", transport=transport)
    assert isinstance(reply, Reply)


@over_both
@pytest.mark.parametrize("tokens", [10**30, 2**62, 1e300, -1, 0.5])
def test_usage_that_cannot_be_is_a_bad_answer(transport: str, tokens: float) -> None:
    reply, ledger = play(
        completion(usage={"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": 1}),
        "hi",
        transport=transport,
    )
    assert isinstance(reply, Reply)
    assert (ledger.notes[-1].attempts, ledger.notes[-1].prompt_tokens) == (2, 11)


@over_both
@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"prompt_tokens": 5}]
)
def test_tokens_and_dollars_that_a_server_does_not_count_count_at_their_most(transport: str, usage: Any) -> None:
    _, ledger = play(
        completion(usage=usage),
        transport=transport,
        price=PriceSettings(input=1e6, output=1e6),
        budget=BudgetSettings(usd=1e6, tokens=10**6),
    )
    call = ledger.notes[-1]
    assert call.cost_usd is None
    assert call.lost_tokens is not None
    assert call.lost_tokens > 500  # its max_tokens
    assert ledger.spent.lost_usd > 500


@pytest.mark.parametrize(
    "odd",
    [
        {"usage": {"prompt_tokens": KEY, "completion_tokens": 1}},
        {"usage": [KEY]},
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": f"Bearer {KEY}"}
            ]
        },
        {"choices": [{"index": 0, "message": KEY}]},
        {"choices": KEY},
        {"error": {"message": "no", "code": KEY}, "choices": None},
    ],
)
@over_both
def test_a_key_is_hidden_wherever_an_answer_repeats_it(
    transport: str, odd: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    reply, ledger = play(completion(**odd), transport=transport, api_key="env:MY_KEY", attempts=1)
    assert KEY not in str(reply) + "".join(call.model_dump_json() for call in ledger.notes)


def test_a_key_is_hidden_though_the_page_around_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    for length in range(180, 205):
        reply, _ = play(Response(b"x" * length + KEY.encode()), transport="direct", api_key="env:MY_KEY", attempts=1)
        assert KEY[:4] not in str(reply)


def test_any_success_is_one() -> None:
    created = Response(json.dumps(openai_completion("hi", {})), 201)
    reply, _ = play(created, transport="direct")
    assert isinstance(reply, Reply)


@every_way
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_nobody_follows_a_server_that_sends_on(
    transport: str, model: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    given: dict[str, Any] = {"headers": {"X-My-Key": "env:MY_KEY"}, "transport": transport, "model": model}
    with scripted_server("not asked") as other:
        onwards = Response(status_code=status, headers={"Location": f"{other.url}/chat/completions?key={KEY}"})
        error, ledger = play(onwards, **given)
    assert other.requests == []
    assert isinstance(error, ProviderError)
    assert (error.kind, error.fatal, ledger.notes[-1].attempts, ledger.notes[-1].lost_tokens) == (
        "bad_response",
        True,
        1,
        0,
    )
    assert f"on to {other.url}/chat/completions?key=" in str(error)
    assert "name the address that answers as api_base" in str(error)
    assert KEY not in str(error)


@every_way
def test_a_status_of_no_use_is_a_bad_answer_that_nobody_pays(transport: str, model: str) -> None:
    error, ledger = play(Response(status_code=304), transport=transport, model=model, attempts=1)
    assert isinstance(error, ProviderError)
    assert (error.kind, error.fatal, ledger.notes[-1].lost_tokens) == ("bad_response", False, 0)


@every_way
def test_parameters_that_a_server_does_not_take_are_not_left_out_and_sent_again(
    transport: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_litellm(), "drop_params", True)  # as its variable LITELLM_DROP_PARAMS does
    detail = json.dumps({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "not permitted"}]})
    with scripted_server(failure(422, detail), "hi") as server:
        asked = language_model(model, api_base=server.url, transport=transport, attempts=1)
        error = ask(asked)
    assert len(server.requests) == 1
    assert isinstance(error, ProviderError)
    assert error.kind == "bad_request"


def ended(word: Any) -> JSONResponse:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": word}
    return completion(choices=[choice])


@every_way
@pytest.mark.parametrize(
    ("word", "told"),
    [
        *(("stop", "stop"), ("length", "length"), ("function_call", "function_call"), ("tool_calls", "tool_calls")),
        *(("eos", "stop"), ("eos_token", "stop"), ("end_turn", "stop"), (None, "stop"), ("", "stop")),
        *(("max_tokens", "length"), ("MAX_TOKENS", "length"), ("abort", "abort"), ("error", "error")),
    ],
)
def test_why_an_answer_ended_is_told_in_one_language(transport: str, model: str, word: Any, told: str) -> None:
    reply, ledger = play(ended(word), transport=transport, model=model)
    assert isinstance(reply, Reply)
    assert (reply.finish_reason, ledger.notes[-1].finish_reason) == (told, told)


@every_way
@pytest.mark.parametrize("word", ["content_filter", "SAFETY", "sensitive"])
def test_an_answer_that_was_withheld_is_none_by_any_word(transport: str, model: str, word: str) -> None:
    error, ledger = play(ended(word), transport=transport, model=model)
    assert isinstance(error, ProviderError)
    assert (error.kind, ledger.notes[-1].attempts, ledger.notes[-1].lost_tokens) == ("content_filter", 1, 18)


@every_way
@pytest.mark.parametrize(
    ("body", "kind_of_body"),
    [
        ('{"id": "x", "choi', "application/json"),
        ("<html>hi</html>", "text/html"),
        ("", "application/json"),
        ("[]", "application/json"),
    ],
)
def test_what_cannot_be_read_is_a_bad_answer_that_may_have_been_paid(
    transport: str, model: str, body: str, kind_of_body: str
) -> None:
    error, ledger = play(Response(body, media_type=kind_of_body), transport=transport, model=model, attempts=1)
    assert isinstance(error, ProviderError)
    assert (error.kind, error.passing) == ("bad_response", True)
    assert ledger.notes[-1].lost_tokens == ledger.notes[0].lost_tokens


@every_way
def test_a_server_s_own_500_is_one(transport: str, model: str) -> None:
    error, ledger = play(failure(500, "boom"), transport=transport, model=model, attempts=1)
    assert isinstance(error, ProviderError)
    assert (error.kind, ledger.notes[-1].lost_tokens) == ("server_error", 0)


def test_a_body_without_end_is_read_to_a_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "LONGEST_BODY", 1 << 20)
    sent = 0

    async def without_end() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    error, ledger = play(StreamingResponse(without_end()), transport="direct", attempts=1)
    assert isinstance(error, ProviderError)
    assert (error.kind, str(error)) == ("bad_response", "the response is longer than 1 MiB")
    assert ledger.notes[-1].lost_tokens == ledger.notes[0].lost_tokens
    assert sent < 1 << 29


def test_a_long_answer_is_read_whole_and_x() -> None:
    text = "word " * 400_000
    reply, _ = play(text, transport="direct")
    assert isinstance(reply, Reply)
    assert reply.text == text


@over_both
def test_numbers_may_name_what_is_sent(transport: str) -> None:
    with scripted_server("hi") as server:
        model = language_model(
            "hosted_vllm/x", api_base=server.url, transport=transport, params={"logit_bias": {50256: -100}}
        )
        assert isinstance(ask(model), Reply)
    assert server.requests[0].body["logit_bias"] == {"50256": -100}


def test_litellm_writes_nothing_into_what_belongs_to_the_request() -> None:
    with scripted_server("hi") as server:
        model = language_model("hosted_vllm/x", api_base=server.url, params={"metadata": {"team": "a"}})
        ask(model)
    assert model.settings.params == {"metadata": {"team": "a"}}


@pytest.mark.parametrize("name", ["openai/gpt-5-mini", "openai/o3", "openai/openai/gpt-5"])
def test_models_that_want_other_parameters_go_through_litellm_wherever_they_are(name: str) -> None:
    settings = ModelSettings(model=name, api_base="http://127.0.0.1:9/v1")
    assert not takes_directly(settings)
    assert takes_directly(settings.model_copy(update={"transport": "direct"}))
    assert takes_directly(settings.model_copy(update={"model": "openai/gpt-oss-120b"}))


def test_a_netrc_does_not_stand_in_the_way_of_a_key(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path_factory.mktemp("home") / "netrc"
    netrc.write_text("default login joe password secret\n")
    netrc.chmod(0o600)
    for name, value in {"NETRC": str(netrc), "http_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MY_KEY", KEY)
    reply, _ = play("hi", transport="direct", api_key="env:MY_KEY", attempts=1)
    assert isinstance(reply, Reply)


def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server("hi") as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.rpartition("/v1")[0])
        monkeypatch.delenv("no_proxy", raising=False)
        model = language_model("hosted_vllm/x", api_base="http://model.invalid/v1", transport="direct", attempts=1)
        reply = ask(model)
    assert isinstance(reply, ProviderError)
    assert reply.kind == "unknown_model"  # the little server knows no such host, and was asked all the same
