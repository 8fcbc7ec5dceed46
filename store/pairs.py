"""What two conversations of a preference pair have in common, and what judges' verdicts on them come to: pure functions."""

import re
from collections.abc import Sequence

from store.records import Message
from store.rouge import lcs_f1

NEAR_IDENTICAL = 0.9
"""Similarity from which on two sides hardly differ: ours."""
WORD = re.compile(r"\w+")


def first_divergent_turn(chosen: Sequence[Message], rejected: Sequence[Message]) -> int | None:
    """Which assistant answer is the first that is not the same after the same history, from 1.

    Null when there is none: the sides are equal, or one is the beginning of the other.
    """
    answers = 0
    for one, other in zip(chosen, rejected, strict=False):
        if one != other:
            return answers + 1
        answers += one.role == "assistant"
    return None


def similarity(chosen: Sequence[Message], rejected: Sequence[Message]) -> float:
    """How like the sides are from the first difference on, all roles: ROUGE-L F1 (Lin 2004, section 3.1), from 0 to 1.

    Tokens are words in lower case, of any script; 1.0 where neither side has any.
    """
    start = next(
        (place for place, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other), None
    )
    start = min(len(chosen), len(rejected)) if start is None else start
    one, other = (
        [word for message in side[start:] for word in WORD.findall(message.content.lower())]
        for side in (chosen, rejected)
    )
    return lcs_f1(one, other) if one or other else 1.0


def length_ratio(chosen: Sequence[Message], rejected: Sequence[Message]) -> float | None:
    """Words of the whole chosen conversation by words of the rejected one; null when that one has none."""
    one, other = (sum(len(message.content.split()) for message in side) for side in (chosen, rejected))
    return one / other if other else None


def settled(first: str, second: str) -> str:
    """One label from a judge's verdicts in both orders: a verdict that flips with the order is a tie."""
    if first == second:
        return first
    return "invalid" if "invalid" in (first, second) else "tie"


def majority(labels: Sequence[str]) -> str | None:
    """What most judges say, `invalid` ones left out; `tie` when there is no such label, null when nobody could say."""
    valid = [label for label in labels if label != "invalid"]
    if not valid:
        return None
    most = max(map(valid.count, valid))
    winners = {label for label in valid if valid.count(label) == most}
    return winners.pop() if len(winners) == 1 else "tie"
