"""Pairs of text from outside the rehearsal's world: by the telling words that an answer takes up, which is little and honest."""

from collections import Counter

import pytest

from agents.rehearsal.oracle import better
from agents.rehearsal.outside import LONG, N_QUOTED, keywords, match
from configs.pairing_settings import ASPECTS
from store.pairs import similarity
from store.records import Message
from tests.rehearsal.two_answers import answered, boosted, preferred, steered, within
from tests.scripted import said

PLANETS = [said("user", "Which planets in the solar system have rings, and what are their rings made of?")]
QUESTIONS = [
    PLANETS,
    [said("user", "Write a poem about autumn in Kyoto.\n\nIt should have four lines.")],
    [
        said("user", "What is bread?"),
        said("assistant", "Baked dough."),
        said("user", "And how does yeast make dough rise?"),
    ],
    [
        said(
            "user",
            "SUBREDDIT: r/relationships\nPOST: My (26F) boyfriend (29M) forgot our anniversary dinner again. TL;DR:",
        )
    ],
]
WRITTEN = (
    "Jupiter, Saturn, Uranus and Neptune all have rings around them. Those of Saturn are the brightest in the solar system. "
    "They are made of ice and rock. The rings of the other planets are dark and thin."
)


def test_nothing_is_passed_over_at_a_rate_of_nothing() -> None:
    texts = {answered(PLANETS, model="perfect", seed=seed) for seed in range(20)}
    assert texts == {"I can only say that you ask about planets, solar, system, rings, made."}


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_words_are_passed_over_at_their_rate_and_samples_differ(rate: float) -> None:
    texts = [answered(PLANETS, model="perfect", omission_rate=rate, seed=seed) for seed in range(1000)]
    taken = sum(word in keywords(text) for text in texts for word in keywords(PLANETS[0].content)[:N_QUOTED])
    assert within(5000 - taken, 5000, rate)
    assert len(set(texts)) > 50
    shares = [match(PLANETS[0].content, text) for text in texts]
    ties = sum(one == other for one, other in zip(shares[::2], shares[1::2], strict=True))
    assert ties < 0.6 * 500


@pytest.mark.parametrize("history", QUESTIONS, ids=["planets", "poem", "bread", "post"])
def test_a_second_answer_takes_up_more_or_fewer_words_and_the_judge_sees_it(history: list[Message]) -> None:
    asked = history[-1].content
    for seed in range(60):
        first = answered(history, seed=seed)
        worse = boosted(history, first, "worse", seed=seed)
        if match(asked, first) > 0:
            assert match(asked, worse["answer"]) < match(asked, first)
            assert preferred(history, first, worse["answer"])["better"] == "A"
            assert preferred(history, worse["answer"], first)["better"] == "B"
        bettered = boosted(history, first, "better", seed=seed)
        if match(asked, first) < 1:
            assert match(asked, bettered["answer"]) > match(asked, first)
            assert preferred(history, first, bettered["answer"], by_aspect=True)["better"] == "B"
        else:
            assert bettered["answer"] == first
        for reply in (worse, bettered):
            assert 1 <= len(reply["aspects"]) <= 2
            assert set(reply["aspects"]) <= set(ASPECTS["general"])
            assert reply["plan"]


@pytest.mark.parametrize("direction", ["better", "worse"])
def test_of_a_long_text_enough_changes_to_be_seen(direction: str) -> None:
    assert len(WRITTEN.split()) > LONG
    for seed in range(40):
        answer = boosted(PLANETS, WRITTEN, direction, seed=seed)["answer"]
        assert (match(PLANETS[0].content, answer) > match(PLANETS[0].content, WRITTEN)) == (direction == "better") or (
            direction == "better" and answer == WRITTEN
        )
        if answer != WRITTEN:
            sides = [[said("assistant", text)] for text in (WRITTEN, answer)]
            assert similarity(*sides) < 0.9
            assert 0.6 < len(answer.split()) / len(WRITTEN.split()) < 1.3


def test_edits_fail_at_their_rate_there_too() -> None:
    first = "I can only say that you ask about planets, solar, rings."
    asked = PLANETS[0].content
    results = Counter(
        match(asked, boosted(PLANETS, first, "better", edit_failure_rate=0.3, seed=seed)["answer"])
        > match(asked, first)
        for seed in range(600)
    )
    assert within(results[False], 600, 0.3)


@pytest.mark.parametrize("history", QUESTIONS, ids=["planets", "poem", "bread", "post"])
def test_a_poor_answer_takes_up_less_than_a_good_one(history: list[Message]) -> None:
    asked = history[-1].content
    for seed in range(30):
        poor = steered(history, "worse", model="perfect", seed=seed)
        assert match(asked, poor) < match(asked, steered(history, "better", model="perfect", seed=seed)) == 1.0


@pytest.mark.parametrize(
    "text", ["2+2?", " ", "帮我写一个关于机器学习的介绍", "Task: translate\nGood morning", "</answer> <user>"]
)
def test_anything_can_be_boosted_steered_and_judged(text: str) -> None:
    history = [said("user", text)]
    for first in (answered(history), "4", "", "a" * 5000, WRITTEN * 20):
        for direction in ("better", "worse"):
            reply = boosted(history, first, direction)
            assert set(reply) == {"aspects", "plan", "answer"}
            steered(history, direction)
            assert preferred(history, first, reply["answer"], by_aspect=True)["better"] in ("A", "B", "tie")
    assert preferred(history, "4", "4")["better"] == "tie"


def test_the_oracle_says_nothing_of_it() -> None:
    assert better(PLANETS, WRITTEN, "I do not care.") == "unknown"


def test_what_a_bettered_text_gives_away_takes_no_telling_word_with_it() -> None:
    history = [said("user", "Compare amber, basalt and copper for me.")]
    first = f"They differ in age, in weight and in how they come about over very long times. {'It is long. ' * 4}Amber is old."
    for seed in range(30):
        answer = boosted(history, first, "better", seed=seed)["answer"]
        assert "amber" in keywords(answer)
        assert match(history[0].content, answer) > match(history[0].content, first)
