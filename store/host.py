"""One DuckDB in memory, as long as the process, to which short readings attach their file. Knows no database of ours.

To start a DuckDB costs some 16 ms of CPU, for it registers thousands of functions; to attach a file to one that runs costs 2.
One reading at a time is a guest; whoever reads meanwhile, in another thread or within it, opens a DuckDB of his own.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

ATTACHED_AS = "corpus"
"""What an attached database is called, whatever its file is."""

_taken = threading.Lock()


def attach(instance: duckdb.DuckDBPyConnection, file: Path, *options: str) -> None:
    """Attaches a file to a DuckDB as ATTACHED_AS; what `duckdb.connect` raises, this does."""
    instance.execute(f"ATTACH {_literal(file)} AS {ATTACHED_AS} ({', '.join(options)})")


class Host:
    """A DuckDB that stays. Holds a file from `attach` to `leave`."""

    def __init__(self) -> None:
        self._home = duckdb.connect()
        self._spills: Path | None = None
        self._has_guest = False

    def attach(self, file: Path) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the file, read-only; what `duckdb.connect` raises, this does."""
        self._spill_beside(file)
        attach(self._home, file, "READ_ONLY")
        self._has_guest = True
        connection = self._home.cursor()
        connection.execute(f"USE {ATTACHED_AS}")
        return connection

    def leave(self) -> None:
        """Lets the file go; its connection is closed."""
        if not self._has_guest:
            return
        self._has_guest = False
        try:
            self._home.execute(f"DETACH {ATTACHED_AS}")
        except duckdb.Error:
            self._renew()

    def _spill_beside(self, file: Path) -> None:
        """What does not fit into memory goes where DuckDB puts it for a file that it opens alone."""
        spills = file.with_name(f"{file.name}.tmp")
        if spills == self._spills:
            return
        try:
            self._home.execute(f"SET GLOBAL temp_directory = {_literal(spills)}")
        except duckdb.Error:  # a folder that was used cannot be changed
            self._renew()
            self._home.execute(f"SET GLOBAL temp_directory = {_literal(spills)}")
        self._spills = spills

    def close(self) -> None:
        self._home.close()

    def _renew(self) -> None:
        self._home.close()
        self._home, self._spills = duckdb.connect(), None


_hosts: dict[int, Host] = {}
"""By process: a forked child finds its parent's here, which has lost its threads, and leaves it alone."""


@atexit.register
def _close() -> None:
    """At the end of the process, which would find fault with what is still there; not with a host that a thread has."""
    if _taken.acquire(timeout=1.0):
        host = _hosts.pop(os.getpid(), None)
        if host is not None:
            host.close()
        _taken.release()


@contextmanager
def lent() -> Iterator[Host | None]:
    """The host, for one reading; None where somebody has it."""
    if not _taken.acquire(blocking=False):
        yield None
        return
    try:
        host = _hosts.get(os.getpid())
        if host is None:
            host = _hosts[os.getpid()] = Host()
        try:
            yield host
        finally:
            host.leave()
    finally:
        _taken.release()


def _literal(file: Path) -> str:
    return "'" + str(file).replace("'", "''") + "'"
