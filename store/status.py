"""How campaigns stand: counts, tokens and cost by role, and what still waits in the journal."""

import os
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.database import database_path, query
from store.journal import pending_rows
from store.lock import Lock
from store.transcript import neutral, print_wide


def status_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Everything `descant status` says, for machines."""
    file = database_path(path)
    campaigns = query(
        file,
        """
        WITH played AS (
            SELECT campaign_id, seed_id, bool_or(status = 'failed') AS failed FROM dialogues GROUP BY campaign_id, seed_id
        ), counted AS (
            SELECT campaign_id, count(*) FILTER (NOT failed) AS seeds_done, count(*) FILTER (failed) AS seeds_failed
            FROM played GROUP BY campaign_id
        )
        SELECT campaign_id, name, recipe, stats.status, coalesce(seeds_done, 0) AS seeds_done,
            coalesce(seeds_failed, 0) AS seeds_failed, n_seeds AS seeds_total,
            dialogues AS dialogues_done, failed AS dialogues_failed, pairs, created_at, finished_at
        FROM campaign_stats AS stats
        JOIN (SELECT campaign_id, n_seeds, created_at, finished_at FROM campaigns) USING (campaign_id)
        LEFT JOIN counted USING (campaign_id)
        ORDER BY created_at, campaign_id
        """,
    )
    usage = query(file, "SELECT * EXCLUDE (campaign) FROM usage_by_agent ORDER BY campaign_id, agent, model")
    offsets = {row["segment"]: row["byte_offset"] for row in query(file, "SELECT segment, byte_offset FROM ingested")}
    writer = Lock(file).alive_holder()
    for campaign in campaigns:
        if campaign["status"] == "running" and writer is None:
            campaign["status"] = "interrupted"  # its process died; the same command goes on
        campaign["usage"] = [row for row in usage if row["campaign_id"] == campaign["campaign_id"]]
        for row in campaign["usage"]:
            del row["campaign_id"]
    return {
        "database": str(file),
        "writer_pid": writer,
        "pending_rows": pending_rows(file, offsets),
        "campaigns": campaigns,
    }


def print_status(status: dict[str, Any], console: Console) -> None:
    """The same as a table for people."""
    if not status["campaigns"]:
        console.print(Text("no campaign yet: `descant run CONFIG` makes one"))
    for campaign in status["campaigns"]:
        total = campaign["seeds_total"]
        console.print(
            Text.assemble(
                (neutral(campaign["name"]), "bold"),
                f"  {campaign['campaign_id']}  {campaign['recipe']}  ",
                (campaign["status"], "green" if campaign["status"] == "done" else "yellow"),
            ),
            soft_wrap=True,
        )
        console.print(
            Text(
                f"  seeds: {campaign['seeds_done']} done, {campaign['seeds_failed']} failed"
                f"{'' if total is None else f', {total} in all'} · "
                f"dialogues: {campaign['dialogues_done']} done, {campaign['dialogues_failed']} failed · "
                f"pairs: {campaign['pairs']}"
            ),
            soft_wrap=True,
        )
        if campaign["usage"]:
            print_wide(_usage_table(campaign["usage"]), console)
    if status["pending_rows"]:
        who = f"process {status['writer_pid']} is writing" if status["writer_pid"] else "the next run takes them in"
        console.print(Text(f"{status['pending_rows']} rows wait in the journal ({who})", style="dim"))


def _usage_table(usage: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("agent", "model"):
        table.add_column(name, overflow="fold")
    for name in ("calls", "failed", "in flight", "tokens in", "tokens out", "cost USD", "median ms"):
        table.add_column(name, justify="right")
    for row in usage:
        table.add_row(
            Text(neutral(row["agent"])),
            Text(neutral(row["model"])),
            f"{row['calls']:,}",
            f"{row['failed']:,}",
            f"{row['in_flight']:,}",
            f"{row['prompt_tokens']:,}",
            f"{row['completion_tokens']:,}",
            "unknown" if row["cost_usd"] is None else f"{row['cost_usd']:.4f}",
            "" if row["median_latency_ms"] is None else f"{row['median_latency_ms']:.0f}",
        )
    return table
