"""The lines that a finished campaign prints."""

from typing import Any

import pytest

from graphs.campaign import CampaignReport
from graphs.report import report_lines

REPORT = CampaignReport(
    campaign_id="camp_1",
    name="test",
    models={"user": "openai/x", "assistant": "openai/x"},
    seeds=10,
    dialogues=20,
    done=20,
    failed=0,
    pairs=9,
    near_identical=2,
    chosen_longer=0.5556,
    calls_sent=100,
    calls_reused=0,
    prompt_tokens=1,
    completion_tokens=1,
    cost_usd=0.0,
    seconds=1.0,
    stop_reason=None,
)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "pairs      9 in the campaign, 2 near-identical, chosen longer in 56 %"),
        ({"pairs": 0, "near_identical": 0, "chosen_longer": None}, "pairs      0 in the campaign"),
        (
            {"pairs": 98765, "near_identical": 12345, "chosen_longer": 1.0},
            "pairs      98765 in the campaign, 12345 near-identical, chosen longer in 100 %",
        ),
    ],
)
def test_pairs_are_told_with_their_balance(changed: dict[str, Any], expected: str) -> None:
    lines = report_lines(REPORT._replace(**changed), database="corpus.duckdb", skipped=0)
    assert expected in lines
    assert len(expected) <= 79


@pytest.mark.parametrize(
    ("caught", "outcomes", "expected"),
    [
        (None, None, None),
        ({}, {}, "gate       no query caught"),
        ({"leak": 1}, {"asked_again": 1}, "gate       1 query caught: 1 leak; 1 asked again"),
        (
            {"repetition": 5, "leak": 4, "early_end": 3},
            {"asked_again": 9, "ended": 1, "failed": 2},
            "gate       12 queries caught: 5 repetition, 4 leak, 3 early_end; 9 asked again, 1 dialogue ended, 2 dialogues failed",
        ),
    ],
)
def test_the_gate_tells_what_it_caught(
    caught: dict[str, int] | None, outcomes: dict[str, int] | None, expected: str | None
) -> None:
    report = REPORT._replace(caught=caught, caught_outcomes=outcomes)
    lines = report_lines(report, database="corpus.duckdb", skipped=0)
    assert [line for line in lines if line.startswith("gate")] == ([] if expected is None else [expected])


def told(**changed: Any) -> list[str]:
    return report_lines(REPORT._replace(**changed), database="c.duckdb", skipped=0)


def test_what_was_lost_stands_beside_what_answers_cost() -> None:
    assert "tokens     1 in, 1 out, $0.0000" in told()
    lines = told(lost_tokens=3400, lost_usd=0.01)
    assert "tokens     1 in, 1 out, $0.0000 for answers" in lines
    assert "lost       up to 3400 tokens more ($0.0100): requests without an answer may be billed too" in lines
    assert any("up to 3400 tokens more (price unknown)" in line for line in told(lost_tokens=3400, lost_usd=None))


def test_failed_dialogues_are_told_how_to_be_tried_again() -> None:
    assert not [line for line in told(calls_failed=2) if "retry-failed" in line]
    assert "try again  descant retry-failed --db c.duckdb, then the same command again" in told(done=18, failed=2)
