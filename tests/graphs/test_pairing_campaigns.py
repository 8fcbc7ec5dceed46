"""Whole campaigns of the four methods on the rehearsal: what is caught is what was played, one corpus, one query."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agents.rehearsal import oracle
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.report import report_lines
from graphs.seeds import load_seeds
from store.database import query
from store.queries import messages_of
from store.transcript import show
from tests.graphs.conftest import reward_model

pytestmark = pytest.mark.chain


def run(database: Path, recipe: str, *, limit: int = 60, **given: Any) -> CampaignReport:
    data: dict[str, Any] = {
        "name": f"four-{recipe}",
        "recipe": recipe,
        "seeds": {"format": "rehearsal", "world": "lists", "limit": limit},
        "pairing": {"domain": "long_form_qa"},
        "models": {"assistant": {"model": "rehearsal/varied"}},
    }
    settings = CampaignSettings.model_validate(data | given)
    scorer = reward_model(lambda conversations: [float(len(m[-1].content)) for m in conversations])
    picks_by = scorer if recipe == "west_of_n" else None
    return run_campaign(settings, load_seeds(settings).seeds, database, scorer=picks_by)


def test_the_four_methods_fill_one_corpus_that_one_query_compares(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    for recipe in ("rmboost", "rlaif", "rlcd", "west_of_n"):
        report = run(database, recipe)
        assert (report.done, report.failed, report.stop_reason) == (60, 0, None)
        assert any("answers " in line for line in report_lines(report, database="x", skipped=0))
    rows = query(
        database,
        """
        SELECT method, count(*) AS pairs, (SELECT count(*) FROM calls WHERE calls.campaign_id = pairs.campaign_id) AS calls
        FROM pairs GROUP BY method, campaign_id ORDER BY method
        """,
    )
    assert [row["method"] for row in rows] == ["rlaif", "rlcd", "rmboost", "west_of_n"]
    assert all(row["pairs"] > 40 for row in rows)
    assert {row["method"]: row["calls"] for row in rows}["rlcd"] < {row["method"]: row["calls"] for row in rows}[
        "rlaif"
    ]


@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        ("repeat_rate", "near_identical"),
        ("empty_rate", "empty"),
        ("editing_rate", "speaks_of_editing"),
        ("aspects_rate", "speaks_of_aspects"),
        ("unparsable_rate", "unparsable"),
        ("endless_rate", "cut_off"),
    ],
)
def test_a_second_answer_of_a_bad_kind_never_becomes_a_pair(tmp_path: Path, rate: str, reason: str) -> None:
    database = tmp_path / "corpus.duckdb"
    models = {"assistant": {"model": "rehearsal/varied"}, "perturbation": {"params": {rate: 0.3, "mistake_rate": 0.0}}}
    report = run(database, "rmboost", limit=40, models=models)
    assert report.refused is not None
    assert report.refused[reason] >= 8
    assert set(report.refused) <= {reason, "near_identical"}, "a right first answer cannot be bettered"
    texts = query(
        database, "SELECT chosen[-1].content AS chosen, rejected[-1].content AS rejected FROM preference_pairs"
    )
    assert len(texts) == report.pairs > 30
    for row in texts:
        assert row["chosen"].strip()
        assert row["rejected"].strip()
        assert row["chosen"] != row["rejected"]
        assert not any(word in row[side].lower() for side in row for word in ("revised", "version", "complete:"))
    counted = query(database, "SELECT reason, count(*) AS n FROM caught WHERE agent = 'perturbation' GROUP BY 1")
    assert {row["reason"]: row["n"] for row in counted} == report.refused


def test_without_faults_of_the_writer_the_oracle_finds_every_label_right(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    report = run(database, "rmboost", limit=120)
    assert report.pairs >= 118
    found = Counter(
        oracle.better(messages_of(row["chosen"])[:-1], row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        for row in query(database, "SELECT chosen, rejected FROM preference_pairs")
    )
    assert found["first"] >= 0.99 * report.pairs


def test_a_writer_that_goes_the_other_way_makes_as_many_wrong_labels(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    models = {"assistant": {"model": "rehearsal/varied"}, "perturbation": {"params": {"edit_failure_rate": 0.3}}}
    report = run(database, "rmboost", limit=300, models=models)
    wrong = sum(
        oracle.better(messages_of(row["chosen"])[:-1], row["chosen"][-1]["content"], row["rejected"][-1]["content"])
        == "second"
        for row in query(database, "SELECT chosen, rejected FROM preference_pairs")
    )
    assert wrong / report.pairs == pytest.approx(0.3, abs=3.3 * (0.21 / report.pairs) ** 0.5)


def test_dialogues_go_on_from_pairs_over_several_turns(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    report = run(database, "rmboost", limit=10, turns=3)
    assert report.done == 10
    depths = query(database, "SELECT first_divergent_turn AS turn, count(*) AS n FROM pairs GROUP BY 1 ORDER BY 1")
    assert [row["turn"] for row in depths] == [1, 2, 3]
    dangling = query(
        database,
        """
        SELECT turn_id FROM (SELECT unnest(turn_ids) AS turn_id FROM dialogues) WHERE turn_id NOT IN (SELECT turn_id FROM turns)
        UNION ALL SELECT turn_id FROM turns WHERE turn_id NOT IN (SELECT unnest(turn_ids) FROM dialogues)
        """,
    )
    assert dangling == []


def test_a_pair_is_shown_with_its_direction_its_aspects_and_its_plan(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    run(database, "rmboost", limit=3, pairing={"domain": "long_form_qa", "boost": {"better": 0.0, "verify": True}})
    (row, *_) = query(database, "SELECT pair_id, aspects FROM pairs")
    page = io.StringIO()
    show(database, row["pair_id"], Console(file=page, width=160))
    text = page.getvalue()
    assert (
        f"[WRITTEN TO BE WORSE in {', '.join(row['aspects'])}: rmboost_edit, it landed (by rehearsal/default)]" in text
    )
    assert "plan: " in text
    assert f"chosen first, {row['aspects'][0]}: " in text
