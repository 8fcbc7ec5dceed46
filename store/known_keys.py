"""Which keys a large table holds already, and how near its end: so that replacing does not scan it for each batch.

New rows stand at a table's end, so a key that came not long ago can only be there. Keys are known by a 64-bit hash; a
collision makes the search longer, never wrong. Memory: 8 bytes a row.
"""

import duckdb
import numpy as np
from numpy.typing import NDArray

from store.records import RECORDS

LARGE_TABLE_ROWS = 50_000
"""Below, a scan costs less than what is done here."""
RECENT_ROWS = 20_000


class KnownKeys:
    """The keys of one table, for as long as one process alone writes it."""

    def __init__(self, table: str) -> None:
        self.table = table
        self._hash = f"hash({', '.join(RECORDS[table].key)})"
        self._old: NDArray[np.uint64] | None = None
        """Sorted; null until the table is large."""
        self._recent: NDArray[np.uint64] = np.empty(0, np.uint64)
        """Of the last rows, in their order. Rows of a batch that failed may be among them."""

    def where(self, connection: duckdb.DuckDBPyConnection, fresh: str) -> str | None:
        """Which rows may have a key of the table `fresh`, as SQL, or null for none; the fresh keys count as known then."""
        counted = connection.execute(f"SELECT count(*), coalesce(max(rowid) + 1, 0) FROM {self.table}")
        ((n_rows, end),) = counted.fetchall()
        if self._old is None:
            if n_rows < LARGE_TABLE_ROWS:
                return "true"
            self._old = np.sort(self._hashes(connection, self.table))
        keys = self._hashes(connection, fresh)
        place = np.minimum(np.searchsorted(self._old, keys), len(self._old) - 1)
        is_old = bool((self._old[place] == keys).any())
        places = np.flatnonzero(np.isin(self._recent, keys))
        reach = len(self._recent) - int(places[0]) if len(places) else 0
        self._add(keys)
        if is_old:
            return "true"
        return f"rowid >= {end - reach}" if reach else None

    def _add(self, keys: NDArray[np.uint64]) -> None:
        self._recent = np.concatenate([self._recent, keys])
        if len(self._recent) > 2 * RECENT_ROWS:
            aged, self._recent = self._recent[:-RECENT_ROWS], self._recent[-RECENT_ROWS:]
            assert self._old is not None
            self._old = np.sort(np.concatenate([self._old, np.sort(aged)]), kind="stable")  # merges two sorted runs

    def _hashes(self, connection: duckdb.DuckDBPyConnection, table: str) -> NDArray[np.uint64]:
        hashes = connection.execute(f"SELECT {self._hash} AS hash FROM {table}").fetchnumpy()["hash"]
        return np.asarray(hashes, np.uint64)
