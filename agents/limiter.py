"""How many requests an endpoint is sent at once: one limiter for each (provider, model, address), shared by all agents.

It starts without a limit. Where the endpoint says that it is too much (429, a time-out, `Retry-After`), the limit becomes a
share of what was in flight, once for all requests that were out then; every answer raises it again a little (additive
increase, multiplicative decrease). `Retry-After` holds all requests back, not only the one that was told. Where requests have
to wait, those of dialogues that are nearly finished go first. Knows no budgets, no journal and no HTTP.
"""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from configs.model_settings import ModelSettings

DECREASE = 0.7
"""What is left of the requests in flight when it was too much."""
INCREASE = 1.0
"""Requests more at once after as many answers as the limit is high: one in the time of a round."""
STUCK_SECONDS = 5.0
STUCK_TIMES = 10.0
"""A request that is out for so many seconds, and so many times as long as answers take, holds no place under the limit: a few
that an endpoint never answers would else keep all others from it until they run into their time-out."""
NEWS = 0.1
"""Weight of the last answer in how long answers take."""
SECONDS_A_MINUTE = 60.0
TOKENS_AT_ONCE = 1.0 / 6.0
"""Of a minute's tokens, what may be sent in one go; the others flow steadily."""


class Slot(NamedTuple):
    """One request's place, from before it is sent until it has come back."""

    number: int
    """Requests are numbered in the order in which they start."""
    tokens: int
    """Most that it can use; 0 where no tokens a minute are given."""


@dataclass
class _Pace:
    """A store that fills at an even pace, and that every request takes from."""

    a_minute: float
    at_once: float
    """What it holds when it is full."""
    a_second: float

    def __post_init__(self) -> None:
        self._left = self.at_once
        self._since: float | None = None

    def seconds_until(self, amount: float, now: float) -> float:
        """When so much may go; more than it ever holds goes when it is full."""
        self._fill(now)
        return max(0.0, (min(amount, self.at_once) - self._left) / self.a_second)

    def take(self, amount: float, now: float) -> None:
        self._fill(now)
        self._left -= amount

    def give_back(self, amount: float) -> None:
        self._left = min(self._left + amount, self.at_once)

    def _fill(self, now: float) -> None:
        if self._since is not None:
            self._left = min(self.at_once, self._left + (now - self._since) * self.a_second)
        self._since = now


def _requests_a_minute(rpm: float) -> _Pace:
    """One after the other, at even distances: in no minute are there more."""
    return _Pace(rpm, at_once=1.0, a_second=rpm / SECONDS_A_MINUTE)


def _tokens_a_minute(tpm: float) -> _Pace:
    """Some at once and the rest steadily, together no more than that in a minute."""
    at_once = tpm * TOKENS_AT_ONCE
    return _Pace(tpm, at_once=at_once, a_second=(tpm - at_once) / SECONDS_A_MINUTE)


class Limiter:
    """Lets requests to one endpoint start, now or when there is room."""

    def __init__(self, model: str, api_base: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.model = model
        self.api_base = api_base
        self.limit: float | None = None
        """Requests at once; null until the endpoint has said that it is too much."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.times_limited = 0
        """How often it was too much: 429s, time-outs and the like, one for each request that was told."""
        self._clock = clock
        self._requests: _Pace | None = None
        self._tokens: _Pace | None = None
        self._not_before = 0.0
        self._started = 0
        self._last_cut = 0
        """The requests up to this one were out when the limit was lowered last."""
        self._waiting: list[tuple[int, int, int, asyncio.Future[Slot]]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = False
        self._returned = asyncio.Event()
        self._out: dict[int, float] = {}
        """When each request that is out was started, the oldest first."""
        self._usual_seconds: float | None = None
        """How long answers take; null before the first."""

    def cap(self, rpm: float | None, tpm: float | None) -> None:
        """Never more than so many requests and tokens a minute; of several wishes the lowest holds."""
        if rpm is not None and (self._requests is None or rpm < self._requests.a_minute):
            self._requests = _requests_a_minute(rpm)
        if tpm is not None and (self._tokens is None or tpm < self._tokens.a_minute):
            self._tokens = _tokens_a_minute(tpm)

    @property
    def counts_tokens(self) -> bool:
        return self._tokens is not None

    async def start(self, turns_left: int, tokens: int = 0) -> Slot:
        """Wait for room, then take it.

        Args:
            turns_left: of the dialogue; the fewest go first.
            tokens: most that the request can use; needed only where `counts_tokens`.
        """
        if self._waiting or self._seconds_to_wait(tokens) is not None:
            return await self._wait(turns_left, tokens)
        return self._take(tokens)

    def end(
        self,
        slot: Slot,
        *,
        answered: bool,
        too_much: bool = False,
        retry_after: float | None = None,
        used_tokens: int | None = None,
    ) -> None:
        """A request has come back.

        Args:
            answered: the endpoint did its work, whatever came of it.
            too_much: the endpoint could not take it, or took too long.
            retry_after: seconds in which it wants no request at all.
            used_tokens: null: nobody knows, and so all that were held.
        """
        in_flight = self.in_flight
        self.in_flight -= 1
        took = self._clock() - self._out.pop(slot.number)
        if answered:
            usual = took if self._usual_seconds is None else self._usual_seconds
            self._usual_seconds = usual + NEWS * (took - usual)
        self._returned.set()  # wakes those who wait now
        self._returned.clear()
        if self._tokens is not None and used_tokens is not None and slot.tokens > used_tokens:
            self._tokens.give_back(slot.tokens - used_tokens)
        if retry_after:
            self._not_before = max(self._not_before, self._clock() + retry_after)
        if too_much:
            self.times_limited += 1
            if slot.number > self._last_cut:
                self._last_cut = self._started
                self.limit = max(1.0, min(self.limit or in_flight, in_flight) * DECREASE)
        elif answered and self.limit is not None and in_flight >= self.limit - 1.0:
            self.limit += INCREASE / self.limit
        self._let_in()

    async def next_return(self) -> None:
        """Wait until a request that is out has come back."""
        await self._returned.wait()

    def open(self) -> None:
        """Let all that wait pass at once, as when the campaign stops: none of them will be sent."""
        self._is_open = True
        self._let_in()

    def snapshot(self) -> dict[str, Any]:
        """What `descant status` shows."""
        held = self._not_before - self._clock()
        return {
            "model": self.model,
            "api_base": self.api_base,
            "limit": None if self.limit is None else int(self.limit),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "waiting": len(self._waiting),
            "times_limited": self.times_limited,
            "held_seconds": round(held, 1) if held > 0 else 0.0,
            "rpm": self._requests and self._requests.a_minute,
            "tpm": self._tokens and self._tokens.a_minute,
        }

    def _take(self, tokens: int) -> Slot:
        if self._requests is not None:
            self._requests.take(1.0, self._clock())
        if self._tokens is not None:
            self._tokens.take(tokens, self._clock())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._started += 1
        self._out[self._started] = self._clock()
        return Slot(self._started, tokens)

    def _seconds_to_room(self) -> float | None:
        """Until there is room under the limit by time alone, when a request has become stuck; null: now."""
        if self.limit is None:
            return None
        over = self.in_flight - max(1, int(self.limit)) + 1
        if over <= 0:
            return None
        if self._usual_seconds is None:
            return float("inf")
        patience = max(STUCK_SECONDS, STUCK_TIMES * self._usual_seconds)
        freed_by = next(itertools.islice(self._out.values(), over - 1, None))
        left = freed_by + patience - self._clock()
        return left if left > 0.0 else None

    def _seconds_to_wait(self, tokens: int) -> float | None:
        """Until a request may start; null: now. Infinity: not before another one has come back."""
        if self._is_open:
            return None
        room = self._seconds_to_room()
        if room is not None:
            return room
        if self._requests is None and self._tokens is None and not self._not_before:
            return None
        now = self._clock()
        wait = max(0.0, self._not_before - now)
        if self._requests is not None:
            wait = max(wait, self._requests.seconds_until(1.0, now))
        if self._tokens is not None:
            wait = max(wait, self._tokens.seconds_until(tokens, now))
        return wait if wait > 0.0 else None

    async def _wait(self, turns_left: int, tokens: int) -> Slot:
        given: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (turns_left, next(self._order), tokens, given))
        self._let_in()
        try:
            return await given
        except asyncio.CancelledError:
            if given.done() and not given.cancelled():
                self.end(given.result(), answered=False, used_tokens=0)
            raise

    def _let_in(self) -> None:
        """Give their slots to those that may start now, the most urgent first; a timer looks again where time alone holds one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            _, _, tokens, given = self._waiting[0]
            if not given.done():
                wait = self._seconds_to_wait(tokens)
                if wait is not None:
                    if wait != float("inf"):
                        self._timer = asyncio.get_running_loop().call_later(wait, self._let_in)
                    return
                given.set_result(self._take(tokens))
            heapq.heappop(self._waiting)


class Limiters:
    """The limiters of a campaign, by provider, model and address."""

    def __init__(self) -> None:
        self._limiters: dict[tuple[str, str | None], Limiter] = {}

    def of(self, settings: ModelSettings) -> Limiter:
        """The limiter of a role's endpoint, which other roles may share."""
        key = settings.endpoint
        limiter = self._limiters.get(key)
        if limiter is None:
            limiter = self._limiters[key] = Limiter(*key)
        limiter.cap(settings.rpm, settings.tpm)
        return limiter

    def open(self) -> None:
        """Let everybody pass: the campaign stops."""
        for limiter in self._limiters.values():
            limiter.open()

    def snapshot(self) -> list[dict[str, Any]]:
        """Of each endpoint that was used."""
        return [limiter.snapshot() for limiter in self._limiters.values() if limiter.most_in_flight]
