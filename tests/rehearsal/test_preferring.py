"""The judge of two answers: by faults, overall and by aspect, and how it errs."""

from collections import Counter

import pytest

from agents.rehearsal.oracle import better
from agents.rehearsal.world import WORLDS, generate_seeds
from configs.pairing_settings import ASPECTS
from tests.rehearsal.two_answers import GENERAL, answered, played, preferred, within
from tests.scripted import said

OPENING = said("user", "Call me Vera. Belo is red, big, old, light and round. Describe Belo.")
RIGHT = "It is red, big, old, light and round, Vera."
SIDES = {"first": "A", "second": "B", "tie": "tie"}


@pytest.mark.parametrize("world", WORLDS)
def test_a_judge_without_error_says_what_the_oracle_says(world: str) -> None:
    found = Counter[str]()
    for place, seed in enumerate(generate_seeds(400, 31, WORLDS[world])):  # type: ignore[index]
        history = played(seed, 1 + place % 3)
        if history[-1].content == "[END]":
            continue
        a, b = (answered(history, seed=n) for n in (1, 2))
        verdict = preferred(history, a, b)["better"]
        assert verdict == SIDES[better(history, a, b)]
        found[verdict] += 1
    assert set(found) == {"A", "B", "tie"}


@pytest.mark.parametrize(
    ("answer", "worse_in"),
    [
        ("It is blue, big, old, light and round, Vera.", {"honesty", "truthfulness"}),
        ("It is big, old, light and round, Vera.", {"helpfulness"}),
        ("It is red, big, old, light and round, Omar.", {"instruction following"}),
        ("It is red, small, old and round, Omar.", set(GENERAL)),
        ("Red and big.", set(GENERAL)),
        ("", set(GENERAL)),
        (RIGHT, set()),
    ],
)
def test_each_aspect_is_judged_by_the_faults_that_it_speaks_of(answer: str, worse_in: set[str]) -> None:
    verdict = preferred([OPENING], RIGHT, answer, by_aspect=True)
    assert verdict["aspects"] == {aspect: "A" if aspect in worse_in else "tie" for aspect in GENERAL}
    assert verdict["better"] == ("A" if worse_in else "tie")
    turned = preferred([OPENING], answer, RIGHT, by_aspect=True)
    assert turned["aspects"] == {aspect: "B" if aspect in worse_in else "tie" for aspect in GENERAL}
    assert verdict["rationale"]


def test_aspects_are_only_said_where_they_are_asked_for() -> None:
    assert list(preferred([OPENING], RIGHT, "It is red, Vera.")) == ["rationale", "better"]
    own = {"my taste": "as I like it", **ASPECTS["summaries"]}
    verdict = preferred([OPENING], RIGHT, "It is red, big, old, light and round, Omar.", aspects=own, by_aspect=True)
    assert verdict["aspects"] == {"my taste": "A", "coherence": "A", "accuracy": "tie", "coverage": "tie"}


def test_of_single_values_truth_and_completeness_are_one() -> None:
    history = [said("user", "Call me Ilse. Belo is red. What is its colour?")]
    verdict = preferred(history, "It is blue, Ilse.", "It is red, Ilse.", by_aspect=True)
    assert verdict["aspects"] == {
        "instruction following": "tie",
        "helpfulness": "B",
        "honesty": "B",
        "truthfulness": "B",
    }


def test_a_judge_errs_at_its_rate_each_time_anew() -> None:
    wrong = "It is red, small, old, light and round, Vera."
    verdicts = Counter(
        preferred([OPENING], RIGHT, wrong, judge_error_rate=0.2, seed=seed)["better"] for seed in range(2000)
    )
    assert within(verdicts["B"], 2000, 0.2)
    assert not verdicts["tie"]
    ties = Counter(
        preferred([OPENING], RIGHT, RIGHT + " ", judge_error_rate=0.4, seed=seed)["better"] for seed in range(1000)
    )
    assert within(ties["tie"], 1000, 0.6)
    assert within(ties["A"], 1000, 0.2)


def test_aspects_err_apart_from_the_whole() -> None:
    wrong = "It is red, small, old, light and round, Vera."
    apart = 0
    for seed in range(1000):
        verdict = preferred([OPENING], RIGHT, wrong, by_aspect=True, judge_error_rate=0.2, seed=seed)
        apart += verdict["aspects"]["truthfulness"] != verdict["better"]
    assert within(apart, 1000, 2 * 0.2 * 0.8)


def test_a_blind_judge_gets_a_share_of_pairs_wrong_in_both_orders_and_every_time() -> None:
    wrong = n = 0
    verdicts = Counter[str]()
    for place, seed in enumerate(generate_seeds(1500, 32, WORLDS["lists"])):
        a, b = (answered(seed, seed=n) for n in (1, 2))
        if a == b:
            continue
        truth = SIDES[better(seed, a, b)]
        said_first = preferred(seed, a, b, seed=place, judge_blind_rate=0.2)["better"]
        said_second = preferred(
            seed, b, a, seed=place + 1, model="default", position_bias=0, judge_error_rate=0, judge_blind_rate=0.2
        )
        turned = {"A": "B", "B": "A"}.get(said_second["better"], "tie")
        assert said_first == turned
        n += 1
        wrong += said_first != truth
        verdicts[said_first] += truth == "tie"
    assert within(wrong, n, 0.2)
    assert within(verdicts["A"] + verdicts["B"], verdicts.total(), 0.2)
    assert verdicts["A"]
    assert verdicts["B"]


def test_who_is_blind_to_a_pair_at_a_low_rate_is_so_at_a_higher_one() -> None:
    for seed in generate_seeds(300, 33, WORLDS["lists"]):
        a, b = (answered(seed, seed=n) for n in (1, 2))
        verdicts = [preferred(seed, a, b, judge_blind_rate=rate)["better"] for rate in (0.0, 0.1, 0.3)]
        assert verdicts[1] == verdicts[0] or verdicts[2] == verdicts[1]


def test_blindness_and_error_add_up_and_a_blind_judge_leaves_equal_aspects_equal() -> None:
    wrong = "It is red, small, old, light and round, Vera."
    verdict = preferred([OPENING], RIGHT, wrong, by_aspect=True, judge_blind_rate=1.0)
    assert verdict["better"] == "B"
    assert verdict["aspects"] == {
        "instruction following": "tie",
        "helpfulness": "tie",
        "honesty": "B",
        "truthfulness": "B",
    }
    both = [
        preferred([OPENING], RIGHT, wrong, judge_blind_rate=1.0, judge_error_rate=0.3, seed=seed)["better"]
        for seed in range(1000)
    ]
    assert within(both.count("A"), 1000, 0.3)


def test_biases_pull_to_the_first_and_to_the_longer_answer() -> None:
    short = "It is red and big, Vera."
    first = [preferred([OPENING], short, RIGHT, position_bias=0.3, seed=seed)["better"] for seed in range(1000)]
    assert within(first.count("A"), 1000, 0.3)
    long = "It is blue, small, new, heavy, square and loud, Vera."
    longer = [preferred([OPENING], short, long, length_bias=0.3, seed=seed)["better"] for seed in range(1000)]
    assert within(longer.count("B"), 1000, 0.3)
