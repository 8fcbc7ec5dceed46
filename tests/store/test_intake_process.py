"""Rows that are taken in by a process of its own: the same rows, the same errors, and nothing twice whoever is killed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store import writer as writer_module
from store.database import StoreBusyError, StoreError, query
from store.ingest import FullDiskError, IngestError, is_full_disk
from store.intake import OwnIntake
from store.intake_process import IntakeProcess, _kind_of
from store.writer import Writer
from tests.store.store_samples import turn


@pytest.fixture
def moved(db: Path, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A writer whose intake has moved."""
    monkeypatch.setattr(writer_module, "LONG_CPU_SECONDS", -1.0)
    writer = Writer(db, ingest_seconds=0.05)
    writer.append(turn(1))
    writer.flush()
    writer.append(turn(2))
    writer.flush()
    assert isinstance(writer._intake, IntakeProcess)
    return writer


def pid_of(writer: Writer) -> int:
    assert isinstance(writer._intake, IntakeProcess)
    return writer._intake._process.pid


def count(db: Path) -> dict[str, int]:
    return query(db, "SELECT count(*) AS n, count(DISTINCT turn_id) AS ids FROM turns")[0]


def test_after_a_long_pass_rows_come_in_through_a_process_that_ends_with_the_writer(db: Path, moved: Writer) -> None:
    pid = pid_of(moved)
    moved.append(*(turn(number) for number in range(100)))
    moved.flush()
    assert count(db) == {"n": 100, "ids": 100}
    moved.append(turn(100))
    moved.close()
    assert count(db) == {"n": 101, "ids": 101}
    assert [path.name for path in db.parent.iterdir()] == [db.name]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_short_run_starts_no_process(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(*(turn(number) for number in range(200)))
        writer.flush()
        writer.append(turn(200))
        writer.flush()
        assert isinstance(writer._intake, OwnIntake)


def test_where_the_process_is_killed_the_writer_goes_on_without_it(db: Path, moved: Writer) -> None:
    os.kill(pid_of(moved), signal.SIGKILL)
    moved.append(*(turn(number) for number in range(50)))
    moved.flush()
    assert isinstance(moved._intake, OwnIntake)
    assert count(db) == {"n": 50, "ids": 50}
    moved.close()


def test_an_interrupt_of_the_whole_group_leaves_it_to_the_writer_to_end(db: Path, moved: Writer) -> None:
    for sent_to_the_group in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid_of(moved), sent_to_the_group)
    moved.append(turn(3))
    moved.flush()
    assert isinstance(moved._intake, IntakeProcess)
    assert count(db)["n"] == 3
    moved.close()


def test_a_reader_that_holds_the_database_is_waited_for_there_too(
    db: Path, moved: Writer, beside: Callable[..., Any]
) -> None:
    reader = beside(
        "import duckdb, sys\nc = duckdb.connect(sys.argv[1], read_only=True)\nprint('in', flush=True)\ninput()", db
    )
    assert reader.stdout.readline() == "in\n"
    moved.append(turn(3))
    with pytest.raises(StoreBusyError, match="stayed open in another process"):
        moved.flush(patience_seconds=1.5)
    reader.communicate("\n")
    moved.close()
    assert count(db)["n"] == 3


def test_errors_keep_their_kind_on_the_way() -> None:
    kinds = {_kind_of(error) for error in (StoreBusyError("b"), FullDiskError("f"), IngestError("i"), StoreError("s"))}
    assert kinds == {"busy", "full", "ingest", "store"}
    assert is_full_disk(FullDiskError("f"))


WRITES_ON = """
import sys
from store import writer
from tests.store.store_samples import turn
writer.LONG_CPU_SECONDS = -1.0
one = writer.Writer(sys.argv[1], ingest_seconds=0.01)
for number in range(int(sys.argv[2]), 10**9, 20):
    one.append(*(turn(n) for n in range(number, number + 20)))
    print(number + 20, type(one._intake).__name__, flush=True)
"""


def test_a_killed_writer_leaves_nothing_twice_and_the_next_one_waits_for_the_batch_on_its_way(
    db: Path, beside: Callable[..., Any]
) -> None:
    noted = 0
    for n_lines in (300, 2000, 50):
        process = beside(WRITES_ON, db, noted)
        said = ""
        while said.count("\n") < n_lines or "IntakeProcess" not in said:
            said += os.read(process.stdout.fileno(), 1 << 16).decode()
        process.kill()
        said += process.communicate()[0]
        noted = int(said.split("\n")[-2].split()[0])
    with Writer(db):
        pass
    found = count(db)
    assert found["n"] == found["ids"]
    assert noted <= found["n"] <= noted + 20
    assert [path.name for path in db.parent.iterdir()] == [db.name]
