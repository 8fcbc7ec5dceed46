"""The oracle: grades a rehearsal transcript exactly, answer by answer, from what its user turns say, and tells which of two answers is better.

It is the ground truth of the lab and of tests, of the closed world alone: of all else it says `unknown`. No role asks it:
verifying a perturbation is a model call like any other.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from agents.rehearsal.reading import Memory, Question, read_answer, remember
from agents.rehearsal.world import ATTRIBUTE_OF_VALUE, Answer
from store.records import Message

Reason = Literal[
    "right",
    "wrong attribute",
    "wrong entity",
    "wrong value",
    "stale fact",
    "missing value",
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


class Fault(NamedTuple):
    """One thing that is wrong with an answer."""

    reason: Reason
    part: str
    """What it is about: an attribute, `name` or `opener`; of an answer to a message that asks nothing, `answer`."""


Better = Literal["first", "second", "tie", "unknown"]


def faults_of(messages: Sequence[Message]) -> tuple[Fault, ...] | None:
    """What is wrong with the answer that the messages end on, each part by itself; None where that is unknown."""
    memory = remember(messages[:-1])
    answer = read_answer(messages[-1].content)
    return None if answer is None or memory.is_outside else faults_in(memory, answer)


def better(history: Sequence[Message], one: str, other: str) -> Better:
    """Which of two answers to a history that ends on the user is better: the one with fewer faults."""
    found = [faults_of([*history, Message(role="assistant", content=content)]) for content in (one, other)]
    if found[0] is None or found[1] is None:
        return "unknown"
    difference = len(found[0]) - len(found[1])
    return "tie" if difference == 0 else "first" if difference < 0 else "second"


def _grade_turn(turn: int, memory: Memory, content: str) -> TurnGrade:
    answer = read_answer(content)
    if answer is None or memory.is_outside:
        return TurnGrade(turn, "unknown", ("outside the world",), "")
    reasons = faults(memory, answer)
    return TurnGrade(turn, "wrong" if reasons else "right", reasons or ("right",), _in_words(memory.right_answer()))


def faults(memory: Memory, answer: Answer) -> tuple[Reason, ...]:
    """Why an answer to the last message that `memory` heard is wrong, each reason once; empty when it is right."""
    return tuple(dict.fromkeys(fault.reason for fault in faults_in(memory, answer)))


def faults_in(memory: Memory, answer: Answer) -> tuple[Fault, ...]:
    """All that is wrong with an answer to the last message that `memory` heard."""
    expected = memory.right_answer()
    found = _value_faults(memory, answer, expected)
    found += [
        Fault("standing instruction broken", part)
        for part, said, wanted in (("name", answer.name, expected.name), ("opener", answer.opener, expected.opener))
        if said != wanted
    ]
    return tuple(found)


def parts(memory: Memory) -> int:
    """How much can be wrong with an answer to the last message, invented facts apart: its values and the standing instructions."""
    expected = memory.right_answer()
    return max(1, len(expected.said)) + (expected.name is not None) + (expected.opener is not None)


def _value_faults(memory: Memory, answer: Answer, expected: Answer) -> list[Fault]:
    """Of a description each value counts, said or missing; the order in which they stand does not."""
    question = memory.question
    if answer.is_noted != expected.is_noted and not (answer.said or expected.said):
        return [Fault("no answer", question.attribute if question else "answer")]
    wrong = [value for value in answer.said if value not in expected.said]
    found = [Fault(_reason(memory, value), ATTRIBUTE_OF_VALUE[value]) for value in wrong]
    if question is None or (found and not memory.describes):
        return found
    spoken_of = {ATTRIBUTE_OF_VALUE[value] for value in answer.said}
    reason: Reason = "missing value" if answer.said else "no answer"
    missing = [ATTRIBUTE_OF_VALUE[value] for value in expected.said]
    return found + [Fault(reason, attribute) for attribute in missing if attribute not in spoken_of]


def _reason(memory: Memory, value: str) -> Reason:
    """Why a value that was not asked for, or does not hold, is wrong."""
    if memory.question is None:
        return "invented fact"
    told, thing = ATTRIBUTE_OF_VALUE[value], memory.question.thing
    if not memory.describes and told != memory.question.attribute:
        return "wrong attribute"
    if value in memory.facts.get(thing, {}).get(told, ()):
        return "stale fact"
    if any(known.get(told, [None])[-1] == value for known in memory.facts.values()):
        return "wrong entity"
    return "wrong value" if memory.value(Question(told, thing)) else "invented fact"


def _in_words(expected: Answer) -> str:
    said = "noted" if expected.is_noted else ", ".join(expected.said) or "not known"
    parts = [
        said,
        f"called {expected.name}" if expected.name else "",
        f"begun with {expected.opener}" if expected.opener else "",
    ]
    return ", ".join(filter(None, parts))
