"""Questions in SQL from people: one SELECT, in a connection that can neither write nor reach anything else.

The answer is written to a spool while the database is open and handed on afterwards, so that a slow reader of our
output (a pager, say) never keeps the database from the campaign that fills it.
"""

import csv
import io
import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import IO, Any, NamedTuple

import duckdb
import orjson
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.database import StoreError, reading
from store.transcript import neutral, print_wide

SQL_FORMATS = ("table", "json", "csv", "parquet")
SUFFIXES = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "table"}
LOCKED_DOWN = ("SET enable_external_access = false", "SET lock_configuration = true")
TABLE_ROWS = 200
"""Rows that a table shows; the other formats give all."""
LEAST_CELL, CELL_GAP = 20, 3
"""Characters of a value that tell something, and those between two columns."""
BATCH_ROWS = 2_000
SPOOL_BYTES = 64 << 20


def format_of(asked: str | None, out: str | None) -> str:
    """The format that is asked for, or else that of the file's suffix; a table without either.

    Raises:
        StoreError: the suffix says another format than the one asked for, or none that is known.
    """
    if out is None:
        return asked or "table"
    suffix = Path(out).suffix
    meant = SUFFIXES.get(suffix.lower())
    if asked is None and meant is None:
        raise StoreError(
            f"{out!r} says no format: let it end in {', '.join(SUFFIXES)}, or give --format {'|'.join(SQL_FORMATS)}"
        )
    if asked is not None and meant not in (None, asked):
        raise StoreError(f"{out!r} ends like {meant}, and --format is {asked}: change one, or leave --format out")
    return asked or str(meant)


class Answer(NamedTuple):
    """The first rows of an answer, and whether there are more."""

    columns: list[str]
    rows: list[tuple[Any, ...]]
    has_more: bool


def table_of(path: str | os.PathLike[str], sql: str, *, limit: int = TABLE_ROWS) -> Answer:
    """The first rows of a SELECT."""
    with _asking(path, sql) as (connection, statement):
        cursor = connection.execute(statement)
        columns = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchmany(limit + 1)
        return Answer(columns, rows[:limit], len(rows) > limit)


def print_table(answer: Answer, console: Console) -> None:
    """A table that fits the terminal; in a pipe as wide as it needs to be.

    Where a terminal is too narrow to show something of every column, each row is a block of lines instead.
    """
    if console.is_terminal and _least_width(answer) > console.width:
        _print_blocks(answer, console)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in answer.columns:
        table.add_column(Text(neutral(name)), overflow="ellipsis", no_wrap=True)
    for row in answer.rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    print_wide(table, console)


def _least_width(answer: Answer) -> int:
    """Columns of a terminal in which a table shows each value, or at least its beginning."""
    texts = [[name, *(_cell(row[place]) for row in answer.rows)] for place, name in enumerate(answer.columns)]
    return sum(min(LEAST_CELL, max(map(cell_len, column))) + CELL_GAP for column in texts)


def _print_blocks(answer: Answer, console: Console) -> None:
    """Each row as lines of a column and its value; empty ones are left out."""
    longest = max(map(cell_len, answer.columns), default=0)
    for number, row in enumerate(answer.rows):
        console.print(Text(f"{'' if number == 0 else chr(10)}row {number + 1}", style="bold yellow"))
        block = Table(box=None, show_header=False, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
        block.add_column(no_wrap=True, width=longest, style="bold")
        block.add_column(overflow="fold")
        for name, value in zip(answer.columns, row, strict=True):
            if value is not None:
                block.add_row(Text(neutral(name)), Text(_cell(value)))
        console.print(block)


def write_answer(path: str | os.PathLike[str], sql: str, format: str, out: str | None, stdout: IO[bytes]) -> None:
    """Writes all rows of a SELECT as json, csv or parquet, to a file (beside, then renamed) or to a stream."""
    if out is not None:
        target = Path(out)
        part = target.with_name(target.name + ".part")
        try:
            with part.open("wb") as sink:
                _render(path, sql, format, sink)
            part.replace(target)
        except OSError as error:
            raise StoreError(f"{out!r} cannot be written ({error.strerror or error}): choose another place") from error
        finally:
            part.unlink(missing_ok=True)
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        _render(path, sql, format, spool)
        spool.seek(0)
        while block := spool.read(1 << 20):
            stdout.write(block)
        stdout.flush()


@contextmanager
def _asking(path: str | os.PathLike[str], sql: str) -> Iterator[tuple[duckdb.DuckDBPyConnection, duckdb.Statement]]:
    """A locked-down connection and one SELECT to run on it; what DuckDB says against it becomes one line."""
    with reading(path, settings=LOCKED_DOWN) as connection:
        try:
            yield connection, _only_select(connection, sql)
        except duckdb.Error as error:
            raise StoreError(_one_line(error)) from error


def _only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    """The one statement of `sql`, if it only reads."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise StoreError(
            f"one SELECT at a time is answered, and there are {len(statements)} statements: ask them one by one"
        )
    (statement,) = statements
    if statement.type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise StoreError(
            f"only questions are answered here (SELECT, FROM, DESCRIBE, EXPLAIN), not {statement.type.name}"
        )
    return statement


def _one_line(error: duckdb.Error) -> str:
    """The first line of what DuckDB says, with its guess at what was meant."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    guess = next((line for line in lines[1:] if line.startswith(("Did you mean", "Candidate bindings"))), "")
    hint = (
        "; `descant schema` lists tables and columns"
        if isinstance(error, duckdb.CatalogException | duckdb.BinderException)
        else ""
    )
    return " ".join(part for part in (lines[0] if lines else "the query failed", guess) if part) + hint


def _render(path: str | os.PathLike[str], sql: str, format: str, sink: Any) -> None:
    with _asking(path, sql) as (connection, statement):
        if format == "parquet":
            _write_parquet(connection.sql(statement.query), sink)
        elif format == "csv":
            _write_csv(connection.execute(statement), sink)
        else:
            _write_json(connection.execute(statement), sink)


def _write_parquet(relation: duckdb.DuckDBPyRelation, sink: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(relation.to_arrow_table(), sink)
    except pa.ArrowException as error:
        raise StoreError(f"this answer cannot be Parquet ({error}): cast the column, or use --format json") from error


def _write_csv(cursor: duckdb.DuckDBPyConnection, sink: Any) -> None:
    text = io.TextIOWrapper(sink, encoding="utf-8", newline="", write_through=True)
    try:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([column[0] for column in cursor.description or ()])
        for row in _rows(cursor):
            writer.writerow([_flat(value) for value in row])
    finally:
        text.detach()  # else it closes the sink, which may be stdout, whenever it is collected


def _write_json(cursor: duckdb.DuckDBPyConnection, sink: Any) -> None:
    columns = [(_json(column[0]), str(column[1]) == "JSON") for column in cursor.description or ()]
    sink.write(b"[")
    for number, row in enumerate(_rows(cursor)):
        fields = (
            name + b":" + (value.encode() if is_json and value is not None else _json(value))
            for (name, is_json), value in zip(columns, row, strict=True)
        )
        sink.write((b",\n " if number else b"\n ") + b"{" + b",".join(fields) + b"}")
    sink.write(b"\n]\n")


def _rows(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(BATCH_ROWS):
        yield from rows


def _cell(value: Any) -> str:
    """A value on one line of a table."""
    return neutral(" ".join(_flat(value).split("\n")))


def _flat(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict | tuple):
        return _json(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return str(value)


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        return json.dumps(_plain(value), ensure_ascii=False).encode()


def _plain(value: Any) -> Any:
    """The same in JSON's own types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | None) else str(value)
