"""Reading seeds: the first turn, or a prefix, of each conversation in a file or a Hugging Face dataset. Knows no database.

Files are JSON lines, plain or gzipped, or Parquet. Rows are read as a stream. A row that is not a conversation is
refused with its line number and the reason, or, with `skip_bad`, left out and counted. Of preference data the chosen
side is read. Seeds of `format: rehearsal` are generated elsewhere.
"""

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import orjson

from configs.settings import SeedSettings
from store import hub
from store.database import StoreError
from store.identity import content_hash, seed_id, split_of
from store.records import Message, Seed


class SeedFile(NamedTuple):
    """What a file held: the seeds, and a line for each row that was skipped."""

    seeds: list[Seed]
    skipped: list[str]


PARQUET_ROWS = 2_000
"""Read at once."""


class RowError(ValueError):
    """Raised for a row that is no conversation; the message says what is wrong with it."""


def read_seeds(settings: SeedSettings, *, skip_bad: bool = False) -> SeedFile:
    """The seeds of a file or a dataset, in its order; of several, one of each in turn.

    Raises:
        StoreError: the file is missing, unreadable or empty, or (unless `skip_bad`) one of its rows is broken.
    """
    if settings.format == "rehearsal" or settings.path is None:
        raise StoreError("rehearsal seeds are generated, not read: name a file with seeds.path or --seeds")
    seeds: list[Seed] = []
    skipped: list[str] = []
    seen: Counter[str] = Counter()
    sources = (settings.path,) if isinstance(settings.path, str) else settings.path
    found = (conversations(source, settings.format, skipped if skip_bad else None, what="seeds") for source in sources)
    for source, (place, row, shape, whole) in _in_turn(sources, found):
        try:
            messages = cut_of(whole, settings.cut)
        except RowError as error:
            _refuse(place, error, skipped if skip_bad else None)
            continue
        text = content_hash(list(messages))
        if settings.distinct and seen[text]:
            continue
        seeds.append(
            Seed(
                seed_id=seed_id(messages, seen[text]),
                source=source_name(source),
                messages=messages,
                metadata=shape.metadata(row),
                split=split_of(messages),
            )
        )
        seen[text] += 1
        if len(seeds) == settings.limit:  # asked here, so that no row is read in vain
            break
    read = {seed.source for seed in seeds}
    empty = "it is empty" + (", or all of it came before" if settings.distinct and seeds else "")
    for source in sources:
        if source_name(source) not in read and len(seeds) != settings.limit:
            its = [problem for problem in skipped if len(sources) == 1 or problem.startswith(source_name(source))]
            why = f"none of its {len(its)} rows could be read, the first because: {its[0]}" if its else empty
            raise StoreError(f"{source!r} holds no seeds: {why}")
    return SeedFile(seeds, skipped)


class Conversation(NamedTuple):
    """A row that is a conversation, whole."""

    place: str
    """FILE:NUMBER, for people."""
    row: dict[str, Any]
    shape: "Shape"
    messages: tuple[Message, ...]


def conversations(
    source: str,
    format: str = "auto",
    skipped: list[str] | None = None,
    *,
    to_skip: str = "--skip-bad",
    what: str = "conversations",
) -> Iterator[Conversation]:
    """The conversations of a file or a dataset, in its order and as a stream.

    Args:
        format: a key of SHAPES, or `auto`: what the first row is.
        skipped: where a line goes for each row that is no conversation; without it such a row is an error.
        to_skip: how the user says that such rows are to be skipped, for the error.
        what: what they are to the caller, for the error.

    Raises:
        StoreError: the file is missing or unreadable, or one of its rows is broken.
    """
    shape = format
    for place, raw in _rows(source, what):
        try:
            row = raw if isinstance(raw, dict) else row_of(raw)
            if shape == "auto":
                shape = _shape_of(row)
            messages = SHAPES[shape].messages(row)
        except RowError as error:
            _refuse(place, error, skipped, to_skip)
            continue
        yield Conversation(place, row, SHAPES[shape], messages)


def _refuse(place: str, error: RowError, skipped: list[str] | None, to_skip: str = "--skip-bad") -> None:
    problem = f"{place}: {error}"
    if skipped is None:
        raise StoreError(f"{problem}; mend the line, or skip such lines with {to_skip}") from None
    skipped.append(problem)


def shape_and_rows(source: str) -> tuple[str | None, int]:
    """What a file's first row is, a key of SHAPES or null, and how many rows the file has.

    Raises:
        StoreError: the file is missing or unreadable.
    """
    shape, count = None, 0
    for count, (_, raw) in enumerate(_rows(source, "questions"), start=1):
        if count == 1:
            with suppress(RowError):
                shape = _shape_of(raw if isinstance(raw, dict) else row_of(raw))
    return shape, count


def source_name(source: str) -> str:
    """What a source is called where it is written down: a file by its name, a dataset by its id."""
    return Path(source).name if Path(source).exists() else source


def _rows(source: str, what: str) -> Iterator[tuple[str, bytes | dict[str, Any]]]:
    """The rows of a file, or of all files of a dataset, each with its place (FILE:NUMBER) for people.

    The files of a dataset are read in turn, a row of each, so that a limit takes from all.
    """
    path = Path(source)
    if path.exists() or not hub.may_be_dataset(source):
        yield from _rows_of_file(source, path, what)
        return
    files = [(hub.name_of(file, source), file) for file in hub.dataset_files(source)]
    yield from (row for _, row in _in_turn(files, (_rows_of_file(name, file, what) for name, file in files)))


Item = TypeVar("Item")
Name = TypeVar("Name")


def _in_turn(names: Iterable[Name], parts: Iterable[Iterator[Item]]) -> Iterator[tuple[Name, Item]]:
    """One item of each part after another with its part's name, until all are empty."""
    left = list(zip(names, parts, strict=True))
    while left:
        for name, items in list(left):
            item = next(items, None)
            if item is None:
                left.remove((name, items))
            else:
                yield name, item


def _rows_of_file(name: str, file: Path, what: str) -> Iterator[tuple[str, bytes | dict[str, Any]]]:
    rows = parquet_rows(file, what) if file.suffix == ".parquet" else lines_of(file, what)
    for number, row in rows:
        yield f"{name}:{number}", row


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
        raise RowError(f"a JSON object is expected, not {_kind(row)}")
    return row


def conversation_of_list(value: Any, key: str) -> tuple[Message, ...]:
    """A list of {role, content}, checked to be a conversation."""
    return conversation(
        (_text_at(item, "role", f"{key}[{place}]"), _text_at(item, "content", f"{key}[{place}]"))
        for place, item in enumerate(_list_at(value, key))
    )


def conversation(turns: Iterator[tuple[str, str]]) -> tuple[Message, ...]:
    """Checks that roles alternate from a user turn on, after at most one system turn, and that no turn is empty."""
    messages: list[Message] = []
    for place, (role, content) in enumerate(turns, start=1):
        if role not in ("system", "user", "assistant"):
            raise RowError(f"turn {place} has the role {role!r}: only system, user and assistant are known")
        if not content.strip():
            raise RowError(f"turn {place} ({role}) is empty")
        if role == "system" and messages:
            raise RowError(f"turn {place} is a system turn: only the first may be one")
        last = messages[-1].role if messages else None
        if role == "assistant" and last != "user":
            raise RowError(f"turn {place} is an assistant turn with no user turn before it")
        if role == "user" and last == "user":
            raise RowError(f"turns {place - 1} and {place} are both user turns: they must alternate")
        messages.append(Message(role=role, content=content))  # type: ignore[arg-type]
    if not any(message.role == "user" for message in messages):
        raise RowError("there is no user turn")
    return tuple(messages)


def cut_of(messages: tuple[Message, ...], cut: str) -> tuple[Message, ...]:
    """The prefix that a seed keeps."""
    roles = [message.role for message in messages]
    if cut == "first_user":
        return messages[: roles.index("user") + 1]
    last = cut.removeprefix("last_")
    if last not in roles:
        raise RowError(f"there is no {last} turn to cut at: use `cut: first_user`")
    return messages[: len(roles) - roles[::-1].index(last)]


class Shape(NamedTuple):
    """A format: the key that tells it, the conversation in a row, and which keys besides the scalars are metadata."""

    body: str
    messages: Callable[[dict[str, Any]], tuple[Message, ...]]
    kept: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """Keys of text that is conversation, not metadata."""
    fits: Callable[[dict[str, Any]], bool] | None = None
    """Whether a row is of this format, where more than the key tells."""

    def is_of(self, row: dict[str, Any]) -> bool:
        return self.fits(row) if self.fits else isinstance(row.get(self.body), list)

    def metadata(self, row: dict[str, Any]) -> dict[str, Any]:
        """Ids, tasks and categories: what stands beside the conversation and is not another one."""
        return {
            key: value
            for key, value in row.items()
            if key in self.kept or (isinstance(value, str | int | float | bool) and key not in self.texts)
        }


def _from_messages(row: dict[str, Any]) -> tuple[Message, ...]:
    return conversation_of_list(_at(row, "messages"), "messages")


def _from_mtbench(row: dict[str, Any]) -> tuple[Message, ...]:
    """User turns only: the first is the conversation so far, the others stay in the metadata."""
    turns = _list_at(_at(row, "turns"), "turns")
    texts = [_text(turn, f"turns[{place}]") for place, turn in enumerate(turns)]
    for place, text in enumerate(texts, start=1):
        if not text.strip():
            raise RowError(f"turn {place} (user) is empty")
    return conversation(iter([("user", text) for text in texts[:1]]))


def _from_mtbench101(row: dict[str, Any]) -> tuple[Message, ...]:
    def turns() -> Iterator[tuple[str, str]]:
        for place, item in enumerate(_list_at(_at(row, "history"), "history")):
            yield "user", _text_at(item, "user", f"history[{place}]")
            yield "assistant", _text_at(item, "bot", f"history[{place}]")

    return conversation(turns())


def _from_skywork(row: dict[str, Any]) -> tuple[Message, ...]:
    return conversation_of_list(_at(row, "chosen"), "chosen")


def _from_ultrachat(row: dict[str, Any]) -> tuple[Message, ...]:
    """The original's list of texts, the user's first, or the 200k set's messages."""
    if "data" not in row:
        return conversation_of_list(_at(row, "messages"), "messages")
    texts = [_text(text, f"data[{place}]") for place, text in enumerate(_list_at(row["data"], "data"))]
    return conversation(iter([("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]))


def _is_ultrachat(row: dict[str, Any]) -> bool:
    data = row.get("data")
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], str)
    return isinstance(row.get("messages"), list) and {"prompt", "prompt_id"} <= row.keys()


SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant"}


def _spoken(key: str) -> Callable[[dict[str, Any]], tuple[Message, ...]]:
    """Of a list of {from, value}."""

    def read(row: dict[str, Any]) -> tuple[Message, ...]:
        def turns() -> Iterator[tuple[str, str]]:
            for place, item in enumerate(_list_at(_at(row, key), key)):
                speaker = _text_at(item, "from", f"{key}[{place}]")
                yield SHAREGPT_ROLES.get(speaker, speaker), _text_at(item, "value", f"{key}[{place}]")

        return conversation(turns())

    return read


HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def _from_hh(row: dict[str, Any]) -> tuple[Message, ...]:
    """One text, each turn after a blank line and its speaker."""
    before, *parts = HH_TURN.split("\n\n" + _text(_at(row, "chosen"), "chosen").lstrip())
    if before.strip() or not parts:
        raise RowError(
            'chosen does not begin with "Human:" or "Assistant:" after a blank line, as a transcript of HH does'
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    return conversation((roles[speaker], text.strip()) for speaker, text in zip(parts[::2], parts[1::2], strict=True))


def _is_hh(row: dict[str, Any]) -> bool:
    text = row.get("chosen")
    return isinstance(text, str) and HH_TURN.match("\n\n" + text.lstrip()) is not None


def _is_ultrafeedback(row: dict[str, Any]) -> bool:
    return isinstance(row.get("chosen"), list) and ("prompt_id" in row or isinstance(row.get("messages"), list))


SHAPES: dict[str, Shape] = {
    "ultrafeedback": Shape("chosen", _from_skywork, texts=("prompt",), fits=_is_ultrafeedback),
    "ultrachat": Shape("data", _from_ultrachat, texts=("prompt",), fits=_is_ultrachat),
    "messages": Shape("messages", _from_messages),
    "mtbench": Shape("turns", _from_mtbench, ("turns", "reference")),
    "mtbench101": Shape("history", _from_mtbench101),
    "skywork": Shape("chosen", _from_skywork),
    "hh": Shape("chosen", _from_hh, texts=("chosen", "rejected"), fits=_is_hh),
    "ultrainteract": Shape("trajectory", _spoken("trajectory"), texts=("chosen", "rejected")),
    "sharegpt": Shape("conversations", _spoken("conversations")),
}
"""In the order in which `auto` tries them. UltraInteract's trajectory is the conversation that both of its answers follow."""


def _shape_of(row: dict[str, Any]) -> Any:
    """The format of a first row, by the key that holds its conversation."""
    for name, shape in SHAPES.items():
        if shape.is_of(row):
            return name
    known = ", ".join(f"{shape.body} ({name})" for name, shape in SHAPES.items())
    raise RowError(f"none of its keys ({', '.join(row) or 'it has none'}) tells a format that is known: {known}")


def _at(row: dict[str, Any], key: str) -> Any:
    if key not in row:
        raise RowError(f"the key {key!r} is missing (there are: {', '.join(row) or 'none'})")
    return row[key]


def _list_at(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise RowError(f"{where} should be a list, not {_kind(value)}")
    if not value:
        raise RowError(f"{where} is an empty list")
    return value


def _text_at(item: Any, key: str, where: str) -> str:
    if not isinstance(item, dict):
        raise RowError(f"{where} should be an object with {key!r}, not {_kind(item)}")
    if key not in item:
        raise RowError(f"{where} lacks the key {key!r}")
    return _text(item[key], f"{where}.{key}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where} should be text, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
