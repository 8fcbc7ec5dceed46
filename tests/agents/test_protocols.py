"""Providers that speak other protocols are reached by the model string alone: Anthropic's and Ollama's."""

import asyncio
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from agents.failures import ProviderError
from agents.llm import Reply
from store.records import Message
from tests.scripted import PatientLedger, language_model, said, site
from tests.servers import Asked, LocalServer, scripted_server

BRIEF = (said("system", "Be brief."), said("user", "hello"))
CHAT = (said("user", "hello"), said("assistant", "hi"), said("user", "and now?"))


def converse(
    server: LocalServer, model: str, messages: tuple[Message, ...], **settings: Any
) -> tuple[Reply, Asked, PatientLedger]:
    ledger = PatientLedger()
    asked = language_model(model, ledger=ledger, api_base=server.url, max_tokens=9, **settings)
    reply = asyncio.run(asked.complete(messages, site()))
    return reply, server.requests[-1], ledger


@pytest.fixture
def anthropic_key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CLAUDE_KEY", "sk-ant-planted-0123456789")
    return "env:CLAUDE_KEY"


def test_anthropic_gets_its_own_protocol(anthropic_key: str) -> None:
    with scripted_server("a short hello", path="/v1/messages") as server:
        reply, asked, ledger = converse(server, "anthropic/claude-x", BRIEF, api_key=anthropic_key)
    assert reply.text == "a short hello"
    assert asked.path == "/v1/messages"
    assert asked.headers["x-api-key"] == "sk-ant-planted-0123456789"
    assert "anthropic-version" in asked.headers
    assert (asked.body["model"], asked.body["max_tokens"], asked.body["temperature"]) == ("claude-x", 9, 0.7)
    assert asked.body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Be brief.\n\nhello"}]}]
    assert "seed" not in asked.body
    done = ledger.notes[-1]
    assert (done.prompt_tokens, done.completion_tokens, done.finish_reason) == (11, 7, "stop")
    assert done.cost_usd is None


def test_anthropic_has_a_system_role_of_its_own(anthropic_key: str) -> None:
    with scripted_server("hi", path="/v1/messages") as server:
        _, asked, _ = converse(server, "anthropic/claude-x", BRIEF, api_key=anthropic_key, system_role="native")
    assert "Be brief." in str(asked.body["system"])
    assert [message["role"] for message in asked.body["messages"]] == ["user"]


@pytest.mark.parametrize(
    ("status", "error_type", "kind"),
    [(401, "authentication_error", "bad_key"), (404, "not_found_error", "unknown_model")],
)
def test_anthropic_failures_are_told_apart(anthropic_key: str, status: int, error_type: str, kind: str) -> None:
    body = {"type": "error", "error": {"type": error_type, "message": "sk-ant-planted-0123456789 will not do"}}
    with (
        scripted_server(JSONResponse(body, status), path="/v1/messages") as server,
        pytest.raises(ProviderError) as raised,
    ):
        converse(server, "anthropic/claude-x", BRIEF, api_key=anthropic_key)
    assert (raised.value.kind, raised.value.fatal) == (kind, True)
    assert "sk-ant-planted" not in str(raised.value)


def test_anthropic_says_when_to_come_back(anthropic_key: str) -> None:
    body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    busy: Response = JSONResponse(body, 529, {"retry-after": "4"})
    with scripted_server(busy, "hi", path="/v1/messages") as server:
        reply, _, ledger = converse(server, "anthropic/claude-x", BRIEF, api_key=anthropic_key)
    assert (reply.text, ledger.pauses) == ("hi", [4.0])


@pytest.mark.parametrize("messages", [BRIEF, CHAT])
def test_ollama_chat_gets_its_own_protocol(messages: tuple[Message, ...]) -> None:
    with scripted_server("good day", path="/api/chat") as server:
        reply, asked, ledger = converse(server, "ollama_chat/x", messages)
    assert reply.text == "good day"
    assert (asked.body["model"], asked.body["stream"]) == ("x", False)
    spoken = [(message["role"], message["content"]) for message in asked.body["messages"]]
    assert spoken == ([(m.role, m.content) for m in CHAT] if messages is CHAT else [("user", "Be brief.\n\nhello")])
    options = asked.body["options"]
    assert (options["num_predict"], options["temperature"]) == (9, 0.7)
    assert options["seed"] == ledger.notes[0].parameters["seed"]
    assert (ledger.notes[-1].prompt_tokens, ledger.notes[-1].completion_tokens) == (11, 7)


def test_ollama_gets_one_prompt() -> None:
    with scripted_server("good day", path="/api/generate") as server:
        reply, asked, ledger = converse(server, "ollama/x", BRIEF)
    assert reply.text == "good day"
    assert "Be brief.\n\nhello" in asked.body["prompt"]
    assert asked.body["options"]["num_predict"] == 9
    assert (ledger.notes[-1].prompt_tokens, ledger.notes[-1].completion_tokens) == (11, 7)


def test_an_ollama_model_that_is_not_pulled_is_fatal() -> None:
    missing = JSONResponse({"error": "model 'x' not found, try pulling it first"}, 404)
    with (
        scripted_server(missing, path="/api/chat") as server,
        pytest.raises(ProviderError, match="not found") as raised,
    ):
        converse(server, "ollama_chat/x", BRIEF)
    assert raised.value.fatal
