"""The one writer of a database: holds its lock, owns a journal, and runs the one thread that moves it to DuckDB.

`append` is done when the journal has the records. The ingester opens the database about once a second, for some
tens of milliseconds, so that readers in other processes get in between; while one of them holds the file, it waits
and the journal grows; so it does on a full disk. A clean close removes what is fully in; what a killed process leaves,
the next writer takes in.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import duckdb

from store import segments
from store.control import NoAnswerError, RefusedError, ask
from store.database import (
    POLL_SECONDS,
    StoreBusyError,
    StoreError,
    check_ours,
    connect,
    database_path,
    first_line,
    refuse_folder,
)
from store.host import ATTACHED_AS
from store.ingest import BATCH_BYTES, IngestError, ingest, ingested_offsets, is_full_disk, read_batch
from store.journal import FULL_DISK_PATIENCE_SECONDS, RETRY_SECONDS, Journal, full_disk
from store.known_keys import KnownKeys
from store.lock import Lock
from store.migrations import migrate
from store.records import Record
from store.segments import journal_folder
from store.turnstile import Turnstile

INGEST_SECONDS = 1.0
INGEST_SHARE = 0.03
"""Of the time that passes may take: a long one is followed by a longer pause, of at most LONGEST_PAUSE_SECONDS."""
LONGEST_PAUSE_SECONDS = 3.0
BATCHES_A_JOIN = 16
"""Each batch leaves groups of rows of its own, and DuckDB would join and pack small ones anew at nearly every batch: a quarter
of the work. So it does it at every sixteenth, and at the last."""
ROW_GROUP_ROWS = 16_384
"""DuckDB joins small row groups until they have this size, 122,880 by its default: with long messages that is seconds of
work, in which nobody can read."""
TURN_SECONDS = 1.0
"""How long new readers are kept out while the writer waits for one that holds the database."""
BUSY_SECONDS = 0.5
"""Between two such tries: readers get in."""
HOLD_SECONDS = 0.5
"""How long a batch should hold the database; the next one is smaller or larger by that."""
BATCH_RANGE = (2 << 20, BATCH_BYTES)
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
        self.unreadable_lines = 0
        """Lines of earlier segments that a kill or a power cut left torn."""
        self._folder = journal_folder(self.path)
        self._ingest_seconds = ingest_seconds
        self._known: dict[str, KnownKeys] = {}
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._unjoined = 0
        """Batches since DuckDB last joined small groups of rows."""
        self._in_doubt = False
        """Whether a batch failed that may be in all the same: DuckDB can fail after its commit."""
        self._turnstile = Turnstile(self._folder, is_writer=True)
        self._batch_bytes = BATCH_BYTES
        self._lock = _take_lock(self.path, patience_seconds)
        try:
            self._offsets = self._at_start(self._open_or_build)
            while not self._at_start(self._ingest_batch):
                pass
            self._remove_finished_segments()
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
                self._remove_finished_segments()
            self._leave()
        self._raise_failure()

    def _leave(self) -> None:
        if self._instance is not None:
            self._instance.close()
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
                done = self._ingest_batch(is_closing=closing)
                if done:
                    self._remove_finished_segments()
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

    def _open_or_build(self) -> dict[str, int]:
        if self.path.exists():
            with contextlib.suppress(OSError):  # the journal says what is wrong with it
                self._folder.mkdir(exist_ok=True)
        with self._turn():
            return _open_or_build(self.path)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Keeps new readers out."""
        if not self._turnstile.take(TURN_SECONDS):
            raise StoreBusyError(f"{str(self.path)!r} was being opened by others for {TURN_SECONDS:g} s: try again")
        try:
            yield
        finally:
            self._turnstile.release()

    def _ingest_batch(self, *, is_closing: bool = False) -> bool:
        """Moves one batch; true when nothing is left of what stood in the journal when it began."""
        batch = read_batch(self._folder, self._offsets, limit_bytes=self._batch_bytes)
        if batch.offsets:
            with self._turn(), self._opened() as connection:
                began = time.monotonic()
                if self._in_doubt:
                    self._offsets.update(ingested_offsets(connection))
                    batch = read_batch(self._folder, self._offsets, limit_bytes=self._batch_bytes)
                self._in_doubt = True
                joins = (is_closing and batch.is_last) or self._unjoined + 1 >= BATCHES_A_JOIN
                self.unreadable_lines += ingest(connection, batch, self._known, joins_groups=joins)
                self._unjoined = 0 if joins else self._unjoined + 1
            if not batch.is_last:
                share = HOLD_SECONDS / max(time.monotonic() - began, 0.01)
                least, most = BATCH_RANGE
                self._batch_bytes = int(min(most, max(least, self._batch_bytes * min(2.0, share))))
            self._offsets.update(batch.offsets)
            self._in_doubt = False
        return batch.is_last

    @contextlib.contextmanager
    def _opened(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The database, attached to a DuckDB that is kept from batch to batch; after an error that is a new one."""
        instance, self._instance = self._instance or duckdb.connect(), None
        try:
            connect(
                self.path,
                read_only=False,
                patience_seconds=TURN_SECONDS,
                instance=instance,
                row_group_rows=ROW_GROUP_ROWS,
            )
            self._turnstile.opened()
            yield instance
            try:
                instance.execute("USE memory")
                instance.execute(f"DETACH {ATTACHED_AS}")
            except duckdb.Error as error:
                raise _not_closed(self.path, error) from error
        except BaseException:
            _close(instance, self.path)
            raise
        self._instance = instance

    def _remove_finished_segments(self) -> None:
        """Removes segments that nobody writes any more and that are in, up to a torn last line.

        Their rows are safe by then: each batch closes the database, which checkpoints it.
        """
        for segment in segments.segments(self._folder):
            if not segments.is_abandoned(segment):
                continue
            offset = self._offsets.get(segment.name, 0)
            if not segments.read_whole_lines(segment, offset, 1 << 16):
                self.unreadable_lines += segments.torn_bytes(segment, offset) > 0
                segment.unlink(missing_ok=True)


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


def _open_or_build(file: Path) -> dict[str, int]:
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
            _close(connection, file)
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


def _close(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Closes, which checkpoints; a failure of that leaves DuckDB's own log, and nothing is lost."""
    try:
        connection.close()
    except duckdb.Error as error:
        raise _not_closed(file, error) from error


def _not_closed(file: Path, error: duckdb.Error) -> IngestError:
    return IngestError(f"{str(file)!r} could not be closed ({first_line(error)}): is the disk full?")
