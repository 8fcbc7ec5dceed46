"""Moves whole journal lines into DuckDB: every line once, in its order, a later row replacing an earlier one.

Each batch is one transaction that also notes how far each segment was read, so a kill between any two statements
leaves either both or neither. DuckDB parses the JSON itself, table by table; duplicates are looked for and removed
in SQL, since a primary key would make replacing fifty times slower.
"""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa

from store import reopen, segments
from store.database import StoreError, first_line
from store.records import RECORDS
from store.tables import MESSAGES

BATCH_BYTES = 32 << 20
_TABLE_START = len(b'{"t":"')
_TO_ROW = len(b'","r":')
_OPEN = b'"status":"open"'


class IngestError(StoreError):
    """Raised when the journal cannot be moved into the database, as on a full disk. It stays in the journal."""

    exit_code = 1


class Batch(NamedTuple):
    """What one transaction takes in."""

    rows: dict[str, list[bytes]]
    offsets: dict[str, int]
    is_last: bool
    """False when the journal held more than one batch."""
    unreadable: int
    """Lines that do not look like ours."""


def ingested_offsets(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    return dict(connection.execute("SELECT segment, byte_offset FROM ingested").fetchall())


def read_batch(folder: Path, offsets: dict[str, int], *, limit_bytes: int = BATCH_BYTES) -> Batch:
    """The next whole lines of all segments, oldest segment first."""
    rows: dict[str, list[bytes]] = defaultdict(list)
    reached: dict[str, int] = {}
    unreadable = 0
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
        for line in chunk.splitlines():
            end = line.find(b'"', _TABLE_START)
            table = line[_TABLE_START:end].decode("ascii", "replace") if line.startswith(b'{"t":"') else ""
            if table.isidentifier() and line.startswith(b'","r":', end) and line.endswith(b"}"):
                rows[table].append(line[end + _TO_ROW : -1])
            else:
                unreadable += 1
    return Batch(rows, reached, is_last, unreadable)


def ingest(connection: duckdb.DuckDBPyConnection, batch: Batch) -> int:
    """Takes a batch in, in one transaction; returns how many of its rows were no readable JSON."""
    unknown = batch.rows.keys() - RECORDS.keys()
    if unknown:
        raise StoreError(
            f"the journal holds rows of {', '.join(sorted(unknown))}, which this Descant does not know: take them in with "
            "the version that wrote them"
        )
    try:
        connection.execute("SET TimeZone = 'UTC'")
        # Parsed outside the transaction, which an unreadable row would abort.
        unreadable = sum(_parse(connection, table, rows) for table, rows in batch.rows.items())
        connection.execute("BEGIN")
        opened = _opened(connection) if any(_OPEN in row for row in batch.rows.get("dialogues", ())) else []
        for table in batch.rows:
            _replace(connection, table)
        if opened:
            reopen.clear(connection, opened)
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


def _parse(connection: duckdb.DuckDBPyConnection, table: str, rows: list[bytes]) -> int:
    """Puts JSON rows into the temporary table `fresh_TABLE`; returns how many could not be read."""
    try:
        texts = pa.array(rows, type=pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        texts = pa.array([row for row in rows if _is_utf8(row)], type=pa.binary()).cast(pa.string())
    structure = ", ".join(f'"{name}": {_structure_of(kind)}' for name, kind in _columns(connection, table))
    parse = (
        f"CREATE OR REPLACE TEMP TABLE fresh_{table} AS "
        f"SELECT place, unnest(from_json(row, '{{{structure}}}')) FROM journal_rows"
    )
    connection.register("journal_rows", pa.table({"place": pa.array(range(len(texts)), pa.int64()), "row": texts}))
    try:
        connection.execute(parse)
    except duckdb.InvalidInputException:  # bytes that a power cut left: rare, so looked for only then
        connection.execute(parse + " WHERE json_valid(row)")
    finally:
        connection.unregister("journal_rows")
    kept = connection.execute(f"SELECT count(*) FROM fresh_{table}").fetchone()
    return len(rows) - (int(kept[0]) if kept else 0)


def _replace(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Moves `fresh_TABLE` into the table; the last row of a key wins, over the batch and over what stood there."""
    fresh = f"fresh_{table}"
    key = ", ".join(RECORDS[table].key)
    counts = connection.execute(f"SELECT count(*), count(DISTINCT ({key})) FROM {fresh}").fetchone()
    latest = fresh
    if counts and counts[0] != counts[1]:
        latest = f"(FROM {fresh} QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY place DESC) = 1 ORDER BY place)"
    # Times were parsed with their offset and are kept as UTC.
    selected = ", ".join(
        f"timezone('UTC', {name})" if kind == "TIMESTAMP" else name for name, kind in _columns(connection, table)
    )
    connection.execute(f"DELETE FROM {table} WHERE ({key}) IN (SELECT ({key}) FROM {fresh})")
    connection.execute(f"INSERT INTO {table} SELECT {selected} FROM {latest}")
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
