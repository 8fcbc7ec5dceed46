"""How varied the answers of preference pairs are: within a pair, and between the pairs of a campaign. Pure functions.

What each figure says and does not say stands in docs/pair-quality.md. Words are those of any script, in lower case.
Between pairs, only answers to different seeds meet: those to one seed speak of one thing, whoever writes them.
"""

import random
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import NamedTuple

import numpy as np

from store.pairs import WORD
from store.rouge import SELF_ROUGE_TOKENS, lcs_f1

COMPARISONS = 10_000
"""Answers that meet for Self-ROUGE: all, where there are no more, else so many drawn by chance (ours)."""
SAMPLE_WORDS = 200
"""Words of a sample that distinct-n is counted over: it falls with every word more, so all samples are equal (ours)."""
ANSWER_WORDS = 20
"""Words in a row that one answer gives to a sample at most, so that ten answers or more stand in it (ours)."""
SAMPLES = 200
"""Samples at least, as far as there are answers for one (ours)."""
DRAWS = 500
"""Of the bootstrap of Self-ROUGE (ours)."""
NORMAL = 1.959963984540054
"""Standard errors on either side of a mean that hold 95 %."""


class Interval(NamedTuple):
    """A figure with its 95 % interval; null where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Between(NamedTuple):
    """How varied a campaign's answers are."""

    self_rouge: Interval
    """From 0 to 100; null where no two seeds have answers."""
    distinct_1: Interval
    """Null where no sample can be filled."""
    distinct_2: Interval
    samples: int
    """That distinct-n is the mean of."""


def words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Distinct-n (Li et al. 2016): different runs of n words by all runs of n words; null where there are none.

    No run goes from one text into the next.
    """
    runs = [tuple(text[place : place + n]) for text in texts for place in range(len(text) - n + 1)]
    return len(set(runs)) / len(runs) if runs else None


def between(answers: Mapping[str, Sequence[str]], *, random_seed: str) -> Between:
    """Self-ROUGE and distinct-n of answers by the seed that they are given to."""
    usable = {seed: [text for text in texts if WORD.search(text)] for seed, texts in sorted(answers.items())}
    by_seed = [texts for texts in usable.values() if texts]
    generator = random.Random(random_seed)
    self_rouge = _self_rouge(by_seed, generator)
    return Between(self_rouge, *_distinct(by_seed, generator))


def _self_rouge(by_seed: Sequence[Sequence[str]], generator: random.Random) -> Interval:
    """100 times the mean ROUGE-L F1 of answers to different seeds; the interval draws seeds with replacement."""
    flat = [(seed, text) for seed, texts in enumerate(by_seed) for text in texts]
    meetings = _meetings([seed for seed, _ in flat], generator)
    if not meetings:
        return Interval(None, None, None)
    tokens = {place: words(flat[place][1])[:SELF_ROUGE_TOKENS] for pair in meetings for place in pair}
    likeness = np.array([lcs_f1(tokens[one], tokens[other]) for one, other in meetings])
    left, right = np.array([[flat[one][0], flat[other][0]] for one, other in meetings]).T
    chance = np.random.default_rng(generator.getrandbits(32))
    drawn = []
    for _ in range(DRAWS):
        times = np.bincount(chance.integers(0, len(by_seed), len(by_seed)), minlength=len(by_seed))
        weight = times[left] * times[right]
        if weight.any():
            drawn.append(float(weight @ likeness / weight.sum()))
    low, high = np.percentile(drawn, (2.5, 97.5)) if drawn else (None, None)
    return Interval(
        100 * float(likeness.mean()),
        None if low is None else 100 * float(low),
        None if high is None else 100 * float(high),
    )


def _meetings(seeds: Sequence[int], generator: random.Random) -> list[tuple[int, int]]:
    """Which answers meet: all of different seeds, or as many as are compared."""
    counts = np.bincount(seeds) if seeds else np.zeros(1)
    if (len(seeds) ** 2 - int((counts**2).sum())) / 2 <= COMPARISONS:
        return [
            (one, other)
            for one in range(len(seeds))
            for other in range(one + 1, len(seeds))
            if seeds[one] != seeds[other]
        ]
    found: list[tuple[int, int]] = []
    while len(found) < COMPARISONS:
        one, other = generator.randrange(len(seeds)), generator.randrange(len(seeds))
        if seeds[one] != seeds[other]:
            found.append((one, other))
    return found


def _distinct(by_seed: Sequence[Sequence[str]], generator: random.Random) -> tuple[Interval, Interval, int]:
    """Distinct-1 and distinct-2: means over samples of equal size, in which each seed has one answer at most.

    The seeds are dealt out to samples again and again. Samples of one deal share no seed, so that their number is what
    the normal interval goes by.
    """
    dealt: list[list[list[list[str]]]] = []
    while sum(map(len, dealt)) < SAMPLES and (deal := _deal(by_seed, generator)):
        dealt.append(deal)
    samples = [sample for deal in dealt for sample in deal]
    independent = len(samples) / len(dealt) if dealt else 0.0
    one, two = ([distinct(sample, n) or 0.0 for sample in samples] for n in (1, 2))
    return _mean(one, independent), _mean(two, independent), len(samples)


def _deal(by_seed: Sequence[Sequence[str]], generator: random.Random) -> list[list[list[str]]]:
    """Samples of SAMPLE_WORDS words, of texts of ANSWER_WORDS at most; what fills no sample is left over."""
    samples: list[list[list[str]]] = []
    sample: list[list[str]] = []
    open_words = SAMPLE_WORDS
    for seed in generator.sample(range(len(by_seed)), len(by_seed)):
        said = words(generator.choice(by_seed[seed]))
        start = generator.randrange(max(1, len(said) - ANSWER_WORDS + 1))
        taken = said[start : start + min(ANSWER_WORDS, open_words)]
        sample.append(taken)
        open_words -= len(taken)
        if not open_words:
            samples.append(sample)
            sample, open_words = [], SAMPLE_WORDS
            if len(samples) == SAMPLES:
                break
    return samples


def _mean(figures: Sequence[float], independent: float) -> Interval:
    """Of figures of which only so many are independent of each other."""
    if not figures:
        return Interval(None, None, None)
    value = float(np.mean(figures))
    if independent < 2:
        return Interval(value, None, None)
    error = NORMAL * float(np.std(figures, ddof=1)) / sqrt(independent)
    return Interval(value, max(0.0, value - error), min(1.0, value + error))
