"""How varied answers are: figures worked out by hand, samples of equal size, and no answers to one seed compared."""

import pytest

from store import diversity
from store.diversity import Interval, between, distinct, words


def ends(interval: Interval) -> tuple[float, float, float]:
    """All three, which are there."""
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    return interval.value, interval.low, interval.high


def test_words_are_those_of_any_script_in_lower_case() -> None:
    assert words("It's RED: 3 rote Äpfel, красные.") == ["it", "s", "red", "3", "rote", "äpfel", "красные"]


def test_distinct_n_is_different_runs_by_all_runs() -> None:
    # a b a | a b: words a b of 5; runs of two ab ba | ab: ab ba of 3, and none across the bar
    assert distinct([["a", "b", "a"], ["a", "b"]], 1) == pytest.approx(2 / 5)
    assert distinct([["a", "b", "a"], ["a", "b"]], 2) == pytest.approx(2 / 3)
    assert distinct([["a"], ["b"]], 2) is None
    assert distinct([], 1) is None


def test_self_rouge_meets_answers_to_different_seeds_alone() -> None:
    found = between({"s1": ["a b c d", "a b c d"], "s2": ["a x"], "s3": ["y z"]}, random_seed="r")
    # twice "a b c d" with "a x": 2 * 1 / (4 + 2) = 1/3; with "y z" 0, twice; "a x" with "y z" 0: 2/3 of 5 meetings
    assert found.self_rouge.value == pytest.approx(100 * (2 / 3) / 5)
    value, low, high = ends(found.self_rouge)
    assert low <= value <= high


def test_answers_that_are_all_alike_have_a_self_rouge_of_100_and_none_one_of_0() -> None:
    alike = between({f"s{n}": ["the same old words"] for n in range(5)}, random_seed="r").self_rouge
    assert alike == pytest.approx((100, 100, 100))
    other = between({f"s{n}": [f"a{n} b{n}"] for n in range(5)}, random_seed="r").self_rouge
    assert other == pytest.approx((0, 0, 0))


@pytest.mark.parametrize("answers", [{}, {"s1": ["a b", "c d"]}, {"s1": ["a"], "s2": ["?!"]}])
def test_without_two_seeds_that_have_words_there_is_no_self_rouge(answers: dict[str, list[str]]) -> None:
    assert between(answers, random_seed="r").self_rouge == Interval(None, None, None)


def test_a_sample_of_meetings_comes_near_the_figure_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    # each answer is "k m" with k in 0..3 and m in 0..1: half a match for k or m alone
    answers = {f"s{n}": [f"k{n % 4} m{n % 2}"] for n in range(80)}
    exact = ends(between(answers, random_seed="r").self_rouge)[0]
    monkeypatch.setattr(diversity, "COMPARISONS", 2_000)  # of 3,160
    sampled = between(answers, random_seed="r").self_rouge
    assert 0 < abs(ends(sampled)[0] - exact) < 3
    assert sampled == between(answers, random_seed="r").self_rouge
    assert sampled != between(answers, random_seed="other").self_rouge


def test_distinct_n_between_pairs_is_of_samples_of_equal_size() -> None:
    """10 words each from 20 seeds: `w0 .. w9` everywhere, so 10 different words of 200; and 9 of 20 * 9 runs of two."""
    answers = {f"s{n}": [" ".join(f"w{place}" for place in range(10))] for n in range(20)}
    found = between(answers, random_seed="r")
    assert found.distinct_1.value == pytest.approx(10 / 200)
    assert found.distinct_2.value == pytest.approx(9 / 180)
    more = between(answers | {f"t{n}": answers["s0"] for n in range(100)}, random_seed="r")
    assert more.distinct_1.value == pytest.approx(10 / 200)  # six times as many answers, and as varied
    assert more.distinct_1 == pytest.approx((0.05, 0.05, 0.05))  # of 6 samples a deal
    assert found.distinct_1.low is None  # of one


def test_one_long_answer_gives_a_few_words_to_a_sample_and_a_seed_one_answer() -> None:
    """A seed's second answer never stands beside its first: 19 seeds of 10 words are too few for 200."""
    answers = {f"s{n}": [" ".join(f"w{place}" for place in range(10))] * 5 for n in range(19)}
    assert between(answers, random_seed="r").samples == 0
    assert between(answers, random_seed="r").distinct_1 == Interval(None, None, None)
    long = {f"s{n}": [" ".join(f"v{n}_{place}" for place in range(500))] for n in range(9)}
    assert between(long, random_seed="r").samples == 0  # 9 * 20 words
    full = between(long | {"s9": long["s8"]}, random_seed="r")
    assert full.samples == diversity.SAMPLES
    assert full.distinct_2.value == pytest.approx(1.0, abs=0.06)  # s8 and s9 may hit the same words


def test_more_varied_answers_have_higher_distinct_n_and_a_lower_self_rouge() -> None:
    few = {f"s{n}": [" ".join(f"w{(n * 7 + place * n) % 30}" for place in range(20))] for n in range(60)}
    many = {f"s{n}": [" ".join(f"w{(n * 7 + place * n) % 300}" for place in range(20))] for n in range(60)}
    one, other = between(few, random_seed="r"), between(many, random_seed="r")
    assert ends(one.distinct_1)[2] < ends(other.distinct_1)[1]
    assert ends(one.self_rouge)[1] > ends(other.self_rouge)[2]
