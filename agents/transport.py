"""How one request travels: the protocol of what sends it, what comes back, and who sends for which model.

A transport sends once and says what happened. Retries, budgets, limits and the journal are `agents.llm`'s.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from agents.failures import ProviderError, unusable, without_surrogates
from agents.rehearsal.backend import PREFIX, RehearsalError
from agents.rehearsal.backend import complete as rehearse
from agents.secrets import Redactor
from configs.model_settings import ModelSettings

THOUGHTS = re.compile(r"\s*<(think|thinking|budget:thinking)>.*?</\1>", re.DOTALL)
"""What some servers leave before an answer."""

MOST_TOKENS = 10**9
"""No answer uses more; sums of what a server makes up must fit into 64 bits."""
LONGEST_FINISH_REASON = 40
FINISH_REASONS: Mapping[str, tuple[str, ...]] = {
    "stop": ("eos", "eos_token", "end_turn", "stop_sequence", "complete", "finish_reason_unspecified"),
    "length": ("max_tokens", "model_length", "max_length"),
    "tool_calls": ("tool_use",),
    "content_filter": (
        *(
            "safety",
            "refusal",
            "recitation",
            "blocklist",
            "prohibited_content",
            "spii",
            "sensitive",
            "content_filtered",
        ),
        *("guardrail_intervened", "error_toxic"),
    ),
}
"""OpenAI's words for why a model stopped, and those of others that mean the same, in lower case."""

Spoken = Sequence[Mapping[str, str]]
"""Messages as they are sent: `role` and `content`."""


class Answer(NamedTuple):
    """What one request brought, read out of the provider's response."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


class Transport(Protocol):
    """Sends requests to one role's model."""

    async def send(self, spoken: Spoken, parameters: Mapping[str, Any]) -> Answer:
        """One request.

        Raises:
            ProviderError: no usable answer came.
        """
        ...


def transport_of(settings: ModelSettings, redact: Redactor) -> Transport:
    """Who sends for a model: the process itself for the rehearsal, else directly or through LiteLLM."""
    if is_rehearsed(settings):
        return Rehearsed(settings.model)
    from agents.direct import Direct, takes_directly

    if takes_directly(settings):
        return Direct(settings, redact)
    from agents.through_litellm import ThroughLiteLLM

    return ThroughLiteLLM(settings, redact)


def is_rehearsed(settings: ModelSettings) -> bool:
    """Whether the rehearsal inside this process answers."""
    return settings.model.startswith(PREFIX) and settings.api_base is None and settings.checkpoint is None


def answer_of(
    *,
    text: object,
    refusal: object,
    finish_reason: object,
    prompt_tokens: object,
    completion_tokens: object,
    cost_usd: float | None,
    redact: Redactor,
) -> Answer:
    """An answer that is one; every transport reads its response through this.

    Why it ended is told in OpenAI's words, and in the provider's own where those have none. A prompt of 0 tokens, or 0 for a
    text that is there, is what a server that does not count says: then nobody knows what it cost.

    Raises:
        ProviderError: it was withheld or refused, or is no text.
    """
    used = _count(prompt_tokens) or None, _count(completion_tokens)
    if used[1] == 0 and text:
        used = used[0], None
    paid = None if None in used else sum(count for count in used if count is not None)
    ended = _finish_reason(finish_reason)
    if ended == "content_filter":
        raise ProviderError("content_filter", "the provider withheld the answer", paid_tokens=paid)
    if text is None and isinstance(refusal, str) and refusal:
        raise ProviderError("refusal", redact(without_surrogates(refusal)), paid_tokens=paid)
    if text is not None and not isinstance(text, str):
        raise unusable(f"the answer is no text but {type(text).__name__}")
    said = without_surrogates(text or "")
    return Answer(
        text=redact(THOUGHTS.sub("", said, count=1) if THOUGHTS.match(said) else said),
        finish_reason=redact(without_surrogates(ended))[:LONGEST_FINISH_REASON],
        prompt_tokens=used[0],
        completion_tokens=used[1],
        cost_usd=None if paid is None else cost_usd,
    )


def _finish_reason(said: object) -> str:
    """`stop` where the provider says nothing."""
    if not isinstance(said, str) or not said:
        return "stop"
    word = said.lower()
    return next((known for known, others in FINISH_REASONS.items() if word == known or word in others), said)


def _count(tokens: object) -> int | None:
    """What stands for tokens, as a number; null where a server does not count. What it says is not repeated: it may be a key."""
    if tokens is None:
        return None
    if isinstance(tokens, bool) or not isinstance(tokens, int | float):
        raise unusable(f"the answer's usage counts tokens with {type(tokens).__name__}")
    if not 0 <= tokens <= MOST_TOKENS or tokens % 1:
        raise unusable(f"the answer's usage counts {tokens:g} tokens")
    return int(tokens)


class Rehearsed:
    """The rehearsal's answer without a network or LiteLLM around it."""

    def __init__(self, model: str) -> None:
        self._model = model

    async def send(self, spoken: Spoken, parameters: Mapping[str, Any]) -> Answer:
        try:
            done = rehearse(self._model, list(spoken), dict(parameters))
        except RehearsalError as error:
            raise ProviderError("bad_request", str(error)) from None
        return Answer(done.content, done.finish_reason, done.prompt_tokens, done.completion_tokens, 0.0)
