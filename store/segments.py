"""The segments of a journal as files to read: which there are, their whole lines, and whether somebody writes them.

Knows neither records nor DuckDB; `store.journal` writes the segments.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

JOURNAL_SUFFIX = ".journal"
SEGMENT_SUFFIX = ".jsonl"


def journal_folder(database: Path) -> Path:
    return database.with_name(database.name + JOURNAL_SUFFIX)


def segments(folder: Path) -> list[Path]:
    """The segments, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(SEGMENT_SUFFIX))
    except FileNotFoundError:
        return []


def read_whole_lines(segment: Path, offset: int, limit_bytes: int) -> bytes:
    """The whole lines from an offset on: about `limit_bytes` of them, but at least one if there is one."""
    parts = []
    with segment.open("rb", buffering=0) as handle:
        left = os.fstat(handle.fileno()).st_size - offset
        handle.seek(offset)
        while left > 0 and (part := handle.read(min(limit_bytes, left))):
            left -= len(part)
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
