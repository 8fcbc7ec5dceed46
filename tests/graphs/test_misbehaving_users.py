"""A campaign whose user simulator is made to break its role stores none of it as good, and says how much it caught.

What was played is known from each request's own chance (`what_was_played`), not from the gate's rules and not from the text.
"""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agents.rehearsal.backend import what_was_played
from agents.rehearsal.misbehaviour import KINDS
from agents.rehearsal.server import ServerSettings, serving
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.report import report_lines
from graphs.schedule import turns_of
from graphs.seeds import load_seeds
from store.database import query
from store.identity import chance
from store.writer import Writer
from tests.processes import start_descant, wait_until

FORMS: dict[str, dict[str, Any]] = {
    "prompted": {"recipe": "dialogue", "simulator": "prompted"},
    "trained": {"recipe": "dialogue", "simulator": "trained"},
    "music": {"recipe": "music", "simulator": "prompted"},
    "hard": {
        "recipe": "dialogue",
        "simulator": "prompted",
        "seeds": {"format": "rehearsal", "limit": 30, "world": "hard"},
    },
}


def settings_for(**given: Any) -> CampaignSettings:
    data: dict[str, Any] = {
        "name": "misbehaving",
        "turns": {"mean": 6.0, "low": 2, "high": 12},
        "seeds": {"format": "rehearsal", "limit": 30},
        "gate": {"repetitive": 0.9, "min_words": 2},  # the rehearsal's sentences are short and much alike
        "models": {"default": {"model": "rehearsal/default"}, "user": {"model": "rehearsal/misbehaving"}},
    }
    return CampaignSettings.model_validate(data | given)


def target_of(dialogue: dict[str, Any]) -> int:
    """The number of turns that the dialogue's seed draws."""
    drawn = chance(0, dialogue["campaign_id"], dialogue["seed_id"], dialogue["trial"])
    return turns_of(settings_for().turns, drawn)


def run(settings: CampaignSettings, database: Path) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def rows(database: Path, sql: str) -> list[dict[str, Any]]:
    return query(database, sql)


def injected(database: Path) -> dict[str, str]:
    """The kind of misbehaviour by the call that played it."""
    calls = rows(database, "SELECT * FROM calls WHERE agent = 'user' AND status = 'done'")
    played = {
        call["call_id"]: what_was_played(call["model"], call["messages"], json.loads(call["parameters"]))
        for call in calls
    }
    return {call_id: kind for call_id, kind in played.items() if kind is not None}


@pytest.fixture(scope="module", params=FORMS)
def misbehaved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CampaignReport]:
    database = tmp_path_factory.mktemp("misbehaving") / "corpus.duckdb"
    return database, run(settings_for(**FORMS[request.param]), database)


def test_every_misbehaviour_is_caught_for_what_it_is(misbehaved: tuple[Path, CampaignReport]) -> None:
    database, _ = misbehaved
    played = injected(database)
    assert min(Counter(played.values())[kind] for kind in KINDS) >= 3
    caught = {row["call_id"]: row["reason"] for row in rows(database, "FROM caught")}
    assert {call_id: caught.get(call_id) for call_id in played} == played


def test_no_misbehaviour_is_a_turn(misbehaved: tuple[Path, CampaignReport]) -> None:
    database, _ = misbehaved
    spoken = {row["call_id"] for row in rows(database, "SELECT call_id FROM turns WHERE agent = 'user'")}
    assert spoken
    assert not spoken & injected(database).keys()
    assert not spoken & {row["call_id"] for row in rows(database, "FROM caught")}


def test_what_is_done_has_its_target_and_what_could_not_be_mended_failed(
    misbehaved: tuple[Path, CampaignReport],
) -> None:
    database, report = misbehaved
    dialogues = rows(database, "FROM dialogues")
    # the rehearsal itself may say much the same twice: that alone ends a dialogue early, and says so
    done = [
        row for row in dialogues if row["status"] == "done" and row["termination_reason"] not in ("repetitive", "short")
    ]
    assert {row["termination_reason"] for row in done} == {"max_turns"}
    assert [row["n_turns"] for row in done] == [target_of(row) for row in done]
    failed = [row for row in dialogues if row["status"] == "failed"]
    assert (len(done) > len(failed) > 0, report.failed) == (True, len(failed))
    assert {row["termination_reason"] for row in failed} <= set(KINDS)
    assert all("the user simulator broke its role" in row["error"] for row in failed)
    errors = rows(database, "FROM errors WHERE what = 'dialogue'")
    assert {row["id"] for row in errors} == {row["dialogue_id"] for row in failed}
    assert (
        rows(database, "FROM pairs JOIN dialogues ON dialogue_id IN (chosen_id, rejected_id) WHERE status = 'failed'")
        == []
    )


def test_the_report_counts_what_the_table_holds(misbehaved: tuple[Path, CampaignReport]) -> None:
    database, report = misbehaved
    caught = rows(database, "FROM caught")
    by_reason, by_outcome = (Counter(row[column] for row in caught) for column in ("reason", "outcome"))
    assert (report.caught, report.caught_outcomes) == (by_reason, by_outcome)
    assert by_outcome["failed"] == report.failed
    (line,) = [line for line in report_lines(report, database="x", skipped=0) if line.startswith("gate ")]
    assert line.startswith(f"gate       {len(caught)} queries caught: ")
    for kind in KINDS:
        assert f"{by_reason[kind]} {kind}" in line
    assert line.endswith(f"{report.failed} dialogues failed")


def test_without_a_gate_it_all_comes_in(tmp_path: Path) -> None:
    """What the tests above would see if nothing were caught."""
    report = run(settings_for(gate=None, recipe="dialogue"), tmp_path / "corpus.duckdb")
    spoken = {
        row["call_id"] for row in rows(tmp_path / "corpus.duckdb", "SELECT call_id FROM turns WHERE agent = 'user'")
    }
    played = injected(tmp_path / "corpus.duckdb")
    assert {kind for call_id, kind in played.items() if call_id in spoken} == {*KINDS} - {"early_end"}
    assert (report.caught, report.failed) == (None, 0)


COLUMNS = {
    "caught": "*",
    "turns": "*",
    "dialogues": "*",
    "requests": "call_id, request_hash, purpose, ordinal, messages, response, status",
}


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(tuple(map(str, row.values())) for row in rows(database, f"SELECT {columns} FROM {table}"))
        for table, columns in COLUMNS.items()
    }


@pytest.mark.chain
@pytest.mark.parametrize("simulator", ["prompted", "trained"])
def test_stopped_again_and_again_it_is_the_same_campaign(tmp_path: Path, simulator: str) -> None:
    given: dict[str, Any] = {
        "recipe": "dialogue",
        "simulator": simulator,
        "seeds": {"format": "rehearsal", "limit": 4},
        "concurrency": 2,
        "gate": {"repetitive": 0.9, "min_words": 2, "model": True},
    }
    whole = run(settings_for(**given), tmp_path / "whole.duckdb")
    reports: list[CampaignReport] = []
    while not reports or reports[-1].stop_reason is not None:  # a stop every five calls falls between any two of them
        budget = {"calls": 5 * (len(reports) + 1)}
        reports.append(run(settings_for(**given, budget=budget), tmp_path / "stopped.duckdb"))
    assert len(reports) > 5
    assert contents(tmp_path / "stopped.duckdb") == contents(tmp_path / "whole.duckdb")
    assert reports[-1].caught == whole.caught != {}
    assert sum(report.calls_sent for report in reports) == whole.calls_sent


@pytest.mark.chain
def test_killed_in_the_midst_of_asking_again_it_goes_on_with_the_same_ids(tmp_path: Path) -> None:
    def of(api_base: str) -> CampaignSettings:
        models = {
            "default": {"model": "hosted_vllm/default", "api_base": api_base},
            "user": {"model": "hosted_vllm/misbehaving", "api_base": api_base},
        }
        return settings_for(recipe="dialogue", models=models, seeds={"format": "rehearsal", "limit": 8}, concurrency=4)

    with serving() as api_base:
        whole = run(of(api_base), tmp_path / "whole.duckdb")
    log, database = tmp_path / "log.jsonl", tmp_path / "killed.duckdb"
    with serving(ServerSettings(latency_ms=15.0, log=str(log))) as api_base:
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps(of(api_base).model_dump(mode="json")), encoding="utf-8")
        process = start_descant("run", str(config), "--db", str(database), cwd=tmp_path)

        def asks_again() -> bool:
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
            again = sum("Task: ask_again" in line for line in lines)
            return again >= 3 and len(lines) >= whole.calls_sent // 4

        wait_until(asks_again)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with Writer(database):
            pass  # takes in what the journal holds
        report = run(of(api_base), database)
    assert 0 < report.calls_reused < whole.calls_sent
    assert contents(database) == contents(tmp_path / "whole.duckdb")
    assert report.caught == whole.caught
