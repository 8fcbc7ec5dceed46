"""The DuckDB file: opening it for reading, asking it, and telling ours from others. Knows no records.

DuckDB lets one process write, and any open connection, even an idle reader, keeps the others out. So nobody
keeps the file open: readers open it for each use and retry, and the one who takes rows in (`store.intake`) does the same. They
take turns at `store.turnstile`.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from configs.errors import DescantError
from store.host import ATTACHED_AS, Host, attach, lent
from store.lock import Lock
from store.migrations import MIGRATIONS, has_definitions, migrate, schema_version
from store.segments import journal_folder
from store.turnstile import Turnstile

PATIENCE_SECONDS = 10.0
POLL_SECONDS = 0.01
BIRTH_SECONDS = 3.0
"""How long a reader waits for a database that somebody is just creating."""
DEFAULT_NAME = "corpus.duckdb"
_MAGIC = slice(8, 12)
"""Where `DUCK` stands in each DuckDB file, after a checksum."""


class StoreError(DescantError):
    """Raised by the store: a file that is missing, broken, not ours, or held by somebody else."""


class StoreBusyError(StoreError):
    """Raised when the database stayed open in another process for longer than we wait."""

    exit_code = 1


def database_path(path: str | os.PathLike[str]) -> Path:
    """Links resolved, so that every process finds the same lock and the same journal."""
    try:
        file = Path(os.path.realpath(path))
        file.exists()
    except (OSError, ValueError) as error:  # too long, a null byte, a loop of links
        shown = repr(os.fspath(path)) if len(os.fspath(path)) < 100 else "the name given with --db"
        raise StoreError(f"{shown} cannot be the name of a file: name another with --db") from error
    return file


@contextmanager
def reading(path: str | os.PathLike[str], *, settings: Sequence[str] = ()) -> Iterator[duckdb.DuckDBPyConnection]:
    """The database, read-only, for the length of a `with` block; keep it short, since nobody writes meanwhile.

    `settings`: SET statements to run first.
    """
    file = database_path(path)
    with lent() if not settings else contextlib.nullcontext() as host:
        connection = connect(file, read_only=True, host=host)
        try:
            version = check_ours(connection, file)
            if version < len(MIGRATIONS) or not has_definitions(connection):
                connection.close()
                if host:
                    host.leave()
                connection = _upgraded(file) if version < len(MIGRATIONS) else _with_our_views(file)
            for setting in settings:
                connection.execute(setting)
            yield connection
        finally:
            connection.close()


def query(
    path: str | os.PathLike[str], sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """The rows of one SELECT, as dicts by column."""
    with reading(path) as connection:
        return rows_of(connection, sql, parameters)


def rows_of(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    """The same where several questions are asked of one state of the corpus."""
    cursor = connection.execute(sql, parameters or None)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def connect(
    file: Path,
    *,
    read_only: bool,
    patience_seconds: float = PATIENCE_SECONDS,
    instance: duckdb.DuckDBPyConnection | None = None,
    row_group_rows: int | None = None,
    has_turn: bool = False,
    host: Host | None = None,
) -> duckdb.DuckDBPyConnection:
    """Opens a database that must exist, and waits while another process holds it.

    Args:
        instance: a DuckDB in memory that the database is attached to as ATTACHED_AS, and that is then returned: a new one
            costs several times as much.
        row_group_rows: how many rows DuckDB gathers in one group of what is written there; null for its own number.
        has_turn: we hold the turnstile, which readers take else while they open.
        host: to attach it to, for a short reading; else a DuckDB is started for it.

    Raises:
        StoreError: there is no such file, or it is no DuckDB database.
        StoreBusyError: it was held for `patience_seconds`.
    """
    if not _is_there(file):
        raise StoreError(f"there is no database at {str(file)!r}: run a campaign first, or name another with --db")
    refuse_folder(file)
    _refuse_other_formats(file)
    deadline = time.monotonic() + patience_seconds
    turnstile = Turnstile(journal_folder(file), is_writer=False)
    while True:
        if read_only and not has_turn:
            turnstile.take(deadline - time.monotonic())
        try:
            connection = host.attach(file) if host else _open(file, read_only, instance, row_group_rows)
            connection.execute("SET enable_progress_bar = false")  # it would write on our stdout
            return connection
        except duckdb.Error as error:
            if not _is_held(error):
                raise StoreError(f"{str(file)!r} cannot be opened as a database: {first_line(error)}") from error
            if time.monotonic() >= deadline:
                raise StoreBusyError(
                    f"{str(file)!r} stayed open in another process for {patience_seconds:g} s: close it there and "
                    f"try again ({first_line(error)})"
                ) from error
        finally:
            turnstile.release()
        time.sleep(POLL_SECONDS)


def _open(
    file: Path, read_only: bool, instance: duckdb.DuckDBPyConnection | None, row_group_rows: int | None
) -> duckdb.DuckDBPyConnection:
    if instance is None:
        return duckdb.connect(file, read_only=read_only)
    options = [*(["READ_ONLY"] if read_only else []), *([f"ROW_GROUP_SIZE {row_group_rows}"] if row_group_rows else [])]
    attach(instance, file, *options)
    instance.execute(f"USE {ATTACHED_AS}")
    return instance


def refuse_folder(file: Path) -> None:
    """Raises a StoreError for a folder; it names the corpus in it, if there is one."""
    if not file.is_dir():
        return
    corpus = file / DEFAULT_NAME
    hint = f"did you mean --db {corpus}?" if corpus.is_file() else "name a file in it with --db"
    raise StoreError(f"{str(file)!r} is a folder: {hint}")


def _is_there(file: Path) -> bool:
    """Whether the database exists, or does so after a moment, while a writer builds it."""
    deadline = time.monotonic() + BIRTH_SECONDS
    while not file.exists():
        if time.monotonic() >= deadline or Lock(file).alive_holder() in (None, os.getpid()):
            return file.exists()
        time.sleep(POLL_SECONDS)
    return True


_known: set[tuple[int, int]] = set()
_knowing = threading.Lock()


def _refuse_other_formats(file: Path) -> None:
    """DuckDB itself reads text and tables of many kinds under the name of a database, or gives an error of its own.

    Each file is looked into once, before this process opens it: whoever closes a file, however it was opened, drops all
    locks that its process has on it (POSIX), and with them the ingester's, in the middle of its writing.
    """
    with _knowing:
        try:
            status = file.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in _known:
                return
            with file.open("rb") as handle:
                start = handle.read(_MAGIC.stop)
        except OSError as error:
            raise StoreError(
                f"{str(file)!r} cannot be read ({error.strerror}): check its rights, or name another with --db"
            ) from error
        if start[_MAGIC] != b"DUCK":
            raise StoreError(
                f"{str(file)!r} cannot be opened as a database: it is no DuckDB database; name another with --db"
            )
        _known.add(identity)


def check_ours(connection: duckdb.DuckDBPyConnection, file: Path) -> int:
    """The schema version of a database that is ours.

    Raises:
        StoreError: it is a database of something else, or of a newer Descant.
    """
    try:
        version = schema_version(connection)
    except duckdb.Error as error:
        raise StoreError(f"{str(file)!r} cannot be read: {first_line(error)}") from error
    if version is None:
        raise StoreError(f"{str(file)!r} is a DuckDB database, but not one of Descant's: name another with --db")
    if version > len(MIGRATIONS):
        raise StoreError(
            f"{str(file)!r} has schema version {version}, and this Descant knows versions up to {len(MIGRATIONS)}: "
            "upgrade Descant, or name another database with --db"
        )
    return version


def first_line(error: BaseException) -> str:
    """What a DuckDB error says before its advice and its excerpt of the statement."""
    return str(error).strip().split("\n", 1)[0].split(" See also ", 1)[0]


def _is_held(error: duckdb.Error) -> bool:
    """Whether waiting helps: held by another process, or by this one in the other mode."""
    text = str(error)
    return (
        "Could not set lock on file" in text
        or "different configuration than existing connections" in text
        or "Unique file handle conflict" in text
    )


def _with_our_views(file: Path) -> duckdb.DuckDBPyConnection:
    """The database of our schema with our views, or with another Descant's where ours cannot be made."""
    with contextlib.suppress(StoreError):
        _upgrade(file, patience_seconds=0.0)
    return connect(file, read_only=True)


def _upgraded(file: Path) -> duckdb.DuckDBPyConnection:
    """The database once its schema is ours: brought up to date here, or by the campaign that has just begun to write it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            _upgrade(file)
        except StoreError:
            if time.monotonic() >= deadline:
                raise
        connection = connect(file, read_only=True)
        if check_ours(connection, file) == len(MIGRATIONS):
            return connection
        connection.close()
        time.sleep(POLL_SECONDS)


def _upgrade(file: Path, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Brings an older schema up to date before it is read, unless a campaign holds the database."""
    lock = Lock(file)
    try:
        if not lock.take():
            raise StoreError(f"{str(file)!r} has an older schema and {lock.holder()} is writing it: try again later")
    except OSError as error:
        raise StoreError(f"{str(file)!r} has an older schema and cannot be upgraded: {error}") from error
    try:
        connection = connect(file, read_only=False, patience_seconds=patience_seconds)
        try:
            migrate(connection)
        finally:
            connection.close()
    finally:
        lock.release()
