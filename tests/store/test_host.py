"""The DuckDB that stays: what a reading attaches to it is let go with the reading, and nobody waits for it."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from store.database import StoreError, query, reading
from store.host import ATTACHED_AS, lent
from store.migrations import MARKER
from store.records import Seed
from store.writer import Writer

SEED = Seed(seed_id="seed_a", source="test", messages=(), metadata={}, split="train")


def files_open(database: Path) -> int:
    """How many handles this process has on a database."""
    folder = Path("/proc/self/fd")
    return sum(os.path.realpath(handle) == str(database) for handle in folder.iterdir())


def test_a_reading_holds_the_file_as_long_as_it_lasts(fill: Callable[..., Path]) -> None:
    database = fill(SEED)
    for _ in range(3):
        with reading(database) as connection:
            assert connection.execute("SELECT count(*) FROM seeds").fetchone() == (1,)
            assert connection.execute("SELECT current_database()").fetchone() == (ATTACHED_AS,)
            assert files_open(database) == 1
        assert files_open(database) == 0
    with pytest.raises(ZeroDivisionError), reading(database):
        _ = 1 / 0
    with pytest.raises(duckdb.Error), reading(database) as connection:
        connection.execute("INSERT INTO seeds (seed_id) VALUES ('another')")
    assert files_open(database) == 0


def test_a_result_that_outlives_its_reading_does_not_keep_the_file(fill: Callable[..., Path]) -> None:
    database = fill(SEED)
    with reading(database) as connection:
        cursor = connection.cursor()
        result = cursor.execute(f"SELECT * FROM {ATTACHED_AS}.seeds, range(100000)")
        assert result.fetchone()
    cursor.close()
    assert files_open(database) == 0
    assert query(database, "SELECT 1 AS one") == [{"one": 1}]


def test_readings_within_each_other_and_in_other_threads_do_not_wait(fill: Callable[..., Path], tmp_path: Path) -> None:
    database, other = fill(SEED), tmp_path / "other.duckdb"
    with Writer(other):
        pass
    counted: list[int] = []

    def count() -> None:
        counted.append(query(database, "SELECT count(*) AS n FROM seeds")[0]["n"])

    with reading(database) as outer:
        with reading(database) as inner, reading(other) as elsewhere:
            assert inner.execute("SELECT count(*) FROM seeds").fetchone() == (1,)
            assert elsewhere.execute("SELECT count(*) FROM seeds").fetchone() == (0,)
        thread = threading.Thread(target=count)
        thread.start()
        thread.join(20)
        assert counted == [1]
        assert outer.execute("SELECT count(*) FROM seeds").fetchone() == (1,)
    assert (files_open(database), files_open(other)) == (0, 0)


def test_the_host_is_free_again_after_a_file_that_cannot_be_read(fill: Callable[..., Path], tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.duckdb"
    duckdb.connect(foreign).close()
    for broken in (foreign, tmp_path / "none.duckdb"):
        with pytest.raises(StoreError), reading(broken):
            pass
    with lent() as host:
        assert host is not None
    assert query(fill(SEED), "SELECT count(*) AS n FROM seeds") == [{"n": 1}]


def test_what_a_reading_sets_up_is_gone_with_it(fill: Callable[..., Path]) -> None:
    database = fill(SEED)
    with reading(database) as connection:
        connection.execute("CREATE TEMP TABLE mine AS SELECT 1 AS one")
    with reading(database) as connection, pytest.raises(duckdb.Error, match="mine"):
        connection.execute("SELECT * FROM mine")


@pytest.mark.parametrize("name", ["memory", "temp", "it's", "corpus"])
def test_a_file_may_have_any_name(name: str, tmp_path: Path) -> None:
    database = tmp_path / f"{name}.duckdb"
    with Writer(database) as writer:
        writer.append(SEED)
    assert query(database, "SELECT seed_id FROM seeds") == [{"seed_id": SEED.seed_id}]


def test_what_does_not_fit_into_memory_goes_beside_the_file_that_is_read(
    fill: Callable[..., Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.duckdb"
    with Writer(other):
        pass
    for database in (fill(SEED), other):
        with reading(database) as connection:
            spills = connection.execute("SELECT current_setting('temp_directory')").fetchone()
            assert spills == (f"{database}.tmp",)


def test_a_spill_folder_that_was_used_does_not_stay(
    fill: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.host._hosts", {})  # one whose memory we may narrow
    other = tmp_path / "other.duckdb"
    with Writer(other):
        pass
    with reading(fill(SEED)) as connection:
        connection.execute("SET GLOBAL memory_limit = '30MB'")
        connection.execute("CREATE TEMP TABLE much AS SELECT range AS a, hash(range) AS b FROM range(4_000_000)")
    with reading(other) as connection:
        assert connection.execute("SELECT current_setting('temp_directory')").fetchone() == (f"{other}.tmp",)
        assert connection.execute(f"SELECT count(*) > 0 FROM {MARKER}").fetchone() == (True,)


def test_a_forked_process_starts_a_duckdb_of_its_own(fill: Callable[..., Path]) -> None:
    database = fill(SEED)
    assert query(database, "SELECT count(*) AS n FROM seeds") == [{"n": 1}]
    with lent() as ours:
        pass
    child = os.fork()
    if child == 0:
        rows = query(database, "SELECT count(*) AS n FROM seeds")
        with lent() as its_own:
            os._exit(0 if rows == [{"n": 1}] and its_own is not ours else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert query(database, "SELECT count(*) AS n FROM seeds") == [{"n": 1}]
