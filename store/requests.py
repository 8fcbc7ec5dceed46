"""What a call sent, kept as what is new in it: a request of a long dialogue repeats an earlier one but for its last turns.

Kept whole, requests grow with the square of a dialogue's turns, and by the 32nd turn writing them costs half of a call. So a
long request is kept as the change of an earlier one of its dialogue, by the same agent for the same purpose, which is kept
whole: so many characters of its head and of its tail, and the text between. The view `requests` puts it together again.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from store.records import Call, Message

SHORTEST_CHARACTERS = 2048
"""Shorter requests are kept whole."""
CHANGES_OF_ONE = 7
"""Then the next one is kept whole again, since changes grow."""
MOST_DIALOGUES = 1024
"""That are remembered; of those that were heard of longest ago the next request is kept whole."""
BETWEEN_MESSAGES, AFTER_ROLE = "\x1e", "\x1f"
"""Record and unit separators, which texts have no use for: one that has them is kept whole."""


class Change(NamedTuple):
    """How a text is made from another one."""

    head: int
    """Characters of the other's beginning that come first."""
    tail: int
    """Characters of its end that come last."""
    inserted: str


@dataclass
class _Base:
    """A request that is kept whole."""

    request_hash: str
    text: str
    changes: int = 0
    """How many others are kept as changes of it."""


class Requests:
    """Shortens the calls of dialogues that are open, one process's own."""

    def __init__(self) -> None:
        self._bases: OrderedDict[str, dict[tuple[str, str], _Base]] = OrderedDict()
        """By dialogue, agent and purpose."""

    def shortened(self, call: Call) -> Call:
        """The call as it is to be kept: whole, or its request as a change of one that was kept before."""
        text = as_text(call.messages) if call.messages is not None else None
        if text is None:
            return call
        bases = self._bases.setdefault(call.dialogue_id, {})
        base = bases.get((call.agent, call.purpose))
        if base is not None and base.changes < CHANGES_OF_ONE and len(text) >= SHORTEST_CHARACTERS:
            change = change_of(base.text, text)
            if 2 * len(change.inserted) <= len(text):
                base.changes += 1
                kept = {"kept_head": change.head, "kept_tail": change.tail, "inserted": change.inserted}
                return call.model_copy(update={"messages": None, "based_on": base.request_hash, **kept})
        bases[call.agent, call.purpose] = _Base(call.request_hash, text)
        self._bases.move_to_end(call.dialogue_id)
        if len(self._bases) > MOST_DIALOGUES:
            self._bases.popitem(last=False)
        return call

    def forget(self, dialogue_id: str) -> None:
        """Free what is remembered of a dialogue that has ended."""
        self._bases.pop(dialogue_id, None)


def as_text(messages: Sequence[Message]) -> str | None:
    """Messages as one text, from which they can be had again; null where it is no such text."""
    text = BETWEEN_MESSAGES.join(f"{message.role}{AFTER_ROLE}{message.content}" for message in messages)
    marks = text.count(BETWEEN_MESSAGES) + text.count(AFTER_ROLE)
    return text if messages and marks == 2 * len(messages) - 1 else None


def from_text(text: str) -> tuple[Message, ...]:
    """The messages of a text that `as_text` made."""
    pairs = (part.split(AFTER_ROLE) for part in text.split(BETWEEN_MESSAGES))
    return tuple(Message.model_validate({"role": role, "content": content}) for role, content in pairs)


def change_of(base: str, text: str) -> Change:
    """What makes `text` of `base`: the longest head that they share, then the longest tail of the rest."""
    head = _shared(base, text, from_end=False)
    tail = min(_shared(base, text, from_end=True), len(base) - head, len(text) - head)
    return Change(head, tail, text[head : len(text) - tail])


def changed(base: str, change: Change) -> str:
    """The text that a change makes of another."""
    return base[: change.head] + change.inserted + base[len(base) - change.tail :]


def _shared(one: str, other: str, *, from_end: bool) -> int:
    """How many characters two texts have in common at their beginnings, or at their ends: by halves, with whole comparisons."""
    same, differs = 0, min(len(one), len(other)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if from_end:
            equal = one[len(one) - middle : len(one) - same] == other[len(other) - middle : len(other) - same]
        else:
            equal = one[same:middle] == other[same:middle]
        same, differs = (middle, differs) if equal else (same, middle)
    return same
