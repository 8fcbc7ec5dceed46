"""What a campaign that goes on needs to know of its earlier runs."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import orjson

from store.database import query, reading
from store.pairs import NEAR_IDENTICAL
from store.queries import messages_of
from store.records import Call


class Spent(NamedTuple):
    """What a campaign has paid so far; superseded and failed calls were paid too."""

    calls: int
    """Requests sent, retries included; one that was cut off by a kill counts."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    unpriced_calls: int
    """Answered calls whose price is unknown; `cost_usd` is a lower bound when there are any."""
    lost_tokens: int
    """At most so many more, for requests that were never answered."""
    lost_usd: float
    unpriced_lost: int = 0
    """Calls that lost tokens of unknown price; `lost_usd` is a lower bound when there are any."""


def spent(path: str | os.PathLike[str], *campaign_ids: str) -> Spent:
    """Of one campaign, or of several together."""
    return _spent(path, campaign_ids, by_agent=False).get("", Spent(0, 0, 0, 0.0, 0, 0, 0.0))


def spent_by_agent(path: str | os.PathLike[str], *campaign_ids: str) -> dict[str, Spent]:
    """The same for each agent that has called."""
    return _spent(path, campaign_ids, by_agent=True)


def _spent(path: str | os.PathLike[str], campaign_ids: Sequence[str], *, by_agent: bool) -> dict[str, Spent]:
    rows = query(
        path,
        f"""
        SELECT {"agent" if by_agent else "''"} AS who, coalesce(sum(attempts), 0)::BIGINT AS calls,
            coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
            coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens,
            coalesce(sum(cost_usd), 0.0)::DOUBLE AS cost_usd,
            count(*) FILTER (cost_usd IS NULL AND status IN ('done', 'superseded')) AS unpriced_calls,
            coalesce(sum(lost_tokens), 0)::BIGINT AS lost_tokens, coalesce(sum(lost_usd), 0.0)::DOUBLE AS lost_usd,
            count(*) FILTER (lost_tokens > 0 AND lost_usd IS NULL) AS unpriced_lost
        FROM calls WHERE list_contains($campaigns, campaign_id)
        GROUP BY who
        """,
        {"campaigns": list(campaign_ids)},
    )
    return {row.pop("who"): Spent(**row) for row in rows}


class Unpriced(NamedTuple):
    """Tokens of one agent's calls to one model whose price was unknown then."""

    agent: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    lost_tokens: int
    calls: int
    """That used, or may have used, such tokens."""


def unpriced(path: str | os.PathLike[str], *campaign_ids: str) -> list[Unpriced]:
    """What has to be priced before a cap in dollars can be held that did not stand when it was spent."""
    rows = query(
        path,
        """
        SELECT agent, model,
            coalesce(sum(prompt_tokens) FILTER (cost_usd IS NULL), 0)::BIGINT AS prompt_tokens,
            coalesce(sum(completion_tokens) FILTER (cost_usd IS NULL), 0)::BIGINT AS completion_tokens,
            coalesce(sum(lost_tokens) FILTER (lost_usd IS NULL), 0)::BIGINT AS lost_tokens,
            count(*) FILTER (
                (cost_usd IS NULL AND status IN ('done', 'superseded')) OR (lost_usd IS NULL AND lost_tokens > 0)
            ) AS calls
        FROM calls WHERE list_contains($campaigns, campaign_id) AND (cost_usd IS NULL OR lost_usd IS NULL)
        GROUP BY agent, model ORDER BY agent, model
        """,
        {"campaigns": list(campaign_ids)},
    )
    return [Unpriced(**row) for row in rows]


def failed_calls(path: str | os.PathLike[str], campaign_id: str) -> int:
    """Calls that failed for good."""
    (row,) = query(path, "SELECT count(*) AS n FROM calls WHERE campaign_id = ? AND status = 'failed'", [campaign_id])
    return int(row["n"])


def finished_dialogues(path: str | os.PathLike[str], campaign_id: str) -> dict[str, str]:
    """`done` or `failed`, by dialogue; those that are to be played again are none."""
    rows = query(
        path, "SELECT dialogue_id, status FROM dialogues WHERE campaign_id = ? AND status <> 'open'", [campaign_id]
    )
    return {row["dialogue_id"]: row["status"] for row in rows}


def open_calls(
    path: str | os.PathLike[str], campaign_id: str, *, dialogue_ids: Sequence[str] | None = None
) -> list[Call]:
    """The calls of dialogues that have not ended, superseded ones left out, in the order in which they began.

    `dialogue_ids`: only of these.
    """
    chosen = "" if dialogue_ids is None else "AND dialogue_id IN (SELECT unnest($dialogues))"
    parameters: dict[str, object] = {"campaign": campaign_id} | (
        {} if dialogue_ids is None else {"dialogues": list(dialogue_ids)}
    )
    with reading(path) as connection:
        cursor = connection.execute(
            f"""
            SELECT {", ".join(Call.model_fields)} FROM calls
            WHERE campaign_id = $campaign AND status <> 'superseded'
                AND dialogue_id NOT IN (SELECT dialogue_id FROM dialogues WHERE campaign_id = $campaign AND status <> 'open')
                {chosen}
            ORDER BY created_at, call_id
            """,
            parameters,
        )
        rows = [dict(zip(Call.model_fields, row, strict=True)) for row in cursor.fetchall()]
    for row in rows:
        row["messages"] = None if row["messages"] is None else messages_of(row["messages"])
        row["parameters"] = orjson.loads(row["parameters"])
    return [Call.model_construct(**row) for row in rows]


def created_at(path: str | os.PathLike[str], campaign_id: str) -> datetime | None:
    """When the campaign was first started; null when it never was."""
    rows = query(path, "SELECT created_at FROM campaigns WHERE campaign_id = ?", [campaign_id])
    return rows[0]["created_at"] if rows else None


class PairBalance(NamedTuple):
    """The pairs of a campaign, those of all its runs."""

    pairs: int
    near_identical: int
    """Whose sides have a similarity of at least NEAR_IDENTICAL."""
    chosen_longer: float | None
    """Share of pairs whose chosen side has more words, equal ones as half; null when none is measured."""


def pair_balance(path: str | os.PathLike[str], campaign_id: str) -> PairBalance:
    (row,) = query(
        path,
        """
        SELECT count(*) AS pairs, count(*) FILTER (similarity >= ?) AS near_identical,
            avg(CASE WHEN length_ratio > 1 THEN 1.0 WHEN length_ratio = 1 THEN 0.5 WHEN length_ratio < 1 THEN 0.0 END)::DOUBLE
                AS chosen_longer
        FROM pairs WHERE campaign_id = ?
        """,
        [NEAR_IDENTICAL, campaign_id],
    )
    return PairBalance(**row)


class Catches(NamedTuple):
    """The queries, or the answers, that a campaign did not let pass, those of all its runs."""

    by_reason: dict[str, int]
    """The most frequent first."""
    by_outcome: dict[str, int]
    places_without_pair: int = 0
    """Places of dialogues that got none; several answers may have been caught at one."""


def catches(path: str | os.PathLike[str], campaign_id: str, *, of_user: bool = True) -> Catches:
    """`of_user`: queries; else answers that could not stand in a pair."""

    def counted(column: str) -> dict[str, int]:
        rows = query(
            path,
            f"""
            SELECT {column} AS what, count(*) AS n FROM caught
            WHERE campaign_id = ? AND (coalesce(agent, 'user') = 'user') = ?
            GROUP BY what ORDER BY n DESC, what
            """,
            [campaign_id, of_user],
        )
        return {row["what"]: row["n"] for row in rows}

    (without,) = query(
        path,
        """
        SELECT count(DISTINCT (dialogue_id, depth)) AS n FROM caught
        WHERE campaign_id = $campaign AND outcome = 'no_pair' AND (dialogue_id, depth) NOT IN (
            SELECT (forked_from, len(turn_ids) - 1) FROM pairs JOIN dialogues ON dialogue_id = chosen_id
            WHERE pairs.campaign_id = $campaign AND forked_from IS NOT NULL
        )
        """,
        {"campaign": campaign_id},
    )
    return Catches(counted("reason"), counted("outcome"), without["n"])


def noted_labels(path: str | os.PathLike[str], campaign_id: str) -> set[str]:
    """The labels that were drawn, by id."""
    rows = query(path, "SELECT label_id FROM labels WHERE campaign_id = ?", [campaign_id])
    return {row["label_id"] for row in rows}


def has_fit(path: str | os.PathLike[str], fit_id: str) -> bool:
    """Whether the corpus knows the fit."""
    return bool(query(path, "SELECT 1 FROM fits WHERE fit_id = ?", [fit_id]))
