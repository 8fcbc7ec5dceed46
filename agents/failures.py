"""What went wrong with a call, by what the server said: one table for every way that a request travels.

Knows HTTP's status codes and the words of providers; knows nothing of LiteLLM, sessions or journals.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from agents.secrets import Redactor
from configs.errors import DescantError

LONGEST_RETRY_AFTER_SECONDS = 600.0
LONGEST_MESSAGE = 400
"""Characters of a provider's message that are kept."""
LONGEST_COMPLAINT = 20_000
"""Characters of a page that are read for it: far more than are kept, for what is redacted must not be cut before."""
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CONTEXT_WORDS = (
    "maximum context length",
    "maximum model length",
    "context_length_exceeded",
    "context window",
    "prompt is too long",
)
FILTER_WORDS = ("content management policy", "content_filter", "content_policy_violation")
QUOTA_WORDS = ("insufficient_quota", "exceeded your current quota")
REFUSED_REQUEST = range(400, 500)
GATEWAY_TIMEOUT = 504
"""Said by what stands before a model that may have worked on the request, and been paid for it; so are those from 520 on."""


class ProviderError(DescantError):
    """Raised here: a model gave no usable answer.

    `kind` becomes a failed dialogue's termination reason. `passing` failures are retried; a `fatal` one
    (a wrong key, an unknown model, an endpoint that is gone) is the same for every dialogue, so it stops
    the campaign.
    """

    exit_code = 1

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        passing: bool = False,
        fatal: bool = False,
        retry_after: float | None = None,
        paid_tokens: int | None = 0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.passing = passing
        self.fatal = fatal
        self.retry_after = retry_after
        self.paid_tokens = paid_tokens
        """Tokens that the failed request was paid for all the same; null: nobody knows."""
        self.attempts = 0
        """Requests sent before giving up."""

    @property
    def asks_for_less(self) -> bool:
        """Whether the endpoint has more to do than it can: too many requests, no answer in time, or it says when to come back."""
        return self.kind in ("rate_limited", "timeout") or self.retry_after is not None

    def made_fatal(self, advice: str) -> "ProviderError":
        """The same failure, which stops the campaign."""
        return self._as(f"{self}: {advice}", fatal=True)

    def made_single(self) -> "ProviderError":
        """The same failure, which ends its dialogue alone."""
        return self._as(str(self), fatal=False)

    def _as(self, message: str, *, fatal: bool) -> "ProviderError":
        other = ProviderError(self.kind, message, fatal=fatal, paid_tokens=self.paid_tokens)
        other.attempts = self.attempts
        return other


def refused_by_status(
    status: int, said: str, *, model: str, where: str, code: str = "", retry_after: float | None = None
) -> ProviderError:
    """What an HTTP status other than success means.

    Args:
        said: the server's message, redacted.
        code: its own word for it, such as OpenAI's `context_length_exceeded`.
        retry_after: seconds, where it says when to come back.
    """
    words = f"{said} {code}"
    if status in REFUSED_REQUEST and any(word in words for word in CONTEXT_WORDS):
        return ProviderError("context_overflow", said)
    if status in REFUSED_REQUEST and any(word in words for word in FILTER_WORDS):
        return ProviderError("content_filter", said)
    if status in (401, 403):
        return ProviderError("bad_key", f"{where} refused the key for {model!r}: {said}", fatal=True)
    if status == 402 or (status == 429 and any(word in words for word in QUOTA_WORDS)):
        return ProviderError("no_quota", f"{where} has no quota left for {model!r}: {said}", fatal=True)
    if status == 404:
        return ProviderError(
            "unknown_model",
            f"{where} does not know {model!r} (is the name right, and does api_base end as the server wants, often in /v1?): {said}",
            fatal=True,
        )
    if status == 429:
        return ProviderError("rate_limited", said, passing=True, retry_after=retry_after)
    paid = None if status == GATEWAY_TIMEOUT or status >= 520 else 0
    if status == 408:
        return ProviderError("timeout", said, passing=True)
    if status >= 500:
        return ProviderError("server_error", said, passing=True, retry_after=retry_after, paid_tokens=paid)
    if status in REFUSED_REQUEST:
        return ProviderError("bad_request", said)
    return ProviderError("bad_response", f"status {status}: {said}", passing=True)


def unusable(problem: str, paid_tokens: int | None = None) -> ProviderError:
    """An answer came, and is none."""
    return ProviderError("bad_response", problem, passing=True, paid_tokens=paid_tokens)


def lost(where: str, model: str, said: str) -> ProviderError:
    """No connection, or one that broke; nobody knows whether the request was worked on."""
    return ProviderError("connection", f"cannot reach {where} for {model!r}: {said}", passing=True, paid_tokens=None)


def sent_on(where: str, model: str, onwards: str) -> ProviderError:
    """The server sends on to another address. Nobody follows: a key must not travel, and a further request is a call of its own.

    Args:
        onwards: redacted.
    """
    said = f"{where} sends requests for {model!r} on to {onwards}: name the address that answers as api_base"
    return ProviderError("bad_response", said, fatal=True)


def too_late(seconds: float) -> ProviderError:
    return ProviderError("timeout", f"no answer within {seconds:g} s", passing=True, paid_tokens=None)


def retry_after_of(headers: Mapping[str, Any]) -> float | None:
    """Seconds from a `Retry-After` header, a number or a date; null where there is none that can be read."""
    given = headers.get("retry-after")
    if given is None:
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        try:
            seconds = (parsedate_to_datetime(str(given)) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS) if seconds == seconds else None


def parsed(raw: bytes | str) -> Any:
    """A body as JSON, or null."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return json.loads(raw)  # takes lone surrogates, which some servers send
        except (ValueError, RecursionError):  # the latter for what is nested a thousand deep
            return None


def complaint(raw: bytes | str) -> tuple[str, str]:
    """What an error's body says, and its code; a page of HTML as it is."""
    data = parsed(raw)
    error = data.get("error", data) if isinstance(data, dict) else None
    if isinstance(error, dict):
        said = error.get("message") or error.get("detail") or error.get("msg")
        return str(said or data), f"{error.get('code') or ''} {error.get('type') or ''}"
    shown = raw[:LONGEST_COMPLAINT]
    shown = shown if isinstance(shown, str) else shown.decode("utf-8", "replace")
    return (str(error) if isinstance(error, str) else shown), ""


def one_line(text: str, redact: Redactor) -> str:
    """What a server said, on one line, without keys and not for ever."""
    text = " ".join(redact(without_surrogates(text)).split())
    return text if len(text) <= LONGEST_MESSAGE else text[: LONGEST_MESSAGE - 1] + "…"


def without_surrogates(text: str) -> str:
    """Lone surrogates, which JSON can carry and UTF-8 cannot, become U+FFFD."""
    return LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
