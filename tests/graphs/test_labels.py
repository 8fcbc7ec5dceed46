"""Labels: in the journal before the call that writes their answer, in the share that was asked for, the same after a stop."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.progress import Silent
from graphs.seeds import load_seeds
from store.database import query
from store.records import RECORDS
from store.segments import journal_folder

BETTER = 0.4


def settings_for(**given: Any) -> CampaignSettings:
    data: dict[str, Any] = {
        "name": "labels",
        "recipe": "rmboost",
        "seeds": {"format": "rehearsal", "world": "lists", "limit": 1100},
        "pairing": {"domain": "long_form_qa", "boost": {"better": BETTER}},
        "models": {"assistant": {"model": "rehearsal/varied"}},
    }
    return CampaignSettings.model_validate(data | given)


class JournalKept(Silent):
    """Keeps the lines of a campaign's journal, which a clean end removes."""

    def __init__(self, database: Path) -> None:
        self.folder = journal_folder(database)
        self.lines: list[dict[str, Any]] = []

    def __exit__(self, *_: object) -> None:
        for segment in sorted(self.folder.iterdir()):
            self.lines += [json.loads(line) for line in segment.read_bytes().splitlines()]


def run(settings: CampaignSettings, database: Path, progress: Silent | None = None) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database, progress=progress)


@pytest.mark.chain
def test_over_a_thousand_pairs_each_label_stands_before_its_answer_and_the_share_is_kept(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    journal = JournalKept(database)
    report = run(settings_for(), database, journal)
    assert report.pairs > 1000
    labelled: set[str] = set()
    written: Counter[str] = Counter()
    for line in journal.lines:
        row = line["r"]
        if line["t"] == "labels":
            labelled.add(row["dialogue_id"])
        elif line["t"] == "calls" and row["purpose"] == "boost":
            assert row["dialogue_id"] in labelled, "the second answer was asked for before its label was noted"
            written[row["status"]] += 1
    assert written["started"] == written["done"] > 1000

    rows = query(
        database,
        """
        SELECT count(*) AS pairs, count(*) FILTER (edits.direction = 'better') AS better,
            count(*) FILTER (labels.created_at <= first_asked) AS in_order, count(*) FILTER (edits.direction = labels.direction) AS as_drawn
        FROM pairs JOIN perturbations AS edits ON edits.dialogue_id IN (chosen_id, rejected_id)
        JOIN dialogues ON dialogues.dialogue_id = chosen_id
        JOIN labels ON labels.dialogue_id = dialogues.forked_from
        JOIN (SELECT dialogue_id, min(created_at) AS first_asked FROM calls WHERE purpose = 'boost' GROUP BY 1) AS asked
            ON asked.dialogue_id = labels.dialogue_id
        """,
    )
    (found,) = rows
    assert found["pairs"] == found["in_order"] == found["as_drawn"] == report.pairs
    deviation = (BETTER * (1 - BETTER) / report.pairs) ** 0.5
    assert found["better"] / report.pairs == pytest.approx(BETTER, abs=3.3 * deviation)  # 99.9 %


def test_a_campaign_that_goes_on_keeps_its_labels_where_they_stood(tmp_path: Path) -> None:
    given: dict[str, Any] = {"seeds": {"format": "rehearsal", "world": "lists", "limit": 30}, "concurrency": 4}
    stopped, whole = tmp_path / "stopped.duckdb", tmp_path / "whole.duckdb"
    assert run(settings_for(**given, budget={"calls": 41}), stopped).stop_reason is not None
    before = query(stopped, "SELECT * FROM labels")
    assert 0 < len(before) < 30
    report = run(settings_for(**given), stopped)
    assert report.stop_reason is None
    assert report.calls_reused > 0
    after = {row["label_id"]: row for row in query(stopped, "SELECT * FROM labels")}
    assert all(after[row["label_id"]] == row for row in before)
    run(settings_for(**given), whole)
    for table in RECORDS.keys() - {"campaigns", "calls", "labels"}:
        rows = [sorted(map(str, query(database, f"FROM {table}"))) for database in (stopped, whole)]
        assert rows[0] == rows[1], table
    labels = [query(database, "SELECT * EXCLUDE (created_at) FROM labels ORDER BY 1") for database in (stopped, whole)]
    assert labels[0] == labels[1]
