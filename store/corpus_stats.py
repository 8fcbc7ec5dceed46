"""Parrot's table: how much, how long, how dependent on context and how repetitive, of campaigns and of files."""

import os
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.database import StoreError, query
from store.importing import CountTokens, whole_conversations
from store.measure import measure
from store.seeds import source_name
from store.transcript import neutral


class SetStats(NamedTuple):
    """A row of the table; averages are over sessions. Null: unknown, or nothing to average."""

    name: str
    source: str
    """`campaign`, `file` or `paper`."""
    campaign_id: str | None
    recipe: str | None
    sessions: int | None
    turns: float | None
    """Assistant answers a session."""
    words: float | None
    tokens: float | None
    context_dependent_turns: float | None
    self_rouge: float | None
    """Of sessions with two queries or more."""


PUBLISHED = (
    SetStats("Parrot-40K", "paper", None, None, 40_000, 8.71, None, None, 3.42, 12.5),
    SetStats("ShareGPT", "paper", None, None, None, 6.67, None, None, None, None),
    SetStats("UltraChat", "paper", None, None, None, 3.85, None, None, None, None),
)
"""As Parrot's paper (arXiv 2310.07301) reports them; how it counts is not known to us in all."""


def stats_of_campaigns(path: str | os.PathLike[str], campaign: str | None = None) -> list[SetStats]:
    """Of every campaign that makes dialogues, in the order in which they were begun; or of one, by id or name."""
    rows = query(
        path,
        """
        SELECT stats.name, 'campaign' AS source, campaign_id, stats.recipe, sessions, turns, words, tokens,
            context_dependent_turns, self_rouge
        FROM campaign_stats AS stats JOIN (SELECT campaign_id, created_at FROM campaigns) USING (campaign_id)
        WHERE CASE WHEN $campaign IS NULL THEN stats.recipe NOT IN ('judge', 'match')
              ELSE starts_with(campaign_id, $campaign) OR stats.name = $campaign END
        ORDER BY created_at, campaign_id
        """,
        {"campaign": campaign},
    )
    if campaign is not None and not rows:
        raise StoreError(f"there is no campaign {campaign!r}: `descant status` lists those there are")
    return [SetStats(**row) for row in rows]


def stats_of_file(
    source: str, shape: str = "auto", *, count_tokens: CountTokens | None = None, skipped: list[str] | None = None
) -> SetStats:
    """Of a file or a dataset of conversations, which is read as a stream and not kept.

    Raises:
        StoreError: as `store.importing.whole_conversations`.
    """
    sessions = turns = words = tokens = dependent = repeating = 0
    self_rouge = 0.0
    for _, _, _, messages in whole_conversations(source, shape, skipped=skipped):
        measured = measure(messages)
        sessions += 1
        turns += measured.turns
        words += measured.n_words
        dependent += measured.context_dependent_turns
        if measured.self_rouge is not None:
            repeating += 1
            self_rouge += measured.self_rouge
        if count_tokens is not None:
            tokens += count_tokens(messages)
    return SetStats(
        name=source_name(source),
        source="file",
        campaign_id=None,
        recipe=None,
        sessions=sessions,
        turns=round(turns / sessions, 2),
        words=round(words / sessions, 1),
        tokens=round(tokens / sessions, 1) if count_tokens is not None else None,
        context_dependent_turns=round(dependent / sessions, 2),
        self_rouge=round(self_rouge / repeating, 2) if repeating else None,
    )


def print_stats(rows: list[SetStats], console: Console, *, published: bool = False) -> None:
    """For people, in 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("set", overflow="fold", max_width=28)
    for head in ("sessions", "turns", "words", "tokens", "context-\ndependent", "Self-\nROUGE"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in [*rows, *(PUBLISHED if published else ())]:
        table.add_row(
            neutral(f"{row.name} (paper)" if row.source == "paper" else row.name),
            "-" if row.sessions is None else str(row.sessions),
            _shown(row.turns, 2),
            _shown(row.words, 0),
            _shown(row.tokens, 0),
            _shown(row.context_dependent_turns, 2),
            _shown(row.self_rouge, 1),
        )
    console.print(table)
    notes = ["Averages a session. Context-dependent: user turns that English rules find."]
    if published:
        notes.append("(paper): as Parrot reports them, counted in its way; its Self-ROUGE may differ from ours.")
    console.print()
    for note in notes:
        console.print(Text(note, style="dim"), soft_wrap=True)


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
