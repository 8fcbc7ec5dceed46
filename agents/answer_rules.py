"""What an answer must not be that is to stand in a pair: empty, cut off, a copy of the other, or talk about its making."""

from collections.abc import Collection
from typing import Literal

from store.pairs import similarity
from store.records import Message

AnswerFault = Literal["empty", "cut_off", "near_identical", "speaks_of_editing", "speaks_of_aspects"]


def answer_fault(
    answer: str,
    *,
    first: str | None,
    prompt: str,
    aspects: Collection[str] = (),
    cut_off: bool = False,
    near_identical: float = 0.9,
) -> AnswerFault | None:
    """Why an answer cannot stand in a pair with `first`; null where it can."""
    if not answer.strip():
        return "empty"
    if cut_off:
        return "cut_off"
    if first is not None:
        sides = [[Message(role="assistant", content=text)] for text in (first, answer)]
        if first.split() == answer.split() or similarity(*sides) > near_identical:
            return "near_identical"
    if "revised version" in answer and "revised version" not in prompt:
        return "speaks_of_editing"
    if any(f"{aspect}:" in answer.lower() for aspect in aspects):
        return "speaks_of_aspects"
    return None
