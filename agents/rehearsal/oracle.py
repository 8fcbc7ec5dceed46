"""The oracle: grades a rehearsal transcript exactly, answer by answer, from what its user turns say.

It is the ground truth of the lab and of tests. No role asks it: verifying a perturbation is a model call like any other.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from agents.rehearsal.reading import Memory, read_answer
from agents.rehearsal.world import ATTRIBUTE_OF_VALUE, Answer
from store.records import Message

Reason = Literal[
    "right",
    "wrong attribute",
    "wrong entity",
    "wrong value",
    "stale fact",
    "no answer",
    "invented fact",
    "standing instruction broken",
    "outside the world",
]


class TurnGrade(NamedTuple):
    """The grade of one assistant turn."""

    turn: int
    """Which assistant turn, from 1."""
    verdict: Literal["right", "wrong", "unknown"]
    reasons: tuple[Reason, ...]
    """All that is wrong with it; `("right",)` or `("outside the world",)` otherwise."""
    expected: str
    """In words what a right answer says; empty when unknown."""


def grade(messages: Sequence[Message]) -> list[TurnGrade]:
    """One grade for every assistant turn of a transcript."""
    memory = Memory()
    grades: list[TurnGrade] = []
    for message in messages:
        if message.role == "assistant":
            grades.append(_grade_turn(len(grades) + 1, memory, message.content))
        else:
            memory.hear(message.content)
    return grades


def _grade_turn(turn: int, memory: Memory, content: str) -> TurnGrade:
    answer = read_answer(content)
    if answer is None or memory.is_outside:
        return TurnGrade(turn, "unknown", ("outside the world",), "")
    reasons = faults(memory, answer)
    return TurnGrade(turn, "wrong" if reasons else "right", reasons or ("right",), _in_words(memory.right_answer()))


def faults(memory: Memory, answer: Answer) -> tuple[Reason, ...]:
    """What is wrong with an answer to the last message that `memory` heard; empty when it is right."""
    expected = memory.right_answer()
    found: list[Reason] = []
    if (answer.value, answer.is_noted) != (expected.value, expected.is_noted):
        found.append(_value_fault(memory, answer))
    if (answer.name, answer.opener) != (expected.name, expected.opener):
        found.append("standing instruction broken")
    return tuple(found)


def _value_fault(memory: Memory, answer: Answer) -> Reason:
    if answer.value is None or memory.question is None:
        return "no answer" if answer.value is None else "invented fact"
    attribute, thing = memory.question
    if ATTRIBUTE_OF_VALUE[answer.value] != attribute:
        return "wrong attribute"
    if answer.value in memory.facts.get(thing, {}).get(attribute, ()):
        return "stale fact"
    if any(known.get(attribute, [None])[-1] == answer.value for known in memory.facts.values()):
        return "wrong entity"
    return "wrong value" if memory.value(memory.question) else "invented fact"


def _in_words(expected: Answer) -> str:
    said = "noted" if expected.is_noted else expected.value or "not known"
    parts = [
        said,
        f"called {expected.name}" if expected.name else "",
        f"begun with {expected.opener}" if expected.opener else "",
    ]
    return ", ".join(filter(None, parts))
