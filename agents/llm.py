"""The one model call. Every request of every agent goes through `LanguageModel.complete`.

It owns: the request's hash, recall from the journal, the budget, retries with jitter and `Retry-After`,
time-outs, usage and cost, and redaction of keys. It knows nothing of prompts or of what an answer means.
Providers are LiteLLM's; `rehearsal/...` is registered with it on first use.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from agents.ledger import CallSite, Ledger
from agents.secrets import Redactor, read_key
from configs.errors import DescantError
from configs.settings import ModelSettings
from store.identity import call_id as identify_call
from store.identity import content_hash
from store.records import Call, Message

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
CHARACTERS_A_TOKEN = 3.0
"""For reservations against a token budget only: low, so that a reservation is rather too large."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CONTENT_FILTER_WORDS = ("content management policy", "content_filter", "content_policy_violation")


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


class Reply(NamedTuple):
    """What came back, from the provider or from the journal."""

    text: str
    call_id: str
    finish_reason: str | None


class Answer(NamedTuple):
    """One attempt's answer, read out of the provider's response."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


class LanguageModel:
    """One role's model, ready to be called."""

    def __init__(self, settings: ModelSettings, ledger: Ledger, redact: Redactor) -> None:
        self.settings = settings
        self._ledger = ledger
        self._redact = redact
        self._last_success = 0.0

    @property
    def name(self) -> str:
        return self.settings.model

    @cached_property
    def _endpoint(self) -> dict[str, Any]:
        return endpoint_arguments(self.settings)

    @cached_property
    def _price(self) -> float | None:
        """Null without a dollar budget, which alone needs it."""
        return None if self._ledger.budget.usd is None else price_per_token(self.settings)

    async def complete(self, messages: Sequence[Message], site: CallSite) -> Reply:
        """Send one request, or take its answer from the journal if it was paid for before.

        Raises:
            ProviderError: no usable answer came; the failed call is in the journal.
            CampaignStopping: the campaign drains or its budget is spent; nothing was sent.
        """
        settings = self.settings
        sent = fold_system(messages) if settings.system_role == "fold" else tuple(messages)
        call_id = identify_call(*site[1:])
        parameters = request_parameters(settings, call_id)
        request_hash = content_hash(settings.model, sent, parameters)
        known = self._ledger.recall(site, call_id, request_hash)
        if known is not None:
            return Reply(known.response or "", call_id, known.finish_reason)

        self._ledger.check_open()
        call = Call(
            call_id=call_id,
            request_hash=request_hash,
            campaign_id=site.campaign_id,
            dialogue_id=site.dialogue_id,
            agent=site.agent,
            purpose=site.purpose,
            ordinal=site.ordinal,
            model=settings.model,
            messages=None,
            parameters=parameters,
            status="started",
            attempts=self._ledger.earlier_attempts(call_id),
            created_at=datetime.now(UTC),
        )
        started = time.monotonic()
        try:
            answer, attempts = await self._with_retries(call, sent, parameters, started)
        except ProviderError as error:
            failed = {
                "status": "failed",
                "messages": sent,
                "error": f"{error.kind}: {error}",
                "attempts": error.attempts,
            }
            self._ledger.settle(call.model_copy(update=failed))
            raise
        self._last_success = time.monotonic()
        done = answer._asdict() | {"response": answer.text, "status": "done", "messages": sent, "attempts": attempts}
        done["latency_ms"] = round((self._last_success - started) * 1000, 2)
        del done["text"]
        self._ledger.settle(call.model_copy(update=done))
        return Reply(answer.text, call_id, answer.finish_reason)

    async def _with_retries(
        self, call: Call, sent: Sequence[Message], parameters: dict[str, Any], started: float
    ) -> tuple[Answer, int]:
        """The answer, and how many requests it took, those of earlier runs included."""
        body = [{"role": message.role, "content": message.content} for message in sent]
        tokens = int(sum(len(m.content) for m in sent) / CHARACTERS_A_TOKEN) + 8 + int(parameters["max_tokens"])
        usd = None if self._price is None else tokens * self._price
        attempts = call.attempts
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.settings.attempts),
            wait=_wait,
            retry=retry_if_exception(lambda error: isinstance(error, ProviderError) and error.passing),
            sleep=self._ledger.pause,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    self._ledger.reserve(tokens, usd)
                    attempts += 1
                    self._ledger.note(call.model_copy(update={"attempts": attempts}))
                    try:
                        return await self._send(body, parameters), attempts
                    finally:
                        self._ledger.release(tokens, usd)
        except ProviderError as error:
            error.attempts = attempts
            if error.kind == "connection" and self._last_success < started:
                error.fatal = True
            raise
        raise AssertionError("tenacity re-raises the last failure")

    async def _send(self, body: list[dict[str, str]], parameters: dict[str, Any]) -> Answer:
        litellm = load_litellm()
        try:
            # LiteLLM's own limit restarts with every byte on some transports; a slow drip ends at ours
            async with asyncio.timeout(self.settings.timeout_seconds * 1.1 + 1.0):
                response = await litellm.acompletion(
                    model=self.settings.model,
                    messages=body,
                    timeout=self.settings.timeout_seconds,
                    max_retries=0,
                    num_retries=0,
                    drop_params=True,
                    **self._endpoint,
                    **parameters,
                )
        except TimeoutError as error:
            raise ProviderError(
                "timeout", f"no answer within {self.settings.timeout_seconds:g} s", passing=True
            ) from error
        except Exception as error:  # noqa: BLE001 - whatever a provider's adapter raises is that provider's failure
            raise self._classified(error) from None
        return self._read(response)

    def _read(self, response: Any) -> Answer:
        choices = getattr(response, "choices", None)
        if not choices:
            raise ProviderError("empty_choices", "the response has no choices", passing=True)
        choice = choices[0]
        if choice.finish_reason == "content_filter":
            raise ProviderError("content_filter", "the provider withheld the answer")
        usage = getattr(response, "usage", None)
        hidden = getattr(response, "_hidden_params", None) or {}
        return Answer(
            text=self._redact(_without_surrogates(choice.message.content or "")),
            finish_reason=choice.finish_reason,
            prompt_tokens=getattr(usage, "prompt_tokens", None),
            completion_tokens=getattr(usage, "completion_tokens", None),
            cost_usd=hidden.get("response_cost"),
        )

    def _classified(self, error: Exception) -> ProviderError:
        """The provider's exception as one of ours, by class, status and words."""
        text = self._redact(_without_surrogates(" ".join(str(getattr(error, "message", None) or error).split())))
        text = text if len(text) <= 400 else text[:399] + "…"
        classes = {cls.__name__ for cls in type(error).__mro__}
        status = getattr(error, "status_code", None)
        model, where = self.settings.model, self.settings.api_base or "the provider"
        if "ContextWindowExceededError" in classes or "maximum context length" in text:
            return ProviderError("context_overflow", text)
        if "ContentPolicyViolationError" in classes or any(words in text for words in CONTENT_FILTER_WORDS):
            return ProviderError("content_filter", text)
        if classes & {"AuthenticationError", "PermissionDeniedError"} or status in (401, 403):
            return ProviderError("bad_key", f"{where} refused the key for {model!r}: {text}", fatal=True)
        if "NotFoundError" in classes or status == 404:
            return ProviderError("unknown_model", f"{where} does not know {model!r}: {text}", fatal=True)
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


def fold_system(messages: Sequence[Message]) -> tuple[Message, ...]:
    """System text put in front of the first user message, for chat templates without a system role (Gemma's)."""
    if not messages or messages[0].role != "system":
        return tuple(messages)
    system, *rest = messages
    if not rest or rest[0].role != "user":
        return (Message(role="user", content=system.content), *rest)
    return (Message(role="user", content=f"{system.content}\n\n{rest[0].content}"), *rest[1:])


def request_parameters(settings: ModelSettings, call_id: str) -> dict[str, Any]:
    """What is sent beside model and messages; part of the request's hash.

    The seed comes from the call's id, so that equal requests at different places (two candidates of one
    history) differ, and the same campaign asks the same again. Providers that take none are not sent it.
    """
    parameters: dict[str, Any] = {"temperature": settings.temperature, "max_tokens": settings.max_tokens}
    if settings.top_p is not None:
        parameters["top_p"] = settings.top_p
    parameters["seed"] = int(call_id[-8:], 16) & 0x7FFFFFFF
    return parameters | settings.params


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


def price_per_token(settings: ModelSettings) -> float:
    """Dollars a token, the dearer of prompt and completion; for reservations against a dollar budget.

    Raises:
        ProviderError: the price is unknown, so a dollar budget could not be kept.
    """
    litellm = load_litellm()
    if settings.model.startswith("rehearsal/"):
        return 0.0
    own = [settings.params.get(name) for name in ("input_cost_per_token", "output_cost_per_token")]
    prices = [float(price) for price in own if isinstance(price, int | float)]
    if len(prices) == 2:
        return max(prices)
    try:
        return float(max(litellm.cost_per_token(model=settings.model, prompt_tokens=1, completion_tokens=1)))
    except Exception as error:  # LiteLLM raises bare Exceptions for a model without a price
        raise UnknownPriceError(
            f"budget.usd needs prices, and LiteLLM knows none for {settings.model!r}: "
            "set budget.tokens or budget.calls instead, or params.input_cost_per_token and output_cost_per_token"
        ) from error


class UnknownPriceError(DescantError):
    """Raised here: a dollar budget over a model without a price."""


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
        _litellm = litellm
    return _litellm


_litellm: Any = None
_exponential = wait_random_exponential(multiplier=FIRST_BACKOFF_SECONDS, max=LONGEST_BACKOFF_SECONDS)


def _without_surrogates(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become U+FFFD."""
    return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _wait(state: RetryCallState) -> float:
    """Full jitter, and never before the server's own `Retry-After`."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ProviderError) and error.retry_after else 0.0
    return max(asked, _exponential(state))


def _retry_after(error: Exception) -> float | None:
    """Seconds from a `Retry-After` header, if there is one that is a number."""
    # LiteLLM keeps them apart: the `response` on its own exceptions is one that it made up
    headers = getattr(error, "litellm_response_headers", None)
    headers = headers or getattr(getattr(error, "response", None), "headers", None) or {}
    try:
        return min(float(headers["retry-after"]), LONGEST_BACKOFF_SECONDS)
    except (KeyError, TypeError, ValueError):
        return None


def _lost_connection(error: BaseException | None) -> bool:
    """Whether a connection that failed or broke stands anywhere behind the exception.

    LiteLLM's own `APIConnectionError` says nothing: it also raises that for an answer that it cannot read.
    """
    names = ("APIConnectionError", "ConnectError", "ClientConnectorError", "ServerDisconnectedError", "ReadError")
    seen = 0
    while error is not None and seen < 8:
        cls = type(error)
        if isinstance(error, OSError) or (cls.__name__ in names and not cls.__module__.startswith("litellm")):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
