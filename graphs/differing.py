"""Records held against records, byte by byte, and settings against settings: what differs, field by field."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from store.journal import line_of
from store.records import Record

SHOWN_CHARACTERS = 60


class Difference(NamedTuple):
    """A field, or a row, that came out otherwise than it is stored."""

    table: str
    key: str
    """The row's id."""
    field: str | None
    """Null where one side lacks the row."""
    stored: Any
    rebuilt: Any

    @property
    def line(self) -> str:
        """For people."""
        if self.field is None:
            return f"{self.table} {self.key}: {'it is not stored' if self.stored is None else 'it does not come out'}"
        return f"{self.table} {self.key}: {self.field} is stored as {_short(self.stored)}, and comes out as {_short(self.rebuilt)}"


def differences(stored: Sequence[Record], rebuilt: Sequence[Record]) -> list[Difference]:
    """What is not the same, in the order of the stored rows; then what is rebuilt and not stored."""
    left = {_identity(record): record for record in rebuilt}
    found: list[Difference] = []
    for record in stored:
        table, key = _identity(record)
        other = left.pop((table, key), None)
        if other is None:
            found.append(Difference(table, key, None, record.model_dump(mode="json"), None))
        elif line_of(record) != line_of(other):
            found += _fields(table, key, record, other)
    found += [
        Difference(table, key, None, None, record.model_dump(mode="json")) for (table, key), record in left.items()
    ]
    return found


def _identity(record: Record) -> tuple[str, str]:
    return record.table, " ".join(str(getattr(record, name)) for name in record.key if getattr(record, name) != "")


def _fields(table: str, key: str, stored: Record, rebuilt: Record) -> list[Difference]:
    one, other = stored.model_dump(mode="json"), rebuilt.model_dump(mode="json")
    names = [name for name in one if one[name] != other[name]]
    # The same values in another order of a mapping's keys are other bytes too.
    names = names or [name for name in one if repr(one[name]) != repr(other[name])]
    return [Difference(table, key, name, one[name], other[name]) for name in names]


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any], *, under: str = "") -> list[str]:
    """Settings that are not the same, as `turns is 3, and 5`: what it is now, and what it was before."""
    found: list[str] = []
    for name in dict.fromkeys((*now, *before)):
        one, other, where = before.get(name), now.get(name), f"{under}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += changed_settings(one, other, under=f"{where}.")
        elif one != other:
            found.append(f"{where} is {_short(other)}, and {_short(one)}")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
