"""Which answers are perturbed: functions of a random generator alone."""

import math
import random
from collections import Counter

import pytest

from configs.settings import BernoulliSchedule, PerturbSettings, TurnPoisson, TurnRange, Turns, TurnWeights
from graphs.schedule import kinds_of, perturbed_answers, turns_of, within


def test_every_answer_the_last_or_exactly_one() -> None:
    every, one = PerturbSettings(schedule="every"), PerturbSettings(schedule="one")
    assert perturbed_answers(every, 4, random.Random(0)) == [0, 1, 2, 3]
    assert perturbed_answers(PerturbSettings(schedule="last"), 4, random.Random(0)) == [3]
    hits = [perturbed_answers(one, 4, random.Random(seed)) for seed in range(60)]
    assert {len(hit) for hit in hits} == {1}
    assert {hit[0] for hit in hits} == {0, 1, 2, 3}


@pytest.mark.parametrize("chance", [0.01, 0.5, 1.0])
def test_a_chance_a_turn_perturbs_at_least_one(chance: float) -> None:
    settings = PerturbSettings(schedule=BernoulliSchedule(bernoulli=chance))
    hits = [perturbed_answers(settings, 10, random.Random(seed)) for seed in range(200)]
    assert all(hits)
    assert all(hit == sorted(set(hit)) for hit in hits)
    mean = sum(map(len, hits)) / len(hits) / 10
    assert mean == pytest.approx(max(chance, 0.1), abs=0.05)


def test_a_number_of_turns_is_given_or_drawn() -> None:
    assert turns_of(3, random.Random(0)) == 3
    assert {turns_of(TurnRange(low=2, high=4), random.Random(seed)) for seed in range(60)} == {2, 3, 4}


def _shares(turns: Turns, draws: int = 20_000) -> dict[int, float]:
    generator = random.Random(7)
    drawn = Counter(turns_of(turns, generator) for _ in range(draws))
    return {number: count / draws for number, count in drawn.items()}


def test_a_range_is_drawn_evenly_and_weights_by_their_shares() -> None:
    assert _shares(TurnRange(low=2, high=5)) == pytest.approx(dict.fromkeys(range(2, 6), 0.25), abs=0.015)
    assert _shares(TurnWeights(weights={4: 1, 8: 2, 9: 1})) == pytest.approx({4: 0.25, 8: 0.5, 9: 0.25}, abs=0.015)


def test_a_poisson_number_of_turns_follows_its_distribution_within_its_bounds() -> None:
    mean, low, high = 8.71, 2, 14
    inside = {n: math.exp(-mean) * mean**n / math.factorial(n) for n in range(low, high + 1)}
    expected = {n: share / sum(inside.values()) for n, share in inside.items()}
    assert _shares(TurnPoisson(mean=mean, low=low, high=high)) == pytest.approx(expected, abs=0.015)
    wide = _shares(TurnPoisson(mean=mean))
    assert sum(n * share for n, share in wide.items()) == pytest.approx(mean, abs=0.1)


def test_a_seed_draws_the_same_number_of_turns_each_time() -> None:
    for turns in (
        TurnRange(low=1, high=30),
        TurnPoisson(mean=8.71),
        TurnWeights(weights=dict.fromkeys(range(1, 30), 1.0)),
    ):
        drawn = [[turns_of(turns, random.Random(seed)) for seed in range(50)] for _ in range(2)]
        assert drawn[0] == drawn[1]
        assert len(set(drawn[0])) > 5


def test_each_answer_has_a_kind() -> None:
    assert kinds_of(PerturbSettings(), 3, random.Random(0)) == ["music_contrast"] * 3


def test_a_dialogue_that_ended_early_keeps_at_least_one_perturbed_answer() -> None:
    assert within([0, 2, 4], 3) == [0, 2]
    assert within([3, 4], 3) == [2]
    assert within([4], 0) == []
