"""Who opens the database next: a flock on the journal's folder, so that neither readers nor the writer starve. Knows no DuckDB.

DuckDB lets readers in beside readers: some that ask again and again would keep the writer out for ever, and a writer with a
long backlog would keep readers out. So a reader holds the turnstile while it opens, and the writer while it waits for those
who are in and while it writes; after that it stands back for a moment. A folder that is not there means that nobody writes,
and that readers need not wait.
"""

import fcntl
import os
import time
from pathlib import Path

WRITER_POLL_SECONDS, READER_POLL_SECONDS = 0.002, 0.005
"""The writer looks more often than any one reader: it comes once a second, and they may be many."""
BREATH_SECONDS = (0.03, 0.3)
"""How long the writer stands back after its turn: where it met readers, as long as the turn was, within these."""


class Turnstile:
    """Held from `take` to `release`; the kernel frees it when its holder dies.

    Args:
        folder: the journal's.
        is_writer: false for one who opens to read.
    """

    def __init__(self, folder: Path, *, is_writer: bool) -> None:
        self._folder = folder
        self._is_writer = is_writer
        self._fd: int | None = None
        self._comes_back_at = float("-inf")
        self._asked_at = self._opened_at = 0.0

    def take(self, patience_seconds: float) -> bool:
        """True if it is ours, or if there is none; false if others had it for all of `patience_seconds`."""
        deadline = time.monotonic() + patience_seconds
        if self._is_writer:
            time.sleep(max(0.0, self._comes_back_at - time.monotonic()))
        self._asked_at = self._opened_at = time.monotonic()
        try:
            fd = os.open(self._folder, os.O_RDONLY)
        except OSError:  # nobody writes, or we may not look: then DuckDB's own lock has to do
            return True
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(WRITER_POLL_SECONDS if self._is_writer else READER_POLL_SECONDS)
                    continue
                os.close(fd)
                return False
            except OSError:  # a file system without such locks
                os.close(fd)
                return True
            self._fd = fd
            return True

    def opened(self) -> None:
        """The database is open, for which the readers who were in had to go."""
        self._opened_at = time.monotonic()

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            now = time.monotonic()
            least, most = BREATH_SECONDS
            met_readers = self._opened_at - self._asked_at > least
            self._comes_back_at = now + (min(most, max(least, now - self._opened_at)) if met_readers else least)
