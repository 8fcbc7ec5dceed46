"""The schema is built once, step by step, and whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from store import database, migrations
from store.database import StoreError, query
from store.migrations import MARKER, MIGRATIONS, migrate, schema_version
from store.records import RECORDS
from store.views import VIEWS
from store.writer import Writer
from tests.store.store_samples import campaign


def test_columns_are_the_fields_of_the_records(fill: Callable[..., Path]) -> None:
    db = fill()
    for table, kind in RECORDS.items():
        assert [row["column_name"] for row in query(db, f"DESCRIBE {table}")] == list(kind.model_fields), table


def test_view_columns_are_the_documented_ones(fill: Callable[..., Path]) -> None:
    db = fill()
    for name, view in VIEWS.items():
        assert [row["column_name"] for row in query(db, f"DESCRIBE {name}")] == list(view.columns), name


def test_every_table_view_and_column_has_a_comment(fill: Callable[..., Path]) -> None:
    db = fill()
    assert query(db, "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL") == []
    assert query(db, "SELECT view_name FROM duckdb_views() WHERE NOT internal AND comment IS NULL") == []
    assert (
        query(db, "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal AND comment IS NULL") == []
    )


def test_migrations_are_applied_once_and_recorded() -> None:
    with duckdb.connect() as connection:
        assert schema_version(connection) is None
        assert migrate(connection) == len(MIGRATIONS)
        assert migrate(connection) == 0
        assert schema_version(connection) == len(MIGRATIONS)
        assert connection.execute(f"SELECT number, name FROM {MARKER}").fetchall() == [(1, "tables")]


def _grow(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE grown (a INTEGER)")


def _break(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("CREATE TABLE half (a INTEGER)")
    raise RuntimeError("midway")


def test_a_migration_that_fails_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    with duckdb.connect() as connection:
        migrate(connection)
        monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, _grow, _break))
        with pytest.raises(RuntimeError, match="midway"):
            migrate(connection)
        assert schema_version(connection) == len(MIGRATIONS)
        assert connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name IN ('grown', 'half')"
        ).fetchone() == (0,)


def test_an_older_schema_is_brought_up_to_date_by_reading_it(
    fill: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = fill(campaign())
    monkeypatch.setattr(migrations, "MIGRATIONS", (*MIGRATIONS, _grow))
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, _grow))
    assert query(db, "SELECT count(*) AS n FROM grown") == [{"n": 0}]
    assert query(db, "SELECT name FROM campaigns") == [{"name": "first"}]


def test_a_newer_schema_is_refused_and_left_alone(fill: Callable[..., Path]) -> None:
    db = fill(campaign())
    with duckdb.connect(db) as connection:
        connection.execute(f"INSERT INTO {MARKER} VALUES (99, 'later', now()::TIMESTAMP)")
    before = db.read_bytes()
    with pytest.raises(StoreError, match=r"schema version 99.*upgrade Descant"):
        query(db, "SELECT 1")
    with pytest.raises(StoreError, match=r"schema version 99.*upgrade Descant"):
        Writer(db)
    assert db.read_bytes() == before
    assert [path.name for path in db.parent.iterdir()] == [db.name]
