"""Whether the rehearsal finds a query that depends on its conversation: exactly in its world, as a stand-in outside it."""

from collections.abc import Sequence
from random import Random

import orjson
import pytest

from agents.prompts import CONTEXT_VARIABLES, VARIABLES, Prompts, transcript
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.depends import depends
from store.records import Message
from tests.scripted import said

PROMPTS = Prompts(variables=VARIABLES | CONTEXT_VARIABLES)
WORLD = [
    said("user", "Call me Ilse. Belo is red and big. Kira is blue and small. What is the colour of Belo?"),
    said("assistant", "Ilse, it is red."),
]
OUTSIDE = [said("user", "How do volcanoes form under the ocean?"), said("assistant", "Magma rises between plates.")]
SURE = Behaviour(judge_error_rate=0.0)


def judged(before: Sequence[Message], query: str, behaviour: Behaviour = SURE, seed: int = 0) -> bool:
    prompt = PROMPTS.render("depends", transcript=transcript(before), query=query)
    answer = orjson.loads(depends(prompt, Random(seed), behaviour))
    assert answer["rationale"]
    return bool(answer["depends"])


@pytest.mark.parametrize(
    "query", ["What is its size?", "And the size?", "And Kira?", "It is blue now.", "Good.", "Fine. And its size?"]
)
def test_in_the_world_what_is_left_out_depends(query: str) -> None:
    assert judged(WORLD, query)


@pytest.mark.parametrize(
    "query",
    ["What is the size of Belo?", "Belo is blue now.", "Which size has Kira?", "Kira is red. What is its colour?"],
)
def test_in_the_world_what_is_named_stands_alone(query: str) -> None:
    assert not judged(WORLD, query)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Why is that?", True),
        ("Go on.", True),
        ("How hot do volcanoes get?", False),
        ("Which planets, moons, comets, asteroids and distant galaxies have astronomers photographed recently?", False),
    ],
)
def test_outside_the_world_telling_words_decide(query: str, expected: bool) -> None:
    assert judged(OUTSIDE, query) == expected


def test_its_errors_are_as_many_as_it_is_told_to_make() -> None:
    wrong = sum(not judged(WORLD, "And the size?", Behaviour(judge_error_rate=0.2), seed) for seed in range(500))
    assert 60 < wrong < 140
