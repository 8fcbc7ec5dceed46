"""What the rest of Descant asks of the corpus: named functions, values always as parameters."""

import os
from typing import Any, NamedTuple

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


class RecordedCall(NamedTuple):
    """What a resume needs of a call that was answered."""

    request_hash: str
    response: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cost_usd: float | None


class Usage(NamedTuple):
    """What a campaign has used so far. Superseded calls count: they were paid."""

    calls: int
    """Answered."""
    failed: int
    in_flight: int
    """Noted as started and never answered: running now, or cut off by a kill."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Null: the price of some answered call is unknown."""


def recorded_calls(path: str | os.PathLike[str], campaign_id: str) -> dict[str, RecordedCall]:
    """The answered calls of dialogues that are not finished yet, by call_id."""
    with reading(path) as connection:
        rows = connection.execute(
            """
            SELECT call_id, request_hash, response, finish_reason, prompt_tokens, completion_tokens, cost_usd
            FROM calls
            WHERE campaign_id = ? AND status = 'done' AND dialogue_id NOT IN (
                SELECT dialogue_id FROM dialogues WHERE campaign_id = ? AND status IN ('done', 'failed')
            )
            ORDER BY created_at
            """,
            [campaign_id, campaign_id],
        ).fetchall()
    return {row[0]: RecordedCall(*row[1:]) for row in rows}


def finished_dialogues(path: str | os.PathLike[str], campaign_id: str) -> set[str]:
    """The dialogues of a campaign that are done or failed."""
    rows = query(path, "SELECT dialogue_id FROM dialogues WHERE campaign_id = ?", [campaign_id])
    return {row["dialogue_id"] for row in rows}


def usage(path: str | os.PathLike[str], campaign_id: str) -> Usage:
    """Calls, tokens and cost of a campaign."""
    (row,) = query(
        path,
        """
        SELECT coalesce(sum(calls), 0)::BIGINT AS calls, coalesce(sum(failed), 0)::BIGINT AS failed,
            coalesce(sum(in_flight), 0)::BIGINT AS in_flight,
            coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
            coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens,
            CASE WHEN count(*) FILTER (cost_usd IS NULL) = 0 THEN coalesce(sum(cost_usd), 0.0) END AS cost_usd
        FROM usage_by_agent WHERE campaign_id = ?
        """,
        [campaign_id],
    )
    return Usage(**row)


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


def messages_of(rows: list[dict[str, Any]]) -> tuple[Message, ...]:
    """Messages as DuckDB hands them over."""
    return tuple(Message.model_construct(role=row["role"], content=row["content"]) for row in rows)
