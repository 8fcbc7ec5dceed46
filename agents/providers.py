"""What LiteLLM is to us: set up once, where and with which key to send, what its failures mean.

Knows nothing of prompts, journals or retries: those are `agents.llm`'s, the only caller besides the preflight.
"""

import logging
import os
import re
from typing import Any

from agents.secrets import Redactor, read_key
from configs.errors import DescantError
from configs.model_settings import ModelSettings

LONGEST_RETRY_AFTER_SECONDS = 60.0
LONGEST_MESSAGE = 400
"""Characters of a provider's message that are kept."""
LONGEST_CAUSE_CHAIN = 8
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CONTENT_FILTER_WORDS = ("content management policy", "content_filter", "content_policy_violation")
WRAPPING = re.compile(r"^(?:litellm\.)?(?:\w+(?:Error|Exception): |(?:\w+Exception) - )+(?:litellm\.)?")
"""The class names that LiteLLM puts before what the server said, once for each layer."""
MEMORY_ADDRESS = re.compile(r" ssl:(?:default|<[^>]*>)| at 0x[0-9a-f]+")

_litellm: Any = None


class ProviderError(DescantError):
    """Raised here: a model gave no usable answer.

    `kind` becomes a failed dialogue's termination reason. `passing` failures are retried; a `fatal` one
    (a wrong key, an unknown model, an endpoint that is gone) is the same for every dialogue, so it stops
    the campaign.
    """

    exit_code = 1

    def __init__(
        self, kind: str, message: str, *, passing: bool = False, fatal: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.passing = passing
        self.fatal = fatal
        self.retry_after = retry_after
        self.attempts = 0
        """Requests sent before giving up."""
        self.paid_tokens: int | None = 0
        """Tokens that the failed request was paid for all the same; null: nobody knows."""

    def made_fatal(self, advice: str) -> "ProviderError":
        """The same failure, which stops the campaign."""
        fatal = ProviderError(self.kind, f"{self}: {advice}", fatal=True)
        fatal.attempts = self.attempts
        return fatal


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
    """A provider's exception as one of ours. The order counts: LiteLLM's classes for special cases are subclasses of
    `BadRequestError`, and it also raises `APIConnectionError` for an answer that it cannot read."""
    text = provider_message(error, redact)
    classes = {cls.__name__ for cls in type(error).__mro__}
    status = getattr(error, "status_code", None)
    model, where = settings.model, settings.api_base or "the provider"
    if "ContextWindowExceededError" in classes or "maximum context length" in text:
        return ProviderError("context_overflow", text)
    if "ContentPolicyViolationError" in classes or any(words in text for words in CONTENT_FILTER_WORDS):
        return ProviderError("content_filter", text)
    if classes & {"AuthenticationError", "PermissionDeniedError"} or status in (401, 403):
        return ProviderError("bad_key", f"{where} refused the key for {model!r}: {text}", fatal=True)
    if "NotFoundError" in classes or status == 404:
        return ProviderError(
            "unknown_model",
            f"{where} does not know {model!r} (is the name right, and does api_base end as the server wants, often in /v1?): {text}",
            fatal=True,
        )
    if "RateLimitError" in classes or status == 429:
        return ProviderError("rate_limited", text, passing=True, retry_after=_retry_after(error))
    if "Timeout" in classes or "APITimeoutError" in classes or status == 408:
        return ProviderError("timeout", text, passing=True)
    if _lost_connection(error):
        return ProviderError("connection", f"cannot reach {where} for {model!r}: {text}", passing=True)
    if classes & {"BadRequestError", "UnprocessableEntityError", "UnsupportedParamsError"} or status in (
        400,
        413,
        422,
    ):
        return ProviderError("bad_request", text)
    if isinstance(status, int) and status >= 500:
        return ProviderError("server_error", text, passing=True, retry_after=_retry_after(error))
    return ProviderError("bad_response", f"{type(error).__name__}: {text}", passing=True)


def provider_message(error: Exception, redact: Redactor) -> str:
    """What the provider said, in one line, without keys, class names and addresses in memory."""
    text = " ".join(str(getattr(error, "message", None) or error).split())
    text = MEMORY_ADDRESS.sub("", WRAPPING.sub("", redact(without_surrogates(text))))
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def without_surrogates(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become U+FFFD."""
    return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _retry_after(error: Exception) -> float | None:
    """Seconds from a `Retry-After` header, if there is one that is a number."""
    # LiteLLM keeps them apart: the `response` on its own exceptions is one that it made up
    headers = getattr(error, "litellm_response_headers", None)
    headers = headers or getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(float(headers["retry-after"]), LONGEST_RETRY_AFTER_SECONDS)
    except (KeyError, TypeError, ValueError):
        return None


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
