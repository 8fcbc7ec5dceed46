"""Servers that answer as nobody should: the same is made of it directly and through LiteLLM, and no key gets out."""

import asyncio
import json
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from agents.direct import takes_directly
from agents.failures import ProviderError
from agents.llm import LanguageModel, Reply
from configs.model_settings import ModelSettings, PriceSettings
from configs.settings import BudgetSettings
from tests.scripted import HELLO, PatientLedger, language_model, site
from tests.servers import Reply as Scripted
from tests.servers import openai_completion, scripted_server

KEY = "kJ3-plain-words-9"
over_both = pytest.mark.parametrize("transport", ["direct", "litellm"])


def ask(model: LanguageModel) -> Reply | ProviderError:
    try:
        return asyncio.run(model.complete(HELLO, site()))
    except ProviderError as error:
        return error


def play(
    *script: Scripted, budget: BudgetSettings | None = None, **settings: Any
) -> tuple[Reply | ProviderError, PatientLedger]:
    ledger = PatientLedger(caps=budget)
    with scripted_server(*script) as server:
        return ask(language_model("hosted_vllm/x", ledger=ledger, api_base=server.url, **settings)), ledger


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


def test_any_success_is_one_and_a_server_that_sends_on_stops_the_campaign() -> None:
    created = Response(json.dumps(openai_completion("hi", {})), 201)
    reply, _ = play(created, transport="direct")
    assert isinstance(reply, Reply)
    error, ledger = play(Response(status_code=308, headers={"Location": "/v2/chat"}), transport="direct")
    assert isinstance(error, ProviderError)
    assert (error.fatal, ledger.notes[-1].attempts) == (True, 1)
    assert "on to /v2/chat: name the address that answers as api_base" in str(error)


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
