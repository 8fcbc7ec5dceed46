"""What `descant report` measures once and keeps: how varied pairs are, and the true labels of rehearsed ones.

The oracle is asked afterwards, never on the way: its verdicts stand beside the judges' as a set of their own.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.rehearsal.oracle import TurnGrade, better, grade
from store.identity import judgement_id
from store.pair_figures import (
    method_stats,
    pair_stats,
    rehearsed_pairs,
    sides_of,
    unmeasured_methods,
    unmeasured_pairs,
)
from store.pair_views import ORACLE
from store.pairs import first_divergent_turn
from store.records import Judgement, Message, Record
from store.writer import write_through

ORACLE_MODEL = "rehearsal/oracle"


def measure_pairs(database: Path, campaign_ids: Sequence[str]) -> int:
    """Keeps what is missing of these campaigns' pairs; how many pairs were measured. Nothing is measured twice.

    A pair's own figures are written after its true label, so that one without them was not asked about.
    """
    pairs = unmeasured_pairs(database, campaign_ids)
    methods = unmeasured_methods(database, campaign_ids)
    records: list[Record] = []
    if pairs:
        records += true_labels(database, pairs)
        records += pair_stats(database, pairs)
    records += (method_stats(database, missing) for missing in methods)
    if records:
        write_through(database, records)
    return len(pairs)


def true_labels(database: Path, pair_ids: Sequence[str]) -> Iterator[Judgement]:
    """The oracle's verdict on each of these pairs that is of the rehearsal's world; none where it cannot tell."""
    for pair in sides_of(database, rehearsed_pairs(database, pair_ids)):
        verdict = true_label(pair.chosen, pair.rejected)
        if verdict is not None:
            yield Judgement(
                judgement_id=judgement_id(ORACLE, pair.pair_id, None, ORACLE_MODEL, "single"),
                label_set=ORACLE,
                pair_id=pair.pair_id,
                judge_model=ORACLE_MODEL,
                rubric=ORACLE,
                presentation="single",
                verdict=verdict,
                judge=ORACLE_MODEL,
            )


def true_label(chosen: Sequence[Message], rejected: Sequence[Message]) -> str | None:
    """`chosen`, `rejected` or `tie`; null where an answer is unknown to the oracle.

    Two answers to one history are held against each other. Of conversations that part earlier, the share of right
    answers decides, from the first difference on.
    """
    start = first_divergent_turn(chosen, rejected)
    if start is None:
        return None
    if chosen[:-1] == rejected[:-1]:
        said = better(chosen[:-1], chosen[-1].content, rejected[-1].content)
        return {"first": "chosen", "second": "rejected", "tie": "tie", "unknown": None}[said]
    one, other = (_share_right(grade(side)[start - 1 :]) for side in (chosen, rejected))
    if one is None or other is None:
        return None
    return "tie" if one == other else "chosen" if one > other else "rejected"


def _share_right(grades: Sequence[TurnGrade]) -> float | None:
    if not grades or any(turn.verdict == "unknown" for turn in grades):
        return None
    return sum(turn.verdict == "right" for turn in grades) / len(grades)
