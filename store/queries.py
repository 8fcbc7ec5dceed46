"""What the rest of Descant asks of the corpus: named functions, values always as parameters."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from store.database import StoreError, query, reading
from store.records import Message, PreferencePair

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

ID_TABLES = {
    "camp": ("campaign", "campaigns", "campaign_id"),
    "seed": ("seed", "seeds", "seed_id"),
    "turn": ("turn", "turns", "turn_id"),
    "dlg": ("dialogue", "dialogues", "dialogue_id"),
    "pert": ("perturbation", "perturbations", "perturbation_id"),
    "label": ("label", "labels", "label_id"),
    "catch": ("catch", "caught", "catch_id"),
    "call": ("call", "calls", "call_id"),
    "pair": ("pair", "pairs", "pair_id"),
    "judg": ("judgement", "judgements", "judgement_id"),
    "fit": ("fit", "fits", "fit_id"),
}
"""An id's prefix, what it names, and where that is kept."""


CALLED = "SELECT campaign_id FROM campaigns WHERE name = ? ORDER BY created_at, 1"
"""The campaigns of a name, the first begun first."""


def campaigns(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every campaign with its counts, oldest first."""
    return query(
        path,
        """
        SELECT campaign_stats.*, campaigns.created_at, campaigns.finished_at, campaigns.version
        FROM campaign_stats JOIN campaigns USING (campaign_id) ORDER BY campaigns.created_at, campaign_id
        """,
    )


def resolve_id(path: str | os.PathLike[str], prefix: str) -> tuple[str, str]:
    """What an id or an unambiguous beginning of one names, and the whole id.

    Raises:
        StoreError: nothing begins so, or several things do.
    """
    with reading(path) as connection:
        return resolve(connection, prefix)


def resolve(connection: "duckdb.DuckDBPyConnection", prefix: str) -> tuple[str, str]:
    """The same where more is asked of the same state of the corpus."""
    head = prefix.split("_", 1)[0]
    places = [
        place for start, place in ID_TABLES.items() if start == head or ("_" not in prefix and start.startswith(head))
    ]
    found: list[tuple[str, str]] = []
    for kind, table, column in places:
        rows = connection.execute(
            f"SELECT DISTINCT {column} FROM {table} WHERE starts_with({column}, ?) ORDER BY 1 LIMIT 3", [prefix]
        ).fetchall()
        found += [(kind, row[0]) for row in rows]
    exact = [item for item in found if item[1] == prefix]
    if len(exact) == 1:
        return exact[0]
    if not found:
        raise StoreError(f"nothing has the id {prefix!r}: `descant status` and `descant sql` list what there is")
    if len(found) > 1:
        raise StoreError(
            f"several ids begin with {prefix!r} ({', '.join(item[1] for item in found[:3])}): give more of it"
        )
    return found[0]


def campaigns_called(path: str | os.PathLike[str], name: str) -> list[str]:
    """The ids of the campaigns of a name, the first begun first."""
    return [row["campaign_id"] for row in query(path, CALLED, [name])]


def the_one_called(name: str, ids: Sequence[str]) -> str | None:
    """The campaign of a name; null where there is none.

    Raises:
        StoreError: several are called so.
    """
    if len(ids) > 1:
        raise StoreError(f"several campaigns are called {name!r} ({', '.join(ids)}): give the id of one")
    return ids[0] if ids else None


def preference_pairs(
    path: str | os.PathLike[str], *, campaign: str | None = None, split: str | None = None, method: str | None = None
) -> list[PreferencePair]:
    """The pairs, whole conversations on both sides, ordered by pair_id; `campaign` is an id or a name."""
    with reading(path) as connection:
        rows = connection.sql(
            """
            SELECT pair_id, chosen, rejected, split, method, n_turns, first_divergent_turn, margin, kinds,
                coalesce(n_contrast_turns, 0) AS n_contrast_turns
            FROM preference_pairs
            WHERE ($split IS NULL OR split = $split) AND ($method IS NULL OR method = $method)
                AND ($campaign IS NULL OR campaign_id IN (
                    SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
                ))
            ORDER BY pair_id
            """,
            params={"campaign": campaign, "split": split, "method": method},
        ).to_arrow_table()
    with _uncollected():
        columns = [
            _conversations(rows.column(name)) if name in ("chosen", "rejected") else rows.column(name).to_pylist()
            for name in rows.column_names
        ]
        return [PreferencePair._make((*head, tuple(kinds), n)) for *head, kinds, n in zip(*columns, strict=True)]


def answers_of_dialogues(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The turn_ids of the assistant's answers in each dialogue that is done, in their order."""
    rows = query(
        path,
        """
        SELECT dialogue_id, list(turn_id ORDER BY place) AS answers
        FROM (
            SELECT dialogue_id, unnest(turn_ids) AS turn_id, generate_subscripts(turn_ids, 1) AS place
            FROM dialogues WHERE status = 'done'
        ) JOIN turns USING (turn_id)
        WHERE role = 'assistant' GROUP BY dialogue_id
        """,
    )
    return {row["dialogue_id"]: row["answers"] for row in rows}


def was_rehearsed(path: str | os.PathLike[str], *, campaign: str | None = None) -> bool:
    """Whether the rehearsal backend played any role in the dialogues of the pairs; `campaign` is an id or a name."""
    (row,) = query(
        path,
        """
        SELECT count(*) AS n FROM calls
        WHERE model LIKE 'rehearsal/%' AND ($campaign IS NULL OR campaign_id IN (
            SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
        ))
        """,
        {"campaign": campaign},
    )
    return int(row["n"]) > 0


def messages_of(rows: list[dict[str, Any]]) -> tuple[Message, ...]:
    """Messages as DuckDB hands them over."""
    return tuple(Message.model_construct(role=row["role"], content=row["content"]) for row in rows)


def _conversations(column: "pa.ChunkedArray[Any]") -> list[tuple[Message, ...]]:
    """Lists of role and content as Arrow holds them: the texts of all conversations in two flat arrays."""
    found: list[tuple[Message, ...]] = []
    for chunk in column.chunks:
        messages = chunk.flatten()
        flat = [
            Message(role=role, content=content)
            for role, content in zip(
                messages.field("role").to_pylist(), messages.field("content").to_pylist(), strict=True
            )
        ]
        ends = list(accumulate(chunk.value_lengths().to_pylist()))
        found += [tuple(flat[start:end]) for start, end in pairwise([0, *ends])]
    return found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk all of a million new objects again and again; none is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
