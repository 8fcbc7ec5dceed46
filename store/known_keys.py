"""Which keys a table holds already, and how near its end: so that replacing does not scan it for each batch.

New rows stand at a table's end, so a key that came not long ago can only be there. Keys are known by a 64-bit hash; a
collision makes the search longer, never wrong. Memory: 8 bytes a row.
"""

import duckdb
import numpy as np
from numpy.typing import NDArray

from store.records import RECORDS

RECENT_ROWS = 20_000

Hashes = NDArray[np.uint64]


class KnownKeys:
    """The keys of one table, for as long as one process alone writes it."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._hash = f"hash({', '.join(RECORDS[table].key)})"
        self._old: Hashes | None = None
        """Sorted; null until it is read from the table."""
        self._recent: Hashes = np.empty(0, np.uint64)
        """Of the last rows, in their order. Rows of a batch that failed may be among them."""

    def hashes(self, connection: duckdb.DuckDBPyConnection, table: str) -> Hashes:
        """Of the keys of this table, or of another one with its columns, in the order of the rows."""
        hashes = connection.execute(f"SELECT {self._hash} AS hash FROM {table}").fetchnumpy()["hash"]
        return np.asarray(hashes, np.uint64)

    def where(self, connection: duckdb.DuckDBPyConnection, keys: Hashes) -> str | None:
        """Which rows may have one of the keys, as SQL, or null for none; the keys count as known then.

        Args:
            keys: hashes of what is written next, in its order.
        """
        if self._old is None:
            self._old = np.sort(self.hashes(connection, self.table))
        ordered = np.sort(keys)
        is_old = _are_in(self._old, ordered).any()
        places = np.flatnonzero(_are_in(ordered, self._recent))
        reach = len(self._recent) - int(places[0]) if len(places) else 0
        self._add(keys)
        if is_old:
            return "true"
        if not reach:
            return None
        ((end,),) = connection.execute(f"SELECT coalesce(max(rowid) + 1, 0) FROM {self.table}").fetchall()
        return f"rowid >= {end - reach}"

    def _add(self, keys: Hashes) -> None:
        self._recent = np.concatenate([self._recent, keys])
        if len(self._recent) > 2 * RECENT_ROWS:
            aged, self._recent = self._recent[:-RECENT_ROWS], self._recent[-RECENT_ROWS:]
            assert self._old is not None
            self._old = np.sort(np.concatenate([self._old, np.sort(aged)]), kind="stable")  # merges two sorted runs


def _are_in(ordered: Hashes, keys: Hashes) -> NDArray[np.bool_]:
    """Which of the keys are among the sorted ones."""
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[places] == keys
    return found
