"""Conversations that begin alike as one stream of tokens: what they share stands in it once, and nothing is padded.

A sequence is a path through chains. A chain is a run of tokens that stand side by side in the stream; it goes on from a
place in earlier chains, where its sequences part from those that stand there already. A token's position is its place in
its sequence, so positions go on from where a chain parts. Which tokens share a beginning is found in the tokens, wherever the
conversations come from. Knows nothing of models, losses or data.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """Tokens of the stream, side by side."""

    start: int
    end: int
    """Behind the last one."""

    @property
    def length(self) -> int:
        return self.end - self.start


class Chain(NamedTuple):
    """A run of tokens of the stream that are read one after the other."""

    before: tuple[Span, ...]
    """What stands before it in its sequences, from their first token."""
    own: Span

    @property
    def first(self) -> int:
        """The position of its first token."""
        return sum(span.length for span in self.before)

    @property
    def path(self) -> tuple[Span, ...]:
        """Its sequence from the first token to its own last one."""
        return _joined((*self.before, self.own))


class Stream(NamedTuple):
    """Sequences as one stream."""

    ids: list[int]
    positions: list[int]
    chains: list[Chain]
    paths: list[tuple[Span, ...]]
    """Where each sequence stands, in the order in which they were given."""
    read: int
    """Tokens of all sequences, those that they share counted for each."""

    def place(self, sequence: int, token: int) -> int:
        """Where in the stream the token stands that is at place `token` of a sequence, from 0."""
        for span in self.paths[sequence]:
            if token < span.length:
                return span.start + token
            token -= span.length
        raise IndexError(f"sequence {sequence} has no such token")


def stream_of(groups: Sequence[Sequence[Sequence[int]]]) -> Stream:
    """One stream of groups of sequences; only sequences of one group share what they begin with.

    Args:
        groups: each sequence has at least one token.
    """
    ids: list[int] = []
    chains: list[Chain] = []
    paths: list[tuple[Span, ...]] = []
    for group in groups:
        arrays = [np.asarray(sequence, dtype=np.int64) for sequence in group]
        placed: list[int] = []
        found: dict[int, tuple[Span, ...]] = {}
        for number in sorted(range(len(group)), key=lambda number: -len(group[number])):  # chains as long as can be
            shared, other = max(((_shared(arrays[number], arrays[one]), -one) for one in placed), default=(0, 0))
            before = _head(found[-other], shared) if shared else ()
            own = Span(len(ids), len(ids) + len(group[number]) - shared)
            if own.length:
                ids += group[number][shared:]
                chains.append(Chain(before, own))
            found[number] = _joined((*before, own))
            placed.append(number)
        paths += [found[number] for number in range(len(group))]
    positions = [chain.first + place for chain in chains for place in range(chain.own.length)]
    return Stream(ids, positions, chains, paths, sum(len(sequence) for group in groups for sequence in group))


def _shared(one: np.ndarray, other: np.ndarray) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    differs = np.flatnonzero(one[:most] != other[:most])
    return int(differs[0]) if len(differs) else most


def _head(path: Sequence[Span], length: int) -> tuple[Span, ...]:
    """The first tokens of a path."""
    ends = list(accumulate(span.length for span in path))
    whole = [span for span, end in zip(path, ends, strict=True) if end <= length]
    rest = length - sum(span.length for span in whole)
    return (*whole, Span(path[len(whole)].start, path[len(whole)].start + rest)) if rest else tuple(whole)


def _joined(path: Sequence[Span]) -> tuple[Span, ...]:
    """The same path with neighbours made one, and nothing empty."""
    joined: list[Span] = []
    for span in path:
        if not span.length:
            continue
        if joined and joined[-1].end == span.start:
            joined[-1] = Span(joined[-1].start, span.end)
        else:
            joined.append(span)
    return tuple(joined)
