"""A match: the conversations of two campaigns, seed by seed, before every judge of a config, in both orders.

Each verdict is a row of `judgements` as soon as it is there; what is there is not asked for again. The judges' calls
belong to a campaign of their own, the match, so that their cost stands apart. Knows nothing of reward models.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agents.failures import ProviderError
from agents.judge import Judge, Presentation, settled
from agents.ledger import CampaignStopping, Ledger
from agents.preflight import check
from agents.prices import require_prices
from agents.prompts import Prompts
from agents.protocol import DialogueSoFar
from configs.errors import DescantError
from configs.settings import CampaignSettings
from graphs.campaign import descant_version
from graphs.cast import build_cast, models_in_use, require_named_models, roles_in_use
from graphs.control import Control
from graphs.crew import work_off
from graphs.progress import Counters, Progress
from graphs.side_by_side import side_by_side
from graphs.spending import spent_so_far
from store import resume
from store.database import query
from store.identity import content_hash, dialogue_id, judgement_id, match_id
from store.queries import messages_of
from store.records import Campaign, CampaignStatus, Judgement, Message
from store.writer import LOCK_PATIENCE_SECONDS, Writer

LABEL_SET = "best_of_n"
Order = Literal["dialogue_first", "opponent_first"]
ORDERS: Mapping[Order, Presentation] = {
    "dialogue_first": "chosen_first",
    "opponent_first": "rejected_first",
}
"""Our words for the judge's: to it the dialogue is `chosen`, the opponent `rejected`."""
VERDICTS = {"chosen": "dialogue", "rejected": "opponent", "tie": "tie"}


class Conversation(NamedTuple):
    """A finished dialogue."""

    dialogue_id: str
    seed_id: str
    trial: int
    messages: tuple[Message, ...]


class Meeting(NamedTuple):
    """Two conversations of one seed, and what the judges said."""

    dialogue: Conversation
    opponent: Conversation
    verdicts: tuple[str | None, ...]
    """By judge: `dialogue`, `opponent`, `tie` (both orders settled; a flip is a tie), `invalid`; null when one of its
    two calls failed in a way that may pass: the same command asks again."""

    @property
    def prompt(self) -> str:
        """The first user turn: seeds that open with the same one, as repeated rows do, are not apart from each other."""
        messages = self.dialogue.messages
        return next((message.content for message in messages if message.role == "user"), messages[0].content)


class Match(NamedTuple):
    """All meetings of two campaigns."""

    meetings: list[Meeting]
    calls_sent: int
    """Requests of this run, retries included."""


def judging(settings: CampaignSettings) -> CampaignSettings:
    """The settings as those of a campaign that has judges: theirs are then among the models that are checked and used."""
    return settings.model_copy(update={"recipe": "dialogue", "scorer": None, "judge_pairs": True})


def check_judges(settings: CampaignSettings) -> None:
    """Raises what is wrong with any model of the sides or of the judges, before anything is paid."""
    require_named_models(judging(settings))
    Prompts(settings.prompts)
    require_prices(settings.budget, settings.models, roles_in_use(judging(settings)))
    check(models_in_use(judging(settings)).values())


def conversations(database: Path, campaign: str, seed_ids: Sequence[str]) -> list[Conversation]:
    """The finished dialogues of a `best_of_n` campaign, of these seeds."""
    rows = query(
        database,
        """
        SELECT dialogue_id, seed_id, trial, messages FROM transcripts
        WHERE campaign_id = ? AND branch = 'main' AND status = 'done' ORDER BY seed_id, trial
        """,
        [campaign],
    )
    wanted = set(seed_ids)
    return [
        Conversation(row["dialogue_id"], row["seed_id"], row["trial"], messages_of(row["messages"]))
        for row in rows
        if row["seed_id"] in wanted
    ]


def hold_match(
    settings: CampaignSettings,
    campaigns: tuple[str, str],
    pairs: Sequence[tuple[Conversation, Conversation]],
    database: Path,
    *,
    name: str,
    progress: Progress,
    sharing: Sequence[str] = (),
) -> "Match":
    """Every pair before every judge, or what is missing of it; `sharing` as in `graphs.campaign.run_campaign`.

    Raises:
        CampaignStopping: it was interrupted or its budget is spent; what was said is kept.
        ProviderError, StoreError: what makes every call fail.
    """
    prompts = Prompts(settings.prompts)
    identity = match_id(*campaigns)
    with Writer(database, patience_seconds=LOCK_PATIENCE_SECONDS) as writer:
        spent, by_role = spent_so_far(database, [identity, *sharing], settings.budget, settings.models)
        ledger = Ledger(writer.note, settings.budget, spent, by_role, leave=writer.leave)
        judges = build_cast(judging(settings), prompts, ledger).judges
        match = _Match(settings, identity, judges, prompts, pairs, ledger, writer, progress)
        known = _known_verdicts(database, campaigns[0])
        match.verdicts = {judgement: verdict for judgement, (verdict, _) in known.items()}
        paid = {call_id for _, call_id in known.values()}
        ledger.remember(call for call in resume.open_calls(database, identity) if call.call_id not in paid)
        created_at = resume.created_at(database, identity) or datetime.now(UTC)

        def row(status: CampaignStatus) -> Campaign:
            config = {"campaign": campaigns[0], "opponent": campaigns[1], "settings": settings.model_dump(mode="json")}
            return Campaign(
                campaign_id=identity,
                name=name,
                recipe="match",
                config=config,
                config_hash=content_hash(config),
                version=descant_version(),
                n_seeds=len({dialogue.seed_id for dialogue, _ in pairs}),
                status=status,
                created_at=created_at,
                finished_at=datetime.now(UTC) if status == "done" else None,
                paused_by=ledger.paused_by(status),
            )

        writer.append(row("running"))
        status: CampaignStatus = "paused"
        try:
            with progress:
                fatal = asyncio.run(match.to_the_end(Control(writer, row)))
            status = "paused" if ledger.stop_reason else "done"
        finally:
            writer.append(row(status))
        writer.flush()
    if fatal is not None:
        raise fatal
    if ledger.stop_reason is not None:
        raise CampaignStopping(ledger.stop_reason)
    return Match([Meeting(*pair, match.settled(pair)) for pair in pairs], ledger.sent)


def _known_verdicts(database: Path, campaign: str) -> dict[str, tuple[str, str | None]]:
    """Verdict and call by judgement, of those that earlier runs left."""
    rows = query(
        database,
        """
        SELECT judgement_id, verdict, call_id FROM judgements
        WHERE label_set = ? AND dialogue_id IN (SELECT dialogue_id FROM dialogues WHERE campaign_id = ?)
        """,
        [LABEL_SET, campaign],
    )
    return {row["judgement_id"]: (row["verdict"], row["call_id"]) for row in rows}


Pairing = tuple[Conversation, Conversation]


class _Match:
    """One process's work on a match."""

    def __init__(
        self,
        settings: CampaignSettings,
        identity: str,
        judges: Sequence[Judge],
        prompts: Prompts,
        pairs: Sequence[Pairing],
        ledger: Ledger,
        writer: Writer,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.judges = judges
        self.keys = _judge_keys(settings, prompts)
        self.pairs = pairs
        self.ledger = ledger
        self.writer = writer
        self.progress = progress
        self.verdicts: dict[str, str] = {}
        """By judgement, those that are there."""
        self.counters = Counters(total=len(pairs), unit="meetings")

    def settled(self, pair: Pairing) -> tuple[str | None, ...]:
        """What each judge said of a pair, both orders settled; null where one is missing."""
        found = []
        for place in range(len(self.judges)):
            first, second = (self.verdicts.get(self._judgement(pair, place, order)) for order in ORDERS)
            found.append(None if first is None or second is None else settled(first, second))
        return tuple(found)

    async def to_the_end(self, control: Control) -> DescantError | None:
        """Hold all meetings; the error that stopped them, if one did."""
        return await work_off(
            self.pairs,
            self._meet,
            workers=self.settings.concurrency,
            ledger=self.ledger,
            counters=self.counters,
            progress=self.progress,
            watch=control,
        )

    async def _meet(self, pair: Pairing) -> None:
        missing = [
            (place, order)
            for place in range(len(self.judges))
            for order in ORDERS
            if self._judgement(pair, place, order) not in self.verdicts
        ]
        await side_by_side([self._ask(pair, place, order) for place, order in missing])
        for place in range(len(self.judges)):
            self.ledger.forget(self._asked(pair, place))
        self.counters.done += all(verdict is not None for verdict in self.settled(pair))
        self.counters.failed += any(verdict is None for verdict in self.settled(pair))

    async def _ask(self, pair: Pairing, place: int, order: Order) -> None:
        """One verdict, kept at once. What a judge's provider refuses for good is `invalid`, as an unreadable answer is."""
        dialogue, opponent = pair
        judge = self.judges[place]
        so_far = DialogueSoFar(self.identity, self._asked(pair, place), dialogue.messages, 0)
        try:
            opinion = await judge.compare(so_far, opponent.messages, ORDERS[order])
        except ProviderError as error:
            if error.fatal:
                raise
            if error.passing:
                return
            opinion = None
            said: dict[str, Any] = {"verdict": "invalid", "raw": f"{error.kind}: {error}"}
        if opinion is not None:
            said = {"verdict": VERDICTS.get(opinion.verdict, "invalid"), "rationale": opinion.rationale}
            said |= {"raw": opinion.raw, "call_id": opinion.call_id, "error": opinion.error}
        judgement = Judgement(
            judgement_id=self._judgement(pair, place, order),
            label_set=LABEL_SET,
            dialogue_id=dialogue.dialogue_id,
            opponent_id=opponent.dialogue_id,
            judge_model=judge.name,
            judge=judge.known_as,
            rubric="compare",
            presentation=order,
            **said,
        )
        await self.writer.note(judgement)
        self.verdicts[judgement.judgement_id] = judgement.verdict

    def _meeting(self, pair: Pairing) -> str:
        """The id of a meeting: neither dialogue's, since each may meet others."""
        return dialogue_id(self.identity, pair[0].seed_id, "meeting", pair[0].trial)

    def _asked(self, pair: Pairing, place: int) -> str:
        """The id under which a judge's calls are kept: its own, so that a judge put in its place has others."""
        return dialogue_id(self.identity, pair[0].seed_id, f"meeting before {self.keys[place]}", pair[0].trial)

    def _judgement(self, pair: Pairing, place: int, order: Order) -> str:
        return judgement_id(LABEL_SET, self._meeting(pair), None, self.keys[place], order)


def _judge_keys(settings: CampaignSettings, prompts: Prompts) -> list[str]:
    """What each judge is, whatever its place: so that one may be added or replaced, and what others said stays."""
    keys: list[str] = []
    for place in range(len(settings.models.judges)):
        what = content_hash(settings.models.of("judge", place).sampling(), prompts.hashes["compare"])
        keys.append(f"{what} {sum(key.startswith(what) for key in keys)}")
    return keys
