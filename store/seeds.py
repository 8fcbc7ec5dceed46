"""Reading seeds: the first turn, or a prefix, of each conversation in a file or a Hugging Face dataset. Knows no database.

A row that is not a conversation is refused with its line number and the reason, or, with `skip_bad`, left out and
counted. Seeds of `format: rehearsal` are generated elsewhere.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from configs.settings import SeedSettings
from store import hub
from store.database import StoreError
from store.identity import content_hash, seed_id, split_of
from store.records import Message, Seed
from store.rows import RowError, row_of, rows_of_file
from store.shapes import SHAPES, Shape, shape_of


class SeedFile(NamedTuple):
    """What a file held: the seeds, and a line for each row that was skipped."""

    seeds: list[Seed]
    skipped: list[str]


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
    shape: Shape
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
                shape = shape_of(row)
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
                shape = shape_of(raw if isinstance(raw, dict) else row_of(raw))
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
    for number, row in rows_of_file(file, what):
        yield f"{name}:{number}", row


def cut_of(messages: tuple[Message, ...], cut: str) -> tuple[Message, ...]:
    """The prefix that a seed keeps."""
    roles = [message.role for message in messages]
    if cut == "first_user":
        return messages[: roles.index("user") + 1]
    last = cut.removeprefix("last_")
    if last not in roles:
        raise RowError(f"there is no {last} turn to cut at: use `cut: first_user`")
    return messages[: len(roles) - roles[::-1].index(last)]
