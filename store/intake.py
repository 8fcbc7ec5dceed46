"""Moves the journal of a database into it, batch by batch: what the writer's ingester does.

Each batch opens the database, for some tens of milliseconds, so that readers in other processes get in between.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

from store import segments
from store.database import StoreBusyError, connect
from store.host import ATTACHED_AS
from store.ingest import BATCH_BYTES, ingest, ingested_offsets, read_batch
from store.known_keys import KnownKeys
from store.opening import TURN_SECONDS, close, not_closed, open_or_build
from store.segments import journal_folder
from store.turnstile import Turnstile

BATCHES_A_JOIN = 16
"""Each batch leaves groups of rows of its own, and DuckDB would join and pack small ones anew at nearly every batch: a quarter
of the work. So it does it at every sixteenth, and at the last."""
ROW_GROUP_ROWS = 16_384
"""DuckDB joins small row groups until they have this size, 122,880 by its default: with long messages that is seconds of
work, in which nobody can read."""
HOLD_SECONDS = 0.5
"""How long a batch should hold the database; the next one is smaller or larger by that."""
BATCH_RANGE = (2 << 20, BATCH_BYTES)


class Intake:
    """Takes a journal in, in the thread that asks for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unreadable_lines = 0
        """Lines of earlier segments that a kill or a power cut left torn."""
        self._offsets: dict[str, int] = {}
        """How far each segment was taken in."""
        self._folder = journal_folder(path)
        self._known: dict[str, KnownKeys] = {}
        self._instance: duckdb.DuckDBPyConnection | None = None
        self._unjoined = 0
        """Batches since DuckDB last joined small groups of rows."""
        self._in_doubt = False
        """Whether a batch failed that may be in all the same: DuckDB can fail after its commit."""
        self._turnstile = Turnstile(self._folder, is_writer=True)
        self._batch_bytes = BATCH_BYTES

    def open(self) -> None:
        """Checks and migrates the database, or builds it.

        Raises:
            StoreError: the file is not ours, its schema is newer, or it cannot be built.
        """
        if self.path.exists():
            with contextlib.suppress(OSError):  # the journal says what is wrong with it
                self._folder.mkdir(exist_ok=True)
        with self._turn():
            self._offsets = open_or_build(self.path)

    def take_batch(self, *, is_closing: bool = False) -> bool:
        """Moves one batch; true when nothing is left of what stood in the journal when it began.

        Raises:
            StoreBusyError: readers hold the database.
            IngestError: it cannot be written; `store.ingest.is_full_disk` tells whether that passes.
        """
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

    def remove_finished_segments(self) -> None:
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

    def close(self) -> None:
        if self._instance is not None:
            self._instance.close()
            self._instance = None

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Keeps new readers out."""
        if not self._turnstile.take(TURN_SECONDS):
            raise StoreBusyError(f"{str(self.path)!r} was being opened by others for {TURN_SECONDS:g} s: try again")
        try:
            yield
        finally:
            self._turnstile.release()

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
                raise not_closed(self.path, error) from error
        except BaseException:
            close(instance, self.path)
            raise
        self._instance = instance
