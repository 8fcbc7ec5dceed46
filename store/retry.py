"""Failed dialogues that are to be played again: which there are, and their rows marked `open`.

A trial is opened whole: the branches that every playing of a seed has become `open`, what hangs on them goes
(`store.reopen`). Their calls stay, so that those with an answer are not asked again.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from store.database import StoreError, database_path, query
from store.queries import campaigns_called, the_one_called
from store.records import Campaign, Dialogue
from store.writer import LOCK_PATIENCE_SECONDS, Writer


class ToRetry(NamedTuple):
    """What is to be played again."""

    dialogues: list[Dialogue]
    """The rows that become `open`, as they stand."""
    with_calls: list[str]
    """Ids of all dialogues of these trials, those that hang on others too."""
    campaigns: list[Campaign]
    """That they are of."""
    reasons: dict[str, int]
    """Failed dialogues by why they ended, the most frequent first."""
    same_again: dict[str, int]
    """Failed dialogues that are left, by why they ended: no call of theirs failed, so they would end the same."""
    waiting: int
    """Dialogues that were opened before and have not ended yet."""
    all_reasons: dict[str, int]
    """All failed dialogues of these campaigns by why they ended, whichever reasons were asked for."""

    @property
    def opened(self) -> list[Dialogue]:
        """The rows to be noted."""
        return [dialogue.model_copy(update={"status": "open"}) for dialogue in self.dialogues]

    def paused(self, *, but: str | None = None) -> list[Campaign]:
        """The campaigns' rows, of which none is done any more; without the one that runs."""
        over = {"status": "paused", "paused_by": "retry-failed", "finished_at": None}
        return [campaign.model_copy(update=over) for campaign in self.campaigns if campaign.campaign_id != but]

    @property
    def trials(self) -> int:
        return len({(row.campaign_id, row.seed_id, row.trial) for row in self.dialogues})

    def to_json(self) -> dict[str, Any]:
        return {
            "dialogues": sum(self.reasons.values()),
            "trials": self.trials,
            "reasons": self.reasons,
            "same_again": self.same_again,
            "waiting": self.waiting,
            "all_reasons": self.all_reasons,
            "campaigns": [campaign.name for campaign in self.campaigns],
        }


def failed_trials(path: str | os.PathLike[str], *, campaign: str | None = None, reasons: Sequence[str] = ()) -> ToRetry:
    """The failed dialogues, with all that was played with them.

    Args:
        campaign: only of this one, by id or name.
        reasons: only these; they count even where all calls have their answers.

    Raises:
        StoreError: there is no such campaign, or several are called so.
    """
    named = None if campaign is None else the_one_called(campaign, campaigns_called(path, campaign))
    campaigns = [
        Campaign(**{**row, "config": orjson.loads(row["config"])})
        for row in query(
            path,
            f"""
            SELECT {", ".join(Campaign.model_fields)} FROM campaigns
            WHERE $campaign IS NULL OR campaign_id = $campaign ORDER BY created_at, campaign_id
            """,
            {"campaign": named or campaign},
        )
    ]
    if campaign is not None and not campaigns:
        raise StoreError(f"there is no campaign {campaign!r}: `descant status` lists those there are")
    played: dict[tuple[str, str, int], list[Dialogue]] = defaultdict(list)
    for row in query(
        path,
        f"""
        SELECT {", ".join(f"dialogues.{name}" for name in Dialogue.model_fields)} FROM dialogues
        WHERE (campaign_id, seed_id, trial) IN (
            SELECT (campaign_id, seed_id, trial) FROM dialogues
            WHERE status = 'failed' AND list_contains($campaigns, campaign_id)
                AND (len($reasons) = 0 OR list_contains($reasons, termination_reason))
        )
        ORDER BY campaign_id, seed_id, trial, branch, dialogue_id
        """,
        {"campaigns": [found.campaign_id for found in campaigns], "reasons": list(reasons)},
    ):
        row["persona"] = None if row["persona"] is None else orjson.loads(row["persona"])
        row["prompt_hashes"] = orjson.loads(row["prompt_hashes"])
        dialogue = Dialogue(**row)
        played[dialogue.campaign_id, dialogue.seed_id, dialogue.trial].append(dialogue)
    in_vain: set[str] = set()
    if played:
        rows = query(path, "SELECT DISTINCT dialogue_id FROM calls WHERE status = 'failed'")
        in_vain = {row["dialogue_id"] for row in rows}
    why_failed = query(
        path,
        """
        SELECT termination_reason AS reason, count(*) AS n FROM dialogues
        WHERE status = 'failed' AND list_contains($campaigns, campaign_id) GROUP BY reason ORDER BY n DESC, reason
        """,
        {"campaigns": [found.campaign_id for found in campaigns]},
    )
    (waiting,) = query(
        path,
        "SELECT count(*) AS n FROM dialogues WHERE status = 'open' AND list_contains($campaigns, campaign_id)",
        {"campaigns": [found.campaign_id for found in campaigns]},
    )
    dialogues: list[Dialogue] = []
    with_calls: list[str] = []
    again: Counter[str] = Counter()
    same: Counter[str] = Counter()
    for trial in played.values():
        why = [row.termination_reason for row in trial if row.status == "failed"]
        if not reasons and not any(row.dialogue_id in in_vain for row in trial):
            same.update(why)
            continue
        again.update(why)
        main = [row for row in trial if row.branch == "main"]
        dialogues += main or trial
        with_calls += [row.dialogue_id for row in trial]
    of = {dialogue.campaign_id for dialogue in dialogues}
    return ToRetry(
        dialogues,
        with_calls,
        [found for found in campaigns if found.campaign_id in of],
        dict(again.most_common()),
        dict(same.most_common()),
        waiting["n"],
        {row["reason"]: row["n"] for row in why_failed},
    )


def reopen_failed(path: str | os.PathLike[str], *, campaign: str | None = None, reasons: Sequence[str] = ()) -> ToRetry:
    """Marks failed dialogues `open`, where no campaign runs: the next run plays them.

    Raises:
        StoreError: there is no such database or campaign, or somebody writes there.
    """
    if not database_path(path).exists():
        raise StoreError(f"there is no database at {str(path)!r}: run a campaign first, or name another with --db")
    with Writer(path, patience_seconds=LOCK_PATIENCE_SECONDS) as writer:  # what a killed run left is in by now
        found = failed_trials(path, campaign=campaign, reasons=reasons)
        writer.append(*found.opened, *found.paused())
    return found
