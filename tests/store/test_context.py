"""Which user turns the rules find context-dependent: sentences of our own, with and without something to refer to."""

import random
import re
import time
from collections.abc import Sequence

import pytest

from store.context import (
    CHEAPEST_FIRST,
    MORE,
    MORE_PARTS,
    ONE,
    ONE_PARTS,
    POINTER_PARTS,
    POINTERS,
    SIGNS,
    context_dependent,
    signs_of,
)
from store.records import Message
from tests.scripted import said

BEFORE = [said("user", "Tell me about Paris."), said("assistant", "Paris is the capital of France.")]
ASKED = [said("user", "I need a camera."), said("assistant", "Gladly. What will you use it for?")]


@pytest.mark.parametrize(
    ("query", "sign"),
    [
        ("How old is it?", "pronoun"),
        ("What do they eat?", "pronoun"),
        ("Can you explain how it works?", "pronoun"),
        ("When did he write his first book?", "pronoun"),
        ("In what year was it built?", "pronoun"),
        ("I'm wondering if it's safe for a child.", "pronoun"),
        ("Compare its population with London's.", "pronoun"),
        ("Why is that?", "demonstrative"),
        ("How do these differ from one another?", "demonstrative"),
        ("Can you translate that into French?", "demonstrative"),
        ("How did this theory change physics?", "demonstrative"),
        ("Say your last answer in simpler words.", "pointer"),
        ("You mentioned a river. What is its name?", "pointer"),
        ("Is the former true in winter?", "pointer"),
        ("Do the same for London.", "pointer"),
        ("Tell me about the second one.", "one"),
        ("Which of them is oldest?", "one"),
        ("Give me two more tips.", "more"),
        ("What else should a visitor see?", "more"),
        ("Try again.", "more"),
        ("Another example, please.", "more"),
        ("And the price?", "continuation"),
        ("What about Rome?", "continuation"),
        ("Now, if a third train leaves at noon, when does the last arrive?", "continuation"),
        ("Really? I read it was Lyon.", "correction"),
        ("No, I meant the city in Texas.", "correction"),
        ("I think there's a mistake in the date.", "correction"),
        ("Yes, please.", "reaction"),
        ("I did, but not for long.", "reaction"),
        ("In French.", "fragment"),
        ("Germany", "fragment"),
        ("Why?", "bare"),
        ("Continue.", "bare"),
        ("Can you explain further?", "bare"),
        ("Make it shorter.", "pronoun"),
        ("Which is cheaper?", "comparison"),
        ("It has a flat tail and builds dams.", "statement"),
        ("A friend of mine paid twelve euros.", "statement"),
    ],
)
def test_a_turn_that_points_back_or_leaves_out_is_found(query: str, sign: str) -> None:
    assert sign in signs_of(BEFORE, query)


@pytest.mark.parametrize(
    "query",
    [
        "If it rains in Paris, what can a family with children do?",
        "Write a story about a dog and its owner.",
        "What is the capital of Germany?",
        "My brother wants to learn the piano. How should he begin?",
        "Is it possible to travel from Paris to Lyon by boat?",
        "Why is it important to sleep eight hours?",
        "Which is bigger, Paris or Lyon?",
        "Is Paris bigger than Lyon?",
        "Explain the theory that Einstein published in 1905.",
        "What are people planning for this weekend in Berlin?",
        'Translate this sentence into French: "The weather is fine."',
        "I bought a new phone yesterday. How do I set it up?",
        "When he was young, Mozart travelled through Europe: which courts did the boy visit?",
        "Do identical twins have the same fingerprints?",
        "How do trains cross from one country to another?",
        "Explain why the sky is blue.",
        "Switching topics, who wrote Hamlet?",
        "Is there a better cure for headaches than aspirin?",
        "Yes, could you tell me how far Mars is from the Sun?",
        "What makes it easier to learn a language?",
        "Recommend three books on the history of Rome.",
        "How do volcanoes form?",
        "Can a cat recognise its own name?",
        "What does a basketball player need to be successful?",
    ],
)
def test_a_turn_that_stands_alone_is_left(query: str) -> None:
    assert signs_of(BEFORE, query) == []


@pytest.mark.parametrize("query", ["Why is that?", "And the price?", "In French.", "Yes, please."])
def test_nothing_depends_on_a_context_that_has_no_answer_in_it(query: str) -> None:
    assert not context_dependent([], query)
    assert not context_dependent([said("system", "Be brief."), said("user", "Hello.")], query)
    assert context_dependent(BEFORE, query)


def test_what_the_assistant_asked_for_is_a_reply() -> None:
    assert signs_of(ASKED, "I take pictures of birds mostly.") == ["reply"]
    assert signs_of(ASKED, "Which cameras do photographers of birds use?") == []


def test_a_thing_with_the_that_only_earlier_turns_tell_of_is_definite() -> None:
    before = [said("user", "A school bought 23 volleyballs."), said("assistant", "I see.")]
    assert signs_of(before, "How much did the school spend?") == ["definite"]
    assert signs_of(BEFORE, "How much did the school spend?") == []


def test_an_empty_turn_has_no_signs() -> None:
    assert signs_of(BEFORE, " \n") == []


def test_every_sign_is_found_by_some_turn() -> None:
    turns: list[tuple[list[Message], str]] = [
        (BEFORE, "How old is it, and why is that? Say your last answer, and two more."),
        (BEFORE, "And really, in French?"),
        (BEFORE, "Describe the second one."),
        (BEFORE, "Really?"),
        (BEFORE, "Yes."),
        (BEFORE, "Which is cheaper?"),
        (BEFORE, "A friend paid."),
        (BEFORE, "How much did the capital cost?"),
        (ASKED, "I take pictures."),
        ([said("user", "A school."), said("assistant", "Yes.")], "How much did the school spend?"),
    ]
    assert {sign for before, query in turns for sign in signs_of(before, query)} == set(SIGNS)


def test_long_pasted_texts_cost_no_more_than_their_ends() -> None:
    pasted = "Please correct it: " + "word ( it, this ) 's \n" * 100_000
    start = time.perf_counter()
    signs_of(BEFORE, pasted)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [(POINTERS, POINTER_PARTS), (ONE, ONE_PARTS), (MORE, MORE_PARTS)],
    ids=["pointer", "one", "more"],
)
def test_the_parts_that_are_looked_for_first_leave_nothing_out(pattern: re.Pattern[str], parts: Sequence[str]) -> None:
    """Whatever words of a pattern are put together: where it finds something, a part of it is there."""
    words = sorted(set(re.findall(r"[a-z']+", pattern.pattern.replace("\\b", " ").replace("\\w", " "))))
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(words, k=4)) for _ in range(20_000)]
    found = [text for text in texts if pattern.search(text)]
    assert len(found) > 50
    assert [text for text in found if not any(part in text for part in parts)] == []


def test_whether_a_turn_depends_is_what_its_signs_say() -> None:
    assert len(CHEAPEST_FIRST) == len(SIGNS)
    assert set(CHEAPEST_FIRST) == set(SIGNS.values())
