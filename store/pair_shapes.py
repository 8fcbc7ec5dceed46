"""The shapes of preference pairs in rows: which conversations a row prefers to which. Knows no files and no records of pairs."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from store.human_feedback import (
    LeftOut,
    Preferred,
    is_tldr,
    preferred,
    qa_comparisons,
    qa_prompt,
    tldr_comparison,
    tldr_prompt,
)
from store.records import Message
from store.rows import RowError, text_of
from store.shapes import HH_TURN, conversation, conversation_of_list, conversation_of_transcript, is_hh, spoken


class Sides(NamedTuple):
    """Two whole conversations, of which the first is preferred."""

    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


class RowPairs(NamedTuple):
    """What a row holds: one comparison, or several of one prompt."""

    shape: str
    found: Iterator[Sides | LeftOut]


def holds_pairs(row: dict[str, Any]) -> bool:
    """Whether a row looks like one that `pairs_in` reads."""
    return {"chosen", "rejected"} <= row.keys() or "summaries" in row or {"question", "preference"} <= row.keys()


def pairs_in(row: dict[str, Any]) -> RowPairs:
    """The pairs of a row in any of our shapes, each told by its own keys.

    Raises:
        RowError: the row is none of them, or (as `found` is gone through) a broken one.
    """
    if "chosen" not in row and "rejected" not in row:
        if "summaries" in row:
            return RowPairs("tldr", iter([_answers(tldr_prompt(row), tldr_comparison(row))]))
        if {"question", "preference"} <= row.keys():
            prompt = qa_prompt(row)
            return RowPairs("qa-feedback", (_answers(prompt, comparison) for comparison in qa_comparisons(row)))
    for key in ("chosen", "rejected"):
        if key not in row:
            raise RowError(f"the key {key!r} is missing (there are: {', '.join(row) or 'none'})")
    if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
        if is_hh(row):
            return RowPairs("hh", iter([_transcripts(row)]))
        answers = preferred(row["chosen"], row["rejected"])
        if "trajectory" in row:
            return RowPairs("ultrainteract", iter([_after(spoken("trajectory")(row), answers)]))
        if isinstance(row.get("prompt"), str):
            shape, prompt = ("tldr", tldr_prompt(row)) if is_tldr(row) else ("imported", row["prompt"])
            return RowPairs(shape, iter([_answers(prompt, answers)]))
    return RowPairs("imported", iter([_lists(row)]))


def _lists(row: dict[str, Any]) -> Sides:
    """Skywork, UltraFeedback and TRL: both whole conversations, or a `prompt` list that is put before either."""
    for key in ("chosen", "rejected"):
        if not isinstance(row[key], list):
            raise RowError(f"{key} should be a list of messages with role and content")
    prompt = row.get("prompt")
    before = prompt if isinstance(prompt, list) else []
    sides = Sides(*(conversation_of_list([*before, *row[key]], key) for key in ("chosen", "rejected")))
    for key, side in zip(("chosen", "rejected"), sides, strict=True):
        if side[-1].role != "assistant":
            raise RowError(f"{key} ends on a {side[-1].role} turn: the last one should be an answer")
    return sides


def _transcripts(row: dict[str, Any]) -> Sides | LeftOut:
    """HH: two transcripts. Pairs of the published set whose last answer is empty, or the same in both, are left out."""
    ends = [HH_TURN.split(text_of(row[key], key))[-2:] for key in ("chosen", "rejected")]
    if any(speaker == "Assistant" and not text.strip() for speaker, text in (end for end in ends if len(end) == 2)):
        return "empty"
    sides = Sides(*(conversation_of_transcript(row[key], key) for key in ("chosen", "rejected")))
    for key, side in zip(("chosen", "rejected"), sides, strict=True):
        if side[-1].role != "assistant":
            raise RowError(f"{key} ends on a {side[-1].role} turn: the last one should be an answer")
    return "identical" if sides.chosen == sides.rejected else sides


def _answers(prompt: str, answers: Preferred | LeftOut) -> Sides | LeftOut:
    return _after(conversation(iter([("user", prompt)])), answers)


def _after(before: tuple[Message, ...], answers: Preferred | LeftOut) -> Sides | LeftOut:
    """Two answers to the same conversation."""
    if isinstance(answers, str):
        return answers
    if before[-1].role != "user":
        raise RowError("the conversation before the answers ends on an assistant turn: the last one should ask")
    return Sides(*((*before, Message(role="assistant", content=text)) for text in answers))
