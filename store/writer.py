"""The one writer of a database: holds its lock, owns a journal, and runs the one thread that moves it to DuckDB.

`append` is done when the journal has the records. The ingester opens the database about once a second, for some
tens of milliseconds, so that readers in other processes get in between; while one of them holds the file, it waits
and the journal grows; so it does on a full disk. A clean close removes what is fully in; what a killed process leaves,
the next writer takes in.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from store.control import NoAnswerError, RefusedError, ask
from store.database import POLL_SECONDS, StoreBusyError, StoreError, database_path, refuse_folder
from store.ingest import is_full_disk
from store.intake import Intake
from store.journal import FULL_DISK_PATIENCE_SECONDS, RETRY_SECONDS, Journal, full_disk
from store.lock import Lock
from store.opening import TURN_SECONDS
from store.records import Record
from store.segments import journal_folder

INGEST_SECONDS = 1.0
INGEST_SHARE = 0.03
"""Of the time that passes may take: a long one is followed by a longer pause, of at most LONGEST_PAUSE_SECONDS."""
LONGEST_PAUSE_SECONDS = 3.0
BUSY_SECONDS = 0.5
"""Between two such tries: readers get in."""
START_PATIENCE_SECONDS = 15.0
LOCK_PATIENCE_SECONDS = 4.0
"""How long a command waits for another that writes and is soon done, such as `retry-failed`; for a campaign it does not."""
FLUSH_PATIENCE_SECONDS = 60.0
CLOSE_PATIENCE_SECONDS = 15.0

Step = TypeVar("Step")


class LockedError(StoreError):
    """Raised when another writer holds the database."""


class Writer:
    """Writes records to a database, which it creates if there is none. One at a time on a database.

    Args:
        path: the database.
        ingest_seconds: how long rows may wait in the journal before others see them.
        patience_seconds: how long to wait for another writer that is no campaign.

    Raises:
        StoreError: the folder cannot be written, the file is not ours, its schema is newer, or another writer holds it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        ingest_seconds: float = INGEST_SECONDS,
        patience_seconds: float = 0.0,
    ) -> None:
        self.path = database_path(path)
        self._folder = journal_folder(self.path)
        self._ingest_seconds = ingest_seconds
        self._lock = _take_lock(self.path, patience_seconds)
        self._intake = Intake(self.path)
        try:
            self._at_start(self._intake.open)
            while not self._at_start(self._intake.take_batch):
                pass
            self._intake.remove_finished_segments()
            try:
                self._journal = Journal(self._folder)
            except OSError as error:
                raise StoreError(
                    f"{str(self._folder)!r} cannot be written ({error.strerror}): mend the folder"
                ) from error
        except BaseException:
            self._leave()
            raise
        self._failure: BaseException | None = None
        self._delay: StoreError | None = None
        """What keeps rows from the database for now: a reader that holds it, or a full disk."""
        self._state = threading.Condition()
        self._asked = 0
        self._served = 0
        self._closing = False
        self._closed = False
        self._ingester = threading.Thread(target=self._ingest_forever, name="descant-ingester", daemon=True)
        self._ingester.start()

    @property
    def unreadable_lines(self) -> int:
        """Lines of earlier segments that a kill or a power cut left torn."""
        return self._intake.unreadable_lines

    def append(self, *records: Record) -> None:
        """Notes records in the journal before it returns; others see them about a second later."""
        self._raise_failure()
        self._journal.append(*records)

    async def note(self, *records: Record) -> None:
        """As `append`, for an event loop, which goes on meanwhile; on a full disk it waits, and `trouble` says so."""
        self._raise_failure()
        await self._journal.note(*records)

    def leave(self, *records: Record) -> None:
        """As `note`, without waiting: for what nobody relies on before what is noted next."""
        self._raise_failure()
        self._journal.leave(*records)

    @property
    def trouble(self) -> str | None:
        """What the campaign waits for, and what to do, in one line; null while all is well."""
        if self._delay is not None and not isinstance(self._delay, StoreBusyError):
            return full_disk(self.path)
        return self._journal.trouble

    def flush(self, *, patience_seconds: float = FLUSH_PATIENCE_SECONDS) -> None:
        """Returns when everything appended so far is in DuckDB and visible to readers.

        Raises:
            StoreBusyError: another process kept the database open for all of `patience_seconds`.
            IngestError: the disk was full for all of them.
        """
        deadline = time.monotonic() + patience_seconds
        with self._state:
            self._asked += 1
            mine = self._asked
            self._state.notify_all()
            while self._served < mine:
                self._raise_failure()
                if time.monotonic() >= deadline and self._delay is not None:
                    raise self._delay
                self._state.wait(0.1)

    def close(self) -> None:
        """Moves everything into DuckDB, removes the journal and gives the lock back.

        Raises:
            StoreError: something could not be moved. It stays in the journal, and the next writer takes it in.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._journal.close()
        finally:
            with self._state:
                self._closing = True
                self._state.notify_all()
            self._ingester.join()
            if self._failure is None:
                self._intake.remove_finished_segments()
            self._leave()
        self._raise_failure()

    def _leave(self) -> None:
        self._intake.close()
        with contextlib.suppress(OSError):  # it holds what is left for the next writer
            self._folder.rmdir()
        self._lock.release()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StoreError as second:
            if error is None:
                raise
            error.add_note(str(second))  # what went wrong first is what is raised

    def _raise_failure(self) -> None:
        if isinstance(self._failure, StoreError):
            raise self._failure
        if self._failure is not None:
            raise StoreError(f"writing {str(self.path)!r} failed: {self._failure}") from self._failure

    def _ingest_forever(self) -> None:
        """The ingester thread: a pass every one to three seconds, or at once when somebody asks for it."""
        pause = self._ingest_seconds
        close_began: float | None = None
        while True:
            with self._state:
                if not self._closing and self._asked == self._served:
                    self._state.wait(pause)
                asked, closing = self._asked, self._closing
            started = time.monotonic()
            if closing and close_began is None:
                close_began = started
            try:
                done = self._intake.take_batch(is_closing=closing)
                if done:
                    self._intake.remove_finished_segments()
            except BaseException as error:  # noqa: BLE001  a thread's error would vanish: append, flush and close raise it
                closing_seconds = 0.0 if close_began is None else time.monotonic() - close_began
                if not self._waits_for(error, closing_seconds=closing_seconds):
                    self._fail(error)
                    return
                continue
            self._delay = None
            if not done:
                continue
            pause = max(self._ingest_seconds, min((time.monotonic() - started) / INGEST_SHARE, LONGEST_PAUSE_SECONDS))
            with self._state:
                self._served = asked
                self._state.notify_all()
            if closing:
                return

    def _waits_for(self, error: BaseException, *, closing_seconds: float) -> bool:
        """Waits a little for what passes by itself, a reader or a full disk; false for another error, or out of patience."""
        if isinstance(error, StoreBusyError):
            self._delay, patience, seconds = error, CLOSE_PATIENCE_SECONDS, BUSY_SECONDS
        elif isinstance(error, StoreError) and is_full_disk(error):
            self._delay, patience, seconds = error, FULL_DISK_PATIENCE_SECONDS, RETRY_SECONDS
        else:
            return False
        if closing_seconds > patience:
            return False
        time.sleep(seconds)
        return True

    def _fail(self, error: BaseException) -> None:
        with self._state:
            self._failure = error
            self._state.notify_all()

    def _at_start(self, step: Callable[[], Step]) -> Step:
        """A step that waits for readers longer than the ingester does, which comes again anyway."""
        deadline = time.monotonic() + START_PATIENCE_SECONDS
        while True:
            try:
                return step()
            except StoreBusyError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(BUSY_SECONDS)


def write_through(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """Writes records whoever holds the database: directly, or through a segment of the journal that its holder takes in."""
    rows = tuple(records)
    file = database_path(path)
    try:
        with Writer(file) as writer:
            writer.append(*rows)
        return
    except LockedError:
        if not file.exists():
            raise StoreError(f"{str(file)!r} is only just being created: try again in a moment") from None
    with Journal(journal_folder(file)) as foreign:
        foreign.append(*rows)
    with contextlib.suppress(LockedError), Writer(file):
        pass  # the holder may have gone while we wrote


def _take_lock(file: Path, patience_seconds: float) -> Lock:
    """The lock, before anything else is made."""
    if not file.parent.is_dir():
        raise StoreError(f"the folder {str(file.parent)!r} does not exist: create it, or name another with --db")
    refuse_folder(file)
    lock = Lock(file)
    try:
        taken = lock.take() or (not journal_folder(file).exists() and _take_after_upgrade(lock))
    except OSError as error:
        lock.release()
        raise StoreError(
            f"the folder {str(file.parent)!r} cannot be written ({error.strerror}): choose another with --db"
        ) from error
    campaign: str | None = None
    deadline = time.monotonic() + patience_seconds
    while not taken and patience_seconds:
        campaign = _campaign_on(file)
        if campaign is not None or time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
        taken = lock.take()
    if not taken:
        steer = "`descant status` shows how it stands, `descant pause` holds it, `descant concurrency N` lets it do more or less"
        doing = "wait for it to end" if campaign is None else f"it runs {campaign}; {steer}; wait for it to end"
        raise LockedError(
            f"{str(file)!r} is being written by {lock.holder()}: {doing}, or name another database with --db"
        )
    return lock


def _campaign_on(file: Path) -> str | None:
    """The campaign that runs on a database and can be steered, in words; null where none says so."""
    try:
        said = ask(file, {"ask": "status"})
    except (NoAnswerError, RefusedError):
        return "a campaign"
    return None if said is None else f"the campaign {str(said.get('name'))!r}"


def _take_after_upgrade(lock: Lock) -> bool:
    """The lock, once a reader that brings the schema up to date has let it go; one who writes has a journal."""
    deadline = time.monotonic() + TURN_SECONDS
    while not lock.take():
        if time.monotonic() >= deadline or journal_folder(lock.database).exists():
            return False
        time.sleep(POLL_SECONDS)
    return True
