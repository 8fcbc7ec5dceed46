"""The one writer: everything once, last row wins, one at a time, nothing half made."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from store import intake as intake_module
from store import opening as opening_module
from store.database import StoreBusyError, StoreError, query
from store.ingest import ingest
from store.journal import Journal, line_of
from store.segments import journal_folder, segments
from store.writer import Writer, write_through
from tests.store.store_samples import call, campaign, corpus, turn


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_flush_makes_rows_visible_to_readers(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(campaign(), turn(1), turn(2))
        writer.flush()
        assert query(db, "SELECT turn_id FROM turns ORDER BY 1") == [
            {"turn_id": "turn_00000001"},
            {"turn_id": "turn_00000002"},
        ]


def test_a_clean_close_leaves_the_database_alone(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(campaign())
    assert names(db.parent) == [db.name]
    assert query(db, "SELECT count(*) AS n FROM campaigns") == [{"n": 1}]


def test_rows_reach_the_database_without_being_asked_for(db: Path) -> None:
    with Writer(db, ingest_seconds=0.01) as writer:
        writer.append(turn(1))
        deadline = time.monotonic() + 10.0
        while not query(db, "FROM turns") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [row["turn_id"] for row in query(db, "FROM turns")] == [turn(1).turn_id]


def test_the_last_row_of_a_key_wins_in_a_batch_and_across_batches(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(campaign(status="running"), campaign(status="paused"), turn(1))
        writer.flush()
        writer.append(campaign(status="done"), turn(1, content="again"))
    assert query(db, "SELECT status FROM campaigns") == [{"status": "done"}]
    assert query(db, "SELECT content FROM turns") == [{"content": "again"}]


def test_a_started_call_becomes_done_and_another_request_stands_beside_it(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(call(status="started", messages=None, response=None))
        writer.flush()
        writer.append(call(status="done"), call(request_hash="r2", status="superseded"))
    rows = query(db, "SELECT request_hash, status FROM calls ORDER BY 1")
    assert rows == [{"request_hash": "r1", "status": "done"}, {"request_hash": "r2", "status": "superseded"}]


def test_rows_keep_the_order_in_which_they_came(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(*(turn(number) for number in range(5000)), turn(3))
    expected = sorted(range(5000), key=lambda number: (number == 3, number))
    assert [row["turn_id"] for row in query(db, "FROM turns")] == [f"turn_{number:08d}" for number in expected]


def test_a_backlog_of_several_batches_comes_in_whole(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "BATCH_BYTES", 2000)
    monkeypatch.setattr(intake_module, "BATCH_RANGE", (1000, 2000))
    with Writer(db) as writer:
        writer.append(*(turn(number) for number in range(100)))
        writer.flush()
        assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 100}]


def test_full_segments_are_removed_while_the_campaign_goes_on(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Journal.__init__, "__kwdefaults__", {"segment_bytes": 1000})
    with Writer(db, ingest_seconds=0.01) as writer:
        for number in range(50):
            writer.append(turn(number))
        while True:
            writer.flush()
            if len(segments(journal_folder(db))) == 1:
                break
        assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 50}]


def test_a_second_writer_fails_at_once_and_names_the_first(db: Path) -> None:
    with Writer(db):
        with pytest.raises(StoreError, match=f"process {os.getpid()}"):
            Writer(db)
        with pytest.raises(StoreError, match="is being written"):
            Writer(db)


def test_a_second_process_fails_at_once_and_touches_nothing(db: Path, beside: Callable[..., Any]) -> None:
    other = beside(
        "import sys\nfrom store.writer import Writer\nw = Writer(sys.argv[1])\nprint('held', flush=True)\ninput()\nw.close()",
        db,
    )
    assert other.stdout.readline() == "held\n"
    before = names(db.parent)
    with pytest.raises(StoreError, match=f"process {other.pid}"):
        Writer(db)
    assert names(db.parent) == before
    other.communicate("\n")
    Writer(db).close()


def test_a_link_to_the_database_finds_the_same_lock(db: Path) -> None:
    with Writer(db):
        link = db.with_name("alias.duckdb")
        link.symlink_to(db)
        with pytest.raises(StoreError, match="is being written"):
            Writer(link)


KILLED = """
import os, signal, sys
from store.writer import Writer
from tests.store.store_samples import campaign, turn
writer = Writer(sys.argv[1], ingest_seconds=3600)
writer.append(campaign(), *(turn(n) for n in range(100)))
if sys.argv[2] == "half":
    writer.flush()
    writer.append(*(turn(n) for n in range(50, 150)))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["none", "half"])
def test_what_a_killed_process_left_is_taken_in_exactly_once(when: str, db: Path, beside: Callable[..., Any]) -> None:
    assert beside(KILLED, db, when).wait() == -signal.SIGKILL
    (segment,) = segments(journal_folder(db))
    with segment.open("ab") as handle:
        handle.write(line_of(turn(999))[:-20])  # the line that the kill tore
    with Writer(db) as writer:
        assert writer.unreadable_lines == 1
        n = {"none": 100, "half": 150}[when]
        assert query(db, "SELECT count(*) AS n, count(DISTINCT turn_id) AS ids FROM turns") == [{"n": n, "ids": n}]
    assert names(db.parent) == [db.name]


KILLED_AFTER_COMMIT = """
import os, signal, sys
from store import intake as intake_module
from store.writer import Writer
from tests.store.store_samples import turn

def ingest_and_die(*given, **named):
    count = ingest(*given, **named)
    os.kill(os.getpid(), signal.SIGKILL)

ingest, intake_module.ingest = intake_module.ingest, ingest_and_die
writer = Writer(sys.argv[1], ingest_seconds=3600)
writer.append(*(turn(n) for n in range(100)))
writer.flush()
"""


def test_a_kill_between_commit_and_cleanup_doubles_nothing(db: Path, beside: Callable[..., Any]) -> None:
    assert beside(KILLED_AFTER_COMMIT, db).wait() == -signal.SIGKILL
    (segment,) = segments(journal_folder(db))
    assert query(db, "SELECT byte_offset FROM ingested") == [{"byte_offset": segment.stat().st_size}]
    # Were the rows taken in again, this change of one of them would be undone.
    with duckdb.connect(db) as connection:
        connection.execute("UPDATE turns SET content = 'kept' WHERE turn_id = 'turn_00000007'")
    with Writer(db):
        pass
    assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 100}]
    assert query(db, "SELECT content FROM turns WHERE turn_id = 'turn_00000007'") == [{"content": "kept"}]
    assert query(db, "FROM ingested") == [] or names(db.parent) == [db.name]


def test_garbage_in_a_leftover_segment_is_counted_and_the_rest_taken_in(db: Path) -> None:
    Writer(db).close()
    folder = journal_folder(db)
    folder.mkdir()
    garbage = [
        b"\x00\x00\x00\n",
        b'{"t":"turns","r":{"turn_id": oops}}\n',
        b'{"t":"turns","r":{"content":"\xff"}}\n',
        b"\n",
    ]
    (folder / "00000000000000000001-1-abcdef.jsonl").write_bytes(
        line_of(turn(1)) + b"".join(garbage) + line_of(turn(2))
    )
    with Writer(db) as writer:
        assert writer.unreadable_lines == len(garbage)
    assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 2}]


def test_rows_of_an_unknown_table_are_kept_for_the_version_that_knows_them(db: Path) -> None:
    Writer(db).close()
    folder = journal_folder(db)
    folder.mkdir()
    (folder / "00000000000000000001-1-abcdef.jsonl").write_bytes(b'{"t":"dreams","r":{}}\n')
    with pytest.raises(StoreError, match="dreams"):
        Writer(db)
    assert names(db.parent) == [db.name, folder.name]


def test_a_reader_in_another_process_delays_rows_and_loses_none(db: Path, beside: Callable[..., Any]) -> None:
    with Writer(db, ingest_seconds=0.01) as writer:
        writer.append(campaign())
        writer.flush()
        reader = beside(
            "import sys\nfrom store.database import reading\nwith reading(sys.argv[1]):\n  print('in', flush=True)\n  input()",
            db,
        )
        assert reader.stdout.readline() == "in\n"
        writer.append(turn(1))
        with pytest.raises(StoreBusyError, match="stayed open in another process"):
            writer.flush(patience_seconds=0.2)
        reader.communicate("\n")
        writer.flush()
        assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 1}]


def test_readers_get_in_during_a_campaign(db: Path, beside: Callable[..., Any]) -> None:
    with Writer(db, ingest_seconds=0.02) as writer:
        writer.append(turn(0))
        writer.flush()
        reader = beside(
            "import sys\nfrom store.database import query\n"
            "for _ in range(15):\n  n = query(sys.argv[1], 'SELECT count(*) AS n FROM turns')[0]['n']\nprint(n)",
            db,
        )
        number = 0
        while reader.poll() is None:
            number += 1
            writer.append(*(turn(number * 100 + place) for place in range(100)))
        out, err = reader.communicate()
        assert err == ""
        assert int(out) >= 1
    assert query(db, "SELECT count(*) AS n, count(DISTINCT turn_id) AS ids FROM turns") == [
        {"n": number * 100 + 1, "ids": number * 100 + 1}
    ]


def test_a_reader_in_our_own_process_gets_in_too(db: Path) -> None:
    with Writer(db, ingest_seconds=0.001) as writer:
        for number in range(30):
            writer.append(turn(number))
            query(db, "FROM turns")
    assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 30}]


def test_an_error_of_the_ingester_is_raised_and_the_rows_stay_in_the_journal(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise StoreError("the disk is full")

    writer = Writer(db)
    monkeypatch.setattr(intake_module, "ingest", full)
    writer.append(turn(1))
    with pytest.raises(StoreError, match="disk is full"):
        writer.flush()
    with pytest.raises(StoreError, match="disk is full"):
        writer.append(turn(2))
    with pytest.raises(StoreError, match="disk is full"):
        writer.close()
    monkeypatch.setattr(intake_module, "ingest", ingest)
    with Writer(db):
        pass
    assert query(db, "SELECT turn_id FROM turns") == [{"turn_id": "turn_00000001"}]


KILLED_ANYWHERE = """
import sys
from store.writer import Writer
from tests.store.store_samples import turn
writer = Writer(sys.argv[1], ingest_seconds=0.01)
for number in range(int(sys.argv[2]), 10**9, 20):
    writer.append(*(turn(n) for n in range(number, number + 20)))
    print(number + 20, flush=True)
"""


def test_kills_at_any_moment_lose_and_double_nothing(db: Path, beside: Callable[..., Any]) -> None:
    noted = 0
    for n_lines in (1, 300, 17, 900, 120):
        process = beside(KILLED_ANYWHERE, db, noted)
        said = ""
        while said.count("\n") < n_lines:
            said += os.read(process.stdout.fileno(), 1 << 16).decode()
        process.kill()
        said += process.communicate()[0]
        noted = int(said.split("\n")[-2])
    with Writer(db):
        pass
    (found,) = query(db, "SELECT count(*) AS n, count(DISTINCT turn_id) AS ids FROM turns")
    assert found["n"] == found["ids"]
    # the last append may have been noted, in part even, before it could be printed: a kill can cut a long write
    assert noted <= found["n"] <= noted + 20
    assert names(db.parent) == [db.name]


def _append_and_fail(writer: Writer) -> None:
    writer.append(turn(1))
    raise KeyError("mine")


def test_the_first_error_is_raised_and_a_failing_close_is_noted_on_it(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise StoreError("the disk is full")

    monkeypatch.setattr(intake_module, "ingest", full)
    with pytest.raises(KeyError) as caught, Writer(db) as writer:
        _append_and_fail(writer)
    assert caught.value.__notes__ == ["the disk is full"]


def test_write_through_writes_directly_when_nobody_holds_the_database(db: Path) -> None:
    write_through(db, corpus(1))
    assert query(db, "SELECT count(*) AS n FROM pairs") == [{"n": 1}]
    assert names(db.parent) == [db.name]


def test_write_through_reaches_the_database_through_its_holder(db: Path, beside: Callable[..., Any]) -> None:
    code = (
        "import sys\nfrom store.writer import write_through\n"
        "from tests.store.store_samples import turn\nwrite_through(sys.argv[1], [turn(n) for n in range(10)])"
    )
    with Writer(db) as writer:
        assert beside(code, db).wait() == 0
        writer.flush()
        assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 10}]
    assert names(db.parent) == [db.name]


def test_an_open_segment_of_another_process_survives_our_close(db: Path) -> None:
    with Writer(db) as writer:
        foreign = Journal(journal_folder(db))
        foreign.append(turn(1))
        writer.flush()
    foreign.append(turn(2))
    foreign.close()
    with Writer(db):
        pass
    assert query(db, "SELECT count(*) AS n FROM turns") == [{"n": 2}]
    assert names(db.parent) == [db.name]


def test_a_file_that_is_no_database_is_refused_and_left_alone(db: Path) -> None:
    db.write_bytes(b"not a database at all" * 1000)
    for use in (lambda: Writer(db), lambda: query(db, "SELECT 1")):
        with pytest.raises(StoreError, match="is no DuckDB database"):
            use()
    assert db.read_bytes() == b"not a database at all" * 1000
    assert names(db.parent) == [db.name]


def test_a_database_of_something_else_is_refused_and_left_alone(db: Path) -> None:
    with duckdb.connect(db) as connection:
        connection.execute("CREATE TABLE turns (a INTEGER)")
    before = db.read_bytes()
    for use in (lambda: Writer(db), lambda: query(db, "SELECT 1")):
        with pytest.raises(StoreError, match="not one of Descant's"):
            use()
    assert db.read_bytes() == before
    assert names(db.parent) == [db.name]


def test_a_missing_folder_a_folder_and_a_missing_database_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist: create it"):
        Writer(tmp_path / "nowhere" / "corpus.duckdb")
    with pytest.raises(StoreError, match="is a folder"):
        Writer(tmp_path)
    with pytest.raises(StoreError, match="there is no database"):
        query(tmp_path / "corpus.duckdb", "SELECT 1")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_refused(unwritable: Path) -> None:
    before = names(unwritable)
    with pytest.raises(StoreError, match="cannot be written"):
        Writer(unwritable / "corpus.duckdb")
    assert names(unwritable) == before


def test_a_failing_start_leaves_no_half_made_database(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: duckdb.DuckDBPyConnection) -> int:
        connection.execute("CREATE TABLE half (a INTEGER)")
        raise duckdb.IOException("no space left")

    monkeypatch.setattr(opening_module, "migrate", fail)
    with pytest.raises(StoreError, match="no space left"):
        Writer(db)
    assert names(db.parent) == []


def test_the_log_of_a_database_that_is_gone_is_not_replayed(db: Path) -> None:
    db.with_name(db.name + ".wal").write_bytes(b"old")
    with pytest.raises(StoreError, match="left over"):
        Writer(db)
    assert names(db.parent) == [db.name + ".wal"]


def groups_of_rows(db: Path) -> int:
    (row,) = query(db, "SELECT count(DISTINCT row_group_id) AS groups FROM pragma_storage_info('turns')")
    return int(row["groups"])


@pytest.mark.parametrize("batches_a_join", [100, 3])
def test_small_groups_of_rows_are_joined_now_and_then_and_at_the_close(
    batches_a_join: int, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "BATCHES_A_JOIN", batches_a_join)
    seen = []
    with Writer(db, ingest_seconds=3600) as writer:
        for batch in range(4):
            writer.append(*(turn(1000 * batch + number) for number in range(200)))
            writer.flush()
            seen.append(groups_of_rows(db))
        writer.append(turn(9999))
    assert seen == {100: [1, 2, 3, 4], 3: [1, 2, 1, 2]}[batches_a_join]
    assert groups_of_rows(db) == 1
    assert query(db, "SELECT count(DISTINCT turn_id) AS n FROM turns") == [{"n": 801}]


def test_a_key_that_comes_again_in_a_small_table_replaces_its_row(db: Path) -> None:
    with Writer(db, ingest_seconds=3600) as writer:
        for content in ("first", "second"):
            writer.append(turn(1, content=content), turn(1, content=f"{content}, mended"), turn(2))
            writer.flush()
    with Writer(db) as writer:  # knows nothing yet
        writer.append(turn(2, content="third"))
    rows = query(db, "SELECT content FROM turns ORDER BY turn_id")
    assert [row["content"] for row in rows] == ["second, mended", "third"]
