"""What chance decides of a dialogue before it begins, as pure functions of a random generator.

How many answers it has (`turns_of`); which of them are perturbed (`perturbed_answers`) and with which kind of error
(`kinds_of`); or which get a pair (`places_of_pairs`). Answers are counted from 0. A dialogue that then ends early, or whose
first answer has no history to err about, has what is left of that (`within`, `without_history`).
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from configs.pairing_settings import BernoulliPlaces, PairingSettings
from configs.settings import (
    BernoulliSchedule,
    PerturbationKind,
    PerturbSettings,
    TurnPoisson,
    TurnRange,
    Turns,
    TurnWeights,
)


def perturbed_answers(settings: PerturbSettings, turns: int, generator: random.Random) -> list[int]:
    """Places (from 0) of the perturbed answers: never empty. With schedule `context` all, since the queries are yet to come."""
    schedule = settings.schedule
    if isinstance(schedule, BernoulliSchedule):
        hit = [answer for answer in range(turns) if generator.random() < schedule.bernoulli]
        return hit or [generator.randrange(turns)]
    if schedule == "one":
        return [generator.randrange(turns)]
    return [turns - 1] if schedule == "last" else list(range(turns))


def places_of_pairs(pairing: PairingSettings, answers: int, generator: random.Random) -> list[int]:
    """Which answers (from 0) of so many get a pair: never none, where there is an answer at all."""
    places = pairing.places
    if not answers:
        return []
    if isinstance(places, BernoulliPlaces):
        hit = [answer for answer in range(answers) if generator.random() < places.bernoulli]
        return hit or [generator.randrange(answers)]
    if places == "one":
        return [generator.randrange(answers)]
    return [answers - 1] if places == "last" else list(range(answers))


def within(perturbed: Sequence[int], answers: int) -> list[int]:
    """Those of the perturbed answers that a dialogue of so many answers has; its last one where it has none of them.

    Empty for a dialogue without answers only.
    """
    return [answer for answer in perturbed if answer < answers] or [*range(answers)][-1:]


def kinds_of(settings: PerturbSettings, turns: int, generator: random.Random) -> list[PerturbationKind]:
    """A kind for each answer, drawn uniformly; the ones that are not perturbed stay unused."""
    return [generator.choice(settings.kinds) for _ in range(turns)]


class Drawn(NamedTuple):
    """Which answers are perturbed, and the kind of each answer."""

    answers: list[int]
    kinds: list[PerturbationKind]


def without_history(
    settings: PerturbSettings, answers: Sequence[int], kinds: Sequence[PerturbationKind], generator: random.Random
) -> Drawn:
    """The same for a dialogue whose first answer has nothing before it, so that an error of context cannot fall on it.

    The instruction contrast takes its place if it is among the kinds; else another answer is perturbed, if there is one.
    """
    if 0 not in answers or kinds[0] == "music_contrast":
        return Drawn([*answers], [*kinds])
    if "music_contrast" in settings.kinds:
        return Drawn([*answers], ["music_contrast", *kinds[1:]])
    later = [answer for answer in answers if answer]
    if not later and len(kinds) > 1:
        later = [generator.randrange(1, len(kinds))]
    return Drawn(later, [*kinds])


def turns_of(turns: Turns, generator: random.Random) -> int:
    """The target number of turns of one seed."""
    match turns:
        case TurnRange(low=low, high=high):
            return generator.randint(low, high)
        case TurnWeights(weights=weights):
            return generator.choices(list(weights), list(weights.values()))[0]
        case TurnPoisson(mean=mean, low=low, high=high):
            while not low <= (drawn := _poisson(mean, generator)) <= high:
                pass
            return drawn
    return turns


def _poisson(mean: float, generator: random.Random) -> int:
    """Arrivals before time `mean`, exponential waits between them."""
    arrivals, time = 0, generator.expovariate(1.0)
    while time < mean:
        arrivals, time = arrivals + 1, time + generator.expovariate(1.0)
    return arrivals
