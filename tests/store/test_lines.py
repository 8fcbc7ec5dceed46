"""The lines of a batch: which are of which table, which are replaced, and that both ways to write a record agree."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.database import StoreError
from store.journal import line_of
from store.lines import lines_of, readable
from store.records import RECORDS, Turn


def line(table: str, **row: object) -> bytes:
    return orjson.dumps({"t": table, "r": row}) + b"\n"


def call(number: int, request: str = "a", status: str = "done") -> bytes:
    return line("calls", call_id=f"call_{number}", request_hash=request, campaign_id="c", status=status)


def texts(*chunks: bytes) -> list[bytes]:
    return [text.encode() for text in lines_of(chunks).text.to_pylist()]


def test_lines_are_counted_by_their_table_over_all_chunks() -> None:
    found = lines_of([line("turns", turn_id="1") + line("turns", turn_id="2"), line("dialogue_stats", dialogue_id="3")])
    assert found.counts == {"turns": 2, "dialogue_stats": 1}
    assert found.unreadable == 0
    assert found.text.to_pylist()[2] == line("dialogue_stats", dialogue_id="3").decode()


@pytest.mark.parametrize("table", RECORDS)
def test_each_table_is_told_by_its_mark(table: str) -> None:
    assert lines_of([line(table, any_field="a text")]).counts == {table: 1}


def test_of_a_call_that_is_noted_twice_the_last_line_is_kept() -> None:
    first, other, last = call(1, status="started"), call(2, status="started"), call(1)
    assert texts(first + other + last) == [other, last]
    assert texts(first, other, last) == [other, last]
    assert lines_of([first + other + last]).counts == {"calls": 2}


def test_a_call_of_another_request_is_another_one() -> None:
    assert texts(call(1, "a") + call(1, "b")) == [call(1, "a"), call(1, "b")]


def test_a_torn_line_replaces_nothing() -> None:
    whole, torn = call(1, status="started"), call(1)[:-4] + b"\n"
    assert texts(whole + torn) == [whole, torn]


def test_a_key_within_a_text_is_no_key() -> None:
    sly = line("calls", call_id='call_1","campaign_id":', request_hash="a", campaign_id="c")
    assert texts(sly + call(1)) == [sly, call(1)]


def test_zeros_and_garbage_are_left_out_and_counted() -> None:
    turn = line("turns", turn_id="1")
    found = lines_of([b"\0" * 30 + turn + b'{"t":"tu\xff\xff\xff\xff\n' + turn + b"short\n"])
    assert [text + "\n" for text in found.text.to_pylist()] == [turn.decode()] * 2
    assert (found.counts, found.unreadable) == ({"turns": 2}, 2)


def test_rows_of_an_unknown_table_are_refused() -> None:
    with pytest.raises(StoreError, match="rows of newcomers, which this Descant does not know"):
        lines_of([line("turns", turn_id="1") + line("newcomers", some_id="1")])


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.sampled_from(["started", "done"])), max_size=20))
def test_what_is_dropped_would_have_been_replaced(noted: list[tuple[int, str, str]]) -> None:
    chunk = b"".join(call(*each) for each in noted)

    def last_of_each(lines: list[str]) -> dict[tuple[str, str], str]:
        rows = [orjson.loads(text)["r"] for text in lines]
        return {(row["call_id"], row["request_hash"]): row["status"] for row in rows}

    kept = lines_of([chunk]).text.to_pylist() if chunk else []
    assert last_of_each(kept) == last_of_each(readable([chunk]).text.to_pylist() if chunk else [])


@given(st.text(), st.none() | st.text(), st.integers(-(2**63), 2**64 - 1))
def test_plain_records_are_written_as_pydantic_would(content: str, parent: str | None, depth: int) -> None:
    turn = Turn(
        turn_id="t",
        parent_id=parent,
        campaign_id="c",
        seed_id="s",
        depth=depth,
        role="user",
        content=content,
        agent="user",
        call_id=None,
    )
    assert Turn.is_plain()
    assert line_of(turn) == b'{"t":"turns","r":' + turn.model_dump_json().encode() + b"}\n"


def test_records_with_times_numbers_or_records_within_are_not_plain() -> None:
    plain = {name for name, kind in RECORDS.items() if kind.is_plain()}
    assert plain == {"turns", "caught"}
