"""The one-writer lock of a database: a file beside it that the kernel frees when its holder dies. Knows no DuckDB."""

import contextlib
import fcntl
import os
from pathlib import Path

LOCK_SUFFIX = ".lock"


class Lock:
    """An exclusive flock on `<database>.lock`, held from `take` to `release`."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.path = database.with_name(database.name + LOCK_SUFFIX)
        self._fd: int | None = None

    def take(self) -> bool:
        """True if the lock is now ours; False if another process, or another writer in this one, holds it."""
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            if is_same_file(fd, self.path):
                break
            os.close(fd)  # its last holder removed the file between our open and our flock
        self._fd = fd
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        return True

    def holder(self) -> str:
        """The holder, in words for an error message."""
        with contextlib.suppress(OSError):
            pid = self.path.read_text().strip()
            if pid:
                return f"process {pid}"
        return "another process"

    def alive_holder(self) -> int | None:
        """The process that holds the lock, as far as can be told without touching it; for display only."""
        try:
            pid = int(self.path.read_text())
            os.kill(pid, 0)
        except PermissionError:
            return pid
        except (OSError, ValueError):
            return None
        return pid

    def release(self) -> None:
        if self._fd is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = None


def is_same_file(fd: int, path: Path) -> bool:
    """Whether the open file still stands at the path, and was not removed or replaced meanwhile."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
