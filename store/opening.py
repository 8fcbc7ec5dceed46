"""Opens a database for its one writer: checks and migrates what is there, or builds a new one. Knows no journal lines."""

import contextlib
import errno
import os
from pathlib import Path

import duckdb

from store import segments
from store.database import StoreError, check_ours, connect, first_line
from store.ingest import IngestError, ingested_offsets
from store.migrations import migrate
from store.segments import journal_folder

TURN_SECONDS = 1.0
"""How long new readers are kept out while the writer waits for one that holds the database."""


def open_or_build(file: Path) -> dict[str, int]:
    """Checks and migrates what is there, or builds a new database beside and renames it.

    Returns how far each segment that is still there was taken in.
    """
    if file.exists():
        connection = connect(file, read_only=True, patience_seconds=TURN_SECONDS, has_turn=True)
        try:
            check_ours(connection, file)
        finally:
            connection.close()
        connection = connect(file, read_only=False, patience_seconds=TURN_SECONDS)
        try:
            migrate(connection)
            return _offsets_of_present_segments(connection, file)
        finally:
            close(connection, file)
    log = file.with_name(file.name + ".wal")
    if log.exists():
        raise StoreError(f"{str(log)!r} is left over from a database that is gone: remove it, or put the database back")
    building = file.with_name(f"{file.name}.building")
    building_log = building.with_name(building.name + ".wal")
    try:
        for leftover in (building, building_log):  # of a process that was killed here
            leftover.unlink(missing_ok=True)
        connection = duckdb.connect(building)
        try:
            migrate(connection)
        finally:
            connection.close()
        if building_log.exists():  # close does not say that its checkpoint failed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        building.rename(file)
        return {}
    except (OSError, duckdb.Error) as error:
        for leftover in (building, building_log):
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)
        what = error.strerror if isinstance(error, OSError) and error.errno != errno.ENOENT else first_line(error)
        raise StoreError(f"{str(file)!r} cannot be created ({what}): choose another place with --db") from error


def _offsets_of_present_segments(connection: duckdb.DuckDBPyConnection, file: Path) -> dict[str, int]:
    """What `ingested` says, once it has forgotten segments that were removed."""
    offsets = ingested_offsets(connection)
    present = {segment.name for segment in segments.segments(journal_folder(file))}
    for gone in offsets.keys() - present:
        connection.execute("DELETE FROM ingested WHERE segment = ?", [gone])
    return {name: offset for name, offset in offsets.items() if name in present}


def close(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Closes, which checkpoints; a failure of that leaves DuckDB's own log, and nothing is lost."""
    try:
        connection.close()
    except duckdb.Error as error:
        raise not_closed(file, error) from error


def not_closed(file: Path, error: duckdb.Error) -> IngestError:
    return IngestError(f"{str(file)!r} could not be closed ({first_line(error)}): is the disk full?")
