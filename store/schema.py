"""What the corpus is made of: every table and view with its columns, types and comments."""

import os
from typing import Any

from rich.console import Console
from rich.text import Text

from store.database import StoreError, query


def schema_of(path: str | os.PathLike[str], name: str | None = None) -> list[dict[str, Any]]:
    """Views first, then tables, each with its columns; or only the one that is named."""
    relations = query(
        path,
        """
        SELECT view_name AS name, 'view' AS kind, comment FROM duckdb_views() WHERE NOT internal
        UNION ALL SELECT table_name, 'table', comment FROM duckdb_tables() WHERE NOT internal
        ORDER BY kind DESC, name
        """,
    )
    columns = query(
        path,
        "SELECT table_name, column_name AS name, data_type AS type, comment FROM duckdb_columns() WHERE NOT internal "
        "ORDER BY table_name, column_index",
    )
    if name is not None:
        known = [relation["name"] for relation in relations]
        relations = [relation for relation in relations if relation["name"] == name]
        if not relations:
            raise StoreError(f"there is no table or view {name!r}: there are {', '.join(known)}")
    for relation in relations:
        relation["columns"] = [
            {key: column[key] for key in ("name", "type", "comment")}
            for column in columns
            if column["table_name"] == relation["name"]
        ]
    return relations


def print_schema(relations: list[dict[str, Any]], console: Console) -> None:
    """For people: a heading a relation, a line a column."""
    for relation in relations:
        console.print(
            Text.assemble((relation["name"], "bold cyan"), f"  ({relation['kind']})  {relation['comment'] or ''}"),
            soft_wrap=True,
        )
        for column in relation["columns"]:
            kind = column["type"].replace('"', "")
            console.print(
                Text.assemble(f"  {column['name']}  ", (kind, "green"), f"  {column['comment'] or ''}"), soft_wrap=True
            )
        console.print()
