"""What a campaign that goes on is told of its earlier runs."""

from collections.abc import Callable
from datetime import UTC
from pathlib import Path

from store.resume import created_at, finished_dialogues, open_calls, pair_count, spent
from tests.store.store_samples import NOW, call, campaign, corpus, one_of_each


def test_calls_of_open_dialogues_come_back_whole_and_superseded_ones_stay_away(fill: Callable[..., Path]) -> None:
    answered = call("call_open", dialogue_id="dlg_open")
    begun = call("call_begun", dialogue_id="dlg_open", status="started")
    other = call("call_other", dialogue_id="dlg_open", campaign_id="camp_b")
    old = call("call_old", dialogue_id="dlg_open", status="superseded")
    found = {one.call_id: one for one in open_calls(fill(*one_of_each(), answered, begun, other, old), "camp_a")}
    assert found.keys() == {"call_open", "call_begun"}
    for call_id, kept in {"call_open": answered, "call_begun": begun}.items():
        assert found[call_id].model_dump(exclude={"created_at"}) == kept.model_dump(exclude={"created_at"})


def test_ended_dialogues_have_their_status(fill: Callable[..., Path]) -> None:
    assert finished_dialogues(fill(*one_of_each()), "camp_a") == {"dlg_a": "done", "dlg_b": "failed"}


def test_everything_that_was_sent_counts_as_spent(fill: Callable[..., Path]) -> None:
    db = fill(
        campaign(),
        call("call_1", attempts=2),
        call("call_2", status="superseded", attempts=1),
        call("call_3", status="failed", cost_usd=None, prompt_tokens=None, completion_tokens=None, attempts=5),
        call("call_4", status="started", cost_usd=None, prompt_tokens=None, completion_tokens=None, attempts=1),
        call("call_5", cost_usd=None, attempts=1),
    )
    found = spent(db, "camp_a")
    assert found.calls == 10
    assert found.cost_usd == 2 * (call().cost_usd or 0.0)
    assert found.unpriced_calls == 1
    assert spent(db, "camp_nobody") == (0, 0, 0, 0.0, 0)


def test_a_campaign_keeps_the_time_of_its_first_start(fill: Callable[..., Path]) -> None:
    db = fill(*corpus(3))
    started = created_at(db, "camp_a")
    assert started is not None
    assert started.astimezone(UTC) == NOW
    assert created_at(db, "camp_nobody") is None
    assert pair_count(db, "camp_a") == 3
