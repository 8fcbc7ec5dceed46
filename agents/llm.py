"""The one model call. Every request of every agent goes through `LanguageModel.complete`.

It owns: the request's hash, recall from the journal, the budget, the limiter, retries with jitter and `Retry-After`, usage
and cost, and the journal's rows. It knows nothing of prompts or of what an answer means; how a request travels and what
failures mean stands in `agents.transport` and `agents.failures`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, wait_random_exponential

from agents.budget import Held, Lost, most_tokens
from agents.failures import ProviderError
from agents.ledger import CampaignStopping, Ledger
from agents.limiter import Limiter, Slot
from agents.prices import Price, price_of
from agents.protocol import CallSite
from agents.secrets import Redactor
from agents.transport import Answer, Spoken, Transport, is_rehearsed, transport_of
from configs.model_settings import ModelSettings
from store.identity import call_id as identify_call
from store.identity import content_hash
from store.records import Call, Message

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0


class Reply(NamedTuple):
    """What an agent gets: the text, from the provider or from the journal."""

    text: str
    call_id: str
    finish_reason: str | None
    completion_tokens: int | None


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
    def _transport(self) -> Transport:
        return transport_of(self.settings, self._redact)

    @cached_property
    def _limiter(self) -> Limiter | None:
        """Null for what is no endpoint."""
        return None if is_rehearsed(self.settings) else self._ledger.limiters.of(self.settings)

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
            NotRecordedError: a replay asks for what the journal does not have.
        """
        settings, ledger = self.settings, self._ledger
        sent = fold_system(messages) if settings.system_role == "fold" else tuple(messages)
        spoken = [{"role": message.role, "content": message.content} for message in sent]
        call_id = identify_call(site.dialogue_id, site.depth, site.agent, site.purpose, site.ordinal)
        parameters = request_parameters(settings, call_id)
        if schema is not None and settings.json_schema:
            parameters["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": site.purpose.rsplit("/")[-1], "schema": dict(schema), "strict": True},
            }
        request_hash = content_hash(settings.model, spoken, parameters)
        known = await ledger.recall(site, call_id, request_hash)
        if known is not None:
            if known.status == "failed":
                raise ProviderError(known.finish_reason or "failed", (known.error or "").partition(": ")[2])
            return Reply(known.response or "", call_id, known.finish_reason, known.completion_tokens)

        ledger.check_open()
        earlier = ledger.earlier(call_id)
        request = _Request(
            Call(
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
                created_at=datetime.now(UTC),
            ),
            sent,
            spoken,
            site.turns_left,
            self._most(site.agent, sent, parameters),
            sent_times=0 if earlier is None else earlier.attempts,
            lost=Lost()
            if earlier is None
            else Lost(earlier.lost_tokens or 0, earlier.lost_usd if earlier.lost_tokens else 0.0),
        )
        started = time.monotonic()
        try:
            answer = await self._with_retries(request)
        except CampaignStopping:
            if request.sent_times > (0 if earlier is None else earlier.attempts):
                await ledger.note(request.left_open())
            raise
        except ProviderError as error:
            failure = {"status": "failed", "finish_reason": error.kind, "error": f"{error.kind}: {error}"}
            await ledger.settle(request.ended(**failure))
            raise
        outcome = {
            "status": "done",
            "response": answer.text,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "cost_usd": answer.cost_usd,
            "latency_ms": round((time.monotonic() - started) * 1000, 2),
        }
        await ledger.settle(request.ended(**outcome))
        return Reply(answer.text, call_id, answer.finish_reason, answer.completion_tokens)

    async def _with_retries(self, request: "_Request") -> Answer:
        """The answer to a call, in as many requests as it takes.

        The first one goes without tenacity, which leaves some forty objects a call that only the garbage collector frees.
        """
        try:
            return await self._heard(request)
        except ProviderError as error:
            return await self._again(request, error)

    async def _again(self, request: "_Request", first: ProviderError) -> Answer:
        """The answer after a first request that failed.

        A connection that fails to the last try is fatal for the campaign when nobody has heard from that
        endpoint since the first failure: it is gone, and every dialogue would fail. Otherwise it is bad luck
        of this call. So is a model that is unknown all of a sudden, after it has answered or while it answers
        others: it is asked again.
        """
        heard_from, endpoint = self._ledger.heard_from, self._endpoint
        first_failure = time.monotonic()

        def may_pass(error: BaseException) -> bool:
            if not isinstance(error, ProviderError):
                return False
            return error.passing or (error.kind == "unknown_model" and endpoint in heard_from)

        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.settings.attempts),
            wait=_wait,
            retry=retry_if_exception(may_pass),
            sleep=self._ledger.pause,
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    if attempt.retry_state.attempt_number == 1:
                        raise first
                    return await self._heard(request)
        except ProviderError as error:
            error.attempts = request.sent_times
            if error.kind == "connection" and heard_from.get(endpoint, 0.0) < first_failure:
                raise error.made_fatal("start it again, and run the same command to go on") from None
            if error.kind == "unknown_model" and endpoint in heard_from:
                raise error.made_single() from None
            raise
        raise AssertionError("tenacity re-raises the last failure")

    async def _heard(self, request: "_Request") -> Answer:
        """The answer to one request, from an endpoint that we thereby have heard from."""
        try:
            answer = await self._once(request)
        except ProviderError as error:
            if error.kind == "unknown_model":
                await self._hear_the_others()
            raise
        self._ledger.heard_from[self._endpoint] = time.monotonic()
        return answer

    @cached_property
    def _endpoint(self) -> tuple[str, str | None]:
        return self.settings.endpoint

    async def _hear_the_others(self) -> None:
        """Wait until the endpoint has answered somebody, or has let down all who are asking it."""
        while self._limiter is not None and self._limiter.in_flight and self._endpoint not in self._ledger.heard_from:
            await self._limiter.next_return()

    async def _once(self, request: "_Request") -> Answer:
        """One request: let in, counted, noted, sent, and given back."""
        slot = await self._slot(request)
        error: ProviderError | None = None
        answer: Answer | None = None
        try:
            await self._ledger.reserve(request.held)
            lost = request.held.lost()  # should it be cancelled on its way
            try:
                request.sent_times += 1
                await self._ledger.announce(request.on_its_way())
                answer = self._priced(await self._transport.send(request.spoken, request.call.parameters))
                lost = request.unsaid(answer)
            except ProviderError as failure:
                error = failure
                lost = request.held.lost(failure.paid_tokens)
                raise
            finally:
                request.lost += lost
                self._ledger.release(request.held, lost)
        finally:
            if slot is not None:
                self._end(slot, answer, error)
        return answer

    async def _slot(self, request: "_Request") -> Slot | None:
        """A place among the requests to this endpoint, once the campaign is not held and there is room."""
        if self._limiter is None:
            await self._ledger.at_the_door()
            return None
        while True:
            await self._ledger.at_the_door()
            slot = await self._limiter.start(request.turns_left, request.held.tokens)
            if not self._ledger.is_held:
                return slot
            self._limiter.end(slot, answered=False, used_tokens=0)

    def _end(self, slot: Slot, answer: Answer | None, error: ProviderError | None) -> None:
        assert self._limiter is not None, "it has given the slot"
        used: int | None = 0
        if answer is not None:
            counted = answer.prompt_tokens, answer.completion_tokens
            used = None if None in counted else sum(count for count in counted if count is not None)
        elif error is not None:
            used = error.paid_tokens
        self._limiter.end(
            slot,
            answered=answer is not None,
            too_much=error is not None and error.asks_for_less,
            retry_after=None if error is None else error.retry_after,
            used_tokens=used,
        )

    def _most(self, agent: str, sent: Sequence[Message], parameters: Mapping[str, Any]) -> Held:
        """The most that one request can use."""
        most = most_tokens(sent, parameters)
        usd = self.price.most(*most) if self.price.is_known else None
        return Held(agent, sum(most), usd, self.price.dearest)

    def _priced(self, answer: Answer) -> Answer:
        """An answer of which we know what it cost, though its way did not."""
        if answer.cost_usd is not None or answer.prompt_tokens is None or answer.completion_tokens is None:
            return answer
        return answer._replace(cost_usd=self.price.cost_of(answer.prompt_tokens, answer.completion_tokens))


@dataclass
class _Request:
    """A call on its way: what stays the same over its requests, and what adds up."""

    call: Call
    sent: Sequence[Message]
    spoken: Spoken
    turns_left: int
    held: Held
    sent_times: int
    """Requests, those of earlier runs included."""
    lost: Lost
    """By all requests that came back, those of earlier runs included."""

    def on_its_way(self) -> Call:
        """The row that is noted before a request is sent: should nobody hear of it again, what it holds is lost."""
        lost = self.lost + self.held.lost()
        return self.call.model_copy(
            update={"attempts": self.sent_times, "lost_tokens": lost.tokens, "lost_usd": lost.usd}
        )

    def left_open(self) -> Call:
        """The row of a call that was to be tried again when the campaign stopped: all of its requests have come back."""
        return self.call.model_copy(
            update={"attempts": self.sent_times, "lost_tokens": self.lost.tokens, "lost_usd": self.lost.usd}
        )

    def ended(self, **outcome: Any) -> Call:
        """The row of the call's end."""
        lost = {"lost_tokens": self.lost.tokens, "lost_usd": self.lost.usd}
        return self.call.model_copy(update={"messages": self.sent, "attempts": self.sent_times, **lost, **outcome})

    def unsaid(self, answer: Answer) -> Lost:
        """What an answer may have cost beside what the provider said of it; nothing, where it reported its usage."""
        said = (answer.prompt_tokens or 0) + (answer.completion_tokens or 0)
        is_counted = answer.prompt_tokens is not None and answer.completion_tokens is not None
        tokens = 0 if is_counted else max(0, self.held.tokens - said)
        return Lost(tokens, 0.0 if answer.cost_usd is not None or is_counted else self.held.usd)


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
