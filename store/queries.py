"""What the rest of Descant asks of the corpus: named functions, values always as parameters."""

import os
from typing import Any

from store.database import StoreError, query, reading
from store.records import Message, PreferencePair

ID_TABLES = {
    "camp": ("campaign", "campaigns", "campaign_id"),
    "seed": ("seed", "seeds", "seed_id"),
    "turn": ("turn", "turns", "turn_id"),
    "dlg": ("dialogue", "dialogues", "dialogue_id"),
    "pert": ("perturbation", "perturbations", "perturbation_id"),
    "call": ("call", "calls", "call_id"),
    "pair": ("pair", "pairs", "pair_id"),
    "judg": ("judgement", "judgements", "judgement_id"),
    "fit": ("fit", "fits", "fit_id"),
}
"""An id's prefix, what it names, and where that is kept."""


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
    head = prefix.split("_", 1)[0]
    places = [
        place for start, place in ID_TABLES.items() if start == head or ("_" not in prefix and start.startswith(head))
    ]
    found: list[tuple[str, str]] = []
    with reading(path) as connection:
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


def preference_pairs(
    path: str | os.PathLike[str], *, campaign: str | None = None, split: str | None = None, method: str | None = None
) -> list[PreferencePair]:
    """The pairs, whole conversations on both sides, ordered by pair_id; `campaign` is an id or a name."""
    with reading(path) as connection:
        rows = connection.execute(
            """
            SELECT pair_id, chosen, rejected, split, method, n_turns, first_divergent_turn, margin
            FROM preference_pairs
            WHERE ($split IS NULL OR split = $split) AND ($method IS NULL OR method = $method)
                AND ($campaign IS NULL OR campaign_id IN (
                    SELECT campaign_id FROM campaigns WHERE campaign_id = $campaign OR name = $campaign
                ))
            ORDER BY pair_id
            """,
            {"campaign": campaign, "split": split, "method": method},
        ).fetchall()
    return [PreferencePair(row[0], messages_of(row[1]), messages_of(row[2]), *row[3:]) for row in rows]


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
