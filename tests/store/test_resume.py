"""What a campaign that goes on is told of its earlier runs."""

from collections.abc import Callable
from datetime import UTC
from pathlib import Path

from store.database import query
from store.records import Pair
from store.resume import Spent, created_at, finished_dialogues, open_calls, pair_balance, spent
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
    assert spent(db, "camp_nobody") == Spent(0, 0, 0, 0.0, 0, 0, 0.0)


def test_a_campaign_keeps_the_time_of_its_first_start(fill: Callable[..., Path]) -> None:
    db = fill(*corpus(3))
    started = created_at(db, "camp_a")
    assert started is not None
    assert started.astimezone(UTC) == NOW
    assert created_at(db, "camp_nobody") is None


def test_the_balance_of_pairs_counts_what_was_measured(fill: Callable[..., Path]) -> None:
    records = corpus(5)
    measured = [(0.9, 2.0), (0.89, 1.0), (None, None), (1.0, 0.5), (0.2, 1.1)]
    pairs = [record for record in records if isinstance(record, Pair)]
    changed = [
        pair.model_copy(update={"similarity": like, "length_ratio": ratio})
        for pair, (like, ratio) in zip(pairs, measured, strict=True)
    ]
    db = fill(*(record for record in records if not isinstance(record, Pair)), *changed)
    assert pair_balance(db, "camp_a") == (5, 2, (1 + 0.5 + 0 + 1) / 4)
    assert pair_balance(db, "camp_nobody") == (0, 0, None)
    assert query(db, "SELECT pairs, near_identical FROM campaign_stats") == [{"pairs": 5, "near_identical": 2}]
    shown = query(db, "SELECT similarity, length_ratio FROM preference_pairs WHERE length_ratio = 0.5")
    assert shown == [{"similarity": 1.0, "length_ratio": 0.5}]
