"""The shapes of conversations in rows: every format, and how `auto` tells them. Knows no files.

Of preference data the chosen side is the conversation. What a person reads of QA Feedback and TL;DR is made in `store.human_feedback`.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from store import human_feedback
from store.records import Message
from store.rows import RowError, at, list_at, text_at, text_of


def conversation_of_list(value: Any, key: str) -> tuple[Message, ...]:
    """A list of {role, content}, checked to be a conversation."""
    return conversation(
        (text_at(item, "role", f"{key}[{place}]"), text_at(item, "content", f"{key}[{place}]"))
        for place, item in enumerate(list_at(value, key))
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


class Shape(NamedTuple):
    """A format: the key that tells it, the conversation in a row, and which keys besides the scalars are metadata."""

    body: str
    messages: Callable[[dict[str, Any]], tuple[Message, ...]]
    kept: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    """Keys of text that is conversation, not metadata."""
    fits: Callable[[dict[str, Any]], bool] | None = None
    """Whether a row is of this format, where more than the key tells."""
    nested: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Metadata that stands deeper in the row."""

    def is_of(self, row: dict[str, Any]) -> bool:
        return self.fits(row) if self.fits else isinstance(row.get(self.body), list)

    def metadata(self, row: dict[str, Any]) -> dict[str, Any]:
        """Ids, tasks and categories: what stands beside the conversation and is not another one."""
        found = {
            key: value
            for key, value in row.items()
            if key in self.kept or (isinstance(value, str | int | float | bool) and key not in self.texts)
        }
        return found | self.nested(row) if self.nested else found


def _from_messages(row: dict[str, Any]) -> tuple[Message, ...]:
    return conversation_of_list(at(row, "messages"), "messages")


def _from_mtbench(row: dict[str, Any]) -> tuple[Message, ...]:
    """User turns only: the first is the conversation so far, the others stay in the metadata."""
    turns = list_at(at(row, "turns"), "turns")
    texts = [text_of(turn, f"turns[{place}]") for place, turn in enumerate(turns)]
    for place, text in enumerate(texts, start=1):
        if not text.strip():
            raise RowError(f"turn {place} (user) is empty")
    return conversation(iter([("user", text) for text in texts[:1]]))


def _from_mtbench101(row: dict[str, Any]) -> tuple[Message, ...]:
    def turns() -> Iterator[tuple[str, str]]:
        for place, item in enumerate(list_at(at(row, "history"), "history")):
            yield "user", text_at(item, "user", f"history[{place}]")
            yield "assistant", text_at(item, "bot", f"history[{place}]")

    return conversation(turns())


def _from_skywork(row: dict[str, Any]) -> tuple[Message, ...]:
    return conversation_of_list(at(row, "chosen"), "chosen")


def _from_ultrachat(row: dict[str, Any]) -> tuple[Message, ...]:
    """The original's list of texts, the user's first, or the 200k set's messages."""
    if "data" not in row:
        return conversation_of_list(at(row, "messages"), "messages")
    texts = [text_of(text, f"data[{place}]") for place, text in enumerate(list_at(row["data"], "data"))]
    return conversation(iter([("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]))


def _is_ultrachat(row: dict[str, Any]) -> bool:
    data = row.get("data")
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], str)
    return isinstance(row.get("messages"), list) and {"prompt", "prompt_id"} <= row.keys()


SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant"}


def spoken(key: str) -> Callable[[dict[str, Any]], tuple[Message, ...]]:
    """Of a list of {from, value}."""

    def read(row: dict[str, Any]) -> tuple[Message, ...]:
        def turns() -> Iterator[tuple[str, str]]:
            for place, item in enumerate(list_at(at(row, key), key)):
                speaker = text_at(item, "from", f"{key}[{place}]")
                yield SHAREGPT_ROLES.get(speaker, speaker), text_at(item, "value", f"{key}[{place}]")

        return conversation(turns())

    return read


HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def _from_hh(row: dict[str, Any]) -> tuple[Message, ...]:
    return conversation_of_transcript(at(row, "chosen"), "chosen")


def conversation_of_transcript(value: Any, key: str) -> tuple[Message, ...]:
    """One text, each turn after a blank line and its speaker."""
    before, *parts = HH_TURN.split("\n\n" + text_of(value, key).lstrip())
    if before.strip() or not parts:
        raise RowError(
            f'{key} does not begin with "Human:" or "Assistant:" after a blank line, as a transcript of HH does'
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    return conversation((roles[speaker], text.strip()) for speaker, text in zip(parts[::2], parts[1::2], strict=True))


def is_hh(row: dict[str, Any]) -> bool:
    text = row.get("chosen")
    return isinstance(text, str) and HH_TURN.match("\n\n" + text.lstrip()) is not None


def _asked(
    question: Callable[[dict[str, Any]], str], answer: Callable[[dict[str, Any]], str | None]
) -> Callable[[dict[str, Any]], tuple[Message, ...]]:
    """A question, and the answer that the row holds to be right, if any."""

    def read(row: dict[str, Any]) -> tuple[Message, ...]:
        asked = ("user", question(row))
        answered = answer(row)
        return conversation(iter([asked] if answered is None else [asked, ("assistant", answered)]))

    return read


def _is_ultrafeedback(row: dict[str, Any]) -> bool:
    return isinstance(row.get("chosen"), list) and ("prompt_id" in row or isinstance(row.get("messages"), list))


SHAPES: dict[str, Shape] = {
    "ultrafeedback": Shape("chosen", _from_skywork, texts=("prompt",), fits=_is_ultrafeedback),
    "ultrachat": Shape("data", _from_ultrachat, texts=("prompt",), fits=_is_ultrachat),
    "messages": Shape("messages", _from_messages),
    "mtbench": Shape("turns", _from_mtbench, ("turns", "reference")),
    "mtbench101": Shape("history", _from_mtbench101),
    "skywork": Shape("chosen", _from_skywork),
    "hh": Shape("chosen", _from_hh, texts=("chosen", "rejected"), fits=is_hh),
    "ultrainteract": Shape("trajectory", spoken("trajectory"), texts=("chosen", "rejected")),
    "sharegpt": Shape("conversations", spoken("conversations")),
    "qa-feedback": Shape(
        "question",
        _asked(human_feedback.qa_prompt, human_feedback.qa_answer),
        texts=human_feedback.QA_TEXTS,
        fits=human_feedback.is_qa_feedback,
    ),
    "tldr": Shape(
        "info",
        _asked(human_feedback.tldr_prompt, human_feedback.tldr_answer),
        texts=human_feedback.TLDR_TEXTS,
        fits=human_feedback.is_tldr,
        nested=human_feedback.tldr_metadata,
    ),
}
"""In the order in which `auto` tries them. UltraInteract's trajectory is the conversation that both of its answers follow."""


def shape_of(row: dict[str, Any]) -> Any:
    """The format of a first row, by the key that holds its conversation."""
    for name, shape in SHAPES.items():
        if shape.is_of(row):
            return name
    known = ", ".join(f"{shape.body} ({name})" for name, shape in SHAPES.items())
    raise RowError(f"none of its keys ({', '.join(row) or 'it has none'}) tells a format that is known: {known}")
