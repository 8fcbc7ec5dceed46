"""A full disk: the campaign waits and goes on when there is room; nothing is lost, nothing is corrupt."""

import asyncio
import random
import shutil
import string
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store import journal as journal_module
from store import writer as writer_module
from store.database import StoreError, query
from store.journal import Journal, JournalError
from store.records import Turn
from store.writer import Writer
from tests.disks import SmallDisk
from tests.store.store_samples import turn

ROWS_A_NOTE = 50
COUNTS = "SELECT count(*) AS n, count(DISTINCT turn_id) AS ids FROM turns"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (journal_module, writer_module):
        monkeypatch.setattr(module, "RETRY_SECONDS", 0.02)
        monkeypatch.setattr(module, "FULL_DISK_PATIENCE_SECONDS", 0.3)


def _noise() -> Iterator[list[Turn]]:
    """Turns that no compression makes small."""
    chance = random.Random(0)
    number = 0
    while True:
        texts = ["".join(chance.choices(string.ascii_letters, k=400)) for _ in range(ROWS_A_NOTE)]
        yield [turn(number + place, content=text) for place, text in enumerate(texts)]
        number += ROWS_A_NOTE


async def _note_until_in_trouble(writer: Writer, noise: Iterator[list[Turn]]) -> tuple[int, list["asyncio.Task[None]"]]:
    """How many notes were written, and those that wait."""
    tasks = []
    async with asyncio.timeout(30):
        while writer.trouble is None:
            tasks.append(asyncio.ensure_future(writer.note(*next(noise))))
            await asyncio.sleep(0.005)
    return sum(task.done() for task in tasks), [task for task in tasks if not task.done()]


def _rows(db: Path) -> tuple[int, int]:
    (found,) = query(db, COUNTS)
    return found["n"], found["ids"]


def _copy_is_sound(db: Path, copy: Path) -> None:
    """What stands on the disk now is a database, whatever went wrong."""
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for name in (db.name, f"{db.name}.wal"):
        if db.with_name(name).exists():
            shutil.copy(db.with_name(name), copy / name)
    n, ids = _rows(copy / db.name)
    assert n == ids
    assert n % ROWS_A_NOTE == 0


@pytest.mark.parametrize("kilobytes", [1_700, 2_300, 3_100])
def test_notes_on_a_full_disk_wait_and_go_on_when_there_is_room(
    kilobytes: int, small_disk: SmallDisk, tmp_path: Path
) -> None:
    small_disk.resize(kilobytes)
    db = small_disk.place / "corpus.duckdb"

    async def work(writer: Writer) -> int:
        noise = _noise()
        n_written, waiting = await _note_until_in_trouble(writer, noise)
        assert "is full: the campaign waits, and goes on by itself when there is room" in str(writer.trouble)
        await asyncio.sleep(0.2)
        _copy_is_sound(db, tmp_path / "copy")
        small_disk.resize(30_000)
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)
            await writer.note(*next(noise))
        await asyncio.to_thread(writer.flush)
        assert writer.trouble is None
        return n_written + len(waiting) + 1

    with Writer(db, ingest_seconds=0.02) as writer:
        n = asyncio.run(work(writer)) * ROWS_A_NOTE
        assert _rows(db) == (n, n)
    assert [path.name for path in small_disk.place.iterdir()] == [db.name]


def test_a_stop_on_a_full_disk_ends_in_time_and_loses_only_what_was_in_flight(
    small_disk: SmallDisk, tmp_path: Path
) -> None:
    db = small_disk.place / "corpus.duckdb"
    writer = Writer(db, ingest_seconds=0.02)
    noise = _noise()

    async def work() -> tuple[int, int]:
        n_written, waiting = await _note_until_in_trouble(writer, noise)
        while not waiting:  # the database met the full disk before the journal did
            later = asyncio.ensure_future(writer.note(*next(noise)))
            await asyncio.wait([later], timeout=0.2)
            n_written += later.done()
            waiting += [] if later.done() else [later]
        for task in waiting:
            task.cancel()
        return n_written, len(waiting)

    n_written, n_lost = asyncio.run(work())
    started = time.monotonic()
    with pytest.raises(JournalError, match=rf"^{n_lost * ROWS_A_NOTE} records of calls in flight could not be written"):
        writer.close()
    assert time.monotonic() - started < 5.0
    _copy_is_sound(db, tmp_path / "copy")
    small_disk.resize(30_000)
    with Writer(db):
        n, ids = _rows(db)
    assert n == ids
    assert n_written * ROWS_A_NOTE <= n < (n_written + 1) * ROWS_A_NOTE  # of a torn note the first rows may be in


def test_a_database_that_cannot_grow_leaves_all_in_the_journal_for_the_next_run(
    db: Path, file_limit: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest file that this process may write stands for the disk: segments are small, the database is not."""
    monkeypatch.setattr(Journal.__init__, "__kwdefaults__", {"segment_bytes": 100_000})
    noise = _noise()
    writer = Writer(db, ingest_seconds=0.01)
    n = 0
    file_limit(2_000_000)
    while writer.trouble is None:
        writer.append(*next(noise))
        n += ROWS_A_NOTE
        time.sleep(0.01)
    with pytest.raises(StoreError, match="could not be moved into the database"):
        writer.flush(patience_seconds=0.1)
    with pytest.raises(StoreError, match=r"could not be moved into the database .*File too large.*nothing is lost"):
        writer.close()
    file_limit(None)
    with Writer(db):
        assert _rows(db) == (n, n)
    assert [path.name for path in db.parent.iterdir()] == [db.name]


def test_a_database_that_can_grow_again_takes_everything_in(
    db: Path, file_limit: Callable[[int | None], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Journal.__init__, "__kwdefaults__", {"segment_bytes": 100_000})
    noise = _noise()
    with Writer(db, ingest_seconds=0.01) as writer:
        n = 0
        file_limit(2_000_000)
        while writer.trouble is None:
            writer.append(*next(noise))
            n += ROWS_A_NOTE
            time.sleep(0.01)
        file_limit(None)
        writer.flush()
        assert writer.trouble is None
        assert _rows(db) == (n, n)
