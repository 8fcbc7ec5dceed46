"""Campaigns that are asked and told things while they run, over the socket beside their database."""

import json
import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agents.ledger import Ledger
from agents.rehearsal.server import ServerSettings, serving
from configs.judge_settings import JudgeSettings
from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.control import LONGEST_REQUEST, MOST_AT_ONCE, PATIENCE_SECONDS
from graphs.judging import run_judging
from graphs.progress import Counters, Silent
from graphs.seeds import load_seeds
from store.control import RefusedError, address, ask, socket_path
from store.control_commands import concurrency
from store.database import query
from tests.disks import SmallDisk
from tests.processes import descant, start_descant, wait_until
from tests.servers import failure, scripted_server

SEEDS = 12


class Lines(Silent):
    """What the running side said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.most_open = 0

    def say(self, line: str) -> None:
        self.lines.append(line)

    def update(self, counters: Counters, ledger: Ledger) -> None:  # noqa: ARG002
        self.most_open = max(self.most_open, counters.in_flight)


class Run:
    """A campaign, or a judging, in a thread of this process."""

    def __init__(self, settings: CampaignSettings | JudgeSettings, database: Path) -> None:
        self.database = database
        self.progress = Lines()
        self._reports: list[Any] = []
        self._errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(settings,), daemon=True)
        self._thread.start()

    def _run(self, settings: CampaignSettings | JudgeSettings) -> None:
        try:
            if isinstance(settings, JudgeSettings):
                self._reports.append(run_judging(settings, self.database, progress=self.progress))
                return
            report = run_campaign(settings, load_seeds(settings).seeds, self.database, progress=self.progress)
            self._reports.append(report)
        except BaseException as error:  # noqa: BLE001  raised where the test waits for the end
            self._errors.append(error)

    def ask(self, what: str = "status", **more: Any) -> dict[str, Any]:
        answer = ask(self.database, {"ask": what, **more}, timeout_seconds=20.0)
        assert answer is not None, self._errors
        return answer

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """What it says once it says so."""
        last: list[dict[str, Any]] = []

        def looked() -> bool:
            assert not self._errors, self._errors
            answer = ask(self.database, {"ask": "status"}, timeout_seconds=20.0)
            last.append(answer or {})
            return answer is not None and condition(answer)

        wait_until(looked, seconds=30.0)
        return last[-1]

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def report(self) -> Any:
        """How it ended."""
        self._thread.join(30.0)
        for error in self._errors:
            raise error
        return self._reports[0]


def settings_for(api_base: str, **given: Any) -> CampaignSettings:
    data: dict[str, Any] = {
        "name": "controlled",
        "recipe": "dialogue",
        "turns": 3,
        "concurrency": 4,
        "seeds": {"format": "rehearsal", "limit": SEEDS},
        "models": {"default": {"model": "hosted_vllm/default", "api_base": api_base}},
    }
    return CampaignSettings.model_validate({**data, **given})


@pytest.fixture(scope="module")
def api_base() -> Iterator[str]:
    with serving(ServerSettings(latency_ms=25.0)) as base:
        yield base


@contextmanager
def held(settings: CampaignSettings, database: Path) -> Iterator[Run]:
    """A campaign that was paused in its middle; it is let go, and ends, with the block."""
    run = Run(settings, database)
    run.until(lambda said: said["calls_sent"] >= 8)
    run.ask("pause")
    run.until(lambda said: not said["calls_in_flight"])
    yield run
    if not run.is_over:
        run.ask("resume")
    run.report()


@pytest.fixture(scope="module")
def paused(api_base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A campaign that stays held for several tests."""
    with held(settings_for(api_base), tmp_path_factory.mktemp("paused") / "corpus.duckdb") as run:
        yield run


def status_of(database: Path) -> str:
    rows = query(database, "SELECT status FROM campaigns")  # none before the first rows were taken in
    return str(rows[0]["status"]) if rows else ""


def test_a_running_campaign_says_how_it_stands(api_base: str, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    run = Run(settings_for(api_base, budget={"calls": 1000}), database)
    said = run.until(lambda said: said["calls_sent"] > 8)
    assert (said["state"], said["pid"], said["name"]) == ("running", os.getpid(), "controlled")
    assert (said["total"], said["open"], said["concurrency"]) == (SEEDS, 4, 4)
    assert 0 < said["calls_in_flight"] <= 4
    assert said["calls_a_second"] > 0
    (spent,) = said["budget"]
    assert (spent["role"], spent["calls"], spent["calls_cap"]) == (None, said["calls_sent"], 1000)
    (limiter,) = said["limiters"]
    assert (limiter["model"], limiter["limit"], limiter["waiting"]) == ("hosted_vllm/default", None, 0)
    assert stat.S_IMODE(socket_path(database).stat().st_mode) == 0o600
    assert run.report().done == SEEDS
    assert not socket_path(database).exists()
    assert ask(database, {"ask": "status"}) is None


def test_a_paused_campaign_sends_nothing_until_it_is_resumed(api_base: str, tmp_path: Path) -> None:
    with held(settings_for(api_base), tmp_path / "corpus.duckdb") as run:
        before = run.ask()
        assert (before["state"], before["open"]) == ("held", 4)
        wait_until(lambda: status_of(run.database) == "paused")
        done = "SELECT count(*)::INT AS n FROM calls WHERE status = 'done'"
        wait_until(lambda: query(run.database, done) == [{"n": before["calls_sent"]}])  # what was in flight came home
        threading.Event().wait(0.15)
        assert run.ask()["calls_sent"] == before["calls_sent"]
        assert run.ask("resume")["state"] == "running"
        report = run.report()
    assert (report.done, report.stop_reason) == (SEEDS, None)
    assert status_of(run.database) == "done"
    assert [line.split(":")[0] for line in run.progress.lines] == [
        "held by `descant pause`",
        "resumed by `descant resume`",
    ]


def test_a_pause_holds_back_the_retries_of_calls_too(tmp_path: Path) -> None:
    with scripted_server(failure(500)) as server:
        run = Run(settings_for(server.url), tmp_path / "corpus.duckdb")
        run.until(lambda said: said["calls_sent"] >= 4)
        run.ask("pause")
        sent = run.until(lambda said: not said["calls_in_flight"])["calls_sent"]
        threading.Event().wait(0.6)  # longer than the first pauses between two tries
        assert run.ask()["calls_sent"] == sent == len(server.requests)
        server.script[:] = ["hello"]
        run.ask("resume")
        assert run.report().done == SEEDS


def test_a_campaign_that_waits_for_a_full_disk_can_be_held_and_let_go(api_base: str, small_disk: SmallDisk) -> None:
    small_disk.resize(20_000)
    database = small_disk.place / "corpus.duckdb"
    run = Run(settings_for(api_base), database)
    run.until(lambda said: said["calls_sent"] >= 8)
    filler = small_disk.place / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    run.until(lambda said: said["state"] == "waiting")
    paused = descant("pause", cwd=small_disk.place)
    assert (paused.returncode, paused.stderr) == (0, "")
    assert "controlled is held" in paused.stdout
    assert "is full: the campaign waits" in (status := descant("status", cwd=small_disk.place).stdout)
    assert "and held by `descant pause`" in status
    for what in ("resume", "pause"):
        assert run.ask(what)["held"] == (what == "pause")
    filler.unlink()
    run.until(lambda said: said["state"] == "held")
    run.ask("resume")
    assert run.report().done == SEEDS


def test_more_dialogues_at_once_begin_while_it_runs_and_fewer_end_after_theirs(api_base: str, tmp_path: Path) -> None:
    with held(settings_for(api_base, seeds={"format": "rehearsal", "limit": 30}), tmp_path / "corpus.duckdb") as run:
        said = run.ask("concurrency", n=9)
        assert (said["before"], said["concurrency"]) == (4, 9)
        run.until(lambda said: said["open"] == 9)
        assert run.ask("concurrency", n=2)["concurrency"] == 2
        assert run.ask()["open"] == 9  # they are played to their end
        run.ask("resume")
        run.until(lambda said: said["open"] == 2)
        assert run.report().done == 30
    assert run.progress.lines[1:3] == [
        "4 -> 9 dialogues at once, by `descant concurrency`",
        "9 -> 2 dialogues at once, by `descant concurrency`",
    ]


def test_the_two_branches_of_a_music_seed_count_as_two_dialogues(api_base: str, tmp_path: Path) -> None:
    settings = settings_for(api_base, recipe="music", concurrency=5)
    with held(settings, tmp_path / "corpus.duckdb") as run:
        assert run.ask()["concurrency"] == run.ask()["open"] == 4
        assert run.ask("concurrency", n=7)["concurrency"] == 6
        run.until(lambda said: said["open"] == 6)
        assert run.ask("concurrency", n=1)["concurrency"] == 2
        told = CliRunner().invoke(concurrency, ["3", "--db", str(run.database)]).output
        assert told.startswith(
            "controlled: 2 -> 2 dialogues at once (not 3: a seed's 2 branches play side by side, and each"
        )
        assert "(not" not in CliRunner().invoke(concurrency, ["4", "--db", str(run.database)]).output


@pytest.mark.chain
def test_a_held_campaign_that_is_interrupted_ends_and_goes_on_by_its_command(api_base: str, tmp_path: Path) -> None:
    seeds = {"format": "rehearsal", "limit": 100}
    (tmp_path / "config.yaml").write_text(json.dumps(settings_for(api_base, seeds=seeds).model_dump(mode="json")))
    database = tmp_path / "corpus.duckdb"
    process = start_descant("run", "config.yaml", "--set", "concurrency=1", cwd=tmp_path)
    wait_until(lambda: (ask(database, {"ask": "status"}) or {"calls_sent": 0})["calls_sent"] >= 8)
    paused = descant("pause", cwd=tmp_path)
    assert (paused.returncode, paused.stderr) == (0, "")
    assert paused.stdout == "controlled is held: no call is out; `descant resume` goes on\n"
    sent_before = (ask(database, {"ask": "status"}) or {})["calls_sent"]
    status = descant("status", cwd=tmp_path)
    assert "now: controlled is held by `descant pause`: `descant resume` goes on\n" in status.stdout
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "held by `descant pause`" in err
    assert "the same command goes on from here" in out
    resumed = descant("resume", cwd=tmp_path)
    assert resumed.returncode == 2
    assert resumed.stderr.startswith("error: no campaign is running on ")
    assert len(resumed.stderr.splitlines()) == 1
    report = json.loads(descant("run", "config.yaml", "--json", "--set", "concurrency=50", cwd=tmp_path).stdout)
    assert (report["done"], report["stop_reason"]) == (100, None)
    ((calls,),) = (row.values() for row in query(database, "SELECT count(*) FROM calls"))
    assert sent_before + report["calls_sent"] == calls, "none was paid for twice"


@pytest.mark.chain
def test_a_held_campaign_that_is_killed_goes_on_by_its_command(api_base: str, tmp_path: Path) -> None:
    settings, database = settings_for(api_base), tmp_path / "corpus.duckdb"
    (tmp_path / "config.yaml").write_text(json.dumps(settings.model_dump(mode="json")))
    process = start_descant("run", "config.yaml", cwd=tmp_path)
    wait_until(lambda: (ask(database, {"ask": "status"}) or {"calls_sent": 0})["calls_sent"] >= 8)
    ask(database, {"ask": "pause"})
    process.kill()
    process.communicate()
    assert socket_path(database).exists()
    assert ask(database, {"ask": "status"}) is None
    run = Run(settings, database)  # the socket that was left is replaced
    run.until(lambda said: said["state"] == "running")
    assert run.report().done == SEEDS
    assert not socket_path(database).exists()


def test_a_judging_can_be_held_and_told_too(api_base: str, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    made = load("rehearsal", CampaignSettings, overrides=["seeds.limit=8", "turns=1", "perturb.verify=false"])
    run_campaign(made, load_seeds(made).seeds, database)
    named = load("pairwise", JudgeSettings, folder="judge").model_dump(exclude_unset=True)
    models = {"default": {"model": "hosted_vllm/default", "api_base": api_base}, "judges": [{}]}
    run = Run(JudgeSettings.model_validate({**named, "models": models, "concurrency": 2}), database)
    run.until(lambda said: said["calls_sent"] >= 2)
    run.ask("pause")
    run.until(lambda said: not said["calls_in_flight"])
    assert run.ask("concurrency", n=5)["recipe"] == "judge"
    run.until(lambda said: said["open"] == 5)
    run.ask("resume")
    report = run.report()
    assert (report.open, report.failed, report.stop_reason) == (0, 0, None)


NONSENSE = (
    *(b"nonsense\n", b"[]\n", b"3\n", b"{}\n", b'{"ask": ["status"]}\n', b'{"ask": "die"}\n', b"\xff\n", b"\x00\n"),
    *(b'{"ask": "retry_failed", "campaign": 3}\n', b'{"ask": "retry_failed", "reasons": "timeout"}\n'),
    *(b'{"ask": "concurrency", "n": %s}\n' % n for n in (b"0", b"-3", b"1.5", b'"9"', b"true", b"null")),
)


def test_nonsense_gets_an_error(paused: Run) -> None:
    for nonsense in NONSENSE:
        with _link(paused.database) as link:
            link.sendall(nonsense)
            assert set(json.loads(link.recv(4096))) == {"error"}, nonsense
    assert (paused.ask()["state"], paused.ask()["concurrency"]) == ("held", 4)


def test_a_refusal_says_what_is_wrong(paused: Run) -> None:
    with pytest.raises(RefusedError, match="a whole number of at least 1, not 0"):
        paused.ask("concurrency", n=0)
    with pytest.raises(RefusedError, match="can be asked for status, pause, resume, concurrency, retry_failed"):
        paused.ask("die")
    with pytest.raises(RefusedError, match="there is no campaign 'nobody'"):
        paused.ask("retry_failed", campaign="nobody")


def test_who_connects_and_says_nothing_or_too_much_does_no_harm(paused: Run) -> None:
    silent = [_connect(paused.database) for _ in range(MOST_AT_ONCE - 2)]
    with _link(paused.database) as loud, suppress(OSError):  # cut off in the middle, one way or another
        for _ in range(100):
            loud.sendall(b"x" * LONGEST_REQUEST)
    assert paused.ask()["state"] == "held"
    more = [_connect(paused.database) for _ in range(8)]
    more[-1].settimeout(PATIENCE_SECONDS / 2)  # before those that say nothing are closed
    assert more[-1].recv(1) == b""  # too many at once: closed
    for link in (*silent, *more):
        link.close()
    paused.until(lambda said: said["state"] == "held")


def test_where_no_socket_can_be_made_the_campaign_runs_without(api_base: str, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    socket_path(database).write_text("somebody's file")
    run = Run(settings_for(api_base), database)
    assert run.report().done == SEEDS
    (line,) = run.progress.lines
    assert "cannot be asked to pause" in line
    assert "there is a file of that name" in line
    assert socket_path(database).read_text() == "somebody's file"


def test_a_campaign_in_a_deep_folder_can_be_asked(api_base: str, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    run = Run(settings_for(api_base), deep / "corpus.duckdb")
    assert run.until(lambda said: said["calls_sent"] > 0)["state"] == "running"
    assert run.report().done == SEEDS
    assert not run.progress.lines
    assert [path.name for path in deep.iterdir()] == ["corpus.duckdb"]


def _connect(database: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(10.0)
    with address(socket_path(database)) as where:
        link.connect(where)
    return link


@contextmanager
def _link(database: Path) -> Iterator[socket.socket]:
    link = _connect(database)
    try:
        yield link
    finally:
        link.close()
