"""The rows of RewardBench and RewardBench 2, from files in their own formats (JSONL or Parquet).

RewardBench (arXiv 2403.13787): `prompt`, `chosen` and `rejected` as text, `subset`. RewardBench 2 (arXiv 2506.01937):
`id`, `prompt`, lists of texts `chosen` and `rejected`, `num_correct`, `total_completions`, `subset`. Further columns are
ignored. Knows no models and no scores.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from store.database import StoreError
from store.export import rows_of
from store.records import Message
from store.rows import RowError
from store.shapes import conversation_of_list

Conversation = tuple[Message, ...]
TIES = "Ties"
"""The subset of RewardBench 2 in which several answers are right."""


class Question(NamedTuple):
    """One row: a prompt with right and wrong answers, each as a whole conversation."""

    subset: str
    id: str
    right: tuple[Conversation, ...]
    wrong: tuple[Conversation, ...]


def read_rewardbench(files: Sequence[str | os.PathLike[str]]) -> list[Question]:
    """RewardBench's rows, one right and one wrong answer each.

    Raises:
        StoreError: no such file, no rows, or a row that lacks something (with its number).
    """
    return [_told(file, number, row, _pair_of) for file, number, row in _rows(files)]


def read_rewardbench2(files: Sequence[str | os.PathLike[str]]) -> list[Question]:
    """RewardBench 2's rows: one right answer among several, and in the subset Ties several right ones.

    Raises:
        StoreError: no such file, no rows, or a row that lacks something (with its number).
    """
    return [_told(file, number, row, _question_of) for file, number, row in _rows(files)]


def _rows(
    files: Sequence[str | os.PathLike[str]],
) -> Iterator[tuple[str | os.PathLike[str], int, dict[str, Any]]]:
    empty = True
    for file in files:
        for number, row in rows_of(file, "RewardBench rows"):
            empty = False
            yield file, number, row
    if empty:
        raise StoreError(f"{', '.join(repr(str(file)) for file in files)} holds no rows: it is empty")


def _told(file: str | os.PathLike[str], number: int, row: dict[str, Any], read: Any) -> Question:
    try:
        found: Question = read(row, number)
    except RowError as error:
        raise StoreError(f"{file}:{number}: {error}") from None
    return found


def _pair_of(row: dict[str, Any], number: int) -> Question:
    _require(row, ("prompt", "chosen", "rejected", "subset"))
    for key in ("chosen", "rejected"):
        if isinstance(row[key], list):
            raise RowError(f"{key} is a list, as in RewardBench 2: use descant evaluate rewardbench2")
    prompt = _prompt(row["prompt"])
    return Question(
        _text(row["subset"], "subset"),
        str(row.get("id", number)),
        (_answered(prompt, row["chosen"], "chosen"),),
        (_answered(prompt, row["rejected"], "rejected"),),
    )


def _question_of(row: dict[str, Any], number: int) -> Question:
    del number  # a row of RewardBench 2 has an id
    _require(row, ("id", "prompt", "chosen", "rejected", "num_correct", "total_completions", "subset"))
    prompt = _prompt(row["prompt"])
    subset, identity = _text(row["subset"], "subset"), str(row["id"])
    sides: list[tuple[Conversation, ...]] = []
    for key in ("chosen", "rejected"):
        if isinstance(row[key], str):
            raise RowError(f"{key} is one text, as in the first RewardBench: use descant evaluate rewardbench")
        if not isinstance(row[key], list) or not row[key]:
            raise RowError(f"{key} should be a list of answers, at least one")
        sides.append(tuple(_answered(prompt, text, key) for text in row[key]))
    right, wrong = sides
    for key, found in (("num_correct", len(right)), ("total_completions", len(right) + len(wrong))):
        if row[key] != found:
            raise RowError(f"{key} is {row[key]!r}, while chosen and rejected make it {found}: mend the row")
    if subset != TIES and len(right) != 1:
        raise RowError(f"{len(right)} chosen answers in the subset {subset!r}: outside {TIES} exactly one is right")
    if subset == TIES:
        _check_ties_id(identity, len(right))
    return Question(subset, identity, right, wrong)


def _check_ties_id(identity: str, n_right: int) -> None:
    kind, _, number = identity.partition(":")
    if kind not in ("ref", "tied") or not number.isdecimal():
        raise RowError(f"the id {identity!r} should be ref:NUMBER or tied:NUMBER in the subset {TIES}")
    if kind == "tied" and n_right < 2:
        raise RowError(f"{identity} has one chosen answer: a tied question has several, whose spread is measured")


def _require(row: dict[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        if row.get(key) is None:
            raise RowError(f"the column {key!r} is missing or empty (there are: {', '.join(row) or 'none'})")


def _prompt(value: Any) -> Conversation:
    """A text, or a conversation that ends on a user turn."""
    if isinstance(value, list):
        conversation = conversation_of_list(value, "prompt")
        if conversation[-1].role != "user":
            raise RowError("prompt should end on a user turn, which the answers follow")
        return conversation
    return (Message(role="user", content=_text(value, "prompt")),)


def _answered(prompt: Conversation, answer: Any, key: str) -> Conversation:
    return (*prompt, Message(role="assistant", content=_text(answer, key)))


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise RowError(f"{where} should be text, not {value!r:.60}")
    return value
