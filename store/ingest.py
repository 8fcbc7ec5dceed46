"""Moves whole journal lines into DuckDB: every line once, in its order, a later row replacing an earlier one.

Each batch is one transaction that also notes how far each segment was read, so a kill between any two statements
leaves either both or neither. The lines go to DuckDB as they lie in the file, without a copy, and it parses the JSON
itself, table by table; duplicates are looked for and removed in SQL (`store.known_keys` says where), since a primary
key would make replacing fifty times slower.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from store import reopen, segments
from store.database import StoreError, first_line
from store.journal import FULL_DISK
from store.known_keys import KnownKeys
from store.lines import STARTS, Lines, lines_of, readable
from store.records import RECORDS
from store.tables import MESSAGES, TABLES, Table

BATCH_BYTES = 32 << 20


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


def ingest(
    connection: duckdb.DuckDBPyConnection,
    batch: Batch,
    known: dict[str, KnownKeys] | None = None,
    *,
    joins_groups: bool = True,
) -> int:
    """Takes a batch in, in one transaction; returns how many of its lines could not be read.

    Args:
        known: what the caller keeps from batch to batch for as long as nobody else writes, by table.
        joins_groups: whether DuckDB joins what small batches left, small groups of rows, which packs them anew.
    """
    known = {} if known is None else known
    lines = lines_of(batch.chunks)
    try:
        # Each commit then writes the tables themselves; through DuckDB's own log, all would be written twice.
        joining = "RESET max_vacuum_tasks" if joins_groups else "SET max_vacuum_tasks = 0"
        # One thread takes no longer than two for a batch, and leaves the other cores to the campaign.
        connection.execute(f"SET TimeZone = 'UTC'; SET checkpoint_threshold = '1B'; SET threads = 1; {joining}")
        # Parsed outside the transaction, which an unreadable row would abort.
        try:
            _parse_all(connection, lines, _PARSE)
        except duckdb.InvalidInputException:  # bytes that a power cut left: rare, so looked for only then
            lines = readable(batch.chunks)
            _parse_all(connection, lines, _PARSE_VALID)
        unreadable = lines.unreadable
        connection.execute("BEGIN")
        opened = _opened(connection) if "dialogues" in lines.counts else []
        for table, count in lines.counts.items():
            unreadable += count - _replace(connection, table, known.setdefault(table, KnownKeys(table)))
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


def _parse_all(connection: duckdb.DuckDBPyConnection, lines: Lines, parse: Mapping[str, str]) -> None:
    """Puts the lines of each table into a temporary table `fresh_TABLE`."""
    # From buffers: pa.array and pa.table would import pandas where there is one, which takes half a second.
    places = pa.Array.from_buffers(pa.int64(), len(lines.text), [None, pa.py_buffer(np.arange(len(lines.text)))])
    connection.register("journal_lines", pa.Table.from_arrays([places, lines.text], names=["place", "line"]))
    for table in lines.counts:
        connection.execute(parse[table])
    connection.unregister("journal_lines")


def _replace(connection: duckdb.DuckDBPyConnection, table: str, known: KnownKeys) -> int:
    """Moves `fresh_TABLE` into the table; the last row of a key wins, over the batch and over what stood there.

    Returns how many rows were fresh.
    """
    fresh = f"fresh_{table}"
    key = ", ".join(RECORDS[table].key)
    keys = known.hashes(connection, fresh)
    rows = len(keys)
    if len(np.unique(keys)) < rows:
        connection.execute(f"DELETE FROM {fresh} WHERE place NOT IN (SELECT max(place) FROM {fresh} GROUP BY {key})")
        keys = known.hashes(connection, fresh)
    where = known.where(connection, keys)
    if where is not None:
        connection.execute(f"DELETE FROM {table} WHERE {where} AND ({key}) IN (SELECT ({key}) FROM {fresh})")
    connection.execute(_INSERT[table])
    connection.execute(f"DROP TABLE {fresh}")
    return rows


def _opened(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The dialogues among the fresh ones that are to be played again."""
    rows = connection.execute("SELECT DISTINCT dialogue_id FROM fresh_dialogues WHERE status = 'open'").fetchall()
    return [row[0] for row in rows]


def _structure_of(kind: str) -> str:
    """A column's type in the words of from_json."""
    if kind == MESSAGES or kind.startswith("STRUCT"):
        return '[{"role": "VARCHAR", "content": "VARCHAR"}]'
    if kind.endswith("[]"):
        return f'["{kind.removesuffix("[]")}"]'
    return '"TIMESTAMPTZ"' if kind == "TIMESTAMP" else f'"{kind}"'


def _parsing(table: Table) -> str:
    structure = ", ".join(f'"{column.name}": {_structure_of(column.type)}' for column in table.columns)
    return (
        f"CREATE OR REPLACE TEMP TABLE fresh_{table.name} AS "
        f"SELECT place, unnest(from_json(line, '{{\"r\": {{{structure}}}}}').r) FROM journal_lines "
        f"WHERE starts_with(line, '{STARTS[table.name]}')"
    )


def _inserting(table: Table) -> str:
    # Times were parsed with their offset and are kept as UTC.
    values = (f"timezone('UTC', {name})" if kind == "TIMESTAMP" else name for name, kind, *_ in table.columns)
    names = ", ".join(column.name for column in table.columns)
    return f"INSERT INTO {table.name} ({names}) SELECT {', '.join(values)} FROM fresh_{table.name}"


_OF_RECORDS = [table for table in TABLES if table.name in RECORDS]
_PARSE = {table.name: _parsing(table) for table in _OF_RECORDS}
_PARSE_VALID = {table: f"{sql} AND json_valid(line)" for table, sql in _PARSE.items()}
_INSERT = {table.name: _inserting(table) for table in _OF_RECORDS}
