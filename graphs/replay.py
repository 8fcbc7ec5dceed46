"""Replay: dialogues built anew from the journal, without a call, and held against what the corpus keeps of them.

The campaign's own recipe plays, on its stored settings and seeds; every answer comes from `calls`, by id and by the hash of
the request, so what differs in any request is found at that call. Nothing is asked, and nothing in the corpus changes.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from agents.ledger import Ledger, NotRecordedError
from configs.errors import DescantError
from configs.load import validate
from configs.settings import CampaignSettings
from configs.settings import Recipe as RecipeName
from graphs.campaign import campaign_identity
from graphs.cast import build_cast, prompts_of
from graphs.differing import Difference, differences
from graphs.execute import build_recipe
from graphs.fork import trunks_of
from graphs.recall import RewardMissingError, Rewards, with_recorded_models
from store import played
from store.database import database_path
from store.identity import dialogue_id
from store.played import Kept, Playing
from store.records import RECORDS, Campaign, Dialogue, Label, Pair, Record, Score
from store.writer import Writer

PLAYINGS_AT_ONCE = 50
"""Read, played and compared, before the next are read: what bounds the memory."""
SHOWN_DIFFERENCES = 20


class ReplayError(DescantError):
    """Raised here: something that cannot be replayed, or a campaign whose prompts are no longer there."""


class ReplayReport(NamedTuple):
    """What came of a replay."""

    campaign_id: str
    name: str
    dialogue_id: str | None
    """Null where the whole campaign was replayed."""
    rows: dict[str, int]
    """Rows that were rebuilt, by table."""
    calls: int
    """Calls that were answered from the journal."""
    sent: int
    """Requests that were sent: none."""
    relabelled: int
    """Pairs whose judged_label later judges gave; the replay keeps it."""
    unfinished: int
    """Dialogues that have not ended, as far as is known: left out."""
    differences: list[Difference]
    not_rebuilt: dict[str, str]
    """Why, by dialogue, of those that could not be played to their end."""

    @property
    def equal(self) -> bool:
        return not self.differences and not self.not_rebuilt

    def to_json(self) -> dict[str, Any]:
        found = [difference._asdict() for difference in self.differences]
        return {**self._asdict(), "equal": self.equal, "differences": found}


def replay(database: str | os.PathLike[str], name: str, *, out: Path | None = None) -> ReplayReport:
    """Rebuild a dialogue, with those of the same playing, or a campaign, and compare.

    Args:
        name: an id, the beginning of one, or a campaign's name.
        out: a new corpus that gets what was rebuilt, with its calls and its campaign; it is kept only where all is equal.

    Raises:
        StoreError, ReplayError, PromptError, ConfigError, PatternError: nothing to replay, or not by what is there.
    """
    found = played.find(database, name)
    campaign = played.campaign(database, found.campaign_id)
    if campaign.recipe not in get_args(RecipeName):
        raise ReplayError(_no_dialogues(campaign))
    if out is not None and database_path(out).exists():
        raise ReplayError(f"{str(out)!r} is there already: name a new file with --out")
    again = _Replay(database, campaign)
    if found.playing is not None and found.playing not in again.playings:
        raise ReplayError(
            f"dialogue {found.dialogue_id} is part of a playing that has not ended: the command that started its campaign "
            "goes on with it"
        )
    playings = again.playings if found.playing is None else [found.playing]
    if not playings:
        raise ReplayError(f"no dialogue of {campaign.campaign_id} has ended: there is nothing to replay yet")
    if out is None:
        asyncio.run(again.work(playings, None))
    else:
        _write_out(again, playings, out)
    return ReplayReport(
        campaign.campaign_id,
        campaign.name,
        found.dialogue_id,
        again.rows,
        again.ledger.reused,
        again.ledger.sent,
        again.relabelled,
        0 if found.playing else again.unfinished,
        again.differences,
        again.not_rebuilt,
    )


def report_lines(report: ReplayReport, *, out: str | None = None) -> list[str]:
    """For people."""
    rows = ", ".join(
        f"{count} {table.replace('_', ' ')}" for table, count in sorted(report.rows.items(), key=_in_order)
    )
    lines = [difference.line for difference in report.differences[:SHOWN_DIFFERENCES]]
    if more := report.differences[SHOWN_DIFFERENCES:]:
        lines.append(f"... and {len(more)} more (--json gives all)")
    lines += [f"not rebuilt: {why}" for why in dict.fromkeys(report.not_rebuilt.values())][:SHOWN_DIFFERENCES]
    if report.equal:
        lines.append(f"equal: {rows}, from {report.calls} calls of the journal, without a call")
        lines += [f"written to {out}"] if out is not None else []
    else:
        lines.append(
            f"not equal: {len(report.differences)} differences, {len(report.not_rebuilt)} dialogues not rebuilt, of {rows or 'no rows'}"
        )
    if report.relabelled:
        lines.append(f"{report.relabelled} pairs have the label of later judges, which is kept")
    if report.unfinished:
        lines.append(f"{report.unfinished} dialogues have not ended and are left out")
    return lines


def _in_order(item: tuple[str, int]) -> int:
    """Dialogues and turns first, as people ask for them."""
    order = ["dialogues", "turns", *(table for table in RECORDS if table not in ("dialogues", "turns"))]
    return order.index(item[0])


def _write_out(again: "_Replay", playings: Sequence[Playing], out: Path) -> None:
    """Work with a new corpus at hand; what is not equal leaves none."""
    is_whole = False
    try:
        with Writer(out) as writer:
            asyncio.run(again.work(playings, writer))
            is_whole = not again.differences and not again.not_rebuilt
    finally:
        if not is_whole:
            database_path(out).unlink(missing_ok=True)


def _no_dialogues(campaign: Campaign) -> str:
    what = f"{campaign.name!r} ({campaign.campaign_id}) "
    if campaign.recipe == "import":
        return f"{what}was imported: its conversations have no calls, so there is nothing to replay"
    return (
        f"{what}is a set of verdicts (recipe {campaign.recipe}), and replay rebuilds dialogues: the command that asked for "
        "them takes what was said from the journal"
    )


class _Replay:
    """One campaign, ready to be played anew."""

    def __init__(self, database: str | os.PathLike[str], campaign: Campaign) -> None:
        self.database = database
        self.campaign = campaign
        self.rows: dict[str, int] = {}
        self.relabelled = 0
        self.differences: list[Difference] = []
        self.not_rebuilt: dict[str, str] = {}
        self._labels: list[Label] = []
        identity = campaign.campaign_id
        settings = validate(campaign.config, CampaignSettings, where=f"the stored settings of {identity}")
        self.settings = with_recorded_models(settings, played.models_of_calls(database, identity))
        self.prompts = prompts_of(self.settings)
        self.prompt_hashes = played.prompt_hashes(database, identity)
        self.ledger = Ledger(self._note, replaying=True)
        self.rewards = self._recalled_rewards()
        cast = build_cast(self.settings, self.prompts, self.ledger)
        scorer = self.rewards.model if self.rewards is not None else None
        trunks = trunks_of(database, self.settings) if self.settings.fork is not None else None
        self.recipe = build_recipe(self.settings, identity, self.prompt_hashes, cast, scorer, trunks)
        ended = played.ended_playings(database, identity)
        self.playings = [one for one, ids in ended.items() if set(self._ids(one)) <= ids]
        expected = (campaign.n_seeds or 0) * self.settings.trials if trunks is None else len(trunks)
        self.unfinished = max(0, expected - len(self.playings)) * len(self.recipe.branches)

    async def work(self, playings: Sequence[Playing], writer: Writer | None) -> None:
        """Play them one after the other, and hold each against what is kept of it."""
        if writer is not None:
            writer.append(self.campaign, *([self.rewards.fit] if self.rewards is not None else []))
        for start in range(0, len(playings), PLAYINGS_AT_ONCE):
            part = playings[start : start + PLAYINGS_AT_ONCE]
            for kept in played.kept(self.database, self.campaign.campaign_id, part):
                rebuilt = await self._play(kept)
                if rebuilt is None:
                    continue
                found = differences([*kept.records, *kept.labels], rebuilt)
                self.differences += [one for one in found if not _is_later_score(one)]
                for record in rebuilt:
                    self.rows[record.table] = self.rows.get(record.table, 0) + 1
                if writer is not None:
                    writer.append(kept.seed, *kept.calls, *kept.borrowed, *rebuilt)

    async def _play(self, kept: Kept) -> list[Record] | None:
        """What comes of a playing; null where it cannot be played to its end."""
        self._labels = []
        if self.rewards is not None:
            self.rewards.load(kept)
        self.ledger.remember(call for call in kept.calls if call.status != "superseded")
        try:
            outcome = await self.recipe.play(kept.seed, kept.playing.trial)
        except (NotRecordedError, RewardMissingError) as error:
            self._check_prompts()
            self.not_rebuilt |= dict.fromkeys(self._ids(kept.playing), str(error))
            return None
        finally:
            for record in kept.records:
                if isinstance(record, Dialogue):
                    self.ledger.forget(record.dialogue_id)
        return self._with_what_came_later([*outcome.records, *self._labels], kept)

    def _with_what_came_later(self, rebuilt: Sequence[Record], kept: Kept) -> list[Record]:
        """The rebuilt records with what no playing can tell: when a label was drawn, and what later judges call a pair."""
        drawn = {label.label_id: label.created_at for label in kept.labels}
        judged = {pair.pair_id: pair.judged_label for pair in kept.records if isinstance(pair, Pair)}
        found: list[Record] = []
        for record in rebuilt:
            if isinstance(record, Label) and record.label_id in drawn:
                record = record.model_copy(update={"created_at": drawn[record.label_id]})
            elif isinstance(record, Pair) and record.pair_id in kept.relabelled:
                self.relabelled += record.judged_label != judged[record.pair_id]
                record = record.model_copy(update={"judged_label": judged[record.pair_id]})
            found.append(record)
        return found

    async def _note(self, *records: Record) -> None:
        """What a playing notes on its way: labels, before their answers are asked for."""
        self._labels += [record for record in records if isinstance(record, Label)]

    def _ids(self, playing: Playing) -> list[str]:
        """The dialogues that every playing has."""
        campaign, (seed_id, trial) = self.campaign.campaign_id, playing
        return [dialogue_id(campaign, seed_id, branch, trial) for branch in self.recipe.branches]

    def _check_prompts(self) -> None:
        """Raise a ReplayError where a prompt is not what it was: that is why a request differs."""
        changed = [name for name, text in self.prompt_hashes.items() if self.prompts.hashes.get(name) != text]
        if changed:
            replaced = self.settings.prompts
            which = ", ".join(f"{name} ({replaced[name]})" if name in replaced else name for name in changed)
            raise ReplayError(
                f"the prompt{'s' if len(changed) > 1 else ''} {which} changed since {self.campaign.name!r} was played: put the "
                "old text back, then replay it again"
            )

    def _recalled_rewards(self) -> Rewards | None:
        """What picked in this campaign; null where nothing did.

        Raises:
            ReplayError: the corpus does not say which reward model it was.
        """
        if self.settings.recipe not in ("best_of_n", "west_of_n"):
            return None
        pairing = self.settings.pairing
        threshold = pairing.near_identical if pairing is not None else 1.0
        fits = played.reward_models(self.database, self.campaign.campaign_id)
        known = [Rewards(fit, near_identical=threshold) for fit in fits]
        if len(known) > 1:
            identity = self.campaign.campaign_id
            known = [one for one in known if campaign_identity(self.settings, self.prompts, one.model) == identity]
        if len(known) != 1:
            raise ReplayError(
                f"the corpus does not say which reward model picked in {self.campaign.name!r}: without its scores the dialogues "
                "cannot be rebuilt"
            )
        return known[0]


def _is_later_score(difference: Difference) -> bool:
    """A reward that is stored and does not come out was given later, as `descant score` does."""
    return difference.table == Score.table and difference.field is None and difference.rebuilt is None
