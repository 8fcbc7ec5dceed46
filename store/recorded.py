"""What the playings of earlier campaigns have used: the calls of every seed and trial that came to its end, by role."""

import os
from collections import defaultdict
from typing import Any, NamedTuple

import orjson

from store.database import query


class RecordedUse(NamedTuple):
    """What one role's calls to one model have used while a seed was played."""

    agent: str
    model: str
    calls: int
    """Requests sent, retries included."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Null: the price of some answered call is unknown."""
    seconds: float
    """Of waiting for answers, one after the other."""
    lost_tokens: int = 0
    """At most so many more, for requests that brought no answer."""
    lost_usd: float | None = 0.0
    """Null: the price of some of them is unknown."""


def recorded_playings(path: str | os.PathLike[str], campaign_id: str) -> dict[tuple[str, int], list[RecordedUse]]:
    """By seed and trial, of those in which no dialogue is open; calls that were superseded are left out.

    The order is that of the ids, which is none: whoever takes the first few draws by chance.
    """
    rows = query(
        path,
        """
        WITH playings AS (
            SELECT seed_id, trial FROM dialogues WHERE campaign_id = $campaign
            GROUP BY seed_id, trial HAVING bool_and(status <> 'open')
        ), owners AS (
            SELECT dialogue_id, seed_id, trial FROM dialogues JOIN playings USING (seed_id, trial)
            WHERE campaign_id = $campaign
        )
        SELECT seed_id, trial, agent, model,
            sum(attempts)::BIGINT AS calls,
            coalesce(sum(prompt_tokens), 0)::BIGINT AS prompt_tokens,
            coalesce(sum(completion_tokens), 0)::BIGINT AS completion_tokens,
            CASE WHEN count(*) FILTER (calls.status = 'done' AND cost_usd IS NULL) = 0
                 THEN coalesce(sum(cost_usd), 0.0) END::DOUBLE AS cost_usd,
            coalesce(sum(latency_ms), 0.0)::DOUBLE / 1000 AS seconds,
            coalesce(sum(lost_tokens), 0)::BIGINT AS lost_tokens,
            CASE WHEN count(*) FILTER (lost_tokens > 0 AND lost_usd IS NULL) = 0
                 THEN coalesce(sum(lost_usd), 0.0) END::DOUBLE AS lost_usd
        FROM owners LEFT JOIN (
            FROM calls WHERE campaign_id = $campaign AND calls.status IN ('done', 'failed')
        ) AS calls USING (dialogue_id)
        GROUP BY seed_id, trial, agent, model
        ORDER BY seed_id, trial, agent, model
        """,
        {"campaign": campaign_id},
    )
    found: dict[tuple[str, int], list[RecordedUse]] = defaultdict(list)
    for row in rows:
        playing = found[row.pop("seed_id"), row.pop("trial")]
        if row["agent"] is not None:  # a dialogue without a call of its own, such as a candidate that was not picked
            playing.append(RecordedUse(**row))
    return dict(found)


class RecordedCampaign(NamedTuple):
    """A campaign of the corpus, as it was set up."""

    campaign_id: str
    name: str
    config: dict[str, Any]
    ended: int
    """Dialogues that came to their end."""


def recorded_campaigns(path: str | os.PathLike[str], recipe: str) -> list[RecordedCampaign]:
    """The campaigns of a recipe in which anything was played to its end, the fullest first."""
    rows = query(
        path,
        """
        SELECT campaign_id, any_value(campaigns.name) AS name, any_value(config) AS config,
            count(*) FILTER (dialogues.status <> 'open') AS ended
        FROM campaigns JOIN dialogues USING (campaign_id) WHERE recipe = ?
        GROUP BY campaign_id HAVING ended > 0 ORDER BY ended DESC, campaign_id
        """,
        [recipe],
    )
    return [RecordedCampaign(**{**row, "config": orjson.loads(row["config"])}) for row in rows]
