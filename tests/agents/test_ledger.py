"""The ledger: what was paid for is taken from the journal, and no budget is ever passed."""

import asyncio
import time
from typing import Any

import pytest

from agents.budget import Held
from agents.failures import ProviderError
from agents.ledger import CampaignStopping, Ledger, forget
from agents.llm import LanguageModel, Reply
from configs.settings import BudgetSettings
from store.records import Call, Record
from tests.scripted import HELLO, PatientLedger, language_model, said, scripted_model, site
from tests.servers import failure, scripted_server


def played(*depths: int) -> list[Call]:
    """Finished calls of an earlier run, as the database gives them back."""
    ledger = PatientLedger()
    with scripted_model([f"answer {depth}" for depth in depths]) as model:
        asked = language_model(model, ledger=ledger)
        for depth in depths:
            asyncio.run(asked.complete(HELLO, site(depth=depth)))
    return [call for call in ledger.notes if call.status == "done"]


def resume(calls: list[Call]) -> PatientLedger:
    ledger = PatientLedger()
    ledger.remember(calls)
    return ledger


def test_a_call_that_was_paid_is_not_sent_again() -> None:
    ledger = resume(played(1, 3))
    with scripted_model([]) as model:
        asked = language_model(model, ledger=ledger)
        replies = [asyncio.run(asked.complete(HELLO, site(depth=depth))) for depth in (1, 3)]
    assert [reply.text for reply in replies] == ["answer 1", "answer 3"]
    assert (ledger.notes, ledger.sent, ledger.reused) == ([], 0, 2)


def test_what_came_after_the_first_difference_is_superseded() -> None:
    ledger = resume(played(1, 3, 5))
    with scripted_model(["other 3", "other 5"]) as model:
        asked = language_model(model, ledger=ledger)
        same = asyncio.run(asked.complete(HELLO, site(depth=1)))
        replies = [asyncio.run(asked.complete((said("user", "hey"),), site(depth=depth))) for depth in (3, 5)]
    assert same.text == "answer 1"
    assert [reply.text for reply in replies] == ["other 3", "other 5"]
    superseded = [call.response for call in ledger.notes if call.status == "superseded"]
    assert superseded == ["answer 3", "answer 5"]
    assert [call.status for call in ledger.notes if call.status != "superseded"] == ["started", "done"] * 2


def test_a_difference_in_one_dialogue_leaves_the_others() -> None:
    calls = played(1)
    twin = calls[0].model_copy(update={"dialogue_id": "dlg_2"})
    ledger = resume([*calls, twin])
    with scripted_model(["other"]) as model:
        asyncio.run(language_model(model, ledger=ledger).complete((said("user", "hey"),), site()))
    assert [call.dialogue_id for call in ledger.notes if call.status == "superseded"] == ["dlg_1"]


@pytest.mark.parametrize("status", ["started", "failed"])
def test_attempts_of_a_call_without_an_answer_are_carried_on(status: str) -> None:
    unanswered = played(1)[0].model_copy(update={"status": status, "attempts": 4, "response": None})
    ledger = resume([unanswered])
    with scripted_model(["now"]) as model:
        assert asyncio.run(language_model(model, ledger=ledger).complete(HELLO, site())).text == "now"
    assert [(call.status, call.attempts) for call in ledger.notes] == [("started", 5), ("done", 5)]
    assert ledger.spent.calls == 1


def test_a_call_that_was_sent_again_is_not_superseded_by_its_own_beginning() -> None:
    begun, answered = played(1, 3)
    ledger = resume([begun.model_copy(update={"status": "started", "response": None}), answered])
    with scripted_model(["now 1", "now 3"]) as model:
        asked = language_model(model, ledger=ledger)
        asyncio.run(asked.complete(HELLO, site(depth=1)))
        asyncio.run(asked.complete((said("user", "hey"),), site(depth=3)))
    assert [call.response for call in ledger.notes if call.status == "superseded"] == ["answer 3"]


def test_what_a_dialogue_left_is_forgotten_at_its_end() -> None:
    ledger = resume(played(1))
    ledger.forget("dlg_1")
    with scripted_model(["again"]) as model:
        assert asyncio.run(language_model(model, ledger=ledger).complete(HELLO, site())).text == "again"


async def all_at_once(model: LanguageModel, n: int) -> list[Reply | BaseException]:
    return await asyncio.gather(
        *(model.complete(HELLO, site(dialogue=f"dlg_{number}")) for number in range(n)), return_exceptions=True
    )


@pytest.mark.parametrize("always_fails", [False, True])
def test_the_server_never_sees_a_call_over_the_budget(always_fails: bool) -> None:
    ledger = PatientLedger(caps=BudgetSettings(calls=7))
    script: Any = failure(500) if always_fails else lambda asked: failure(500) if asked.body["seed"] % 2 else "hi"
    with scripted_server(script) as server:
        model = language_model("hosted_vllm/x", ledger=ledger, api_base=server.url, attempts=3)
        outcomes = asyncio.run(all_at_once(model, 20))
        assert len(server.requests) == ledger.spent.calls == 7
    assert all(isinstance(outcome, Reply | CampaignStopping | ProviderError) for outcome in outcomes)
    assert any(isinstance(outcome, CampaignStopping) for outcome in outcomes)
    assert ledger.stop_reason is not None
    assert "raise budget.calls" in ledger.stop_reason
    last_of = {call.dialogue_id: call for call in ledger.notes}
    assert sum(call.attempts for call in last_of.values()) == 7


def test_tokens_never_pass_the_budget() -> None:
    """Each call uses 18 tokens and holds 94, so that the last one starts at 406 at most."""
    ledger = PatientLedger(caps=BudgetSettings(tokens=500))
    with scripted_server("hi") as server:
        model = language_model("hosted_vllm/x", ledger=ledger, api_base=server.url, max_tokens=9)
        asyncio.run(all_at_once(model, 50))
    assert 406 < ledger.spent.tokens <= 500
    assert ledger.stop_reason is not None
    assert "raise budget.tokens" in ledger.stop_reason


def test_dollars_never_pass_the_budget() -> None:
    ledger = PatientLedger(caps=BudgetSettings(usd=5.0))
    prices = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01}
    with scripted_server("hi") as server:
        model = language_model("hosted_vllm/dear", ledger=ledger, api_base=server.url, max_tokens=9, params=prices)
        asyncio.run(all_at_once(model, 50))
    assert 4.06 < ledger.spent.cost_usd <= 5.0
    assert ledger.stop_reason is not None
    assert "raise budget.usd" in ledger.stop_reason


def test_what_was_spent_before_counts() -> None:
    ledger = Ledger(forget, BudgetSettings(calls=3))
    ledger.spent.calls = 3
    with pytest.raises(CampaignStopping):
        asyncio.run(ledger.reserve(Held("user", 1, None)))
    assert ledger.sent == 0


def test_the_first_reason_to_stop_stays() -> None:
    ledger = Ledger(forget)
    ledger.check_open()
    ledger.stop("first")
    ledger.stop("second")
    with pytest.raises(CampaignStopping, match="first"):
        ledger.check_open()


def test_a_wait_ends_when_the_campaign_stops() -> None:
    async def wait() -> float:
        ledger = Ledger(forget)
        waiting = asyncio.create_task(ledger.pause(60.0))
        await asyncio.sleep(0)
        started = time.monotonic()
        ledger.stop("enough")
        await waiting
        return time.monotonic() - started

    assert asyncio.run(wait()) < 5.0


@pytest.mark.parametrize(
    ("caps", "waits"),
    [
        (BudgetSettings(), False),
        (BudgetSettings(calls=9), True),
        (BudgetSettings.model_validate({"roles": {"user": {"usd": 1.0}}}), True),
    ],
)
def test_a_start_stands_in_the_journal_before_its_request_is_sent_where_a_cap_counts_it(
    caps: BudgetSettings, waits: bool
) -> None:
    (call,) = played(1)
    noted: list[Record] = []
    left: list[Record] = []

    async def note(*records: Record) -> None:
        noted.extend(records)

    asyncio.run(Ledger(note, caps, leave=left.append).announce(call))
    assert (noted, left) == (([call], []) if waits else ([], [call]))
