"""The schema and its history: numbered migrations, each applied once, all in one transaction.

A migration is a plain function that is never changed after a release: a change is a new one at the end. Views and
comments hold nothing, so they need none: they are made anew whenever they differ from what the database was given last.
"""

import hashlib
from collections.abc import Callable

import duckdb

from store.tables import TABLES, Column, Table
from store.views import VIEWS

MARKER = "descant_migrations"
"""The table that records what was applied: a database without it is not ours."""


def _create(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    body = ", ".join(
        f"{column.name} {column.type}" + " USING COMPRESSION uncompressed" * (not column.packed)
        for column in table.columns
    )
    connection.execute(f"CREATE TABLE {table.name} ({body})")


def _explain(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    connection.execute(f"COMMENT ON TABLE {table.name} IS {_literal(table.comment)}")
    for column in table.columns:
        connection.execute(f"COMMENT ON COLUMN {table.name}.{column.name} IS {_literal(column.comment)}")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _tables(connection: duckdb.DuckDBPyConnection) -> None:
    """The tables of the first release; `_define` says what they mean."""
    for table in TABLES:
        if not table.later:
            _create(connection, table._replace(columns=tuple(c for c in table.columns if not c.later)))


def _tries_and_balance(connection: duckdb.DuckDBPyConnection) -> None:
    """How often a perturbation was tried, and how like and how long a pair's sides are."""
    connection.execute("ALTER TABLE perturbations ADD COLUMN IF NOT EXISTS attempts INTEGER")
    connection.execute("ALTER TABLE pairs ADD COLUMN IF NOT EXISTS similarity DOUBLE")
    connection.execute("ALTER TABLE pairs ADD COLUMN IF NOT EXISTS length_ratio DOUBLE")


def _opponents(connection: duckdb.DuckDBPyConnection) -> None:
    """Against which dialogue a dialogue was judged."""
    connection.execute("ALTER TABLE judgements ADD COLUMN IF NOT EXISTS opponent_id VARCHAR")


def _judges(connection: duckdb.DuckDBPyConnection) -> None:
    """Which judge spoke, apart from others of the same model, and why its answer could not be read."""
    connection.execute("ALTER TABLE judgements ADD COLUMN IF NOT EXISTS judge VARCHAR")
    connection.execute("ALTER TABLE judgements ADD COLUMN IF NOT EXISTS error VARCHAR")
    connection.execute("UPDATE judgements SET judge = judge_model WHERE judge IS NULL")


def _caught(connection: duckdb.DuckDBPyConnection) -> None:
    """What a gate did not let pass."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS caught (catch_id VARCHAR, campaign_id VARCHAR, dialogue_id VARCHAR, depth INTEGER, "
        "attempt INTEGER, reason VARCHAR, source VARCHAR, content VARCHAR, call_id VARCHAR, outcome VARCHAR)"
    )


def _labels(connection: duckdb.DuckDBPyConnection) -> None:
    """Labels that are drawn before an answer is written, and answers that were caught beside queries."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS labels (label_id VARCHAR, campaign_id VARCHAR, dialogue_id VARCHAR, depth INTEGER, "
        "direction VARCHAR, aspects VARCHAR[], created_at TIMESTAMP)"
    )
    connection.execute("ALTER TABLE caught ADD COLUMN IF NOT EXISTS agent VARCHAR")


def _pair_quality(connection: duckdb.DuckDBPyConnection) -> None:
    """How varied the answers of pairs are."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS pair_stats (pair_id VARCHAR, chosen_words INTEGER, rejected_words INTEGER, "
        "distinct_1 DOUBLE, distinct_2 DOUBLE)"
    )
    figures = ", ".join(
        f"{name} DOUBLE, {name}_low DOUBLE, {name}_high DOUBLE" for name in ("self_rouge", "distinct_1", "distinct_2")
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS method_stats (campaign_id VARCHAR, method VARCHAR, pairs BIGINT, pairs_hash VARCHAR, "
        f"seeds BIGINT, {figures}, samples BIGINT)"
    )


def _lost(connection: duckdb.DuckDBPyConnection) -> None:
    """What requests without an answer may have cost."""
    connection.execute("ALTER TABLE calls ADD COLUMN IF NOT EXISTS lost_tokens BIGINT")
    connection.execute("ALTER TABLE calls ADD COLUMN IF NOT EXISTS lost_usd DOUBLE")


def _changes(connection: duckdb.DuckDBPyConnection) -> None:
    """Requests that are kept as changes of others."""
    for name, kind in (
        ("based_on", "VARCHAR"),
        ("kept_head", "INTEGER"),
        ("kept_tail", "INTEGER"),
        ("inserted", "VARCHAR"),
    ):
        connection.execute(f'ALTER TABLE calls ADD COLUMN IF NOT EXISTS "{name}" {kind}')


def _pauses(connection: duckdb.DuckDBPyConnection) -> None:
    """What paused a campaign."""
    connection.execute("ALTER TABLE campaigns ADD COLUMN IF NOT EXISTS paused_by VARCHAR")


MIGRATIONS: tuple[Callable[[duckdb.DuckDBPyConnection], None], ...] = (
    _tables,
    _tries_and_balance,
    _opponents,
    _judges,
    _caught,
    _labels,
    _pair_quality,
    _lost,
    _changes,
    _pauses,
)


def schema_version(connection: duckdb.DuckDBPyConnection) -> int | None:
    """How many migrations were applied; null for a database that is not ours."""
    found = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() AND table_name = ?", [MARKER]
    ).fetchone()
    if not found or not found[0]:
        return None
    applied = connection.execute(f"SELECT coalesce(max(number), 0) FROM {MARKER}").fetchone()
    return int(applied[0]) if applied else 0


def has_definitions(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether the views and comments of a database of ours are those of this Descant."""
    noted = connection.execute(
        "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() AND table_name = ?", [MARKER]
    ).fetchall()
    return noted == [(_marker().comment,)]


def migrate(connection: duckdb.DuckDBPyConnection) -> int:
    """Applies what is missing and renews views and comments, in one transaction; returns how many were applied."""
    version = schema_version(connection)
    missing = list(enumerate(MIGRATIONS, start=1))[version or 0 :]
    if not missing and has_definitions(connection):
        return 0
    connection.execute("BEGIN")
    try:
        if version is None:
            _create(connection, _marker())
        for number, migration in missing:
            migration(connection)
            connection.execute(
                f"INSERT INTO {MARKER} VALUES (?, ?, now() AT TIME ZONE 'UTC')",
                [number, getattr(migration, "__name__", "").lstrip("_")],
            )
        _define(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return len(missing)


def _define(connection: duckdb.DuckDBPyConnection) -> None:
    """Makes the views and comments anew; the comment on the marker notes which they are."""
    for name, view in VIEWS.items():
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {view.sql}")
        connection.execute(f"COMMENT ON VIEW {name} IS {_literal(view.comment)}")
        for column, comment in view.columns.items():
            connection.execute(f"COMMENT ON COLUMN {name}.{column} IS {_literal(comment)}")
    for table in (*TABLES, _marker()):
        _explain(connection, table)


def _marker() -> Table:
    """The marker's table; a row would take a block of the file, a comment takes none."""
    definitions = hashlib.blake2b(repr((VIEWS, TABLES)).encode(), digest_size=10).hexdigest()
    return Table(
        MARKER,
        f"Migrations of the schema that were applied. The views and comments are those of {definitions}.",
        (
            Column("number", "INTEGER", "From 1."),
            Column("name", "VARCHAR", "The function in store/migrations.py."),
            Column("applied_at", "TIMESTAMP", "UTC."),
        ),
    )
