"""The arithmetic of the benchmarks, on cases worked out by hand."""

import json
from typing import Any

import pytest

from lab.mtbench_scores import (
    BenchmarkResult,
    Counts,
    Grade,
    Usage,
    lowest_grades,
    lowest_rows,
    mean_rows,
    turn_rows,
)


def grade(question: str, category: str, turn: int, score: float | None, judge: str = "one") -> Grade:
    return Grade(question, category, turn, judge, False, score)


MTBENCH = [
    grade("q1", "math", 1, 2.0),
    grade("q1", "math", 2, 4.0),
    grade("q2", "math", 1, 6.0),
    grade("q2", "math", 2, None),
    grade("q3", "writing", 1, 10.0),
    grade("q3", "writing", 2, 8.0),
]
"""Five grades and a verdict that could not be read."""


def test_mtbench_is_the_mean_of_the_grades_that_are_there() -> None:
    headline, turns, categories = mean_rows(MTBENCH)
    shown = {row.part: (row.share.value, row.share.n) for row in (*headline, *turns, *categories)}
    assert shown == {
        "overall": (30 / 5, 5),
        "turn=1": (18 / 3, 3),
        "turn=2": (12 / 2, 2),
        "category=math": (12 / 3, 3),
        "category=writing": (18 / 2, 2),
    }
    overall = headline[0].share
    assert 3.0 <= (overall.low or 0.0) < 6.0 < (overall.high or 0.0) <= 9.0, (
        "resampled questions, whose means are 3, 6 and 9"
    )


def test_two_judges_are_pooled_and_shown_apart() -> None:
    headline, _, _ = mean_rows([*MTBENCH, grade("q1", "math", 1, 9.0, judge="two")])
    assert [(row.part, row.share.value) for row in headline] == [
        ("overall", 39 / 6),
        ("judge=one", 6.0),
        ("judge=two", 9.0),
    ]


GOLD = [
    # CM: the first turn is skipped, so it is never here
    grade("a", "CM", 2, 7.0),
    grade("a", "CM", 3, 3.0),
    grade("b", "CM", 2, 9.0),
    # IC: every turn is judged
    grade("c", "IC", 1, 10.0),
    grade("c", "IC", 2, 5.0),
    grade("c", "IC", 3, 6.0),
    # one of its turns could not be read
    grade("d", "IC", 1, 1.0),
    grade("d", "IC", 2, None),
    # one of its turns has no verdict yet
    grade("e", "IC", 1, 8.0),
]
JUDGED = {"a": [2, 3], "b": [2], "c": [1, 2, 3], "d": [1, 2], "e": [1, 2]}


def test_a_dialogue_is_worth_its_lowest_grade_and_none_without_all_of_them() -> None:
    lowest, incomplete = lowest_grades(GOLD, JUDGED)
    assert [(row.question, row.score) for row in lowest] == [("a", 3.0), ("b", 9.0), ("c", 5.0)]
    assert incomplete == 2


def test_overall_is_the_mean_of_tasks_and_beside_it_stands_the_mean_of_dialogues() -> None:
    headline, tasks = lowest_rows(lowest_grades(GOLD, JUDGED)[0])
    assert [(row.part, row.share.value, row.share.n) for row in tasks] == [("task=CM", 6.0, 2), ("task=IC", 5.0, 1)]
    assert [(row.part, row.share.value) for row in headline] == [
        ("overall", (6.0 + 5.0) / 2),
        ("mean of dialogues", pytest.approx((3 + 9 + 5) / 3)),
    ]
    assert headline[0].share.low is None, "a task of one dialogue has no interval, so the mean of tasks has none"


def test_the_lowest_grades_of_two_judges_are_found_apart() -> None:
    other = [grade("a", "CM", 2, 1.0, judge="two"), grade("a", "CM", 3, 10.0, judge="two")]
    lowest, _ = lowest_grades([*GOLD[:2], *other], JUDGED)
    assert [(row.judge, row.score) for row in lowest] == [("one", 3.0), ("two", 1.0)]
    headline, _ = lowest_rows(lowest)
    assert {row.part: row.share.value for row in headline} == {
        "overall": 2.0,
        "mean of dialogues": 2.0,
        "judge=one": 3.0,
        "judge=two": 1.0,
    }


def test_the_curve_has_every_grade_of_a_turn_skipped_ones_apart() -> None:
    assert [(row.part, row.share.value, row.share.n) for row in turn_rows(GOLD)] == [
        ("turn=1", pytest.approx(19 / 3), 3),
        ("turn=2", 7.0, 3),
        ("turn=3", 4.5, 2),
    ]


def result(**given: Any) -> BenchmarkResult:
    lowest, incomplete = lowest_grades(GOLD, JUDGED)
    headline, tasks = lowest_rows(lowest)
    whole = BenchmarkResult(
        name="x",
        benchmark="mtbench101",
        what="MT-Bench-101: 5 dialogues",
        assistant="openai/x",
        judges=("openai/y",),
        label_set="x.1",
        campaign_id="camp_1",
        judging_id="camp_2",
        counts=Counts(5, 1, 0, 9, 0, 1, 2, incomplete),
        headline=headline,
        turns=turn_rows(GOLD),
        categories=tasks,
        usage=[Usage("assistant", 9, 100, 10, None), Usage("judge", 9, 100, 10, 0.5)],
        calls_sent=18,
        rehearsed=False,
    )
    return whole._replace(**given)


def test_the_table_says_what_was_left_out_and_what_it_took() -> None:
    text = " ".join(result().to_table().split())
    for said in (
        "IC instruction clarification 1 5.00",
        "1 invalid ones count for nothing",
        "2 dialogues lack a grade",
        "2 verdicts are not there",
        "1 dialogues failed",
        "18 calls answered: 9 of the assistant, 9 of the judge",
        "price unknown",
    ):
        assert said in text
    assert "rehearsal" not in text
    assert "rehearsal" in result(rehearsed=True).to_table()
    assert all(len(line) <= 79 for line in result().to_table().splitlines())


def test_the_figures_as_json_are_those_of_the_table() -> None:
    printed = json.loads(result().to_json())
    assert printed["headline"][0] == {"part": "overall", "value": 5.5, "low": None, "high": None, "n": 3}
    assert (printed["counts"]["incomplete"], printed["usage"][1]["cost_usd"]) == (2, 0.5)


def test_nothing_graded_is_said_and_not_a_zero() -> None:
    headline, tasks = lowest_rows([])
    empty = result(headline=headline, turns=turn_rows([]), categories=tasks)
    assert headline[0].share.value is None
    assert "overall 0 -" in " ".join(empty.to_table().split())
