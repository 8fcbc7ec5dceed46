"""What two conversations of a preference pair have in common: a pure function of their messages."""

from collections.abc import Sequence

from store.records import Message


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
