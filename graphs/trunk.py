"""The trunk of a fork: turns of another dialogue that a dialogue begins with, in place of its seed alone."""

from collections.abc import Mapping
from typing import NamedTuple

from graphs.state import DialogueState, Said


class Begun(NamedTuple):
    """What a dialogue starts from."""

    said: list[Said]
    turns: int
    """Assistant answers to come."""
    state: DialogueState
    """What its state holds besides."""


class Trunk(NamedTuple):
    """Turns that are kept, from the first on."""

    dialogue_id: str
    """Whose they are."""
    turn_ids: tuple[str, ...]
    said: tuple[Said, ...]
    answers_left: int | None = None
    """Answers to go on with; null leaves it to the campaign's `turns`."""

    def begin(self, turns: int) -> Begun:
        """`turns`: what the campaign's settings say."""
        shared: DialogueState = {"turn_ids": list(self.turn_ids), "forked_from": self.dialogue_id}
        return Begun(list(self.said), turns if self.answers_left is None else self.answers_left, shared)


Trunks = Mapping[tuple[str, int], Trunk]
"""By seed and trial; a playing that is not here is not played."""
