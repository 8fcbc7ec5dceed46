"""The one model call. Every request of every agent goes through `LanguageModel.complete`.

It owns: the request's hash, recall from the journal, the budget, retries with jitter and `Retry-After`,
time-outs, usage and cost, and the journal's rows. It knows nothing of prompts or of what an answer means;
what LiteLLM wants and what its failures mean stands in `agents.providers`.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from agents.budget import Held, most_tokens
from agents.ledger import Ledger
from agents.prices import Price, price_of
from agents.protocol import CallSite
from agents.providers import (
    ProviderError,
    classified,
    endpoint_arguments,
    load_litellm,
    without_surrogates,
)
from agents.rehearsal.backend import PREFIX, RehearsalError
from agents.rehearsal.backend import complete as rehearse
from agents.secrets import Redactor
from configs.model_settings import ModelSettings
from store.identity import call_id as identify_call
from store.identity import content_hash
from store.records import Call, Message

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
TIMEOUT_SLACK = 1.1
"""Our own limit stands behind LiteLLM's, for transports on which that one restarts with every byte."""


class Reply(NamedTuple):
    """What an agent gets: the text, from the provider or from the journal."""

    text: str
    call_id: str
    finish_reason: str | None
    completion_tokens: int | None


class Answer(NamedTuple):
    """What one request brought, read out of the provider's response."""

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

    @property
    def name(self) -> str:
        return self.settings.model

    @cached_property
    def _endpoint(self) -> dict[str, Any]:
        return endpoint_arguments(self.settings)

    @cached_property
    def price(self) -> Price:
        """What its tokens cost; made at the first call."""
        return price_of(self.settings)

    async def complete(
        self, messages: Sequence[Message], site: CallSite, *, schema: Mapping[str, Any] | None = None
    ) -> Reply:
        """Send one request, or take its answer from the journal if it was paid for before.

        Args:
            schema: of the JSON object that the prompt asks for; sent where the role's `json_schema` says so.

        Raises:
            ProviderError: no usable answer came; the failed call is in the journal.
            CampaignStopping: the campaign drains or its budget is spent; nothing was sent.
        """
        settings = self.settings
        sent = fold_system(messages) if settings.system_role == "fold" else tuple(messages)
        call_id = identify_call(site.dialogue_id, site.depth, site.agent, site.purpose, site.ordinal)
        parameters = request_parameters(settings, call_id)
        if schema is not None and settings.json_schema:
            parameters["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": site.purpose.rsplit("/")[-1], "schema": dict(schema), "strict": True},
            }
        request_hash = content_hash(settings.model, sent, parameters)
        known = await self._ledger.recall(site, call_id, request_hash)
        if known is not None:
            if known.status == "failed":
                raise ProviderError(known.finish_reason or "failed", (known.error or "").partition(": ")[2])
            return Reply(known.response or "", call_id, known.finish_reason, known.completion_tokens)

        await self._ledger.at_the_door()
        earlier = self._ledger.earlier(call_id)
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
            attempts=0 if earlier is None else earlier.attempts,
            lost_tokens=0 if earlier is None else earlier.lost_tokens,
            lost_usd=0.0 if earlier is None else earlier.lost_usd,
            created_at=datetime.now(UTC),
        )
        started = time.monotonic()
        try:
            answer, requests = await self._with_retries(call, sent)
        except ProviderError as error:
            outcome: dict[str, Any] = {
                "status": "failed",
                "finish_reason": error.kind,
                "error": f"{error.kind}: {error}",
                "attempts": error.attempts,
            }
            await self._ledger.settle(call.model_copy(update={"messages": sent, **outcome}))
            raise
        outcome = {
            "status": "done",
            "response": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "cost_usd": answer.cost_usd,
            "latency_ms": round((time.monotonic() - started) * 1000, 2),
            "attempts": requests,
        }
        await self._ledger.settle(call.model_copy(update={"messages": sent, **outcome}))
        return Reply(answer.text, call_id, answer.finish_reason, answer.completion_tokens)

    async def _with_retries(self, call: Call, sent: Sequence[Message]) -> tuple[Answer, int]:
        """The answer, and how many requests it took, those of earlier runs included.

        A connection that fails to the last try is fatal for the campaign when nobody has heard from that
        endpoint since the first failure: it is gone, and every dialogue would fail. Otherwise it is bad luck
        of this call.
        """
        completion = int(call.parameters["max_tokens"])
        tokens = most_tokens(sent, completion)
        needed = self._ledger.budget.caps.needs_prices
        usd = self.price.most(tokens - completion, completion) if needed else None
        held = Held(call.agent, tokens, usd)
        lost_tokens, lost_usd = call.lost_tokens or 0, call.lost_usd or 0.0
        endpoint = self.settings.api_base or self.settings.model
        requests = call.attempts
        first_failure = float("inf")
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
                    await self._ledger.reserve(held)
                    requests += 1
                    out = {"lost_tokens": lost_tokens + tokens, "lost_usd": lost_usd + (usd or 0.0)}
                    await self._ledger.note(call.model_copy(update={"attempts": requests, **out}))
                    try:
                        answer = await self._send(sent, call.parameters)
                    except ProviderError:
                        first_failure = min(first_failure, time.monotonic())
                        raise
                    finally:
                        self._ledger.release(held)
                    self._ledger.heard_from[endpoint] = time.monotonic()
                    return answer, requests
        except ProviderError as error:
            error.attempts = requests
            if error.kind == "connection" and self._ledger.heard_from.get(endpoint, 0.0) < first_failure:
                raise error.made_fatal("start it again, and run the same command to go on") from None
            raise
        raise AssertionError("tenacity re-raises the last failure")

    async def _send(self, sent: Sequence[Message], parameters: dict[str, Any]) -> Answer:
        """One request."""
        settings = self.settings
        if settings.model.startswith(PREFIX) and settings.api_base is None:
            return self._rehearsed(sent, parameters)
        litellm = load_litellm()
        try:
            async with asyncio.timeout(settings.timeout_seconds * TIMEOUT_SLACK + 1.0):
                response = await litellm.acompletion(
                    model=settings.model,
                    messages=[{"role": message.role, "content": message.content} for message in sent],
                    timeout=settings.timeout_seconds,
                    max_retries=0,
                    num_retries=0,
                    drop_params=True,  # of those that a provider does not take, such as `seed`
                    **self._endpoint,
                    **parameters,
                )
        except TimeoutError as error:
            raise ProviderError("timeout", f"no answer within {settings.timeout_seconds:g} s", passing=True) from error
        except Exception as error:  # noqa: BLE001 - whatever a provider's adapter raises is that provider's failure
            raise classified(error, settings, self._redact) from None
        return self._read(response)

    def _rehearsed(self, sent: Sequence[Message], parameters: dict[str, Any]) -> Answer:
        """The rehearsal's answer without LiteLLM around it, which took half of such a campaign's time."""
        try:
            done = rehearse(
                self.settings.model,
                [{"role": message.role, "content": message.content} for message in sent],
                parameters,
            )
        except RehearsalError as error:
            raise ProviderError("bad_request", str(error)) from None
        return Answer(done.content, done.finish_reason, done.prompt_tokens, done.completion_tokens, 0.0)

    def _read(self, response: Any) -> Answer:
        choices = getattr(response, "choices", None)
        if not choices:
            raise ProviderError("empty_choices", "the response has no choices", passing=True)
        choice = choices[0]
        if choice.finish_reason == "content_filter":
            raise ProviderError("content_filter", "the provider withheld the answer")
        usage = getattr(response, "usage", None)
        prompt_tokens = getattr(usage, "prompt_tokens", None)
        completion_tokens = getattr(usage, "completion_tokens", None)
        cost_usd = (getattr(response, "_hidden_params", None) or {}).get("response_cost")
        if self.price.is_own and prompt_tokens is not None and completion_tokens is not None:
            cached = getattr(getattr(usage, "prompt_tokens_details", None), "cached_tokens", None) or 0
            cost_usd = self.price.cost_of(prompt_tokens, completion_tokens, cached)
        return Answer(
            text=self._redact(without_surrogates(choice.message.content or "")),
            finish_reason=choice.finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=cost_usd,
        )


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


_exponential = wait_random_exponential(multiplier=FIRST_BACKOFF_SECONDS, max=LONGEST_BACKOFF_SECONDS)


def _wait(state: RetryCallState) -> float:
    """Full jitter, and never before the server's own `Retry-After`."""
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, ProviderError) and error.retry_after else 0.0
    return max(asked, _exponential(state))
