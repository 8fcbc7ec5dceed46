"""The lines of a batch as Arrow text: of which tables they are, which ones a later line replaces, and what is torn.

Lines stay where they lie in the file's bytes, without a copy. Knows no DuckDB.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from store.database import StoreError
from store.records import RECORDS, Call

STARTS = {table: f'{{"t":"{table}","r":' for table in RECORDS}
"""How a table's lines begin."""
_LINE = re.compile(rb'\{"t":"([A-Za-z_][A-Za-z0-9_]*)","r":.*\}')
_WORD = 8
_MARK = slice(8, 8 + _WORD)
"""Eight bytes of a line that tell its table: after the first two letters of its name."""
_MARKS = {
    int(np.frombuffer(start.encode() * 2, np.uint64, 1, _MARK.start)[0]): table for table, start in STARTS.items()
}
assert len(_MARKS) == len(STARTS), "two tables' lines have the same mark"
_CALL = STARTS[Call.table].encode()
_AFTER_CALL_KEY = b',"campaign_id":'
"""A bare quote stands in no text of JSON, so this cannot be within the key."""

Places = NDArray[np.int64]


class Lines(NamedTuple):
    """What there is to take in, in its order."""

    text: pa.ChunkedArray
    counts: dict[str, int]
    """How many lines each table has."""
    unreadable: int
    """Lines that were left out: torn by a kill or a power cut."""


def lines_of(chunks: Sequence[bytes]) -> Lines:
    """The lines of a batch, but for those that a later one replaces anyway.

    Raises:
        StoreError: lines of tables that we do not know.
    """
    if not any(b"\0" in chunk for chunk in chunks):
        ends = [_line_ends(chunk) for chunk in chunks]
        counts = _tables_in(chunks, ends)
        if counts is not None and (text := _as_text(chunks, ends)) is not None:
            replaced = _replaced_calls(chunks, ends) if Call.table in counts else None
            if replaced is not None and replaced.any():
                text = text.filter(pa.array(~replaced))
                counts[Call.table] -= int(replaced.sum())
            return Lines(text, counts, 0)
    return readable(chunks)


def readable(chunks: Sequence[bytes]) -> Lines:
    """The same without what a power cut left: torn lines, zeros, garbage; looked for line by line.

    Raises:
        StoreError: lines of tables that we do not know.
    """
    kept: list[bytes] = []
    tables: Counter[str] = Counter()
    torn = 0
    for chunk in chunks:
        for line in chunk.split(b"\n")[:-1]:
            before, _, line = line.rpartition(b"\0")
            found = _LINE.match(line) if _is_utf8(line) else None
            torn += found is None or bool(before.strip(b"\0"))
            if found is not None:
                kept.append(line)
                tables[found[1].decode()] += 1
    unknown = tables.keys() - RECORDS.keys()
    if unknown:
        raise StoreError(
            f"the journal holds rows of {', '.join(sorted(unknown))}, which this Descant does not know: take them in with "
            "the version that wrote them"
        )
    return Lines(pa.chunked_array([kept], type=pa.string()), dict(tables), torn)


def _line_ends(chunk: bytes) -> Places:
    """Behind each line of a chunk of whole lines."""
    return np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + 1


def _starts(ends: Places) -> Places:
    return np.concatenate([np.zeros(1, ends.dtype), ends[:-1]])


def _tables_in(chunks: Sequence[bytes], ends: Sequence[Places]) -> dict[str, int] | None:
    """How many lines each table has; null when some line is of none. Told by a mark: a line may be garbage all the same."""
    counts: Counter[str] = Counter()
    for chunk, its_ends in zip(chunks, ends, strict=True):
        starts = _starts(its_ends)
        if (its_ends - starts < _MARK.stop).any():
            return None
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(chunk, np.uint8), _WORD)
        marks, found = np.unique(windows[starts + _MARK.start].view(np.uint64), return_counts=True)
        for mark, count in zip(marks.tolist(), found.tolist(), strict=True):
            if mark not in _MARKS:
                return None
            counts[_MARKS[mark]] += count
    return dict(counts)


def _as_text(chunks: Sequence[bytes], ends: Sequence[Places]) -> pa.ChunkedArray | None:
    """The lines in place; null when some are no UTF-8."""
    arrays = []
    for chunk, its_ends in zip(chunks, ends, strict=True):
        offsets = np.concatenate([np.zeros(1, np.int32), its_ends.astype(np.int32)])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(chunk)]
        arrays.append(pa.Array.from_buffers(pa.binary(), len(its_ends), buffers))
    try:
        return pa.chunked_array(arrays, type=pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        return None


def _replaced_calls(chunks: Sequence[bytes], ends: Sequence[Places]) -> NDArray[np.bool_]:
    """Which lines note a call that a later whole line notes anew, as nearly all that note its start do."""
    replaced = np.zeros(sum(map(len, ends)), np.bool_)
    place = len(replaced)
    noted: set[bytes] = set()
    for chunk, its_ends in zip(reversed(chunks), reversed(ends), strict=True):
        end = len(chunk)
        for start in reversed(_starts(its_ends).tolist()):
            place -= 1
            if chunk.startswith(_CALL, start):
                after = chunk.find(_AFTER_CALL_KEY, start, end)
                key = chunk[start:after]
                if after >= 0 and key in noted:
                    replaced[place] = True
                elif after >= 0 and chunk.endswith(b"}}\n", start, end):
                    noted.add(key)
            end = start
    return replaced


def _is_utf8(row: bytes) -> bool:
    try:
        row.decode()
    except UnicodeDecodeError:
        return False
    return True
