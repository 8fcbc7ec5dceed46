"""Campaigns over real HTTP: the same ids and texts however often they were stopped, and nothing paid twice."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agents.failures import ProviderError
from agents.ledger import Ledger
from agents.rehearsal.server import ServerSettings, serving
from configs.errors import DescantError
from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.progress import Counters, Silent
from graphs.seeds import load_seeds
from store.database import query
from store.export import export_pairs
from store.writer import LockedError, Writer
from tests.disks import SmallDisk
from tests.processes import start_descant, wait_until
from tests.servers import Asked, failure, openai_completion, scripted_server

TABLES = {
    "campaigns": "campaign_id, name, recipe, status, version",
    "seeds": "*",
    "turns": "*",
    "dialogues": "*",
    "perturbations": "*",
    "caught": "*",
    "pairs": "*",
    "judgements": "*",
    "dialogue_stats": "*",
    "requests": "call_id, request_hash, campaign_id, dialogue_id, agent, purpose, ordinal, model, messages, parameters, "
    "response, finish_reason, status, prompt_tokens, completion_tokens, cost_usd, error",
}
"""What must not depend on when and how fast a campaign ran."""
N_SEEDS = 5
FEWEST_CALLS = 12
"""Of a seed of two turns: 3 on the chosen side, 7 on the rejected, 2 of a judge; a contrast that is tried again takes 3 more."""


def settings_for(api_base: str, **given: Any) -> CampaignSettings:
    data: dict[str, Any] = {
        "name": "test",
        "recipe": "music",
        "turns": 2,
        "concurrency": 4,
        "seeds": {"format": "rehearsal", "limit": N_SEEDS},
        "perturb": {"verify": True},
        "judge_pairs": True,
        "models": {
            "default": {"model": "hosted_vllm/default", "api_base": api_base},
            "judges": [{"params": {"judge_error_rate": 0.4}}],  # so that contrasts are found to have missed
        },
    }
    return CampaignSettings.model_validate({**data, **given})


def run(settings: CampaignSettings, database: Path) -> CampaignReport:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: sorted(tuple(map(str, row.values())) for row in query(database, f"SELECT {columns} FROM {table}"))
        for table, columns in TABLES.items()
    }


def exported(database: Path) -> bytes:
    target = database.with_suffix(".jsonl")
    export_pairs(database, target, "skywork")
    return target.read_bytes()


def n_calls(database: Path) -> int:
    (row,) = query(database, "SELECT count(*) AS n FROM calls")
    return int(row["n"])


def status_of(database: Path) -> str:
    (row,) = query(database, "SELECT status FROM campaigns")
    return str(row["status"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a campaign that ran through at once."""
    database = tmp_path_factory.mktemp("uninterrupted") / "corpus.duckdb"
    with serving() as api_base:
        report = run(settings_for(api_base), database)
    assert (report.done, report.failed, report.calls_sent) == (2 * N_SEEDS, 0, n_calls(database))
    assert report.stop_reason is None
    return database


def test_everything_is_in_the_database(uninterrupted: Path) -> None:
    rows = contents(uninterrupted)
    assert status_of(uninterrupted) == "done"
    assert {table: len(rows[table]) for table in ("seeds", "dialogues", "perturbations")} == {
        "seeds": N_SEEDS,
        "dialogues": 2 * N_SEEDS,
        "perturbations": 2 * N_SEEDS,
    }
    (tried,) = query(uninterrupted, "SELECT sum(attempts - 1)::INT AS again, max(attempts) AS most FROM perturbations")
    assert tried["again"] > 0
    assert tried["most"] <= 3
    assert len(rows["requests"]) == N_SEEDS * FEWEST_CALLS + 3 * tried["again"]
    verdicts = query(uninterrupted, "SELECT count(*) AS n FROM judgements WHERE rubric = 'verify'")
    assert verdicts == [{"n": 2 * N_SEEDS + tried["again"]}]
    assert not uninterrupted.with_name("corpus.duckdb.journal").exists()


def test_the_same_campaign_twice_is_the_same_bytes(uninterrupted: Path, tmp_path: Path) -> None:
    with serving() as api_base:  # another address, another pace
        run(settings_for(api_base, concurrency=1, budget={"calls": 9999}), tmp_path / "again.duckdb")
    assert contents(tmp_path / "again.duckdb") == contents(uninterrupted)
    assert exported(tmp_path / "again.duckdb") == exported(uninterrupted)


def written(path: Path, settings: CampaignSettings) -> str:
    path.write_text(json.dumps(settings.model_dump(mode="json")), encoding="utf-8")
    return str(path)


def log_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_killed_campaign_goes_on_where_it_was(uninterrupted: Path, tmp_path: Path) -> None:
    database, log, all_calls = tmp_path / "corpus.duckdb", tmp_path / "log.jsonl", n_calls(uninterrupted)
    with serving(ServerSettings(latency_ms=15.0, log=str(log))) as api_base:
        settings = settings_for(api_base)
        process = start_descant("run", written(tmp_path / "config.yaml", settings), "--db", str(database), cwd=tmp_path)
        wait_until(lambda: len(log_of(log)) >= all_calls // 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        with Writer(database):
            pass  # takes in what the journal holds
        paid = {row["seed"] for row in query(database, PAID_SEEDS)}
        assert status_of(database) == "running"
        assert all_calls // 3 < len(paid) < all_calls
        before = len(log_of(log))
        report = run(settings, database)
    after = [row["request"]["seed"] for row in log_of(log)[before:]]
    assert not paid & set(after)
    assert report.calls_sent == len(after) == all_calls - len(paid)
    assert report.done == 2 * N_SEEDS
    assert contents(database) == contents(uninterrupted)
    assert exported(database) == exported(uninterrupted)


PAID_SEEDS = "SELECT json_extract(parameters, '$.seed')::BIGINT AS seed FROM calls WHERE status = 'done'"


def test_an_interrupted_campaign_drains_and_goes_on(uninterrupted: Path, tmp_path: Path) -> None:
    database, log, all_calls = tmp_path / "corpus.duckdb", tmp_path / "log.jsonl", n_calls(uninterrupted)

    def interrupt() -> None:
        wait_until(lambda: len(log_of(log)) >= all_calls // 3)
        os.kill(os.getpid(), signal.SIGINT)

    with serving(ServerSettings(latency_ms=15.0, log=str(log))) as api_base:
        settings = settings_for(api_base)
        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        report = run(settings, database)
        interrupter.join()
        assert report.stop_reason is not None
        assert "the same command goes on from here" in report.stop_reason
        assert status_of(database) == "paused"
        # every call in flight came home
        assert len(query(database, PAID_SEEDS)) == len(log_of(log)) == report.calls_sent < all_calls
        run(settings, database)
    assert len(log_of(log)) == all_calls
    assert contents(database) == contents(uninterrupted)


class RoomInTime(Silent):
    """Makes room on a full disk once the campaign has sent nothing for a second."""

    def __init__(self, disk: SmallDisk) -> None:
        self.disk = disk
        self.paused_at = 0
        """Requests sent by then."""
        self._sent, self._since = 0, time.monotonic()

    def update(self, counters: Counters, ledger: Ledger) -> None:
        if ledger.sent != self._sent:
            self._sent, self._since = ledger.sent, time.monotonic()
        elif time.monotonic() - self._since > 1.0 and shutil.disk_usage(self.disk.place).free < 10_000:
            assert counters.ended < counters.total
            self.paused_at = ledger.sent
            self.disk.resize(100_000)


def test_a_campaign_on_a_full_disk_pauses_and_goes_on_by_itself_when_there_is_room(small_disk: SmallDisk) -> None:
    settings = load("rehearsal", CampaignSettings, overrides=["seeds.limit=25"])
    database, progress = small_disk.place / "corpus.duckdb", RoomInTime(small_disk)
    Writer(database).close()
    small_disk.resize(database.stat().st_size // 1024 + 400)
    report = run_campaign(settings, load_seeds(settings).seeds, database, progress=progress)
    assert 0 < progress.paused_at < report.calls_sent
    assert report.done == report.dialogues == 50


def test_a_finished_campaign_sends_nothing_more(uninterrupted: Path, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    database.write_bytes(uninterrupted.read_bytes())
    with serving() as api_base:
        report = run(settings_for(api_base), database)
    assert (report.calls_sent, report.done, report.stop_reason) == (0, 2 * N_SEEDS, None)


def test_seeds_and_limit_may_grow_in_the_same_campaign(uninterrupted: Path, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    with serving() as api_base:
        few = run(settings_for(api_base, seeds={"format": "rehearsal", "limit": 3}), database)
        all_of_them = run(settings_for(api_base, concurrency=2), database)
    assert few.campaign_id == all_of_them.campaign_id
    assert few.calls_sent >= 3 * FEWEST_CALLS
    assert few.calls_sent + all_of_them.calls_sent == n_calls(uninterrupted)
    assert contents(database) == contents(uninterrupted)


def test_a_spent_budget_pauses_and_a_raised_one_goes_on(uninterrupted: Path, tmp_path: Path) -> None:
    database, log = tmp_path / "corpus.duckdb", tmp_path / "log.jsonl"
    with serving(ServerSettings(log=str(log))) as api_base:
        for calls in (20, 30):
            report = run(settings_for(api_base, budget={"calls": calls}), database)
            assert report.stop_reason is not None
            assert f"budget of {calls} calls is spent" in report.stop_reason
            assert len(log_of(log)) == calls
            assert status_of(database) == "paused"
        report = run(settings_for(api_base), database)
    assert report.stop_reason is None
    assert len(log_of(log)) == n_calls(uninterrupted)
    assert contents(database) == contents(uninterrupted)


class Late(Response):
    """Comes after everything that is quick."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.3)
        await super().__call__(scope, receive, send)


def test_a_stopped_branch_leaves_its_siblings_call_to_come_home(tmp_path: Path) -> None:
    def speak(asked: Asked) -> str | Response:
        if "Task: alter" in asked.body["messages"][-1]["content"]:
            return "something else"
        return Late(json.dumps(openai_completion("an answer", asked.body)), media_type="application/json")

    with scripted_server(speak) as server:
        settings = settings_for(server.url, turns=1, concurrency=1, budget={"calls": 2})
        report = run(settings, tmp_path / "corpus.duckdb")
    assert report.stop_reason is not None
    rows = query(tmp_path / "corpus.duckdb", "SELECT purpose, status FROM calls ORDER BY purpose")
    assert [(row["purpose"], row["status"]) for row in rows] == [("alter", "done"), ("answer", "done")]


def test_branches_that_share_text_go_on_after_a_stop_too(tmp_path: Path) -> None:
    given = ["perturb.share=rest", "seeds.limit=2", "turns=2", "concurrency=3"]
    stopped = run(load("rehearsal", CampaignSettings, overrides=[*given, "budget.calls=9"]), tmp_path / "a.duckdb")
    assert stopped.stop_reason is not None
    report = run(load("rehearsal", CampaignSettings, overrides=given), tmp_path / "a.duckdb")
    assert (report.done, report.calls_reused > 0) == (4, True)
    run(load("rehearsal", CampaignSettings, overrides=given), tmp_path / "b.duckdb")
    assert contents(tmp_path / "a.duckdb") == contents(tmp_path / "b.duckdb")


def test_what_is_fatal_stops_the_campaign_which_can_go_on_afterwards(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    refuse = failure(401, "wrong key")
    with scripted_server("hello there", "hello there", refuse) as server:
        settings = settings_for(server.url, recipe="dialogue", perturb=None, judge_pairs=False, concurrency=1)
        with pytest.raises(ProviderError, match="refused the key") as raised:
            run(settings, database)
        assert raised.value.exit_code == 1
        assert status_of(database) == "paused"
        assert len(server.requests) == 3
        server.script[:] = ["hello again"]
        report = run(settings, database)
        assert (report.done, report.failed, report.calls_reused) == (N_SEEDS, 0, 2)
        assert len(server.requests) == 3 + report.calls_sent


def test_failed_dialogues_are_rows_and_not_the_end(tmp_path: Path) -> None:
    def speak(asked: Asked) -> str | Response:
        return failure(400, "maximum context length is 8 tokens") if asked.body["seed"] % 3 == 0 else "hello"

    with scripted_server(speak) as server:
        report = run(settings_for(server.url), tmp_path / "corpus.duckdb")
    assert report.stop_reason is None
    assert report.failed > 0
    assert report.done + report.failed == 2 * N_SEEDS
    assert status_of(tmp_path / "corpus.duckdb") == "done"
    rows = query(
        tmp_path / "corpus.duckdb", "SELECT DISTINCT termination_reason FROM dialogues WHERE status = 'failed'"
    )
    assert [row["termination_reason"] for row in rows] == ["context_overflow"]


def test_faults_of_a_server_change_no_text(uninterrupted: Path, tmp_path: Path) -> None:
    faults = ServerSettings(fault_rate=0.06, faults=("server_error", "bad_gateway", "reset", "truncated"))
    with serving(faults) as api_base:
        report = run(settings_for(api_base), tmp_path / "corpus.duckdb")
    assert report.calls_sent > n_calls(uninterrupted)
    assert contents(tmp_path / "corpus.duckdb") == contents(uninterrupted)


def test_a_second_campaign_on_the_same_database_is_refused_at_once(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    with serving() as api_base, Writer(database), pytest.raises(LockedError, match=f"by process {os.getpid()}"):
        run(settings_for(api_base), database)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"budget": {"usd": 1.0}}, "budget.usd needs the price of "),
        ({"prompts": {"ask": "{missing}"}}, "cannot read"),
        ({"prompts": {"ask": "{wrong}"}}, "wants persona"),
        ({"models": {"default": {"model": "openai/x", "api_key": "env:NOT_SET_ANYWHERE"}}}, "NOT_SET_ANYWHERE"),
    ],
)
def test_what_cannot_work_leaves_no_database(tmp_path: Path, given: dict[str, Any], expected: str) -> None:
    wrong = tmp_path / "wrong.md"
    wrong.write_text("{{ persona }}", encoding="utf-8")
    if "prompts" in given:
        paths = {"missing": str(tmp_path / "missing.md"), "wrong": str(wrong)}
        given = {"prompts": {"ask": given["prompts"]["ask"].format(**paths)}}
    with serving() as api_base, pytest.raises(DescantError, match=expected):
        run(settings_for(api_base, **given), tmp_path / "corpus.duckdb")
    assert list(tmp_path.iterdir()) == [wrong]


def test_a_role_that_does_not_play_needs_no_key(tmp_path: Path) -> None:
    unused = {"model": "openai/x", "api_key": "env:NOT_SET_ANYWHERE"}
    with serving() as api_base:
        models = {"default": {"model": "hosted_vllm/default", "api_base": api_base}, "judges": [unused]}
        settings = settings_for(api_base, recipe="dialogue", perturb=None, judge_pairs=False, models=models)
        assert run(settings, tmp_path / "corpus.duckdb").done == N_SEEDS
