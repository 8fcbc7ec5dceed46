"""How campaigns stand: counts, tokens and cost by role, and what still waits in the journal."""

import os
from collections import defaultdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.database import StoreError, database_path, reading, rows_of
from store.live import live_of, print_live
from store.lock import Lock
from store.segments import pending_rows
from store.transcript import neutral, print_wide

ONLY_JUDGING = ("judge", "match")
"""Recipes of judges' calls, which make no dialogues."""
PAUSES = {
    "pause": "held by `descant pause`",
    "budget": "out of budget",
    "interrupt": "stopped early, by Ctrl-C or a signal",
    "error": "stopped by an error",
    "retry-failed": "failed dialogues are to be played again",
}
"""What a pause is, by what made it."""


CAMPAIGNS = """
WITH played AS (
    SELECT campaign_id, seed_id, bool_or(dialogues.status = 'failed') AS failed
    FROM dialogues JOIN campaigns USING (campaign_id)
    WHERE (recipe <> 'capo' OR branch = 'main')  -- a negative that failed is lost alone
        AND dialogues.status <> 'open'
    GROUP BY campaign_id, seed_id
), counted AS (
    SELECT campaign_id, count(*) FILTER (NOT failed) AS seeds_done, count(*) FILTER (failed) AS seeds_failed
    FROM played GROUP BY campaign_id
), talks AS (  -- as `run` counts: where dialogues are main ones, what hangs on them (negatives, second answers) is apart
    SELECT campaign_id, branch = 'main' OR NOT bool_or(branch = 'main') OVER (PARTITION BY campaign_id) AS is_own, status
    FROM dialogues WHERE branch <> 'candidate'
), sums AS (
    SELECT campaign_id, count(*) FILTER (is_own AND status = 'done') AS dialogues_done,
        count(*) FILTER (is_own AND status = 'failed') AS dialogues_failed,
        count(*) FILTER (is_own AND status = 'open') AS dialogues_open,
        count(*) FILTER (NOT is_own AND status <> 'open') AS beside
    FROM talks GROUP BY campaign_id
)
SELECT campaign_id, name, recipe, stats.status, paused_by, coalesce(seeds_done, 0) AS seeds_done,
    coalesce(seeds_failed, 0) AS seeds_failed, n_seeds AS seeds_total,
    coalesce(dialogues_done, 0) AS dialogues_done, coalesce(dialogues_failed, 0) AS dialogues_failed,
    coalesce(dialogues_open, 0) AS dialogues_open, coalesce(beside, 0) AS beside, pairs, created_at, finished_at
FROM campaign_stats AS stats
JOIN (SELECT campaign_id, n_seeds, paused_by, created_at, finished_at FROM campaigns) USING (campaign_id)
LEFT JOIN counted USING (campaign_id)
LEFT JOIN sums USING (campaign_id)
WHERE $campaign IS NULL OR campaign_id = $campaign OR name = $campaign
ORDER BY created_at, campaign_id
"""


def status_of(path: str | os.PathLike[str], *, campaign: str | None = None) -> dict[str, Any]:
    """Everything `descant status` says, for machines.

    A campaign is `interrupted` when its row says that it runs, or that it is held, and no process holds the database.

    Args:
        campaign: only this one, by id, or those of this name.

    Raises:
        StoreError: there is no such campaign.
    """
    file = database_path(path)
    writer = Lock(file).alive_holder()
    with reading(file) as connection:
        campaigns = rows_of(connection, CAMPAIGNS, {"campaign": campaign})
        if campaign is not None and not campaigns:
            raise StoreError(f"there is no campaign {campaign!r}: `descant status` lists those there are")
        used = rows_of(connection, "SELECT * EXCLUDE (campaign) FROM usage_by_agent ORDER BY campaign_id, agent, model")
        offsets = {row["segment"]: row["byte_offset"] for row in rows_of(connection, "FROM ingested")}
    writer = writer or Lock(file).alive_holder()  # it may have come, or gone, between the two
    usage: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in used:
        usage[row.pop("campaign_id")].append(row)
    for row in campaigns:
        if writer is None and (row["status"] == "running" or row["paused_by"] == "pause"):
            row["status"], row["paused_by"] = "interrupted", None  # its process died; the same command goes on
        row["usage"] = usage[row["campaign_id"]]
    live, unanswered = live_of(file)
    if campaign is not None and live is not None and campaign not in (live["campaign_id"], live["name"]):
        live = None
    return {
        "database": str(file),
        "live": live,
        "unanswered": unanswered,
        "writer_pid": writer,
        "pending_rows": pending_rows(file, offsets),
        "campaigns": campaigns,
    }


def print_status(status: dict[str, Any], console: Console) -> None:
    """The same as a table for people."""
    if not status["campaigns"]:
        console.print(Text("no campaign yet: `descant run CONFIG` makes one"))
    is_live = print_live(status["live"], status["unanswered"], console)
    for number, campaign in enumerate(status["campaigns"]):
        if number or is_live:
            console.print()
        total = campaign["seeds_total"]
        console.print(
            Text.assemble(
                (neutral(campaign["name"]), "bold"),
                f"  {campaign['campaign_id']}  {campaign['recipe']}  ",
                (_state(campaign), "green" if campaign["status"] == "done" else "yellow"),
            ),
            soft_wrap=not console.is_terminal,
        )
        if campaign["recipe"] not in ONLY_JUDGING:
            console.print(
                Text(
                    f"  seeds: {campaign['seeds_done']} done, {campaign['seeds_failed']} failed"
                    f"{'' if total is None else f', {total} in all'} · "
                    f"dialogues: {campaign['dialogues_done']} done, {campaign['dialogues_failed']} failed"
                    f"{_beside(campaign)} · "
                    f"pairs: {campaign['pairs']}"
                ),
                soft_wrap=not console.is_terminal,
            )
        if campaign["usage"]:
            print_wide(_usage_table(campaign["usage"]), console)
            unanswered = sum(row["in_flight"] for row in campaign["usage"])
            if unanswered:
                console.print(Text(f"calls without an answer so far: {unanswered:,}", style="dim"))
            if lost := sum(row["lost_tokens"] for row in campaign["usage"]):
                console.print(Text(_lost(lost, [row["lost_usd"] for row in campaign["usage"]]), style="dim"))
    if status["pending_rows"]:
        who = f"process {status['writer_pid']} is writing" if status["writer_pid"] else "the next run takes them in"
        console.print(Text(f"{status['pending_rows']} rows wait in the journal ({who})", style="dim"))


def _state(campaign: dict[str, Any]) -> str:
    """`running`, `done`, `interrupted`, and a pause by what it is."""
    return PAUSES.get(campaign["paused_by"] or "", str(campaign["status"]))


def _beside(campaign: dict[str, Any]) -> str:
    waiting, beside = campaign["dialogues_open"], campaign["beside"]
    again = f", {waiting} to be played again" if waiting else ""
    return f"{again} (and {beside:,} branches beside them)" if beside else again


def _lost(tokens: int, usd: list[float | None]) -> str:
    known = [cost for cost in usd if cost is not None]
    cost = "price unknown" if len(known) < len(usd) else f"${_usd(sum(known))}"
    return f"lost: up to {_short(tokens)} tokens more ({cost}), for requests without an answer"


def _usage_table(usage: list[dict[str, Any]]) -> Table:
    """At most 80 wide with a model's name of 17 characters; where there is no more room, a longer one is cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("agent", no_wrap=True)
    table.add_column("model")  # alone not `no_wrap`, so that it alone gives way; its cells are
    for name in ("calls", "failed", "tokens\nin", "tokens\nout", "USD", "p50\nms"):
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for row in usage:
        table.add_row(
            Text(neutral(row["agent"])),
            Text(neutral(row["model"]), no_wrap=True, overflow="ellipsis"),
            f"{row['calls']:,}",
            _short(row["failed"]),
            _short(row["prompt_tokens"]),
            _short(row["completion_tokens"]),
            _usd(row["cost_usd"]),
            "" if row["median_latency_ms"] is None else f"{row['median_latency_ms']:.0f}",
        )
    return table


def _short(count: int) -> str:
    """A count in at most five characters: `9,999`, `12.3k`, `1.23M`; `--json` has every digit."""
    if count < 10_000:
        return f"{count:,}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        scaled = count / size
        if scaled < 999.5 or unit == "G":
            break
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"


def _usd(cost: float | None) -> str:
    if cost is None:
        return "unknown"
    return f"{cost:.{4 if cost < 100 else 2}f}"
