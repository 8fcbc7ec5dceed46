"""Who opens the database next: the writer and readers in turn, and no reader sees a lock error."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

import store.database as database_module
from store.database import StoreError, connect, query, reading
from store.lock import Lock
from store.segments import journal_folder
from store.turnstile import Turnstile
from store.writer import Writer
from tests.processes import ROOT
from tests.store.store_samples import campaign, corpus, turn

ASK = """
import sys, time
from store.database import query
until = time.monotonic() + float(sys.argv[2])
asked, slowest = 0, 0.0
while time.monotonic() < until:
    began = time.monotonic()
    query(sys.argv[1], "SELECT count(*) AS n FROM turns")
    asked, slowest = asked + 1, max(slowest, time.monotonic() - began)
print(asked, slowest)
"""


def test_a_reader_waits_for_its_turn_and_no_longer(db: Path) -> None:
    Writer(db).close()
    folder = journal_folder(db)
    folder.mkdir()
    turnstile = Turnstile(folder, is_writer=True)
    assert turnstile.take(0.0)
    found: list[Any] = []
    reader = threading.Thread(target=lambda: found.append(query(db, "SELECT count(*) AS n FROM turns")))
    reader.start()
    reader.join(0.2)
    assert found == []
    turnstile.release()
    reader.join(10)
    assert found == [[{"n": 0}]]


def test_the_turnstile_is_let_go_once_a_reader_is_in(db: Path) -> None:
    Writer(db).close()
    journal_folder(db).mkdir()
    with reading(db):
        assert Turnstile(journal_folder(db), is_writer=True).take(0.0)


def test_one_who_holds_the_turnstile_keeps_the_other_out(tmp_path: Path) -> None:
    one, other = Turnstile(tmp_path, is_writer=True), Turnstile(tmp_path, is_writer=False)
    assert one.take(0.0)
    assert not other.take(0.02)
    one.release()
    assert other.take(0.0)


def test_without_a_writer_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert Turnstile(tmp_path / "gone", is_writer=False).take(0.0)


def test_the_writer_stands_back_after_its_turn(tmp_path: Path) -> None:
    turnstile = Turnstile(tmp_path, is_writer=True)
    turnstile.take(0.0)
    turnstile.release()
    began = time.monotonic()
    turnstile.take(0.0)
    assert time.monotonic() - began > 0.02


def test_looking_at_the_file_leaves_the_locks_on_it_alone(db: Path, beside: Callable[..., Any]) -> None:
    """Closing any handle of a file drops all POSIX locks of its process: the ingester's too, while it writes."""
    Writer(db).close()
    connection = connect(db, read_only=False)
    try:
        with pytest.raises(StoreError, match="stayed open"):
            connect(db, read_only=True, patience_seconds=0.0)
        other = beside("import duckdb, sys\nduckdb.connect(sys.argv[1], read_only=True)", db)
        assert "Could not set lock" in other.communicate()[1]
    finally:
        connection.close()


def test_a_reader_waits_for_a_database_that_is_being_created(db: Path, beside: Callable[..., Any]) -> None:
    starting = beside(
        "import sys, time\nimport store.intake as intake, store.writer as writer\nbuild = intake.open_or_build\n"
        "def slowly(file):\n  print('in', flush=True)\n  time.sleep(0.3)\n  return build(file)\n"
        "intake.open_or_build = slowly\nwriter.Writer(sys.argv[1]).close()",
        db,
    )
    assert starting.stdout.readline() == "in\n"
    assert not db.exists()
    assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 0}]
    with pytest.raises(StoreError, match="there is no database"):
        query(db.with_name("other.duckdb"), "SELECT 1")


def test_a_reader_of_an_older_schema_waits_for_the_campaign_that_upgrades_it(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Writer(db).close()
    with duckdb.connect(db) as connection:
        connection.execute("DELETE FROM descant_migrations WHERE number = (SELECT max(number) FROM descant_migrations)")
    lock = Lock(db)
    assert lock.take()

    def upgrade() -> None:
        lock.release()
        Writer(db).close()

    later = threading.Timer(0.2, upgrade)
    later.start()
    assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 0}]
    later.join()
    lock.take()
    monkeypatch.setattr(database_module, "PATIENCE_SECONDS", 0.1)
    with duckdb.connect(db) as connection:
        connection.execute("DELETE FROM descant_migrations WHERE number = (SELECT max(number) FROM descant_migrations)")
    with pytest.raises(StoreError, match="older schema"):
        query(db, "SELECT 1")
    lock.release()


@pytest.fixture
def askers(db: Path) -> Iterator[Callable[[int, float], list[subprocess.Popen[str]]]]:
    """Starts so many processes that ask all the time, for so many seconds."""
    started: list[subprocess.Popen[str]] = []

    def start(several: int, seconds: float) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-c", ASK, str(db), str(seconds)]
        started.extend(
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(several)
        )
        return started

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_those_who_ask_all_the_time_see_no_error_and_keep_nothing_out(
    db: Path, askers: Callable[[int, float], list[subprocess.Popen[str]]]
) -> None:
    with Writer(db) as writer:
        writer.append(*corpus(2))
    processes = askers(3, 1.0)
    written = 0
    while any(process.poll() is None for process in processes):  # a campaign that starts and ends again and again
        with Writer(db, ingest_seconds=0.05) as writer:
            writer.append(campaign(), *(turn(written + number) for number in range(20)))
            written += 20
            writer.flush()
    for process in processes:
        out, error = process.communicate()
        assert error == ""
        assert int(out.split()[0]) >= 1
    (found,) = query(db, "SELECT count(*) AS n FROM turns WHERE turn_id LIKE 'turn_0%'")
    assert found["n"] >= written > 20
