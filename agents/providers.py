"""What LiteLLM is to us: set up once, where and with which key to send, and what its failures mean.

Knows nothing of prompts, journals or retries: those are `agents.llm`'s.
"""

import logging
import os
import re
from functools import cache
from typing import Any

from agents.failures import (
    ProviderError,
    complaint,
    lost,
    one_line,
    refused_by_status,
    retry_after_of,
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
TRACEBACK = re.compile(r"\s*Traceback \(most recent call last\).*", re.DOTALL)
MEMORY_ADDRESS = re.compile(r" ssl:(?:default|<[^>]*>)| at 0x[0-9a-f]+")

_litellm: Any = None


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
        _litellm = litellm
    return _litellm


def _post_once() -> None:
    """Keep LiteLLM's HTTP client from posting again by itself when a connection breaks: nobody would count that request."""
    import httpx
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    async def lost(*_: Any, **__: Any) -> None:
        raise httpx.RemoteProtocolError("the connection was lost")  # what broke it is its context

    AsyncHTTPHandler.single_connection_post_request = lost


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
    said = provider_message(error, redact)
    classes = {cls.__name__ for cls in type(error).__mro__}
    model, where = settings.model, settings.api_base or "the provider"
    status = getattr(error, "status_code", None)
    if "ContextWindowExceededError" in classes:
        return ProviderError("context_overflow", said)
    if "ContentPolicyViolationError" in classes:
        return ProviderError("content_filter", said)
    if classes & {"Timeout", "APITimeoutError"}:
        return too_late(settings.timeout_seconds)
    if _lost_connection(error):
        return lost(where, model, said)
    for name, meant in STATUS_OF_CLASS.items():
        if name in classes:
            status = meant
    if isinstance(status, int) and status >= 400 and not (classes & UNREAD) and not said.startswith(SHAPELESS):
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


def _lost_connection(error: BaseException | None) -> bool:
    """Whether a connection that failed or broke stands anywhere behind the exception.

    LiteLLM's own `APIConnectionError` says nothing: it also raises that for an answer that it cannot read.
    """
    names = (
        "APIConnectionError",
        "ConnectError",
        "ClientConnectorError",
        "ServerDisconnectedError",
        "ReadError",
        "RemoteProtocolError",
    )
    seen = 0
    while error is not None and seen < LONGEST_CAUSE_CHAIN:
        cls = type(error)
        if isinstance(error, OSError) or (cls.__name__ in names and not cls.__module__.startswith("litellm")):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


@cache
def parameters_of_litellm() -> frozenset[str]:
    """Names under `params` that mean something to LiteLLM and would be news to an endpoint."""
    litellm = load_litellm()
    from litellm.types.utils import all_litellm_params

    understood = set(litellm.get_supported_openai_params("x", custom_llm_provider="hosted_vllm"))
    return frozenset(all_litellm_params) | (set(litellm.OPENAI_CHAT_COMPLETION_PARAMS) - understood) | {"thinking"}
