"""The ledger of a campaign's calls: what was paid for already, what may still be spent, what is noted.

It stands between the one model call (`agents.llm`) and the journal, and is shared by all agents of a
campaign. It knows nothing of providers, dialogues or DuckDB.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import InitVar, dataclass, field

from agents.budget import Budget, Held, Lost, Spending
from agents.limiter import Limiters
from agents.protocol import CallSite
from configs.errors import DescantError
from configs.settings import BudgetSettings
from store.records import Call, CampaignStatus, PausedBy, Record
from store.requests import Requests

Note = Callable[..., Awaitable[None]]
"""Appends records to the journal; done when they are written."""


class CampaignStopping(DescantError):
    """Raised here, at the door of a call: the campaign drains, or its budget is spent. The dialogue stays open."""

    exit_code = 1


class NotRecordedError(DescantError):
    """Raised here: a replay asks for a call that the journal does not have."""


async def forget(*_: Record) -> None:
    """A journal for calls that belong to no corpus."""


@dataclass
class Ledger:
    """Recalls, reserves and notes calls."""

    note: Note
    caps: InitVar[BudgetSettings | None] = None
    spent: Spending = field(default_factory=Spending)
    spent_by_role: InitVar[Mapping[str, Spending] | None] = None
    sent: int = 0
    """Requests sent in this run, retries included."""
    reused: int = 0
    """Calls answered from the journal in this run."""
    heard_from: dict[tuple[str, str | None], float] = field(default_factory=dict)
    """When each model at its address last answered, on the monotonic clock."""
    stop_reason: str | None = None
    """Once set, no further call starts."""
    stopped_by: PausedBy = "error"
    """What set it."""
    leave: Callable[[Record], None] | None = None
    """Hands a record to the journal without waiting until it is written; null: there is only `note`."""
    replaying: bool = False
    """Answers come from the journal alone; a call that failed fails again."""
    noted: set[str] = field(default_factory=set)
    """Ids of records that an earlier run noted, or this one, and that must keep their first place in the journal."""
    _known: dict[str, dict[str, Call]] = field(default_factory=dict)
    """Calls of earlier runs that were not met again yet, by dialogue and call."""
    _earlier: dict[str, Call] = field(default_factory=dict)
    """Calls that were sent in vain by an earlier run, and are being sent again."""

    def __post_init__(self, caps: BudgetSettings | None, spent_by_role: Mapping[str, Spending] | None) -> None:
        self.budget = Budget(caps or BudgetSettings(), self.spent, spent_by_role or {})
        self.limiters = Limiters()
        self.requests = Requests()
        self._stopping = asyncio.Event()
        self._let_in = asyncio.Event()
        self._let_in.set()

    def remember(self, calls: Iterable[Call]) -> None:
        """Take in the calls of unfinished dialogues from an earlier run."""
        for call in calls:
            self._known.setdefault(call.dialogue_id, {})[call.call_id] = call

    async def note_once(self, identity: str, record: Record) -> None:
        """Note a record, unless one of this id is there: a campaign that goes on leaves it where it stood."""
        if identity not in self.noted:
            self.noted.add(identity)
            await self.note(record)

    async def recall(self, site: CallSite, call_id: str, request_hash: str) -> Call | None:
        """The call with this id and request that an earlier run paid for; one that failed only while replaying.

        At the first request that differs from the recorded one, what the dialogue had recorded from there
        on is noted as `superseded`: it belongs to a conversation that will not be had again.

        Raises:
            NotRecordedError: this is a replay, and there is none.
        """
        known = self._known.get(site.dialogue_id)
        call = known.pop(call_id, None) if known else None
        if self.replaying:
            if call is None or call.request_hash != request_hash or call.status not in ("done", "failed"):
                what = "is not in the journal" if call is None else "was another request, or has no answer"
                raise NotRecordedError(
                    f"call {call_id} ({site.agent}, {site.purpose}, turn {site.depth} of {site.dialogue_id}) {what}: its "
                    "dialogue cannot be rebuilt"
                )
            self.reused += 1
            return call
        if known is None or call is None:
            return None
        if call.request_hash != request_hash:
            dropped = [call, *known.values()]
            del self._known[site.dialogue_id]
            await self.note(*(old.model_copy(update={"status": "superseded"}) for old in dropped))
            return None
        if call.status != "done":  # started or failed: it is sent again, and its attempts count on
            self._earlier[call_id] = call
            return None
        self.reused += 1
        return call

    def earlier(self, call_id: str) -> Call | None:
        """The call as an earlier run left it, which had no answer."""
        return self._earlier.pop(call_id, None)

    def forget(self, dialogue_id: str) -> None:
        """Free what was remembered of a dialogue that has ended."""
        self._known.pop(dialogue_id, None)
        self.requests.forget(dialogue_id)

    def stop(self, reason: str, by: PausedBy = "error") -> None:
        """Let no further call start; those in flight end and are noted."""
        if self.stop_reason is None:
            self.stop_reason, self.stopped_by = reason, by
        self._stopping.set()
        self._let_in.set()
        self.budget.wake()
        self.limiters.open()

    def paused_by(self, status: CampaignStatus) -> PausedBy | None:
        """What a campaign's row of this status says has paused it."""
        if status != "paused":
            return None
        return "pause" if self.is_held and self.stop_reason is None else self.stopped_by

    @property
    def is_held(self) -> bool:
        return not self._let_in.is_set()

    def hold(self) -> None:
        """Let calls wait at the door until `go_on`; those in flight end and are noted."""
        if self.stop_reason is None:
            self._let_in.clear()

    def go_on(self) -> None:
        self._let_in.set()

    async def pause(self, seconds: float) -> None:
        """Wait before a retry, or until the campaign stops."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    def check_open(self) -> None:
        if self.stop_reason is not None:
            raise CampaignStopping(self.stop_reason)

    async def at_the_door(self) -> None:
        """Wait while the campaign is held.

        Raises:
            CampaignStopping: it stops.
        """
        if not self._let_in.is_set():
            await self._let_in.wait()
        self.check_open()

    async def reserve(self, held: Held) -> None:
        """Count one request against the budget before it is sent; where others in flight may give back enough, wait for them.

        Raises:
            CampaignStopping: the request could go over a cap. The campaign stops with it.
        """
        await self.at_the_door()
        if (reason := await self.budget.hold(held, self.at_the_door)) is not None:
            self.stop(reason, "budget")
            self.check_open()
        self.sent += 1

    def release(self, held: Held, lost: Lost) -> None:
        """The request has come back, one way or another; what is lost may have been paid for, and brought no answer."""
        self.budget.give_back(held, lost)

    async def announce(self, call: Call) -> None:
        """Note a call before it is sent. Only a cap needs to know of it for sure, should the process be killed right then."""
        if self.leave is None or self.budget.caps.caps_anything:
            await self.note(call)
        else:
            self.leave(call)

    async def settle(self, call: Call) -> None:
        """Note a call that ended, and add what it used."""
        if call.status == "done":
            self.budget.add(
                call.agent,
                prompt_tokens=call.prompt_tokens or 0,
                completion_tokens=call.completion_tokens or 0,
                usd=call.cost_usd,
            )
        await self.note(self.requests.shortened(call))
