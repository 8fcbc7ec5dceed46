"""Sequences laid out as one stream: each can be read back, and what they share stands in it once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.stream import Span, Stream, stream_of

TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=9)  # few tokens, so that many begin alike
GROUPS = st.lists(st.lists(TOKENS, min_size=1, max_size=5), min_size=1, max_size=3)


def read_back(stream: Stream, sequence: int) -> list[int]:
    return [token for span in stream.paths[sequence] for token in stream.ids[span.start : span.end]]


@given(GROUPS)
def test_each_sequence_is_read_back_with_its_positions(groups: list[list[list[int]]]) -> None:
    stream = stream_of(groups)
    sequences = [sequence for group in groups for sequence in group]
    for number, sequence in enumerate(sequences):
        assert read_back(stream, number) == sequence
        places = [stream.place(number, token) for token in range(len(sequence))]
        assert [stream.ids[place] for place in places] == sequence
        assert [stream.positions[place] for place in places] == list(range(len(sequence)))
    assert stream.read == sum(map(len, sequences))


@given(GROUPS)
def test_a_beginning_that_is_shared_in_a_group_stands_there_once(groups: list[list[list[int]]]) -> None:
    beginnings = {
        (number, *sequence[: end + 1])
        for number, group in enumerate(groups)
        for sequence in group
        for end in range(len(sequence))
    }
    assert len(stream_of(groups).ids) == len(beginnings)


@given(GROUPS)
def test_chains_cover_the_stream_in_its_order_and_part_from_earlier_ones(groups: list[list[list[int]]]) -> None:
    at = 0
    for chain in stream_of(groups).chains:
        assert chain.own.start == at < chain.own.end
        assert all(span.end <= chain.own.start for span in chain.before)
        assert chain.first + chain.own.length == sum(span.length for span in chain.path)
        at = chain.own.end
    assert at == len(stream_of(groups).ids)


def test_a_longer_sequence_is_the_chain_that_shorter_ones_part_from() -> None:
    stream = stream_of([[[1, 2, 9], [1, 2, 3, 4], [1, 2, 3, 5]], [[1, 2]]])
    assert stream.ids == [1, 2, 3, 4, 5, 9, 1, 2]
    assert stream.positions == [0, 1, 2, 3, 3, 2, 0, 1]
    assert stream.paths == [(Span(0, 2), Span(5, 6)), (Span(0, 4),), (Span(0, 3), Span(4, 5)), (Span(6, 8),)]
    assert [chain.before for chain in stream.chains] == [(), (Span(0, 3),), (Span(0, 2),), ()]


def test_equal_sequences_and_beginnings_of_others_add_nothing() -> None:
    stream = stream_of([[[1, 2], [1, 2, 3], [1, 2, 3]]])
    assert (stream.ids, len(stream.chains)) == ([1, 2, 3], 1)
    assert [stream.place(0, 1), stream.place(1, 2), stream.place(2, 2)] == [1, 2, 2]


def test_a_token_that_a_sequence_does_not_have_has_no_place() -> None:
    with pytest.raises(IndexError, match="sequence 0 has no such token"):
        stream_of([[[1, 2]]]).place(0, 2)
