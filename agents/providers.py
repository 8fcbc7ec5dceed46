"""What LiteLLM is to us: set up once, where and with which key to send, and what its failures mean.

Knows nothing of prompts, journals or retries: those are `agents.llm`'s.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from agents.failures import (
    ProviderError,
    complaint,
    lost,
    one_line,
    refused_by_status,
    retry_after_of,
    sent_on,
    too_late,
    unusable,
    without_surrogates,
)
from agents.secrets import Redactor, read_key
from configs.model_settings import ModelSettings

LONGEST_CAUSE_CHAIN = 8
STATUS_OF_CLASS = {
    "BadRequestError": 400,
    "UnprocessableEntityError": 422,
    "AuthenticationError": 401,
    "PermissionDeniedError": 403,
    "NotFoundError": 404,
    "RateLimitError": 429,
}
"""LiteLLM's classes that tell a failure better than the status that they carry, the most general first."""
UNREAD = {"APIConnectionError", "APIResponseValidationError", "JSONSchemaValidationError"}
"""What LiteLLM raises for an answer that it cannot read, under a status that nobody sent."""
WRAPPING = re.compile(r"^(?:(?:litellm\.)?\w+(?:Error|Exception)(?:: | - ))+(?:litellm\.)?")
"""The class names that LiteLLM puts before what the server said, once for each layer."""
SHAPELESS = "LiteLLM: provider returned "
"""How its complaint begins about a 200 whose JSON is no completion; it says so under status 500."""
LOST = {
    "APIConnectionError",
    "ConnectError",
    "ClientConnectorError",
    "ServerDisconnectedError",
    "ReadError",
    "RemoteProtocolError",
}
"""Classes of HTTP clients for a connection that failed or broke."""
ANSWERED = {"APIStatusError", "HTTPStatusError"}
"""Classes of HTTP clients for a status that a server sent."""
TRACEBACK = re.compile(r"\s*Traceback \(most recent call last\).*", re.DOTALL)
MEMORY_ADDRESS = re.compile(r" ssl:(?:default|<[^>]*>)| at 0x[0-9a-f]+")

_litellm: Any = None


class SentOnError(Exception):
    """Raised here, within LiteLLM's clients: a server sends a request on to another address. It becomes a ProviderError."""


def load_litellm() -> Any:
    """LiteLLM, set up once: no price list from the network, no chatter on stderr, our own provider known."""
    global _litellm
    if _litellm is None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        from agents.rehearsal.provider import register

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        register()
        _post_once()
        _follow_nobody()
        _litellm = litellm
    return _litellm


def _post_once() -> None:
    """Keep LiteLLM from posting again by itself, when a connection breaks or a 422 names parameters that it could leave out:
    nobody would count that request."""
    import httpx
    from litellm.llms.azure_ai.chat.transformation import AzureAIStudioConfig
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from litellm.llms.openai import openai

    async def lost(*_: Any, **__: Any) -> None:
        raise httpx.RemoteProtocolError("the connection was lost")  # what broke it is its context

    def refused(error: Exception, *_: Any, **__: Any) -> None:
        raise error

    AsyncHTTPHandler.single_connection_post_request = lost
    openai.drop_params_from_unprocessable_entity_error = refused
    AzureAIStudioConfig.should_retry_llm_api_inside_llm_translation_on_http_error = lambda *_, **__: False


def _follow_nobody() -> None:
    """Keep LiteLLM's HTTP clients from sending a request, and the keys in its headers, on to where a server points."""
    import httpx
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    async def refuse(response: httpx.Response) -> None:
        if response.has_redirect_location:
            raise SentOnError(response.headers["location"])

    def refusing(client: httpx.AsyncClient) -> httpx.AsyncClient:
        hooks = client.event_hooks
        if refuse not in hooks["response"]:
            client.event_hooks = {**hooks, "response": [*hooks["response"], refuse]}
        return client

    create, get = AsyncHTTPHandler.create_client, BaseOpenAILLM._get_async_http_client
    AsyncHTTPHandler.create_client = lambda self, *args, **named: refusing(create(self, *args, **named))
    BaseOpenAILLM._get_async_http_client = staticmethod(lambda *args, **named: refusing(get(*args, **named)))


def endpoint_arguments(settings: ModelSettings) -> dict[str, Any]:
    """Where to send it and with which key. Never logged, never stored, no part of any hash."""
    arguments: dict[str, Any] = {}
    if settings.api_base:
        arguments["api_base"] = settings.api_base
    if settings.api_key:
        arguments["api_key"] = read_key(settings.api_key)
    elif settings.api_base and settings.model.startswith("openai/") and not os.environ.get("OPENAI_API_KEY"):
        arguments["api_key"] = "none-needed"  # a local server asks for no key, but the client wants one
    if settings.headers:
        arguments["extra_headers"] = {name: read_key(value) for name, value in settings.headers.items()}
    return arguments


def classified(error: Exception, settings: ModelSettings, redact: Redactor) -> ProviderError:
    """A provider's exception as one of ours.

    By its class where LiteLLM says more in it than in the status; it also raises `APIConnectionError` for an answer that it
    cannot read.
    """
    causes = list(_causes(error))
    where = settings.api_base or "the provider"
    for cause in causes:
        if isinstance(cause, SentOnError):
            return sent_on(where, settings.model, one_line(str(cause), redact))
    said = provider_message(error, redact)
    classes = {cls.__name__ for cls in type(error).__mro__}
    model = settings.model
    status = getattr(error, "status_code", None)
    if "ContextWindowExceededError" in classes:
        return ProviderError("context_overflow", said)
    if "ContentPolicyViolationError" in classes:
        return ProviderError("content_filter", said)
    if classes & {"Timeout", "APITimeoutError"}:
        return too_late(settings.timeout_seconds)
    if any(map(_is_lost_connection, causes)):
        return lost(where, model, said)
    for name, meant in STATUS_OF_CLASS.items():
        if name in classes:
            status = meant
    is_unread = bool(classes & UNREAD) or said.startswith(SHAPELESS) or _is_made_up(causes)
    if isinstance(status, int) and status >= 300 and not is_unread:
        return refused_by_status(status, said, model=model, where=where, retry_after=_retry_after(error))
    return unusable(f"{type(error).__name__}: {said}")


def provider_message(error: Exception, redact: Redactor) -> str:
    """What the provider said, in one line, without keys, class names and addresses in memory."""
    text = TRACEBACK.sub("", redact(without_surrogates(str(getattr(error, "message", None) or error))))
    said, _ = complaint(WRAPPING.sub("", text))
    return one_line(MEMORY_ADDRESS.sub("", said), redact)


def _retry_after(error: Exception) -> float | None:
    # LiteLLM keeps them apart: the `response` on its own exceptions is one that it made up
    headers = getattr(error, "litellm_response_headers", None)
    return retry_after_of(headers or getattr(getattr(error, "response", None), "headers", None) or {})


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what stands behind it."""
    for _ in range(LONGEST_CAUSE_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _is_lost_connection(error: BaseException) -> bool:
    """Whether it is a connection that failed or broke.

    LiteLLM's own `APIConnectionError` says nothing: it also raises that for an answer that it cannot read.
    """
    cls = type(error)
    return isinstance(error, OSError) or (cls.__name__ in LOST and not cls.__module__.startswith("litellm"))


def _is_made_up(causes: Sequence[BaseException]) -> bool:
    """Whether no server sent the status: to whatever goes wrong while it reads an answer, LiteLLM's `OpenAIError` gives 500."""
    clients = [type(cause) for cause in causes if type(cause).__module__ != "litellm.exceptions"]
    classes = [{cls.__name__ for cls in kind.__mro__} for kind in clients]
    return any("OpenAIError" in names for names in classes) and not any(names & ANSWERED for names in classes)


@cache
def parameters_of_litellm() -> frozenset[str]:
    """Names under `params` that mean something to LiteLLM and would be news to an endpoint."""
    litellm = load_litellm()
    from litellm.types.utils import all_litellm_params

    understood = set(litellm.get_supported_openai_params("x", custom_llm_provider="hosted_vllm"))
    return frozenset(all_litellm_params) | (set(litellm.OPENAI_CHAT_COMPLETION_PARAMS) - understood) | {"thinking"}
