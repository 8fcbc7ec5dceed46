"""Moves whole journal lines into DuckDB: every line once, in its order, a later row replacing an earlier one.

Each batch is one transaction that also notes how far each segment was read, so a kill between any two statements
leaves either both or neither. The lines go to DuckDB as they lie in the file, without a copy, and it parses the JSON
itself, table by table; duplicates are looked for and removed in SQL (`store.known_keys` says where), since a primary
key would make replacing fifty times slower.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from store import reopen, segments
from store.database import StoreError, first_line
from store.journal import FULL_DISK
from store.known_keys import KnownKeys
from store.records import RECORDS
from store.tables import MESSAGES

BATCH_BYTES = 32 << 20
SMALL_BATCH_BYTES = 8 << 20
"""Up to this one thread is enough, and leaves the other cores to the campaign."""
_LINE = re.compile(rb'\{"t":"([A-Za-z_][A-Za-z0-9_]*)","r":.*\}')
_STARTS = {table: f'{{"t":"{table}","r":' for table in RECORDS}


class IngestError(StoreError):
    """Raised when the journal cannot be moved into the database, as on a full disk. It stays in the journal."""

    exit_code = 1


def is_full_disk(error: BaseException) -> bool:
    """Whether DuckDB found no room, which passes; it says so in words only."""
    cause = error.__cause__
    return isinstance(cause, duckdb.Error) and any(os.strerror(code) in str(cause) for code in FULL_DISK)


class Batch(NamedTuple):
    """What one transaction takes in."""

    chunks: list[bytes]
    """Whole lines, a chunk a segment."""
    offsets: dict[str, int]
    is_last: bool
    """False when the journal held more than one batch."""


def ingested_offsets(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return dict(connection.execute("SELECT segment, byte_offset FROM ingested").fetchall())


def read_batch(folder: Path, offsets: dict[str, int], *, limit_bytes: int = BATCH_BYTES) -> Batch:
    """The next whole lines of all segments, oldest segment first."""
    chunks: list[bytes] = []
    reached: dict[str, int] = {}
    room = limit_bytes
    is_last = True
    for segment in segments.segments(folder):
        offset = offsets.get(segment.name, 0)
        new_bytes = segment.stat().st_size - offset
        if new_bytes <= 0:
            continue
        if room <= 0:
            is_last = False
            break
        is_last = is_last and new_bytes <= room
        chunk = segments.read_whole_lines(segment, offset, room)
        if not chunk:
            continue
        reached[segment.name] = offset + len(chunk)
        room -= len(chunk)
        chunks.append(chunk)
    return Batch(chunks, reached, is_last)


def ingest(connection: duckdb.DuckDBPyConnection, batch: Batch, known: dict[str, KnownKeys] | None = None) -> int:
    """Takes a batch in, in one transaction; returns how many of its lines could not be read.

    Args:
        known: what the caller keeps from batch to batch for as long as nobody else writes, by table.
    """
    known = {} if known is None else known
    lines = pa.chunked_array([_lines_of(chunk) for chunk in batch.chunks], type=pa.binary())
    counts, unreadable = _tables_in(lines), 0
    if counts is None or any(b"\0" in chunk for chunk in batch.chunks):
        lines, unreadable = _readable(lines)
        counts = _tables_in(lines)
        assert counts is not None
    try:
        connection.execute("SET TimeZone = 'UTC'")
        # Each commit then writes the tables themselves; through DuckDB's own log, all would be written twice.
        connection.execute("SET checkpoint_threshold = '1B'")
        if lines.nbytes <= SMALL_BATCH_BYTES:
            connection.execute("SET threads = 1")
        # From buffers: pa.array and pa.table would import pandas where there is one, which takes half a second.
        places = pa.Array.from_buffers(pa.int64(), len(lines), [None, pa.py_buffer(np.arange(len(lines)))])
        connection.register(
            "journal_lines", pa.Table.from_arrays([places, lines.cast(pa.string())], names=["place", "line"])
        )
        # Parsed outside the transaction, which an unreadable row would abort.
        unreadable += sum(_parse(connection, table, counts[table]) for table in counts)
        connection.unregister("journal_lines")
        connection.execute("BEGIN")
        opened = _opened(connection) if "dialogues" in counts else []
        for table in counts:
            _replace(connection, table, known.setdefault(table, KnownKeys(table)))
        if opened:
            reopen.clear(connection, opened)
            known.clear()  # an UPDATE moves rows to the end
        for segment, offset in batch.offsets.items():
            connection.execute("DELETE FROM ingested WHERE segment = ?", [segment])
            connection.execute("INSERT INTO ingested VALUES (?, ?)", [segment, offset])
        connection.execute("COMMIT")
    except duckdb.Error as error:
        raise IngestError(
            f"the journal could not be moved into the database ({first_line(error)}): nothing is lost; mend that and "
            "run the same command again"
        ) from error
    return unreadable


def _lines_of(chunk: bytes) -> pa.Array:
    """The lines of a chunk with their line ends, in place."""
    ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + 1
    starts_and_end = np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)])
    return pa.Array.from_buffers(pa.binary(), len(ends), [None, pa.py_buffer(starts_and_end), pa.py_buffer(chunk)])


def _tables_in(lines: pa.ChunkedArray) -> dict[str, int] | None:
    """How many lines each table has; null when some line is of none, or no UTF-8."""
    counts: dict[str, int] = {}
    left = len(lines)
    for table, start in _STARTS.items():
        if left == 0:
            break
        found = pc.sum(pc.starts_with(lines, start)).as_py() or 0
        if found:
            counts[table] = found
            left -= found
    if left:
        return None
    try:
        lines.cast(pa.string())
    except pa.ArrowInvalid:
        return None
    return counts


def _readable(lines: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """Without what a power cut left: torn lines, zeros, garbage; and how many lines that was.

    Raises:
        StoreError: lines of tables that we do not know.
    """
    kept, unknown, torn = [], set(), 0
    for line in lines.to_pylist():
        before, _, line = line.rpartition(b"\0")  # a hole in a file is zeros; a whole line may follow it
        found = _LINE.match(line) if _is_utf8(line) else None
        torn += found is None or bool(before.strip(b"\0"))
        if found is None:
            continue
        table = found[1].decode()
        if table not in RECORDS:
            unknown.add(table)
        kept.append(line)
    if unknown:
        raise StoreError(
            f"the journal holds rows of {', '.join(sorted(unknown))}, which this Descant does not know: take them in with "
            "the version that wrote them"
        )
    return pa.chunked_array([kept], type=pa.binary()), torn


def _parse(connection: duckdb.DuckDBPyConnection, table: str, expected: int) -> int:
    """Puts a table's lines into the temporary table `fresh_TABLE`; returns how many could not be read."""
    structure = ", ".join(f'"{name}": {_structure_of(kind)}' for name, kind in _columns(connection, table))
    parse = (
        f"CREATE OR REPLACE TEMP TABLE fresh_{table} AS "
        f"SELECT place, unnest(from_json(line, '{{\"r\": {{{structure}}}}}').r) FROM journal_lines "
        f"WHERE starts_with(line, '{_STARTS[table]}')"
    )
    try:
        connection.execute(parse)
    except duckdb.InvalidInputException:  # bytes that a power cut left: rare, so looked for only then
        connection.execute(parse + " AND json_valid(line)")
    ((kept,),) = connection.execute(f"SELECT count(*) FROM fresh_{table}").fetchall()
    return expected - int(kept)


def _replace(connection: duckdb.DuckDBPyConnection, table: str, known: KnownKeys) -> None:
    """Moves `fresh_TABLE` into the table; the last row of a key wins, over the batch and over what stood there."""
    fresh = f"fresh_{table}"
    key = ", ".join(RECORDS[table].key)
    ((rows, keys),) = connection.execute(f"SELECT count(*), count(DISTINCT ({key})) FROM {fresh}").fetchall()
    if rows != keys:
        connection.execute(f"DELETE FROM {fresh} WHERE place NOT IN (SELECT max(place) FROM {fresh} GROUP BY {key})")
    # Times were parsed with their offset and are kept as UTC.
    selected = ", ".join(
        f"timezone('UTC', {name})" if kind == "TIMESTAMP" else name for name, kind in _columns(connection, table)
    )
    where = known.where(connection, fresh)
    if where is not None:
        connection.execute(f"DELETE FROM {table} WHERE {where} AND ({key}) IN (SELECT ({key}) FROM {fresh})")
    connection.execute(f"INSERT INTO {table} SELECT {selected} FROM {fresh}")
    connection.execute(f"DROP TABLE {fresh}")


def _opened(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The dialogues among the fresh ones that are to be played again."""
    rows = connection.execute("SELECT DISTINCT dialogue_id FROM fresh_dialogues WHERE status = 'open'").fetchall()
    return [row[0] for row in rows]


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    return [(row[1], row[2]) for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]


def _structure_of(kind: str) -> str:
    """A column's type in the words of from_json."""
    if kind == MESSAGES or kind.startswith("STRUCT"):
        return '[{"role": "VARCHAR", "content": "VARCHAR"}]'
    if kind.endswith("[]"):
        return f'["{kind.removesuffix("[]")}"]'
    return '"TIMESTAMPTZ"' if kind == "TIMESTAMP" else f'"{kind}"'


def _is_utf8(row: bytes) -> bool:
    try:
        row.decode()
    except UnicodeDecodeError:
        return False
    return True
