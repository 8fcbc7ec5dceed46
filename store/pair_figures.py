"""The figures of pairs that SQL cannot count: which are missing, and what they come to. Reads the corpus, writes nothing."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import duckdb

from store.database import reading
from store.diversity import between, distinct, words
from store.queries import messages_of
from store.records import Message, MethodStats, PairStats

ANSWERS_APART = """
    SELECT pair_id, side, turn_id, seed_id, content
    FROM (
        SELECT pair_id, side, turn_id, path.seed_id, content, list_contains(others, turn_id) AS shared,
            first_divergent_turn, row_number() OVER (PARTITION BY pair_id, side ORDER BY place) AS answer
        FROM (
            SELECT pair_id, side, seed_id, others, first_divergent_turn, unnest(turn_ids) AS turn_id,
                generate_subscripts(turn_ids, 1) AS place
            FROM (
                SELECT pair_id, 'chosen' AS side, good.seed_id, good.turn_ids, bad.turn_ids AS others, first_divergent_turn
                FROM wanted
                JOIN dialogues AS good ON good.dialogue_id = chosen_id
                JOIN dialogues AS bad ON bad.dialogue_id = rejected_id
                UNION ALL
                SELECT pair_id, 'rejected', bad.seed_id, bad.turn_ids, good.turn_ids, first_divergent_turn
                FROM wanted
                JOIN dialogues AS good ON good.dialogue_id = chosen_id
                JOIN dialogues AS bad ON bad.dialogue_id = rejected_id
            )
        ) AS path JOIN turns USING (turn_id)
        WHERE role = 'assistant'
    )
    WHERE NOT shared AND answer >= first_divergent_turn
"""
"""Of the pairs `wanted`, the answers in which the two sides differ: from `first_divergent_turn` on, those turns of a side that are
not turns of the other one too. Where both sides go through the same turn (a trunk, or text that they share later), neither has
it here. Rows are (pair_id, side, turn_id, seed_id, content)."""


class Unmeasured(NamedTuple):
    """A campaign's pairs of one method whose figures are missing or of old."""

    campaign_id: str
    method: str
    pairs: int
    pairs_hash: str


class Sides(NamedTuple):
    """A pair's two conversations."""

    pair_id: str
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


def unmeasured_pairs(path: str | os.PathLike[str], campaign_ids: Sequence[str]) -> list[str]:
    """The pairs of these campaigns without figures, in order."""
    with reading(path) as connection:
        rows = connection.execute(
            "SELECT pair_id FROM pairs ANTI JOIN pair_stats USING (pair_id) WHERE list_contains(?, campaign_id) ORDER BY 1",
            [list(campaign_ids)],
        ).fetchall()
    return [row[0] for row in rows]


def pair_stats(path: str | os.PathLike[str], pair_ids: Sequence[str]) -> Iterator[PairStats]:
    """What each of these pairs comes to."""
    found: dict[str, dict[str, list[list[str]]]] = {pair: {"chosen": [], "rejected": []} for pair in pair_ids}
    with reading(path) as connection:
        _want(connection, pair_ids)
        for pair, side, content in connection.execute(
            f"SELECT pair_id, side, content FROM ({ANSWERS_APART})"
        ).fetchall():
            found[pair][side].append(words(content))
    for pair, sides in found.items():
        both = [*sides["chosen"], *sides["rejected"]]
        yield PairStats(
            pair_id=pair,
            chosen_words=sum(map(len, sides["chosen"])),
            rejected_words=sum(map(len, sides["rejected"])),
            distinct_1=distinct(both, 1),
            distinct_2=distinct(both, 2),
        )


def unmeasured_methods(path: str | os.PathLike[str], campaign_ids: Sequence[str]) -> list[Unmeasured]:
    """What came anew in these campaigns since it was measured, or never was."""
    with reading(path) as connection:
        rows = connection.execute(
            """
            SELECT campaign_id, method, counted.pairs, counted.pairs_hash FROM (
                SELECT campaign_id, method, count(*) AS pairs, md5(string_agg(pair_id, ' ' ORDER BY pair_id)) AS pairs_hash
                FROM pairs WHERE list_contains(?, campaign_id) GROUP BY campaign_id, method
            ) AS counted
            ANTI JOIN method_stats USING (campaign_id, method, pairs_hash)
            ORDER BY ALL
            """,
            [list(campaign_ids)],
        ).fetchall()
    return [Unmeasured(*row) for row in rows]


def method_stats(path: str | os.PathLike[str], missing: Unmeasured) -> MethodStats:
    """How varied the answers of these pairs are; chance hangs on the campaign and the method alone."""
    answers: dict[str, list[str]] = defaultdict(list)
    with reading(path) as connection:
        connection.execute(
            "CREATE TEMP TABLE wanted AS SELECT pair_id, chosen_id, rejected_id, first_divergent_turn FROM pairs "
            "WHERE campaign_id = ? AND method = ?",
            [missing.campaign_id, missing.method],
        )
        for seed, content in connection.execute(
            f"SELECT seed_id, any_value(content) FROM ({ANSWERS_APART}) GROUP BY seed_id, turn_id ORDER BY seed_id, turn_id"
        ).fetchall():
            answers[seed].append(content)
    found = between(answers, random_seed=f"{missing.campaign_id} {missing.method}")
    figures = {
        f"{name}{end}": value
        for name in ("self_rouge", "distinct_1", "distinct_2")
        for end, value in zip(("", "_low", "_high"), getattr(found, name), strict=True)
    }
    return MethodStats(**missing._asdict(), seeds=len(answers), samples=found.samples, **figures)


def sides_of(path: str | os.PathLike[str], pair_ids: Sequence[str]) -> Iterator[Sides]:
    """The conversations of these pairs."""
    with reading(path) as connection:
        rows = connection.execute(
            """
            SELECT pair_id, chosen, rejected
            FROM preference_pairs SEMI JOIN (SELECT unnest(?) AS pair_id) USING (pair_id) ORDER BY pair_id
            """,
            [list(pair_ids)],
        ).fetchall()
    return (Sides(pair, messages_of(chosen), messages_of(rejected)) for pair, chosen, rejected in rows)


def rehearsed_pairs(path: str | os.PathLike[str], pair_ids: Sequence[str]) -> list[str]:
    """Those of these pairs that start from the rehearsal's own seeds, or in whose campaign the rehearsal played."""
    with reading(path) as connection:
        _want(connection, pair_ids)
        rows = connection.execute(
            """
            SELECT pair_id FROM wanted JOIN dialogues ON dialogue_id = chosen_id LEFT JOIN seeds USING (seed_id)
            WHERE seeds.source = 'rehearsal'
                OR campaign_id IN (SELECT campaign_id FROM calls WHERE contains(model, 'rehearsal/'))
            ORDER BY 1
            """
        ).fetchall()
    return [row[0] for row in rows]


def _want(connection: duckdb.DuckDBPyConnection, pair_ids: Sequence[str]) -> None:
    """Makes `wanted`: the pairs that a query is about."""
    connection.execute(
        "CREATE TEMP TABLE wanted AS SELECT pair_id, chosen_id, rejected_id, first_divergent_turn FROM pairs "
        "SEMI JOIN (SELECT unnest(?) AS pair_id) USING (pair_id)",
        [list(pair_ids)],
    )
