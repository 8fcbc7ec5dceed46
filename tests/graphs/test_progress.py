"""The line that tells how a campaign stands."""

from agents.ledger import Ledger, forget
from graphs.progress import Counters, clock, summary_line


def test_time_left_is_what_the_rest_takes_at_the_pace_of_this_run() -> None:
    counters = Counters(total=100, done=60, failed=0, in_flight=8, ended_before=40)
    assert summary_line(counters, Ledger(forget), 10.0).endswith("· 0:00:20 left")


def test_nothing_is_foretold_before_a_dialogue_has_ended() -> None:
    counters = Counters(total=100, done=40, ended_before=40)
    assert summary_line(counters, Ledger(forget), 10.0).endswith("· -:--:-- left")


def test_a_cost_with_unknown_prices_is_marked_as_a_lower_bound() -> None:
    ledger = Ledger(forget)
    ledger.spent.cost_usd = 0.5
    assert "$0.5000 ·" in summary_line(Counters(total=1), ledger, 1.0)
    ledger.spent.unpriced_calls = 1
    assert "$0.5000+? ·" in summary_line(Counters(total=1), ledger, 1.0)


def test_a_clock_shows_hours_minutes_and_seconds() -> None:
    assert clock(3725.4) == "1:02:05"
