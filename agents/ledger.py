"""The ledger of a campaign's calls: what was paid for already, what may still be spent, what is noted.

It stands between the one model call (`agents.llm`) and the journal, and is shared by all agents of a
campaign. It knows nothing of providers, dialogues or DuckDB.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from configs.errors import DescantError
from configs.settings import BudgetSettings
from store.records import Call, Record


class CampaignStopping(DescantError):
    """Raised here, at the door of a call: the campaign drains, or its budget is spent. The dialogue stays open."""

    exit_code = 1


class CallSite(NamedTuple):
    """Which call of a dialogue this is; with the campaign it makes the call's id."""

    campaign_id: str
    dialogue_id: str
    depth: int
    agent: str
    purpose: str
    ordinal: int = 0


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

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass
class Ledger:
    """Recalls, reserves and notes calls."""

    note: Callable[..., None]
    """Appends records to the journal and returns once they are written."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    spent: Spending = field(default_factory=Spending)
    sent: int = 0
    """Requests sent in this run, retries included."""
    reused: int = 0
    """Calls answered from the journal in this run."""
    heard_from: dict[str, float] = field(default_factory=dict)
    """When each endpoint last answered, on the monotonic clock."""
    stop_reason: str | None = None
    """Once set, no further call starts."""
    noted: set[str] = field(default_factory=set)
    """Ids of records that an earlier run noted, or this one, and that must keep their first place in the journal."""
    _known: dict[str, dict[str, Call]] = field(default_factory=dict)
    """Calls of earlier runs that were not met again yet, by dialogue and call."""
    _attempts: dict[str, int] = field(default_factory=dict)
    _reserved_tokens: int = 0
    _reserved_usd: float = 0.0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def remember(self, calls: Iterable[Call]) -> None:
        """Take in the calls of unfinished dialogues from an earlier run."""
        for call in calls:
            self._known.setdefault(call.dialogue_id, {})[call.call_id] = call

    def note_once(self, identity: str, record: Record) -> None:
        """Note a record, unless one of this id is there: a campaign that goes on leaves it where it stood."""
        if identity not in self.noted:
            self.noted.add(identity)
            self.note(record)

    def recall(self, site: CallSite, call_id: str, request_hash: str) -> Call | None:
        """The finished call with this id and request, if an earlier run paid for it.

        At the first request that differs from the recorded one, what the dialogue had recorded from there
        on is noted as `superseded`: it belongs to a conversation that will not be had again.
        """
        known = self._known.get(site.dialogue_id)
        if known is None or call_id not in known:
            return None
        call = known.pop(call_id)
        if call.request_hash != request_hash:
            dropped = [call, *known.values()]
            self.note(*(old.model_copy(update={"status": "superseded"}) for old in dropped))
            del self._known[site.dialogue_id]
            return None
        if call.status != "done":  # started or failed: it is sent again, and its attempts count on
            self._attempts[call_id] = call.attempts
            return None
        self.reused += 1
        return call

    def earlier_attempts(self, call_id: str) -> int:
        """Requests that an earlier run sent for this call without getting an answer."""
        return self._attempts.pop(call_id, 0)

    def forget(self, dialogue_id: str) -> None:
        """Free what was remembered of a dialogue that has ended."""
        self._known.pop(dialogue_id, None)

    def stop(self, reason: str) -> None:
        """Let no further call start; those in flight end and are noted."""
        self.stop_reason = self.stop_reason or reason
        self._stopping.set()

    async def pause(self, seconds: float) -> None:
        """Wait before a retry, or until the campaign stops."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def check_open(self) -> None:
        if self.stop_reason is not None:
            raise CampaignStopping(self.stop_reason)

    def reserve(self, tokens: int, usd: float | None) -> None:
        """Count one request against the budget before it is sent.

        Raises:
            CampaignStopping: the request could go over a cap. The campaign stops with it.
        """
        self.check_open()
        caps = self.budget
        if caps.calls is not None and self.spent.calls + 1 > caps.calls:
            self.stop(f"the budget of {caps.calls} calls is spent: raise budget.calls and run the same command again")
        if caps.tokens is not None and self.spent.tokens + self._reserved_tokens + tokens > caps.tokens:
            self.stop(
                f"the budget of {caps.tokens} tokens is spent: raise budget.tokens and run the same command again"
            )
        if caps.usd is not None and usd is not None and self.spent.cost_usd + self._reserved_usd + usd > caps.usd:
            self.stop(f"the budget of ${caps.usd} is spent: raise budget.usd and run the same command again")
        self.check_open()
        self.spent.calls += 1
        self.sent += 1
        self._reserved_tokens += tokens
        self._reserved_usd += usd or 0.0

    def release(self, tokens: int, usd: float | None) -> None:
        """The request has come back, one way or another."""
        self._reserved_tokens -= tokens
        self._reserved_usd -= usd or 0.0

    def settle(self, call: Call) -> None:
        """Note a call that ended, and add what it used."""
        self.spent.prompt_tokens += call.prompt_tokens or 0
        self.spent.completion_tokens += call.completion_tokens or 0
        self.spent.cost_usd += call.cost_usd or 0.0
        self.spent.unpriced_calls += call.cost_usd is None and call.status == "done"
        self.note(call)
