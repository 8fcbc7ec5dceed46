"""The line that tells how a campaign stands."""

import pytest

from agents.ledger import Ledger, forget
from graphs.progress import Counters, clock, fitted, summary_line


def test_time_left_is_what_the_rest_takes_at_the_pace_of_this_run() -> None:
    counters = Counters(total=100, done=60, failed=0, in_flight=8, ended_before=40)
    assert summary_line(counters, Ledger(forget), 10.0).endswith("· 0:00:20 left")


def test_nothing_is_foretold_before_a_dialogue_has_ended() -> None:
    counters = Counters(total=100, done=40, ended_before=40)
    assert summary_line(counters, Ledger(forget), 10.0).endswith("· -:--:-- left")


def test_a_cost_with_unknown_prices_is_marked_as_a_lower_bound() -> None:
    ledger = Ledger(forget)
    ledger.spent.cost_usd = 0.5
    assert "· $0.5000 ·" in summary_line(Counters(total=1), ledger, 1.0)
    ledger.spent.unpriced_calls = 1
    assert "· over $0.5000 ·" in summary_line(Counters(total=1), ledger, 1.0)
    ledger.spent.cost_usd = 0.0
    assert "· no price ·" in summary_line(Counters(total=1), ledger, 1.0)


def test_a_held_campaign_says_so_in_place_of_the_time_left() -> None:
    ledger = Ledger(forget)
    ledger.hold()
    assert summary_line(Counters(total=1), ledger, 1.0).endswith("· held")
    ledger.go_on()
    assert summary_line(Counters(total=1), ledger, 1.0).endswith("left")


@pytest.mark.parametrize("total", [9, 1_200, 120_000])
def test_the_line_of_a_terminal_fits_80_columns(total: int) -> None:
    ledger = Ledger(forget, sent=3_210)
    ledger.spent.unpriced_calls = 1
    counters = Counters(total=total, done=total // 2, failed=total // 100, in_flight=min(total, 256))
    line = summary_line(counters, ledger, 10.0)
    assert f"{counters.ended}/{total} dialogues · " in line
    name, shown = fitted("a-campaign-of-a-long-name", line, "dialogues", 80)
    assert len(name) >= 6
    assert len(name) + 1 + len(shown) < 80


def test_a_judging_counts_verdicts() -> None:
    assert summary_line(Counters(total=4, done=1, unit="verdicts"), Ledger(forget), 1.0).startswith("1/4 verdicts ·")


def test_a_clock_shows_hours_minutes_and_seconds() -> None:
    assert clock(3725.4) == "1:02:05"
