"""Rows of files: JSON lines (plain or gzipped), Parquet, or one JSON list. Knows nothing of conversations.

Files are read as a stream; a JSON list alone, in a file named `.json`, is read whole.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from store.database import StoreError

PARQUET_ROWS = 2_000
"""Read at once."""


class RowError(ValueError):
    """Raised for a row that is no conversation; the message says what is wrong with it."""


def rows_of_file(path: Path, what: str) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """The rows of a file by its suffix, numbered from 1: objects, or lines for `row_of`.

    Raises:
        StoreError: there is no such file, or it cannot be read.
    """
    if path.suffix == ".parquet":
        yield from parquet_rows(path, what)
    elif path.suffix == ".json" and (items := _json_list(path)) is not None:
        for number, item in enumerate(items, start=1):
            yield number, item if isinstance(item, dict) else orjson.dumps(item)
    else:
        yield from lines_of(path, what)


def _json_list(path: Path) -> list[Any] | None:
    """The list that a file is, as QA Feedback's are; null where it is none: TL;DR's `.json` files are JSON lines."""
    try:
        with path.open("rb") as handle:
            content = handle.read(1_000).removeprefix(b"\xef\xbb\xbf").lstrip()
            if not content.startswith(b"["):
                return None
            content += handle.read()
    except (OSError, ValueError):
        return None  # `lines_of` says what is wrong
    try:
        items = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise StoreError(
            f"{str(path)!r} begins as one JSON list and is not valid JSON ({error.msg} at line {error.lineno}, column "
            f"{error.colno}): is it cut off?"
        ) from None
    return list(items)


def parquet_rows(path: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file, numbered from 1.

    Raises:
        StoreError: there is no such file, or it is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            number = 0
            for batch in parquet.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except FileNotFoundError:
        raise StoreError(f"there is no file {str(path)!r} to read {what} from: check the path") from None
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{str(path)!r} cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def lines_of(path: Path, what: str) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, numbered from 1, without line ends (Windows ones too) and byte order mark.

    A name that ends in `.gz` is unpacked on the way.

    Raises:
        StoreError: there is no such file, it cannot be read, or it is one JSON list.
    """
    begun = False
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                content = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
                if content and not begun and content.startswith(b"["):
                    raise StoreError(
                        f"{str(path)!r} is one JSON list: one JSON object a line is expected; "
                        f"`jq -c '.[]' {path.name}` makes such a file"
                    )
                if content:
                    begun = True
                    yield number, content
    except FileNotFoundError:
        raise StoreError(f"there is no file {str(path)!r} to read {what} from: check the path") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise StoreError(f"{str(path)!r} cannot be unpacked ({error}): it is cut off, or no gzip file") from error
    except ValueError:  # a null byte
        raise StoreError(f"{str(path)!r} cannot be the name of a file: check the path") from None
    except OSError as error:
        raise StoreError(
            f"{str(path)!r} cannot be read ({error.strerror}): it should be a JSONL file of {what}"
        ) from error


def row_of(line: bytes) -> dict[str, Any]:
    """A line as a JSON object."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode()
        except UnicodeDecodeError as broken:
            raise RowError(f"not valid UTF-8 at byte {broken.start + 1} of the line") from None
        raise RowError(f"not valid JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(row, dict):
        raise RowError(f"a JSON object is expected, not {kind(row)}")
    return row


def at(row: dict[str, Any], key: str) -> Any:
    """What stands under a key; as all that follow, it raises RowError where that is not what is asked."""
    if key not in row:
        raise RowError(f"the key {key!r} is missing (there are: {', '.join(row) or 'none'})")
    return row[key]


def list_at(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RowError(f"{where} should be a list, not {kind(value)}")
    if not value:
        raise RowError(f"{where} is an empty list")
    return value


def text_at(item: Any, key: str, where: str) -> str:
    if not isinstance(item, dict):
        raise RowError(f"{where} should be an object with {key!r}, not {kind(item)}")
    if key not in item:
        raise RowError(f"{where} lacks the key {key!r}")
    return text_of(item[key], f"{where}.{key}")


def text_of(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where} should be text, not {kind(value)}")
    return value


def kind(value: Any) -> str:
    """What a JSON value is called."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
