"""The journal: append-only segments of JSON lines beside the database, written before anything goes on.

A line is `{"t":TABLE,"r":ROW}`. Each process appends to segments of its own and holds a flock on them while they
are open. A segment that could not take a whole write is left with its torn last line, and the next write opens
another; readers (`store.segments`) take whole lines only. Knows no DuckDB: `store.writer` moves the lines there.

`append` writes before it returns, and fails on a full disk. `note` is for an event loop, which must not block: one
thread writes what all callers of one moment have noted, and waits for room where the disk is full.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import re
import secrets
import stat
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import orjson
from pydantic_core import PydanticSerializationError

from store.database import StoreError
from store.lock import is_same_file
from store.records import RECORDS, Record
from store.segments import SEGMENT_SUFFIX

SEGMENT_BYTES = 64 << 20
FSYNC_SECONDS = 0.25
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors that pass when somebody makes room; EFBIG is a limit on the size of a process's files."""
NO_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP})
"""What a file system says that cannot sync a folder."""
RETRY_SECONDS = 0.5
"""Between two tries on a full disk."""
FULL_DISK_PATIENCE_SECONDS = 5.0
"""How long `close` waits for room."""
GATHER_SECONDS = 0.005
"""Between two writes while notes come thick: each one wakes a thread and the loop, which at 1,000 calls a second cost more than
the notes themselves."""
COME_THICK = 4
"""Notes in one write from which on the next write waits for more of them."""
BUFFERS_A_WRITE = 1_000
"""What writev takes at once is 1,024."""

_PREFIXES = {kind: f'{{"t":"{table}","r":'.encode() for table, kind in RECORDS.items()}
_SERIALIZERS = {kind: kind.__pydantic_serializer__ for kind in RECORDS.values()}
_PLAIN = frozenset(kind for kind in RECORDS.values() if kind.is_plain())
"""What orjson writes in a third of the time, to the same bytes."""
_SURROGATES = re.compile("[\ud800-\udfff]")


class JournalError(StoreError):
    """Raised when the journal cannot be written: the disk is full, or the folder is gone."""

    exit_code = 1


@dataclass(eq=False, slots=True)
class _Waiting:
    """What one caller noted, until it is written."""

    lines: bytes
    records: int
    written: "asyncio.Future[None] | None"
    """Resolved on its own loop; null where nobody waits, and for `append`, whose caller writes it."""


def line_of(record: Record) -> bytes:
    """A record as a line. Lone surrogates, which no UTF-8 file can hold, become U+FFFD."""
    kind = type(record)
    try:
        row = orjson.dumps(record.__dict__) if kind in _PLAIN else _SERIALIZERS[kind].to_json(record)
    except (PydanticSerializationError, orjson.JSONEncodeError):
        row = kind.model_validate(_without_surrogates(record.model_dump())).model_dump_json().encode()
    return b"%b%b}\n" % (_PREFIXES[kind], row)


class Journal:
    """Writes records to segments of its own, in the order in which they are given. Threads and loops may share it."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        """Of what is written: held for every write and every change of segment."""
        self._fd: int | None = None
        self._size = 0
        self._dirty = False
        self._is_named = True
        """Whether the segment's name is on disk too."""
        self._retired: list[int] = []
        self._failure: OSError | None = None
        self._full_at_write = False
        self._full_at_sync = False
        self._waiting: deque[_Waiting] = deque()
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._rung = False
        self._closing = threading.Event()
        self._closed = False
        self._open_segment()
        self._writer = threading.Thread(target=self._write_forever, name="descant-journal", daemon=True)
        self._syncer = threading.Thread(target=self._sync_forever, name="descant-journal-fsync", daemon=True)
        self._writer.start()
        self._syncer.start()

    def append(self, *records: Record) -> None:
        """Writes the records, and what was noted before them, before it returns; on disk within a quarter second.

        A kill in the middle of a long write can leave the first lines of it: what makes the others count goes last.

        Raises:
            JournalError: they could not be written, or an earlier fsync failed.
        """
        if not records:
            return
        mine = _Waiting(b"".join(map(line_of, records)), len(records), None)
        with self._lock:
            self._check_open()
            self._waiting.append(mine)
            try:
                self._write_waiting()
            except OSError as error:
                if mine in self._waiting:
                    self._waiting.remove(mine)
                if error.errno not in FULL_DISK:
                    self._fail_waiting(error)
                raise self._error(error) from error

    async def note(self, *records: Record) -> None:
        """Returns once the records stand in the journal, as after `append`; the loop goes on meanwhile.

        On a full disk it waits until there is room, and `trouble` says so. Who is cancelled here has noted all the same.

        Raises:
            JournalError: they could not be written for another reason, or an earlier fsync failed.
        """
        if records:
            written = asyncio.get_running_loop().create_future()
            self._hand_over(records, written)
            await written

    def leave(self, *records: Record) -> None:
        """Hands records to the writing thread, before all that comes after them, and does not wait.

        For what nobody relies on before the next `note` or `append`, which tells if the journal cannot be written.

        Raises:
            JournalError: it is closed, or an earlier fsync failed.
        """
        if records:
            self._hand_over(records, None)

    def _hand_over(self, records: Sequence[Record], written: "asyncio.Future[None] | None") -> None:
        self._check_open()
        self._waiting.append(_Waiting(b"".join(map(line_of, records)), len(records), written))
        if not self._rung:
            self._rung = True
            self._bell.put(None)
        if self._closed:  # by another thread, since we looked
            self._fail_waiting(None)

    @property
    def trouble(self) -> str | None:
        """What keeps notes waiting and what to do, in one line; null while they are written."""
        return full_disk(self.folder) if self._full_at_write or self._full_at_sync else None

    def sync(self) -> None:
        """Puts what was written so far on disk; what finds it full is tried again by the next `sync`."""
        with self._lock:
            due, self._retired = self._retired, []
            if self._dirty and self._fd is not None:
                due.append(os.dup(self._fd))
            if not self._is_named:
                due += _folders(self.folder)
            self._dirty, self._is_named = False, True
        full = []
        for fd in due:
            try:
                os.fsync(fd) if stat.S_ISDIR(os.fstat(fd).st_mode) else os.fdatasync(fd)
            except OSError as error:
                if error.errno in FULL_DISK:
                    full.append(fd)
                    continue
                if error.errno not in NO_SYNC:
                    self._failure = error
            os.close(fd)
        with self._lock:
            self._retired += full
            self._full_at_sync = bool(full)

    def close(self) -> None:
        """Writes what was noted, and puts it on disk.

        Raises:
            JournalError: some of it could not be written, as on a disk that stays full; it says how many records.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        self._bell.put(None)
        self._writer.join()
        self._syncer.join()
        with self._lock:
            self._closed = True
            self._retire()
        lost = self._fail_waiting(None)
        self.sync()
        if self._failure is not None:
            raise self._error(self._failure) from self._failure
        if lost:
            raise JournalError(
                f"{lost} records of calls in flight could not be written to the journal {str(self.folder)!r}: the disk is "
                "full; free some space and run the same command again, which asks those calls anew"
            )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._error(self._failure) from self._failure
        if self._closing.is_set():
            raise JournalError(f"the journal {str(self.folder)!r} is closed")

    def _write_forever(self) -> None:
        """The writing thread: all that waits, with one write, as soon as something waits."""
        give_up = float("inf")
        while True:
            closing = self._closing.is_set()
            if closing and give_up == float("inf"):
                give_up = time.monotonic() + FULL_DISK_PATIENCE_SECONDS
            self._rung = False  # before what waits is taken: who comes after that rings again
            try:
                with self._lock:
                    written = self._write_waiting()
            except OSError as error:
                if error.errno not in FULL_DISK:
                    self._fail_waiting(error)
                elif time.monotonic() >= give_up:
                    return
                else:
                    self._full_at_write = True
                    time.sleep(RETRY_SECONDS) if closing else self._closing.wait(RETRY_SECONDS)
                    continue
            if closing:
                return
            if written >= COME_THICK:
                time.sleep(GATHER_SECONDS)
            self._bell.get()

    def _write_waiting(self) -> int:
        """Writes all that waits, in its order, and says how many notes; what an OSError keeps from being written whole, waits on."""
        notes = 0
        while taken := [self._waiting.popleft() for _ in range(min(len(self._waiting), BUFFERS_A_WRITE))]:
            done = 0
            try:
                if self._full_at_sync:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                if self._fd is None or self._size >= self._segment_bytes:
                    self._open_segment()
                assert self._fd is not None
                written = os.writev(self._fd, [waiting.lines for waiting in taken])
                self._size += written
                self._dirty = True
                for waiting in taken:
                    if len(waiting.lines) > written:
                        break
                    written -= len(waiting.lines)
                    done += 1
                if done < len(taken):
                    if written:
                        self._retire()  # its last line is torn
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                self._full_at_write = False  # before those who wait are told
            except OSError as error:
                if error.errno not in FULL_DISK or (error.errno == errno.EFBIG and self._size):
                    self._retire()
                raise
            finally:
                self._waiting.extendleft(reversed(taken[done:]))
                _tell(taken[:done], None)
            notes += done
        return notes

    def _fail_waiting(self, error: OSError | None) -> int:
        """Gives up all that waits; how many records that was."""
        given_up = []
        with contextlib.suppress(IndexError):
            while True:
                given_up.append(self._waiting.popleft())
        what = JournalError(f"the journal {str(self.folder)!r} is closed") if error is None else self._error(error)
        _tell(given_up, what)
        return sum(waiting.records for waiting in given_up)

    def _open_segment(self) -> None:
        self._retire()
        self.folder.mkdir(exist_ok=True)
        while True:
            # The name sorts by time and is never used twice: `ingested` may still know a removed one.
            name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(3)}{SEGMENT_SUFFIX}"
            path = self.folder / name
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            except FileNotFoundError:  # another process closed, and took the empty folder with it
                self.folder.mkdir(exist_ok=True)
                continue
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_same_file(fd, path):
                    break
            os.close(fd)  # taken for abandoned and removed, between our open and our flock
        self._fd, self._size, self._is_named = fd, 0, False

    def _retire(self) -> None:
        """Gives the current segment up; it is synced and closed by the next `sync`."""
        if self._fd is not None:
            self._retired.append(self._fd)
            self._fd = None

    def _sync_forever(self) -> None:
        while not self._closing.wait(FSYNC_SECONDS):
            if self._dirty or self._retired or not self._is_named:
                self.sync()

    def _error(self, error: OSError) -> JournalError:
        return JournalError(
            f"the journal {str(self.folder)!r} cannot be written ({error.strerror or error}): free some space, or mend the "
            "folder, and run the same command again"
        )


def _folders(folder: Path) -> list[int]:
    """The journal's folder and the one that it lies in, opened: a power cut must lose neither's name, nor a segment's."""
    opened = []
    for place in (folder, folder.parent):
        with contextlib.suppress(OSError):  # one that may not be read is not synced
            opened.append(os.open(place, os.O_RDONLY | os.O_DIRECTORY))
    return opened


def full_disk(place: Path) -> str:
    """What a full disk means for a campaign, for people."""
    return f"the disk that holds {str(place)!r} is full: the campaign waits, and goes on by itself when there is room"


def _tell(noted: Iterable[_Waiting], error: JournalError | None) -> None:
    """Wakes who waits, with one call a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = defaultdict(list)
    for waiting in noted:
        if waiting.written is not None:
            by_loop[waiting.written.get_loop()].append(waiting.written)
    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is over, and nobody waits
            loop.call_soon_threadsafe(_resolve, futures, error)


def _resolve(futures: Sequence["asyncio.Future[None]"], error: JournalError | None) -> None:
    for future in futures:
        if future.done():  # its task was cancelled
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(JournalError(str(error)))


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATES.sub("�", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value
