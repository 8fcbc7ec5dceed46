"""The report of pairs: what they cost and how good they are, of one campaign and method beside others."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from store.database import StoreError, query
from store.pair_views import MAJORITY, ORACLE

OWN_JUDGES = "campaign"
"""The set of verdicts of a campaign's own judges."""


class Noise(NamedTuple):
    """How often a judge, or the majority of a set, finds labels wrong; shares from 0 to 1, null where none can be told."""

    label_set: str
    judge: str
    """A judge of the set, or `majority` for that of all its judges."""
    pairs: int
    """With a verdict."""
    noise: float | None
    """Of pairs of which one can tell."""
    low: float | None
    high: float | None
    tie: float
    """Of all pairs with a verdict."""
    invalid: int


class Lost(NamedTuple):
    """Answers that could not stand in a pair."""

    agent: str
    reason: str
    answers: int
    no_pair: int
    """Of them, those after which no pair came about at that place."""


class MethodReport(NamedTuple):
    """A campaign's pairs of one method."""

    figures: dict[str, Any]
    """The row of the view `pair_report`."""
    diversity: dict[str, Any] | None
    """The row of the view `pair_diversity`."""
    noise: tuple[Noise, ...]
    """By each set of verdicts that is not the campaign's own, the oracle's first; of each its majority, then its judges."""
    lost: tuple[Lost, ...]
    """The most frequent reason first."""
    was_rehearsed: bool
    """Whether the rehearsal played any role."""


def campaigns_with_pairs(
    path: str | os.PathLike[str], campaigns: Sequence[str] = (), method: str | None = None
) -> list[str]:
    """The campaigns, in the order in which they were begun, that make pairs; or those of these ids or names.

    Raises:
        StoreError: no campaign has that id or name, or none has pairs of that method.
    """
    known = query(
        path,
        """
        SELECT campaign_id, name, pairs, method,
            EXISTS (FROM caught WHERE caught.campaign_id = pair_costs.campaign_id AND agent <> 'user') AS caught
        FROM pair_costs JOIN (SELECT campaign_id, created_at FROM campaigns) USING (campaign_id)
        ORDER BY created_at, campaign_id
        """,
    )
    for name in campaigns:
        if not any(name in (row["campaign_id"], row["name"]) for row in known):
            names = ", ".join(dict.fromkeys(row["name"] for row in known)) or "none yet"
            raise StoreError(f"no campaign with the id or name {name!r} makes pairs: there are {names}")
    rows = [row for row in known if not campaigns or row["campaign_id"] in campaigns or row["name"] in campaigns]
    rows = [row for row in rows if method is None or row["method"] == method]
    if not any(row["pairs"] or row["caught"] for row in rows):  # what was caught tells why there are none
        of = "" if method is None else f" of method {method!r}"
        where = f" in {', '.join(campaigns)}" if campaigns else ""
        raise StoreError(
            f"there are no pairs{of}{where} to report on: `descant run` a recipe that makes pairs, such as music or rmboost"
        )
    return list(dict.fromkeys(row["campaign_id"] for row in rows))


def reports_of(
    path: str | os.PathLike[str],
    campaign_ids: Sequence[str],
    method: str | None = None,
    label_sets: Sequence[str] = (),
) -> list[MethodReport]:
    """What is known of these campaigns' pairs, by each set of verdicts or by these alone.

    Raises:
        StoreError: nobody judged pairs under such a name.
    """
    chosen = {"campaigns": list(campaign_ids), "method": method}
    where = "list_contains($campaigns, campaign_id) AND ($method IS NULL OR method = $method)"
    noise = query(
        path,
        f"""
        SELECT campaign_id, method, {", ".join(_COUNTED)}
        FROM label_noise WHERE label_set <> '{OWN_JUDGES}' AND {where}
        ORDER BY label_set <> '{ORACLE}', label_set, judge <> '{MAJORITY}', judge
        """,
        chosen,
    )
    known = sorted({row["label_set"] for row in noise})
    if missing := [name for name in label_sets if name not in known]:
        raise StoreError(
            f"no pair here has verdicts of a set {missing[0]!r}: there are {', '.join(known) or 'none'}; "
            "`descant judge pairwise --set name=NAME` makes one"
        )
    lost = query(
        path,
        """
        SELECT campaign_id, agent, reason, count(*) AS answers, count(*) FILTER (outcome = 'no_pair') AS no_pair
        FROM caught WHERE agent <> 'user' AND list_contains($campaigns, campaign_id)
        GROUP BY campaign_id, agent, reason ORDER BY answers DESC, agent, reason
        """,
        {"campaigns": list(campaign_ids)},
    )
    diversity = {
        (row["campaign_id"], row["method"]): row
        for row in query(path, f"SELECT * FROM pair_diversity WHERE {where}", chosen)
    }
    rehearsed = {
        row["campaign_id"]
        for row in query(path, "SELECT DISTINCT campaign_id FROM calls WHERE contains(model, 'rehearsal/')")
    }
    rows = query(
        path,
        f"""
        SELECT pair_report.* FROM pair_report JOIN (SELECT campaign_id, created_at FROM campaigns) USING (campaign_id)
        WHERE {where} ORDER BY created_at, campaign_id, method
        """,
        chosen,
    )
    return [
        MethodReport(
            figures=row,
            diversity=diversity.get((row["campaign_id"], row["method"])),
            noise=tuple(
                Noise(*(given[name] for name in Noise._fields))
                for given in noise
                if (given["campaign_id"], given["method"]) == (row["campaign_id"], row["method"])
                and (not label_sets or given["label_set"] in label_sets)
            ),
            lost=tuple(
                Lost(loss["agent"], loss["reason"], loss["answers"], loss["no_pair"])
                for loss in lost
                if loss["campaign_id"] == row["campaign_id"]
            ),
            was_rehearsed=row["campaign_id"] in rehearsed,
        )
        for row in rows
    ]


_COUNTED = ("label_set", "judge", "pairs", "noise", "low", "high", "tie / pairs AS tie", "invalid")


def to_json(reports: Sequence[MethodReport]) -> list[dict[str, Any]]:
    """The same in JSON's own types."""
    return [
        {
            **report.figures,
            "diversity": report.diversity,
            "noise": [noise._asdict() for noise in report.noise],
            "lost": [lost._asdict() for lost in report.lost],
            "was_rehearsed": report.was_rehearsed,
        }
        for report in reports
    ]
