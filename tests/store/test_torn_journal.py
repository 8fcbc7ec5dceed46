"""What a kill or a power cut leaves of the journal: every whole row comes in once, torn ones are counted, nothing else is lost."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store import known_keys
from store.database import connect, query
from store.ingest import Batch, ingest, read_batch
from store.journal import line_of
from store.known_keys import KnownKeys
from store.records import Record
from store.segments import journal_folder, segments
from store.writer import Writer
from tests.store.store_samples import NASTY, call, turn

LINES = [line_of(turn(number, content=f"{NASTY} {number}")) for number in range(4)]


class Leftover:
    """A database with one segment that a process left, and which is taken in without a Writer around it: that is quick."""

    def __init__(self, db: Path) -> None:
        self.db = db
        Writer(db).close()
        self.folder = journal_folder(db)

    def taken_in(self, *contents: bytes) -> tuple[list[str], int]:
        """The numbers of the turns that are in, and how many lines could not be read."""
        self.folder.mkdir(exist_ok=True)
        for old in segments(self.folder):
            old.unlink()
        for number, content in enumerate(contents):
            (self.folder / f"{number:020d}-1-abcdef.jsonl").write_bytes(content)
        connection = connect(self.db, read_only=False)
        try:
            connection.execute("DELETE FROM turns")
            batch = read_batch(self.folder, {})
            unreadable = ingest(connection, batch._replace(offsets={}))
            found = connection.execute("SELECT turn_id FROM turns").fetchall()
        finally:
            connection.close()
        return [str(int(row[0][5:])) for row in found], unreadable


@pytest.fixture
def leftover(db: Path) -> Leftover:
    return Leftover(db)


def test_a_journal_cut_at_any_byte_gives_its_whole_lines(db: Path) -> None:
    """Every byte of the last two lines, each cut in a segment of its own."""
    Writer(db).close()
    folder = journal_folder(db)
    folder.mkdir()
    lengths = [len(line) for line in LINES]
    expected, torn = set(), 0
    for cut in range(lengths[0] + lengths[1], sum(lengths) + 1):
        rows = [turn(cut * 10 + number, content=f"{NASTY} {number}") for number in range(4)]
        (folder / f"{cut:020d}-1-abcdef.jsonl").write_bytes(b"".join(map(line_of, rows))[:cut])
        n_whole = sum(sum(lengths[: number + 1]) <= cut for number in range(4))
        expected |= {row.turn_id for row in rows[:n_whole]}
        torn += cut not in (sum(lengths[:2]), sum(lengths[:3]), sum(lengths))
    with Writer(db) as writer:
        assert writer.unreadable_lines == torn > 500
    found = [row["turn_id"] for row in query(db, "SELECT turn_id FROM turns")]
    assert len(found) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize("hole", [b"\0", b"\xff", b"\x07", b"\n"])
def test_a_hole_anywhere_in_the_journal_costs_the_lines_that_it_touches(hole: bytes, leftover: Leftover) -> None:
    """Power cuts leave zeros or garbage in blocks."""
    whole = b"".join(LINES)
    ends = [sum(map(len, LINES[: place + 1])) for place in range(len(LINES))]
    for start in range(0, len(whole), 307):
        for length in (1, 90, len(LINES[0]) + 40):
            stop = min(start + length, len(whole))
            damaged = whole[:start] + hole * (stop - start) + whole[stop:]
            found, unreadable = leftover.taken_in(damaged)
            untouched = [
                str(place) for place, end in enumerate(ends) if end <= start or end - len(LINES[place]) >= stop
            ]
            if hole not in (b"\0", b"\n"):  # a line right behind the hole is part of what the hole broke
                untouched = [place for place in untouched if place == "0" or ends[int(place) - 1] != stop]
            assert set(untouched) <= set(found), (start, length)
            assert unreadable >= 1 or stop == len(whole), (start, length)  # a torn last line is not taken for read


def test_zeros_before_a_whole_line_do_not_cost_that_line(leftover: Leftover) -> None:
    assert leftover.taken_in(b"\0" * 4096 + LINES[1], LINES[2] + b"\0" * 4096) == (["1", "2"], 0)
    assert leftover.taken_in(LINES[0][:100] + b"\0" * 4096 + LINES[1]) == (["1"], 1)


def test_a_segment_of_zeros_or_of_nothing_is_no_trouble(leftover: Leftover) -> None:
    assert leftover.taken_in(b"\0" * 10_000, b"", b"\n\n", LINES[0]) == (["0"], 2)


KILLED_WHILE_TAKING_IN = """
import sys
from store.writer import Writer
from tests.store.store_samples import call, turn
writer = Writer(sys.argv[1], ingest_seconds=0.0)
start = int(sys.argv[2])
for number in range(start, start + 100_000, 10):
    rows = range(number, number + 10)
    writer.append(*(call(f"call_{n}", status="started", messages=None) for n in rows))
    writer.append(*(call(f"call_{n}", response=str(n)) for n in rows))
    print(number + 10, flush=True)
"""


def test_kills_in_the_middle_of_taking_in_lose_and_double_nothing(db: Path, beside: Callable[..., Any]) -> None:
    chance = random.Random(6)
    noted = 0
    for _ in range(5):
        process = beside(KILLED_WHILE_TAKING_IN, db, noted)
        for _ in range(chance.randrange(2, 120)):
            said = process.stdout.readline()
        time.sleep(chance.uniform(0.0, 0.05))
        process.kill()
        said += process.communicate()[0]
        noted = int(said.split("\n")[-2])
    with Writer(db):
        pass
    (found,) = query(
        db,
        "SELECT count(*) AS n, count(DISTINCT call_id) AS ids, count_if(response = substr(call_id, 6)) AS done FROM calls",
    )
    assert found["n"] == found["ids"]
    assert 0 < noted <= found["done"] <= found["n"] <= noted + 10


def _take_in(db: Path, known: dict[str, KnownKeys], *records: Record) -> None:
    connection = connect(db, read_only=False)
    try:
        ingest(connection, Batch([b"".join(map(line_of, records))], {}, True), known)
    finally:
        connection.close()


def test_replacing_finds_rows_wherever_they_stand_in_a_large_table(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "RECENT_ROWS", 30)
    Writer(db).close()
    chance = random.Random(1)
    known: dict[str, KnownKeys] = {}
    expected: dict[str, str] = {}
    for batch in range(30):
        numbers = [chance.randrange(400) for _ in range(3)] + list(range(1000 + batch * 5, 1008 + batch * 5))
        rows = [call(f"call_{number}", response=f"{batch}") for number in numbers]
        _take_in(db, known, *rows)
        expected |= {row.call_id: f"{batch}" for row in rows}
    rows_found = query(db, "SELECT call_id, response FROM calls")
    assert len(rows_found) == len(expected)
    assert {row["call_id"]: row["response"] for row in rows_found} == expected
