"""Failed dialogues that are played again: nothing is paid twice, and the corpus is as if they had never failed."""

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.responses import Response

from agents.rehearsal.backend import complete
from configs.settings import CampaignSettings
from graphs.campaign import is_over, run_campaign
from graphs.seeds import load_seeds
from store.control import ask
from store.control_commands import retry_failed
from store.database import StoreError, query
from store.retry import failed_trials, reopen_failed
from store.status import status_of
from store.writer import Writer
from tests.processes import descant, wait_until
from tests.servers import Asked, failure, openai_completion, scripted_server

KEPT = {
    "campaigns": "campaign_id, status",
    "seeds": "*",
    "turns": "*",
    "dialogues": "*",
    "perturbations": "*",
    "caught": "*",
    "labels": "* EXCLUDE (created_at)",
    "pairs": "*",
    "judgements": "*",
    "dialogue_stats": "*",
    "calls": "call_id, request_hash, dialogue_id, agent, purpose, response, finish_reason, status, cost_usd",
    "campaign_stats": "*",
}
"""What must be as if nothing had failed."""
TASK = re.compile(r"^Task: (\w+)$", re.MULTILINE)
RECIPES: Mapping[str, dict[str, Any]] = {
    "dialogue": {"recipe": "dialogue"},
    "music": {"recipe": "music", "perturb": {"verify": True}, "judge_pairs": True},
    "music that shares text": {"recipe": "music", "perturb": {"verify": True, "share": "rest"}},
    "capo": {"recipe": "capo", "perturb": {"kinds": ["context_neglect", "context_hallucination"]}},
    "rmboost": {"recipe": "rmboost", "pairing": {"boost": {"verify": True}}},
    "rlaif": {"recipe": "rlaif"},
}


def settings_for(api_base: str, recipe: str, **given: Any) -> CampaignSettings:
    data: dict[str, Any] = {
        "name": "retried",
        "turns": 3,
        "concurrency": 8,
        "seeds": {"format": "rehearsal", "limit": 6},
        "models": {"default": {"model": "hosted_vllm/default", "api_base": api_base, "attempts": 1}},
    }
    return CampaignSettings.model_validate({**data, **RECIPES[recipe], **given})


class Backend:
    """The rehearsal, which fails what `fails` says as long as it is broken, and counts what it was paid for."""

    def __init__(self, fails: Callable[[Asked], bool]) -> None:
        self.broken = True
        self.fails = fails
        self.answered: list[int] = []
        """The seeds of the requests that got an answer: a seed is a call."""
        self.refused: list[int] = []

    def __call__(self, asked: Asked) -> str | Response:
        seed = asked.body["seed"]
        if self.broken and self.fails(asked):
            self.refused.append(seed)
            return failure(503, "overloaded")
        self.answered.append(seed)
        done = complete("default", asked.body["messages"], asked.body)
        body = openai_completion(done.content, asked.body, finish_reason=done.finish_reason)
        return Response(json.dumps(body), media_type="application/json")


def every(n: int, *tasks: str) -> Callable[[Asked], bool]:
    """Every nth call of these tasks, whose failures fail a dialogue; `chat` is one without."""

    def fails(asked: Asked) -> bool:
        found = TASK.search(asked.body["messages"][-1]["content"])
        return asked.body["seed"] % n == 0 and (found[1] if found else "chat") in tasks

    return fails


def play(settings: CampaignSettings, database: Path) -> Any:
    return run_campaign(settings, load_seeds(settings).seeds, database)


def contents(database: Path) -> dict[str, list[tuple[str, ...]]]:
    return {
        table: sorted(tuple(map(str, row.values())) for row in query(database, f"SELECT {columns} FROM {table}"))
        for table, columns in KEPT.items()
    }


def orphans(database: Path) -> dict[str, int]:
    """What stands in the corpus without what it belongs to."""
    (row,) = query(
        database,
        """
        WITH listed AS (SELECT dialogue_id, unnest(turn_ids) AS turn_id FROM dialogues)
        SELECT
            (SELECT count(*) FROM listed WHERE turn_id NOT IN (SELECT turn_id FROM turns)) AS turns_missing,
            (SELECT count(*) FROM turns WHERE turn_id NOT IN (SELECT turn_id FROM listed)) AS turns_of_nobody,
            (SELECT count(*) FROM pairs WHERE chosen_id NOT IN (SELECT dialogue_id FROM dialogues WHERE status = 'done')
                OR rejected_id NOT IN (SELECT dialogue_id FROM dialogues WHERE status = 'done')) AS pairs_of_no_dialogue,
            (SELECT count(*) FROM judgements WHERE (dialogue_id IS NOT NULL AND dialogue_id NOT IN (
                SELECT dialogue_id FROM dialogues)) OR (pair_id IS NOT NULL AND pair_id NOT IN (SELECT pair_id FROM pairs)))
                AS judgements_of_nothing,
            (SELECT count(*) FROM perturbations WHERE dialogue_id NOT IN (SELECT dialogue_id FROM dialogues)
                OR turn_id NOT IN (SELECT turn_id FROM turns)) AS perturbations_of_nothing,
            (SELECT count(*) FROM caught WHERE dialogue_id NOT IN (SELECT dialogue_id FROM dialogues)) AS caught_of_nothing,
            (SELECT count(*) FROM dialogue_stats WHERE dialogue_id NOT IN (SELECT dialogue_id FROM dialogues WHERE status <> 'open'))
                AS stats_of_nothing,
            (SELECT count(*) - count(DISTINCT dialogue_id) FROM dialogues) AS twice
        """,
    )
    return {what: n for what, n in row.items() if n}


FAILING: Mapping[str, Callable[[Asked], bool]] = {
    "dialogue": every(5, "ask", "chat"),
    "music": every(9, "ask", "chat", "alter"),
    "music that shares text": every(7, "ask", "chat", "alter"),
    "capo": every(3, "ask", "guess"),
    "rmboost": every(3, "ask"),
    "rlaif": every(3, "ask"),
}


@pytest.mark.parametrize(
    "recipe", ["music", *(pytest.param(name, marks=pytest.mark.chain) for name in RECIPES if name != "music")]
)
def test_after_a_retry_the_corpus_is_that_of_a_campaign_without_failures(recipe: str, tmp_path: Path) -> None:
    whole, mended = tmp_path / "whole.duckdb", tmp_path / "mended.duckdb"
    backend = Backend(FAILING[recipe])
    with scripted_server(backend) as server:
        settings = settings_for(server.url, recipe)
        backend.broken = False
        play(settings, whole)
        all_of_it = sorted(backend.answered)
        backend.broken = True
        backend.answered.clear()
        report = play(settings, mended)
        failed = query(mended, "SELECT * FROM dialogues WHERE status = 'failed'")
        assert report.stop_reason is None
        assert len(failed) > 0
        assert orphans(mended) == {}

        found = reopen_failed(mended)
        assert sum(found.reasons.values()) == len(failed)
        assert set(found.reasons) == {row["termination_reason"] for row in failed}
        assert found.same_again == {}
        assert orphans(mended) == {}
        assert not query(mended, "SELECT * FROM dialogues WHERE status = 'failed'")
        assert not is_over(settings, load_seeds(settings).seeds, mended)
        (campaign,) = status_of(mended)["campaigns"]
        assert (campaign["status"], campaign["dialogues_failed"]) == ("paused", 0)
        assert campaign["dialogues_open"] == len(found.dialogues)
        assert status_of(whole)["campaigns"][0]["dialogues_open"] == 0

        backend.broken = False
        play(settings, mended)
        assert len(set(backend.answered)) == len(backend.answered)  # nothing was paid twice
        assert sorted(backend.answered) == all_of_it
    assert orphans(mended) == {}
    assert contents(mended) == contents(whole)
    attempts = query(mended, "SELECT sum(attempts)::INT AS n FROM calls WHERE campaign_id IS NOT NULL")
    assert attempts == [{"n": len(backend.answered) + len(backend.refused)}]


def test_a_running_campaign_takes_its_failed_dialogues_back(tmp_path: Path) -> None:
    whole, mended = tmp_path / "whole.duckdb", tmp_path / "mended.duckdb"
    backend = Backend(FAILING["music"])
    with scripted_server(backend) as server:
        settings = settings_for(server.url, "music")
        backend.broken = False
        play(settings, whole)
        all_of_it = sorted(backend.answered)
        backend.answered.clear()
        backend.broken = True
        running = threading.Thread(target=play, args=(settings_for(server.url, "music", concurrency=2), mended))
        running.start()
        wait_until(lambda: (asked(mended, "status") or {"failed": 0})["failed"] > 1)
        asked(mended, "pause")
        backend.broken = False
        said = asked(mended, "retry_failed")
        assert said is not None
        assert sum(said["reasons"].values()) == said["dialogues"] > 1
        assert said["taken_back"] == said["trials"] > 0
        held = asked(mended, "status")
        assert held is not None
        assert (held["failed"], held["total"], held["state"]) == (0, 12, "held")
        assert status_of(mended)["campaigns"][0]["dialogues_open"] == 2 * said["trials"]
        assert orphans(mended) == {}
        asked(mended, "resume")
        while running.is_alive() and asked(mended, "retry_failed"):  # a trial that had failed in part and was still on
            running.join(0.1)
        running.join()
        reopen_failed(mended)
        play(settings, mended)  # what failed as the last of all
    assert len(set(backend.answered)) == len(backend.answered)
    assert sorted(backend.answered) == all_of_it
    assert orphans(mended) == {}
    assert contents(mended) == contents(whole)


def asked(database: Path, what: str) -> dict[str, Any] | None:
    return ask(database, {"ask": what}, timeout_seconds=30.0)


def leaves_its_role(asked: Asked) -> bool:
    return "Task: ask" in asked.body["messages"][-1]["content"] and asked.body["seed"] % 2 == 0


def test_what_failed_by_what_was_said_is_left_unless_it_is_named(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"

    def speak(asked: Asked) -> str | Response:
        return "As an AI language model, I cannot ask." if leaves_its_role(asked) else "And why is that so?"

    with scripted_server(speak) as server:
        settings = settings_for(server.url, "dialogue", gate={"model": False, "retries": 0})
        report = play(settings, database)
        reasons = query(
            database,
            "SELECT termination_reason AS why, count(*) AS n FROM dialogues WHERE status = 'failed' GROUP BY why",
        )
        assert report.failed == sum(row["n"] for row in reasons) > 0
        left = reopen_failed(database)
        assert (left.dialogues, left.reasons) == ([], {})
        assert left.same_again == {row["why"]: row["n"] for row in reasons}
        assert status_of(database)["campaigns"][0]["status"] == "done"
        before = len(server.requests)
        named = reopen_failed(database, reasons=[reasons[0]["why"]])
        assert named.reasons == {reasons[0]["why"]: reasons[0]["n"]}
        again = play(settings, database)
        assert (again.failed, again.calls_sent, len(server.requests)) == (report.failed, 0, before)
    assert orphans(database) == {}


def test_only_the_named_campaign_and_reason_are_opened(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    kinds = {0: failure(503, "overloaded"), 1: failure(400, "maximum context length is 8 tokens")}

    def speak(asked: Asked) -> str | Response:
        return kinds.get(asked.body["seed"] % 7, "hello")

    with scripted_server(speak) as server:
        for name in ("one", "two"):
            play(settings_for(server.url, "dialogue", name=name), database)
    everything = failed_trials(database)
    assert set(everything.reasons) == {"server_error", "context_overflow"}
    of_one = failed_trials(database, campaign="one")
    assert {dialogue.campaign_id for dialogue in of_one.dialogues} == {of_one.campaigns[0].campaign_id}
    (campaign_id,) = {campaign.campaign_id for campaign in of_one.campaigns}
    assert failed_trials(database, campaign=campaign_id) == of_one
    overflown = reopen_failed(database, campaign="one", reasons=["context_overflow"])
    assert set(overflown.reasons) == {"context_overflow"}
    rest = failed_trials(database)
    assert rest.reasons == dict((Counter(everything.reasons) - Counter(overflown.reasons)).most_common())
    with pytest.raises(StoreError, match="there is no campaign 'three'"):
        reopen_failed(database, campaign="three")


def test_a_reason_by_which_nothing_failed_is_told_with_those_there_are(tmp_path: Path) -> None:
    with scripted_server(lambda _: failure(400, "maximum context length is 8 tokens")) as server:
        play(settings_for(server.url, "dialogue"), tmp_path / "corpus.duckdb")
    at = ["--db", str(tmp_path / "corpus.duckdb")]
    asked = CliRunner().invoke(retry_failed, [*at, "--reason", "bogus", "--reason", "context_overflow"])
    assert asked.output.splitlines()[-1] == "no dialogue failed by bogus: there are 6 context_overflow"
    assert "6 failed dialogues are to be played again" in asked.output
    database = tmp_path / "none.duckdb"
    Writer(database).close()
    nothing = CliRunner().invoke(retry_failed, ["--db", str(database), "--reason", "bogus"])
    assert nothing.output == "no dialogue failed: nothing to play again\n"


def test_a_name_that_several_campaigns_have_is_refused(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    with scripted_server(lambda _: failure(503, "overloaded")) as server:
        ids = [play(settings_for(server.url, "dialogue", turns=turns), database).campaign_id for turns in (1, 2)]
    with pytest.raises(StoreError, match=f"several campaigns are called 'retried' .{ids[0]}, {ids[1]}.: give the id"):
        reopen_failed(database, campaign="retried")
    assert {found.campaign_id for found in reopen_failed(database, campaign=ids[1]).campaigns} == {ids[1]}


@pytest.mark.chain
def test_the_command_says_how_many_and_who_plays_them(tmp_path: Path) -> None:
    nothing = descant("retry-failed", cwd=tmp_path)
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert nothing.stderr.startswith("error: there is no database at ")
    assert list(tmp_path.iterdir()) == []
    backend = Backend(every(3, "ask"))
    with scripted_server(backend) as server:
        play(settings_for(server.url, "dialogue"), tmp_path / "corpus.duckdb")
    failed = failed_trials(tmp_path / "corpus.duckdb").reasons["server_error"]
    opened = descant("retry-failed", "--reason", "server_error", cwd=tmp_path)
    assert opened.stdout == (
        f"{failed} failed dialogues are to be played again ({failed} server_error): the same `descant run` command plays them "
        "(retried)\n"
    )
    assert f"{failed} to be played again" in descant("status", cwd=tmp_path).stdout
    again = descant("retry-failed", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert (
        again.stdout == f"nothing more to play again: {failed} dialogues that were opened before have not ended yet\n"
    )
    with Writer(tmp_path / "corpus.duckdb"):
        locked = descant("retry-failed", cwd=tmp_path)
    assert (locked.returncode, len(locked.stderr.splitlines())) == (2, 1)
    shown = query(tmp_path / "corpus.duckdb", "SELECT dialogue_id FROM dialogues WHERE status = 'open' LIMIT 1")
    assert "open: server_error" in descant("show", shown[0]["dialogue_id"], cwd=tmp_path).stdout
