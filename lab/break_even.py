"""How many labels of a set of pairs are wrong, and from which rate of failed edits on one method's share exceeds another's.

What became of a prompt in a campaign is one letter of a string, all campaigns of a random seed over the same prompts in one
order: so two campaigns can be compared prompt by prompt. Intervals are 95 %: Wilson's for a share, and for a break-even a
bootstrap of the prompts of each random seed, a prompt's outcomes in all campaigns kept together. Knows no campaigns.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from train.statistics import Share, wilson

RIGHT, WRONG, TIE, NO_PAIR = "r", "w", "t", "-"
"""By the oracle: the chosen answer is the better one, the worse one, as good as the other; or the prompt gave no pair."""
RESAMPLES = 2_000
Outcomes = Mapping[int, str]
"""Of one campaign: by random seed a letter for each prompt."""


class BreakEven(NamedTuple):
    """The rate of failed edits up to which one method's labels are at least as clean as a rival's.

    `-inf`: its labels are worse from the lowest rate of the grid on; `inf`: they are no worse at the highest.
    """

    value: float
    low: float
    high: float


def label_noise(outcomes: Outcomes) -> Share | None:
    """The share of wrong labels among the pairs that have a better answer; None where there is no such pair."""
    wrong, told = count(outcomes, WRONG), count(outcomes, WRONG) + count(outcomes, RIGHT)
    return Share(wrong / told, *wilson(wrong, told)) if told else None


def count(outcomes: Outcomes, letter: str) -> int:
    return sum(of_seed.count(letter) for of_seed in outcomes.values())


def crossing(rates: Sequence[float], noise: Sequence[float], rival: float) -> float:
    """Where a line through the points (rate, noise) first rises above `rival`, rates rising.

    `-inf` where it begins above, `inf` where it never does.
    """
    if noise[0] > rival:
        return -math.inf
    for place in range(1, len(rates)):
        if noise[place] > rival:
            share = (rival - noise[place - 1]) / (noise[place] - noise[place - 1])
            return rates[place - 1] + share * (rates[place] - rates[place - 1])
    return math.inf


def break_even(curve: Mapping[float, Outcomes], rival: Outcomes) -> BreakEven | None:
    """Where the label noise of `curve`, by its rate of failed edits, reaches the rival's; None where some share has no pairs."""
    rates = sorted(curve)
    campaigns = [*(curve[rate] for rate in rates), rival]
    found = [label_noise(outcomes) for outcomes in campaigns]
    if any(share is None for share in found):
        return None
    *noise, theirs = [share.value for share in found if share is not None]
    rows = _resampled(campaigns)
    drawn = [crossing(rates, row[:-1], row[-1]) for row in rows[~np.isnan(rows).any(axis=1)].tolist()]
    if not drawn:  # so few pairs that every resample has a campaign without any
        return None
    # order statistics: between the infinities of a line that is not crossed there is nothing to interpolate
    low, high = np.quantile(drawn, [0.025, 0.975], method="closest_observation")
    return BreakEven(crossing(rates, noise, theirs), float(low), float(high))


def _resampled(campaigns: Sequence[Outcomes]) -> NDArray[np.float64]:
    """The campaigns' label noise, a row for each time that the prompts of every random seed are drawn anew."""
    wrong = np.zeros((RESAMPLES, len(campaigns)))
    told = np.zeros((RESAMPLES, len(campaigns)))
    for seed, times in zip(campaigns[0], _draws(*(len(of_seed) for of_seed in campaigns[0].values())), strict=True):
        letters = np.array([list(outcomes[seed]) for outcomes in campaigns]).T  # prompts x campaigns
        wrong += times @ (letters == WRONG)
        told += times @ ((letters == WRONG) | (letters == RIGHT))
    with np.errstate(invalid="ignore"):
        return wrong / told


@lru_cache(maxsize=1)
def _draws(*prompts: int) -> tuple[NDArray[np.float32], ...]:
    """How often each prompt of a random seed is drawn, a row for each resample: the same for all campaigns of a lab."""
    generator = np.random.default_rng(0)
    return tuple(
        generator.multinomial(count, [1 / count] * count, size=RESAMPLES).astype(np.float32) for count in prompts
    )


def noise_gap(mine: Outcomes, theirs: Outcomes) -> Share | None:
    """How much more often `mine` are wrong than `theirs`; None where one of them has no pairs."""
    found = [label_noise(outcomes) for outcomes in (mine, theirs)]
    if found[0] is None or found[1] is None:
        return None
    rows = _resampled([mine, theirs])
    low, high = np.nanquantile(rows[:, 0] - rows[:, 1], [0.025, 0.975])
    return Share(found[0].value - found[1].value, float(low), float(high))
