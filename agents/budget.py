"""Caps on what a campaign and its roles may spend, and what calls in flight hold of them. Knows no provider, no journal.

A request is counted before it is sent, at the most that it can cost; it gives back the rest when its answer is there.
One that was sent and never answered keeps what it held, since it may have been paid for. So no cap is ever passed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from configs.model_settings import LENGTHS, NUMBERS
from configs.settings import BudgetSettings, CapSettings
from store.records import Message

TOKENS_A_MESSAGE = 16
"""At most so many does a chat template put around one message."""
TOKENS_A_REQUEST = 64
"""And so many around all of them, such as a default system text."""


@dataclass
class Spending:
    """What calls have cost so far, in this run and before it."""

    calls: int = 0
    """Requests sent, retries included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    unpriced_calls: int = 0
    """Calls whose price is unknown; `cost_usd` is a lower bound when there are any."""
    lost_tokens: int = 0
    """At most so many more, for requests that were never answered."""
    lost_usd: float = 0.0
    unpriced_lost: int = 0
    """Calls that lost tokens of unknown price; `lost_usd` is a lower bound when there are any."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Lost(NamedTuple):
    """What requests that brought no answer may have cost at most."""

    tokens: int = 0
    usd: float | None = 0.0
    """Null: the price is unknown."""

    def __add__(self, other: "Lost") -> "Lost":  # type: ignore[override]  # not a longer tuple
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Lost(self.tokens + other.tokens, usd)


class Held(NamedTuple):
    """What one request can cost at most, from before it is sent until it has come back."""

    role: str
    tokens: int
    usd: float | None
    """Null: the price is unknown, and no dollars are capped."""
    usd_a_token: float = 0.0
    """At the dearest."""

    def lost(self, paid_tokens: int | None = None) -> Lost:
        """What is lost with it: all that it holds, or so many tokens that it was paid for without an answer."""
        if paid_tokens is None:
            return Lost(self.tokens, self.usd)
        if not paid_tokens or self.usd is None:
            return Lost(paid_tokens, None if paid_tokens else 0.0)
        usd = paid_tokens * self.usd_a_token
        return Lost(paid_tokens, usd if paid_tokens > self.tokens else min(usd, self.usd))


class CapUse(NamedTuple):
    """A cap, and what counts against it."""

    cap: str
    """As in a config: `budget.usd`, `budget.roles.judge.calls`."""
    limit: float
    spent: float
    """What may have been paid for nothing included."""
    held: float = 0.0
    """By requests in flight."""


@dataclass
class _Account:
    """One set of caps with what counts against them."""

    name: str
    """How its settings are called: `budget`, `budget.roles.judge`."""
    caps: CapSettings
    spent: Spending
    held_tokens: int = 0
    held_usd: float = 0.0

    def lacks(self, held: Held, *, in_flight: bool) -> str | None:
        """Which cap a request would pass; with `in_flight` as if all that is out now would come back at its highest."""
        caps, spent = self.caps, self.spent
        tokens = spent.tokens + spent.lost_tokens + held.tokens + (self.held_tokens if in_flight else 0)
        usd = spent.cost_usd + spent.lost_usd + (held.usd or 0.0) + (self.held_usd if in_flight else 0.0)
        if caps.calls is not None and spent.calls + 1 > caps.calls:
            return self._spent("calls", f"{caps.calls} calls")
        if caps.tokens is not None and tokens > caps.tokens:
            return self._spent("tokens", f"{caps.tokens} tokens")
        if caps.usd is not None and usd > caps.usd:
            return self._spent("usd", f"${caps.usd:g}")
        return None

    def snapshot(self) -> dict[str, Any]:
        """What counts against each cap but for calls in flight; requests that were never answered count at their most."""
        spent, caps = self.spent, self.caps
        return {
            "role": None if self.name == "budget" else self.name.removeprefix("budget.roles."),
            "calls": spent.calls,
            "calls_cap": caps.calls,
            "tokens": spent.tokens + spent.lost_tokens,
            "tokens_cap": caps.tokens,
            "usd": round(spent.cost_usd + spent.lost_usd, 6),
            "usd_cap": caps.usd,
            "unpriced_calls": spent.unpriced_calls,
        }

    def uses(self) -> list[CapUse]:
        """Of each cap that stands."""
        caps, spent = self.caps, self.spent
        found = (
            ("usd", caps.usd, spent.cost_usd + spent.lost_usd, self.held_usd),
            ("tokens", caps.tokens, spent.tokens + spent.lost_tokens, self.held_tokens),
            ("calls", caps.calls, spent.calls, 0),
        )
        return [
            CapUse(f"{self.name}.{cap}", limit, paid, held) for cap, limit, paid, held in found if limit is not None
        ]

    def _spent(self, cap: str, amount: str) -> str:
        of = "" if self.name == "budget" else f" of {self.name.removeprefix('budget.roles.')}"
        return (
            f"the budget of {amount}{of} is spent (the next call might pass it): raise {self.name}.{cap} and run the same "
            "command again"
        )


@dataclass
class Budget:
    """The caps of a campaign and of its roles."""

    caps: BudgetSettings = field(default_factory=BudgetSettings)
    spent: Spending = field(default_factory=Spending)
    """By the campaign, and by others that share its budget."""
    by_role: Mapping[str, Spending] = field(default_factory=dict)
    """The same of each role that has caps of its own."""

    def __post_init__(self) -> None:
        self._whole = _Account("budget", self.caps, self.spent)
        self._roles: dict[str, _Account] = {
            role: _Account(f"budget.roles.{role}", caps, self.by_role.get(role, Spending()))
            for role, caps in self.caps.roles.items()
        }
        self._changed = asyncio.Event()
        self._in_flight = 0
        self._caps_nothing = not self.uses()

    async def hold(self, held: Held, still_open: Callable[[], Awaitable[None]]) -> str | None:
        """Count a request before it is sent; where it is not sent, the reason: the cap that it might pass.

        As long as calls in flight could give back enough, it waits for them.

        Args:
            still_open: awaited after each wait; raises where the campaign has stopped meanwhile.
        """
        if self._caps_nothing:
            self._in_flight += 1
            self.spent.calls += 1
            return None
        while self._lacking(held, in_flight=True) is not None:
            if (reason := self._lacking(held, in_flight=False)) is not None:
                return reason  # the cap that stands in the way for good, and not the one that others hold now
            if not self._in_flight:
                break  # what still seems to be held is rounding
            self._changed.clear()
            await self._changed.wait()
            await still_open()
        self._in_flight += 1
        for account in self._of(held.role):
            account.spent.calls += 1
            account.held_tokens += held.tokens
            account.held_usd += held.usd or 0.0
        return None

    def give_back(self, held: Held, lost: Lost = Lost()) -> None:  # noqa: B008 - it is frozen
        """The request has come back; what is lost may have been paid for, and brought no answer.

        What its answer used is added before any other task runs: a request that is let in meanwhile would pass the cap.
        """
        self._in_flight -= 1
        if self._caps_nothing:
            self._lose(self.spent, lost)
            return
        for account in self._of(held.role):
            account.held_tokens -= held.tokens
            account.held_usd -= held.usd or 0.0
            self._lose(account.spent, lost)
        self.wake()

    def add(self, role: str, *, prompt_tokens: int, completion_tokens: int, usd: float | None) -> None:
        """What an answered call has used."""
        for account in self._of(role):
            account.spent.prompt_tokens += prompt_tokens
            account.spent.completion_tokens += completion_tokens
            account.spent.cost_usd += usd or 0.0
            account.spent.unpriced_calls += usd is None

    @property
    def in_flight(self) -> int:
        """Requests that are out."""
        return self._in_flight

    def snapshot(self) -> list[dict[str, Any]]:
        """What `descant status` shows: what is spent beside its caps, of the campaign and then of roles with caps of their own."""
        return [account.snapshot() for account in (self._whole, *self._roles.values())]

    def uses(self) -> list[CapUse]:
        """Every cap that stands, and how much of it is used now: for reports, and for `descant status` while it runs."""
        return [use for account in (self._whole, *self._roles.values()) for use in account.uses()]

    def wake(self) -> None:
        """Let those that wait look again."""
        self._changed.set()

    def _lacking(self, held: Held, *, in_flight: bool) -> str | None:
        return next(filter(None, (account.lacks(held, in_flight=in_flight) for account in self._of(held.role))), None)

    def _of(self, role: str) -> Iterable[_Account]:
        own = self._roles.get(role)
        return (self._whole,) if own is None else (self._whole, own)

    @staticmethod
    def _lose(spent: Spending, lost: Lost) -> None:
        spent.lost_tokens += lost.tokens
        spent.lost_usd += lost.usd or 0.0
        spent.unpriced_lost += lost.usd is None


class Most(NamedTuple):
    """The most tokens that a request and its answer can have."""

    prompt: int
    completion: int


def most_tokens(sent: Sequence[Message], parameters: Mapping[str, Any]) -> Most:
    """More tokens than any tokenizer makes of a request and its answer: no token stands for less than a byte.

    Schemas and tools travel in the prompt. `extra_body` holds parameters by another way.
    """
    prompt = TOKENS_A_REQUEST + TOKENS_A_MESSAGE * len(sent)
    for message in sent:
        content = message.content
        prompt += len(content) if content.isascii() else len(content.encode())
    extra = parameters.get("extra_body")
    given = {**parameters, **extra} if isinstance(extra, dict) else parameters
    prompt += sum(
        len(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
        for value in given.values()
        if isinstance(value, dict | list)
    )
    longest = max(int(given.get(name) or 0) for name in LENGTHS)
    answers = max(int(given.get(name) or 1) for name in NUMBERS)
    return Most(prompt, longest * answers)
