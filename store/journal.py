"""The journal: append-only segments of JSON lines beside the database, written before anything goes on.

A line is `{"t":TABLE,"r":ROW}`. Each process appends to segments of its own and holds a flock on them while they
are open. A segment that could not take a whole write is left with its torn last line, and the next append opens
another; readers take whole lines only. Knows no DuckDB: `store.writer` moves the lines there.
"""

import contextlib
import fcntl
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from pydantic_core import PydanticSerializationError

from store.database import StoreError
from store.lock import is_same_file
from store.records import RECORDS, Record

JOURNAL_SUFFIX = ".journal"
SEGMENT_SUFFIX = ".jsonl"
SEGMENT_BYTES = 64 << 20
FSYNC_SECONDS = 0.25

_PREFIXES = {kind: f'{{"t":"{table}","r":'.encode() for table, kind in RECORDS.items()}
_SERIALIZERS = {kind: kind.__pydantic_serializer__ for kind in RECORDS.values()}
_SURROGATES = re.compile("[\ud800-\udfff]")


class JournalError(StoreError):
    """Raised when the journal cannot be written: the disk is full, or the folder is gone."""

    exit_code = 1


def journal_folder(database: Path) -> Path:
    return database.with_name(database.name + JOURNAL_SUFFIX)


def line_of(record: Record) -> bytes:
    """A record as a line. Lone surrogates, which no UTF-8 file can hold, become U+FFFD."""
    kind = type(record)
    try:
        row = _SERIALIZERS[kind].to_json(record)
    except PydanticSerializationError:
        row = kind.model_validate(_without_surrogates(record.model_dump())).model_dump_json().encode()
    return b"%b%b}\n" % (_PREFIXES[kind], row)


class Journal:
    """Appends records to segments of its own. Threads may share it."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._size = 0
        self._dirty = False
        self._retired: list[int] = []
        self._failure: OSError | None = None
        self._closing = threading.Event()
        self._open_segment()
        self._syncer = threading.Thread(target=self._sync_forever, name="descant-journal-fsync", daemon=True)
        self._syncer.start()

    def append(self, *records: Record) -> None:
        """Notes the records, with one write for all of them, before it returns; on disk within a quarter second.

        A kill in the middle of a long write can leave the first lines of it: what makes the others count goes last.

        Raises:
            JournalError: they could not be noted, or an earlier fsync failed.
        """
        data = b"".join(map(line_of, records))
        if not data:
            return
        with self._lock:
            if self._failure is not None:
                raise self._error(self._failure) from self._failure
            if self._closing.is_set():
                raise JournalError(f"the journal {str(self.folder)!r} is closed")
            try:
                if self._fd is None or self._size >= self._segment_bytes:
                    self._open_segment()
                assert self._fd is not None
                written = os.write(self._fd, data)
            except OSError as error:
                self._retire()
                raise self._error(error) from error
            self._size += written
            self._dirty = True
            if written < len(data):
                self._retire()
                raise JournalError(
                    f"the journal {str(self.folder)!r} took {written} of {len(data)} bytes: the disk is full; free some "
                    "space and run the same command again"
                )

    def sync(self) -> None:
        """Puts what was appended so far on disk."""
        with self._lock:
            retired, self._retired = self._retired, []
            current = os.dup(self._fd) if self._dirty and self._fd is not None else None
            self._dirty = False
        try:
            for fd in (*retired, *(() if current is None else (current,))):
                os.fdatasync(fd)
        except OSError as error:
            self._failure = error
        finally:
            for fd in (*retired, *(() if current is None else (current,))):
                os.close(fd)

    def close(self) -> None:
        if self._closing.is_set():
            return
        self._closing.set()
        self._syncer.join()
        with self._lock:
            self._retire()
        self.sync()
        if self._failure is not None:
            raise self._error(self._failure) from self._failure

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        self._fd, self._size = fd, 0

    def _retire(self) -> None:
        """Gives the current segment up; it is synced and closed by the next `sync`."""
        if self._fd is not None:
            self._retired.append(self._fd)
            self._fd = None

    def _sync_forever(self) -> None:
        while not self._closing.wait(FSYNC_SECONDS):
            if self._dirty or self._retired:
                self.sync()

    def _error(self, error: OSError) -> JournalError:
        return JournalError(
            f"the journal {str(self.folder)!r} cannot be written ({error.strerror or error}): free some space, or mend the "
            "folder, and run the same command again"
        )


def segments(folder: Path) -> list[Path]:
    """The segments, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SEGMENT_SUFFIX))
    except FileNotFoundError:
        return []


def read_whole_lines(segment: Path, offset: int, limit_bytes: int) -> bytes:
    """The whole lines from an offset on: about `limit_bytes` of them, but at least one if there is one."""
    parts = []
    with segment.open("rb") as handle:
        handle.seek(offset)
        while part := handle.read(limit_bytes):
            end = part.rfind(b"\n")
            if end >= 0:
                parts.append(part[: end + 1])
                break
            parts.append(part)
        else:
            return b""  # what is left is a torn line, or one that is being written
    return b"".join(parts)


def torn_bytes(segment: Path, offset: int) -> int:
    """How much stands after the last whole line, once everything whole was read up to `offset`."""
    return max(0, segment.stat().st_size - offset)


def is_abandoned(segment: Path) -> bool:
    """Whether nobody writes it any more: its writer closed it, or died."""
    try:
        fd = os.open(segment, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def pending_rows(database: Path, ingested: dict[str, int]) -> int:
    """Whole lines of the journal that are not yet in the database."""
    return sum(
        chunk.count(b"\n")
        for segment in segments(journal_folder(database))
        for chunk in _chunks(segment, ingested.get(segment.name, 0))
    )


def _chunks(segment: Path, offset: int) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError):
        while chunk := read_whole_lines(segment, offset, 1 << 20):
            yield chunk
            offset += len(chunk)


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATES.sub("�", value)
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(item) for item in value]
    return value
