"""Shares of wrong labels, and the rate at which one method's share reaches another's, on lines worked by hand."""

import math

import pytest

from lab.break_even import NO_PAIR, RESAMPLES, RIGHT, WRONG, break_even, count, crossing, label_noise, noise_gap


def outcomes(wrong: int, right: int, ties: int = 0, none: int = 0) -> dict[int, str]:
    """The same for two random seeds."""
    text = "w" * wrong + "r" * right + "t" * ties + "-" * none
    return {0: text, 1: text[::-1]}


def test_label_noise_leaves_ties_and_prompts_without_a_pair_out() -> None:
    found = label_noise(outcomes(10, 30, ties=50, none=10))
    assert found is not None
    assert found.value == 0.25
    assert found.low < 0.25 < found.high  # Wilson's for 20 of 80
    assert (found.low, found.high) == pytest.approx((0.168, 0.355), abs=0.001)
    assert count(outcomes(10, 30, ties=50), "t") == 100
    assert label_noise(outcomes(0, 0, ties=5)) is None


@pytest.mark.parametrize(
    ("noise", "rival", "expected"),
    [
        ([0.0, 0.1, 0.2, 0.3], 0.15, 0.15),  # the line is the rate itself
        ([0.02, 0.12, 0.22, 0.32], 0.15, 0.13),
        ([0.1, 0.2, 0.4, 0.5], 0.3, 0.15),  # between the second and the third point, half way
        ([0.1, 0.2, 0.3, 0.4], 0.05, -math.inf),
        ([0.0, 0.1, 0.2, 0.3], 0.35, math.inf),
        ([0.0, 0.1, 0.2, 0.3], 0.0, 0.0),  # as clean, where nothing fails
        ([0.0, 0.0, 0.2, 0.3], 0.0, 0.1),  # as clean up to where it rises
        ([0.0, 0.1, 0.2, 0.3], 0.3, math.inf),  # no worse at the end of the grid
        ([0.0, 0.2, 0.1, 0.3], 0.15, 0.075),  # the first crossing counts
    ],
)
def test_a_line_crosses_where_it_first_rises_above_the_rival(noise: list[float], rival: float, expected: float) -> None:
    assert crossing([0.0, 0.1, 0.2, 0.3], noise, rival) == pytest.approx(expected)


def test_the_break_even_lies_in_its_interval_which_shrinks_with_more_prompts() -> None:
    def found(times: int) -> tuple[float, float, float]:
        curve = {rate / 10: outcomes(rate * 10 * times, (100 - rate * 10) * times) for rate in range(4)}
        line = break_even(curve, outcomes(15 * times, 85 * times))
        assert line is not None
        return line

    value, low, high = found(1)
    assert value == pytest.approx(0.15)
    assert 0.05 < low < 0.15 < high < 0.25
    narrow = found(10)
    assert narrow[0] == pytest.approx(0.15)
    assert narrow[2] - narrow[1] < (high - low) / 2


def test_an_interval_may_reach_beyond_the_grid() -> None:
    curve = {0.0: outcomes(5, 95), 0.3: outcomes(30, 70)}
    line = break_even(curve, outcomes(29, 71))
    assert line is not None
    assert line.value < 0.3
    assert line.high == math.inf
    never = break_even(curve, outcomes(0, 100))
    assert never == (-math.inf, -math.inf, -math.inf)
    assert break_even(curve, outcomes(0, 0, ties=3)) is None


def test_prompts_are_drawn_together_so_that_equal_campaigns_never_differ() -> None:
    same = outcomes(20, 80)
    assert noise_gap(same, same) == (0.0, 0.0, 0.0)
    gap = noise_gap(outcomes(30, 70), same)
    assert gap is not None
    assert gap.value == pytest.approx(0.1)
    # "wwwrrr" against "wwrrrr": they share all but ten prompts of a hundred, so the gap is known better than by two samples
    assert gap.low > 0.05
    assert RESAMPLES >= 1000


def test_ties_are_no_wrong_labels_in_the_interval_either() -> None:
    few, many = (
        {rate: outcomes(int(200 * rate), 200 - int(200 * rate), ties=ties) for rate in (0.0, 0.1, 0.3)}
        for ties in (0, 300)
    )
    rival = outcomes(30, 170, ties=0)
    without = break_even(few, rival)
    with_ties = break_even(many, outcomes(30, 170, ties=300))
    assert without is not None
    assert with_ties is not None
    assert without.value == with_ties.value
    assert (with_ties.low, with_ties.high) == pytest.approx((without.low, without.high), abs=0.06)
    assert with_ties.low < without.value < with_ties.high


def test_campaigns_of_almost_no_pairs_have_no_break_even() -> None:
    assert break_even({0.0: {0: "w" + "-" * 3000}, 0.1: {0: "-" * 3000 + "w"}}, {0: "-" * 3001}) is None


def test_resamples_in_which_a_campaign_has_no_pairs_are_left_out() -> None:
    found = break_even({0.0: {0: RIGHT + NO_PAIR * 9}, 0.3: {0: WRONG * 10}}, {0: (RIGHT + WRONG) * 5})
    assert found is not None
    assert found.value == pytest.approx(0.15)
    assert 0.0 < found.low < 0.15 < found.high < 0.3
