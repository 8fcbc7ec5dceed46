"""Requests that are kept as changes of earlier ones, and put together again."""

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.settings import CampaignSettings
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query
from store.identity import content_hash
from store.records import Call, Message
from store.requests import (
    CHANGES_OF_ONE,
    MOST_DIALOGUES,
    SHORTEST_CHARACTERS,
    Requests,
    as_text,
    change_of,
    changed,
    from_text,
)
from tests.store.store_samples import call

LONG = "x" * SHORTEST_CHARACTERS
TEXTS = st.text(alphabet="ab\n\U0001f600é", max_size=12)


def asked(*contents: str, **more: object) -> Call:
    messages = tuple(
        Message(role="assistant" if place % 2 else "user", content=content) for place, content in enumerate(contents)
    )
    return call().model_copy(update={"messages": messages, "request_hash": content_hash(messages), **more})


@given(TEXTS, TEXTS)
def test_a_text_is_had_again_from_its_change_of_any_other(base: str, text: str) -> None:
    change = change_of(base, text)
    assert changed(base, change) == text
    assert change.head + len(change.inserted) + change.tail == len(text)


@given(TEXTS, TEXTS, TEXTS)
def test_no_more_than_the_difference_is_kept(head: str, tail: str, inserted: str) -> None:
    assert len(change_of(head + tail, head + inserted + tail).inserted) <= len(inserted)


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=8)), max_size=5))
def test_messages_are_had_again_from_their_text_or_have_none(spoken: list[tuple[str, str]]) -> None:
    messages = tuple(Message.model_validate({"role": role, "content": content}) for role, content in spoken)
    text = as_text(messages)
    if text is None:
        assert not messages or any(mark in content for _, content in spoken for mark in "\x1e\x1f")
    else:
        assert from_text(text) == messages


def test_a_long_request_is_kept_as_what_is_new_in_it() -> None:
    requests = Requests()
    first, second = asked(LONG), asked(LONG, "an answer", "and then?")
    assert requests.shortened(first) == first
    kept = requests.shortened(second)
    assert (kept.messages, kept.based_on, kept.kept_tail) == (None, first.request_hash, 0)
    assert len(kept.inserted or "") < 50


def test_short_requests_and_those_with_the_separators_are_kept_whole() -> None:
    requests = Requests()
    for request in (asked("hi"), asked("hi", "there", "you"), asked(LONG + "\x1e"), asked(LONG + "\x1e", "a", "b")):
        assert requests.shortened(request) == request


def test_other_agents_purposes_and_dialogues_have_bases_of_their_own() -> None:
    requests = Requests()
    requests.shortened(asked(LONG))
    for other in ({"agent": "judge"}, {"purpose": "other"}, {"dialogue_id": "dlg_other"}):
        assert requests.shortened(asked(LONG, "a", "b", **other)).based_on is None
    requests.forget(asked(LONG).dialogue_id)
    assert requests.shortened(asked(LONG, "a", "b")).based_on is None


def test_after_some_changes_one_is_kept_whole_again() -> None:
    requests, contents = Requests(), [LONG]
    whole = []
    for place in range(2 * CHANGES_OF_ONE + 3):
        whole.append(requests.shortened(asked(*contents)).based_on is None)
        contents += [f"answer {place}", f"question {place}"]
    assert [place for place, is_whole in enumerate(whole) if is_whole] == [
        0,
        CHANGES_OF_ONE + 1,
        2 * CHANGES_OF_ONE + 2,
    ]


def test_no_more_than_so_many_dialogues_are_remembered() -> None:
    requests = Requests()
    for number in range(MOST_DIALOGUES + 1):
        requests.shortened(asked(LONG, dialogue_id=f"dlg_{number}"))
    assert requests.shortened(asked(LONG, "a", "b", dialogue_id="dlg_0")).based_on is None
    assert requests.shortened(asked(LONG, "a", "b", dialogue_id=f"dlg_{MOST_DIALOGUES}")).based_on is not None


def test_the_view_puts_requests_together_again(fill: Callable[..., Path]) -> None:
    requests, contents, sent = Requests(), ['é😀"\\\n' + LONG], {}
    calls = []
    for place in range(CHANGES_OF_ONE + 3):
        one = asked(*contents, call_id=f"call_{place}")
        sent[one.call_id] = [message.model_dump() for message in one.messages or ()]
        calls.append(requests.shortened(one))
        contents += [f"answer\t{place} ü", "" if place % 2 else "so?"]
    assert sum(one.based_on is not None for one in calls) == CHANGES_OF_ONE + 1
    db = fill(*calls)
    assert {row["call_id"]: row["messages"] for row in query(db, "SELECT * FROM requests")} == sent


def test_every_request_of_a_campaign_has_the_hash_that_it_was_noted_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.requests.SHORTEST_CHARACTERS", 0)
    settings = CampaignSettings.model_validate(
        {"recipe": "music", "turns": 8, "perturb": {"verify": True}, "seeds": {"format": "rehearsal", "limit": 3}}
    )
    run_campaign(settings, load_seeds(settings).seeds, tmp_path / "corpus.duckdb")
    rows = query(
        tmp_path / "corpus.duckdb", "SELECT * FROM requests JOIN (SELECT call_id, based_on FROM calls) USING (call_id)"
    )
    assert sum(row["based_on"] is not None for row in rows) > len(rows) // 4
    for row in rows:
        assert content_hash(row["model"], row["messages"], orjson.loads(row["parameters"])) == row["request_hash"]
