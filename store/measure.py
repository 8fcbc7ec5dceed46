"""What is measured of a dialogue as a whole: words, context-dependent queries, Self-ROUGE. Pure functions.

The same figures are kept with every dialogue that is played (`dialogue_stats`), with every one that is imported, and are
what `descant stats` prints of files: so that Parrot's table compares like with like.
"""

from collections.abc import Sequence
from typing import NamedTuple

from store.context import context_dependent
from store.records import Message
from store.rouge import self_rouge


class Measured(NamedTuple):
    """Figures of one dialogue."""

    turns: int
    """Assistant answers."""
    n_words: int
    """Of all turns, divided by blanks."""
    context_dependent_turns: int
    """User turns that the rules of `store.context` find."""
    self_rouge: float | None
    """Null below two user turns."""


def measure(messages: Sequence[Message]) -> Measured:
    """Of a whole dialogue; a seed's turns count like any others."""
    queries = [place for place, message in enumerate(messages) if message.role == "user"]
    return Measured(
        turns=sum(message.role == "assistant" for message in messages),
        n_words=sum(len(message.content.split()) for message in messages),
        context_dependent_turns=sum(context_dependent(messages[:place], messages[place].content) for place in queries),
        self_rouge=self_rouge([messages[place].content for place in queries]),
    )
