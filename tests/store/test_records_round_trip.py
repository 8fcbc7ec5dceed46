"""Every record comes back from DuckDB as it went in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from store.database import query
from store.records import RECORDS, Record
from tests.store.store_samples import campaign, one_of_each


def read_back(db: Path, record: Record) -> Record:
    where = " AND ".join(f"{column} = ?" for column in record.key)
    (row,) = query(
        db, f"SELECT * FROM {record.table} WHERE {where}", [getattr(record, column) for column in record.key]
    )
    return type(record).model_validate({name: _value(type(record), name, value) for name, value in row.items()})


def _value(kind: type[Record], name: str, value: Any) -> Any:
    if isinstance(value, str) and "dict" in str(kind.model_fields[name].annotation):
        return orjson.loads(value)
    if name.endswith("_at") and value is not None:
        from datetime import UTC

        return value.replace(tzinfo=UTC)
    return value


@pytest.mark.parametrize("place", range(len(one_of_each())))
def test_every_record_comes_back_as_it_went_in(place: int, fill: Callable[..., Path]) -> None:
    record = one_of_each()[place]
    assert read_back(fill(record), record) == record


def test_samples_cover_every_table() -> None:
    assert {record.table for record in one_of_each()} == RECORDS.keys()


def test_times_of_other_zones_are_kept_as_utc(fill: Callable[..., Path]) -> None:
    from datetime import datetime, timedelta, timezone

    local = datetime(2026, 11, 20, 1, 0, tzinfo=timezone(timedelta(hours=-5)))
    record = campaign(created_at=local)
    back = read_back(fill(record), record)
    assert back == record
    assert query(fill(), "SELECT created_at FROM campaigns")[0]["created_at"] == datetime(2026, 11, 20, 6, 0)


def test_a_lone_surrogate_becomes_a_replacement_character(fill: Callable[..., Path]) -> None:
    db = fill(campaign(name="half \ud83d of it", config={"k\udc00": ["\udfff"]}))
    (row,) = query(db, "SELECT name, config FROM campaigns")
    assert row == {"name": "half \ufffd of it", "config": '{"k\ufffd":["\ufffd"]}'}
