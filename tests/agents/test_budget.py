"""Budgets: whatever is asked, answered, lost or killed, no cap is ever passed, and little of it is left unused."""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.budget import Budget, Held, Lost, Spending, most_tokens
from agents.failures import ProviderError, refused_by_status, too_late
from agents.ledger import CampaignStopping
from agents.llm import LanguageModel
from agents.prices import price_of
from agents.protocol import CallSite
from agents.secrets import Redactor
from agents.transport import Answer, Spoken
from configs.model_settings import ModelSettings, PriceSettings
from configs.settings import BudgetSettings
from store.records import Call, Message
from tests.scripted import PatientLedger, said

ROLES = ("user", "assistant", "judge")
NEARLY = 1e-9
OUTCOMES = ("answer", "answer", "answer", "no usage", "timeout", "gateway", "refused", "filtered", "half counted")


def caps(most_calls: int, most_tokens_: int, most_usd: float) -> st.SearchStrategy[dict[str, Any]]:
    """Some caps, or none."""
    return st.fixed_dictionaries(
        {},
        optional={
            "calls": st.integers(1, most_calls),
            "tokens": st.integers(1, most_tokens_),
            "usd": st.floats(1e-6, most_usd, allow_nan=False),
        },
    )


def budgets(most_calls: int, most_tokens_: int, most_usd: float) -> st.SearchStrategy[BudgetSettings]:
    one = caps(most_calls, most_tokens_, most_usd)
    roles = st.dictionaries(st.sampled_from(ROLES), one, max_size=2)
    return st.builds(lambda own, roles: BudgetSettings.model_validate({**own, "roles": roles}), one, roles)


async def nobody_stops_it() -> None:
    """Nobody has stopped it."""


def assert_within(budget: Budget) -> None:
    """With all that is in flight at its highest."""
    for use in budget.uses():
        assert use.spent + use.held <= use.limit + NEARLY, use


requests = st.lists(
    st.tuples(
        st.sampled_from(ROLES), st.integers(1, 400), st.floats(0.0, 1.0), st.sampled_from(("kept", "lost", "free"))
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(budget=budgets(30, 4000, 4.0), asked=requests, at_once=st.integers(1, 12), seed=st.integers(0, 99))
def test_no_cap_is_passed_at_any_moment_and_the_budget_is_used_up_to_one_request(
    budget: BudgetSettings, asked: list[tuple[str, int, float, str]], at_once: int, seed: int
) -> None:
    drawn = random.Random(seed)
    account = Budget(budget)
    reasons: list[str] = []
    waiting = iter(asked)

    async def still_open() -> None:
        if reasons:
            raise CampaignStopping(reasons[0])

    async def work() -> None:
        for role, tokens, share, fate in waiting:
            if reasons:
                return
            held = Held(role, tokens, tokens * 1e-3, 1e-3)
            try:
                reason = await account.hold(held, still_open)
            except CampaignStopping:
                return
            assert_within(account)
            if reason is not None:
                lacking = next(use for use in account.uses() if f"raise {use.cap} " in reason)
                most = {"calls": 1, "tokens": tokens, "usd": tokens * 1e-3}[lacking.cap.rpartition(".")[2]]
                assert lacking.spent + most > lacking.limit - NEARLY, "it would have fitted with nothing in flight"
                reasons.append(reason)
                account.wake()
                return
            for _ in range(drawn.randrange(4)):
                await asyncio.sleep(0)
            used = int(tokens * share)
            account.give_back(held, held.lost() if fate == "lost" else Lost())
            if fate == "kept":
                account.add(role, prompt_tokens=used, completion_tokens=0, usd=used * 1e-3)
            assert_within(account)

    async def all_of_them() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())

    asyncio.run(all_of_them())
    assert all(use.held == pytest.approx(0.0) for use in account.uses())


class Backend:
    """What really is used: counted when a request arrives, at its highest moment, and never told where it gets lost."""

    def __init__(self, seed: int, prices: Mapping[str, PriceSettings]) -> None:
        self.random = random.Random(seed)
        self.prices = prices
        self.used = {role: Spending() for role in ROLES}

    def speaks_as(self, role: str) -> "Speaker":
        return Speaker(self, role)

    def over(self, budget: BudgetSettings) -> list[str]:
        """The caps that are passed."""
        total = Spending()
        for used in self.used.values():
            total.calls += used.calls
            total.prompt_tokens += used.prompt_tokens
            total.cost_usd += used.cost_usd
        found = []
        for name, limits, used in [
            ("campaign", budget, total),
            *((role, limits, self.used[role]) for role, limits in budget.roles.items()),
        ]:
            for limit, reached in (
                (limits.calls, used.calls),
                (limits.tokens, used.tokens),
                (limits.usd, used.cost_usd),
            ):
                if limit is not None and reached > limit + NEARLY:
                    found.append(f"{name}: {reached} of {limit}")
        return found


class Speaker:
    """A transport: some requests are answered, others fail in ways that are paid for or not."""

    def __init__(self, backend: Backend, role: str) -> None:
        self.backend = backend
        self.role = role

    async def send(self, spoken: Spoken, parameters: Mapping[str, Any]) -> Answer:
        drawn, used = self.backend.random, self.backend.used[self.role]
        outcome = drawn.choice(OUTCOMES)
        most = most_tokens([said(message["role"], message["content"]) for message in spoken], parameters)
        prompt = drawn.randint(most.prompt // drawn.choice((1, 1, 9)), most.prompt)
        completion = drawn.randint(most.completion // drawn.choice((1, 1, 9)), most.completion)
        price = self.backend.prices[self.role]
        cost = (prompt * price.input + completion * price.output) / 1e6
        used.calls += 1
        if outcome != "refused":
            used.prompt_tokens += prompt + completion
            used.cost_usd += cost
        for _ in range(drawn.randrange(5)):
            await asyncio.sleep(0)
        if outcome == "timeout":
            raise too_late(1.0)
        if outcome in ("refused", "gateway"):
            raise refused_by_status(500 if outcome == "refused" else 504, "no", model="m", where="here")
        if outcome == "filtered":
            raise ProviderError("content_filter", "withheld", paid_tokens=prompt + completion)
        known = outcome == "answer"
        return Answer(
            "text",
            "stop",
            prompt if outcome != "no usage" else None,
            completion if known else None,
            cost if known else None,
        )


class Journal(dict[tuple[str, str], Call]):
    """The last row of each call, as the database keeps it."""

    def spent(self, role: str | None = None) -> Spending:
        rows = [call for call in self.values() if role in (None, call.agent)]
        return Spending(
            calls=sum(call.attempts for call in rows),
            prompt_tokens=sum(call.prompt_tokens or 0 for call in rows),
            completion_tokens=sum(call.completion_tokens or 0 for call in rows),
            cost_usd=sum(call.cost_usd or 0.0 for call in rows),
            lost_tokens=sum(call.lost_tokens or 0 for call in rows),
            lost_usd=sum(call.lost_usd or 0.0 for call in rows),
        )


async def one_run(
    backend: Backend, budget: BudgetSettings, journal: Journal, texts: list[str], life: int
) -> str | None:
    """Every call of every text, by all roles side by side, until all are made, the budget ends it, or it is killed."""
    ledger = PatientLedger(
        caps=budget, spent=journal.spent(), spent_by_role={role: journal.spent(role) for role in ROLES}
    )
    ledger.remember(list(journal.values()))
    models = {}
    for role in ROLES:
        model = ModelSettings(model="hosted_vllm/x", max_tokens=40, attempts=3, price=backend.prices[role])
        models[role] = LanguageModel(model, ledger, Redactor(()))
        models[role].__dict__["_transport"] = backend.speaks_as(role)

    async def dialogue(number: int, text: str) -> None:
        for depth in range(3):
            role = ROLES[(number + depth) % len(ROLES)]
            site = CallSite("camp_1", f"dlg_{number}", depth, role, "answer")
            try:
                await models[role].complete((said("user", text),) * (depth + 1), site)
            except ProviderError:
                continue
            except CampaignStopping:
                return

    # what a kill left between two tries counts at its most, and may seem to have passed a cap that it did not
    counted_before = {use.cap: use.spent for use in ledger.budget.uses()}
    tasks = [asyncio.create_task(dialogue(number, text)) for number, text in enumerate(texts)]
    for _ in range(life):
        await asyncio.sleep(0)
        assert not backend.over(budget)
        for use in ledger.budget.uses():
            assert use.spent + use.held <= max(use.limit, counted_before[use.cap]) + NEARLY, use
        if all(task.done() for task in tasks):
            break
    for call in ledger.notes:
        journal[call.call_id, call.request_hash] = call
    if any(task.done() and task.exception() for task in tasks):
        await asyncio.gather(*tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return ledger.stop_reason


@settings(max_examples=60, deadline=None)
@given(
    budget=budgets(40, 4000, 0.05),
    texts=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=12),
    lives=st.lists(st.integers(1, 60), max_size=4),
    seed=st.integers(0, 10_000),
)
def test_nothing_is_paid_over_a_cap_through_failures_kills_and_resumes(
    budget: BudgetSettings, texts: list[str], lives: list[int], seed: int
) -> None:
    drawn = random.Random(seed)
    prices = {role: PriceSettings(input=drawn.uniform(0, 20), output=drawn.uniform(0, 90)) for role in ROLES}
    backend, journal = Backend(seed, prices), Journal()
    for life in [*lives, 5000]:
        asyncio.run(one_run(backend, budget, journal, texts, life))
    assert not backend.over(budget)
    assert sum(used.calls for used in backend.used.values()) <= journal.spent().calls


@pytest.mark.parametrize("at_once", [1, 16])
def test_a_budget_of_tokens_is_used_but_for_one_largest_call(at_once: int) -> None:
    """Calls that use all that they hold, so that nothing is given back."""

    async def play() -> Budget:
        account = Budget(BudgetSettings(tokens=10_000))

        async def work() -> None:
            held = Held("user", 190, None)
            while await account.hold(held, nobody_stops_it) is None:
                await asyncio.sleep(0)
                account.give_back(held)
                account.add("user", prompt_tokens=90, completion_tokens=70, usd=None)
            account.wake()

        await asyncio.gather(*(work() for _ in range(at_once)))
        return account

    (use,) = asyncio.run(play()).uses()
    assert 10_000 - 190 < use.spent <= 10_000


def test_a_role_s_cap_leaves_the_others_alone_until_it_stops_the_campaign() -> None:
    account = Budget(BudgetSettings.model_validate({"calls": 100, "roles": {"judge": {"calls": 1}}}))

    async def ask(role: str) -> str | None:
        return await account.hold(Held(role, 1, None), nobody_stops_it)

    assert asyncio.run(ask("judge")) is None
    assert asyncio.run(ask("user")) is None
    reason = asyncio.run(ask("judge"))
    assert reason is not None
    assert "1 calls of judge is spent" in reason
    assert "raise budget.roles.judge.calls" in reason
    assert asyncio.run(ask("user")) is None
    assert [(use.cap, use.spent) for use in account.uses()] == [("budget.calls", 3), ("budget.roles.judge.calls", 1)]


def test_a_request_holds_more_than_any_tokenizer_makes_of_it() -> None:
    plain = most_tokens((said("user", "héllo"),), {"max_tokens": 10})
    assert plain.prompt > len("héllo".encode())
    assert plain.completion == 10
    assert most_tokens((), {"max_tokens": 10, "max_completion_tokens": 30, "n": 3}).completion == 90
    assert most_tokens((), {"max_tokens": 10, "extra_body": {"max_tokens": 700}}).completion == 700
    schema = {"type": "json_schema", "json_schema": {"name": "x" * 500}}
    assert most_tokens((), {"max_tokens": 1, "response_format": schema}).prompt > 500 + most_tokens((), {}).prompt
    assert most_tokens((), {"max_tokens": 1, "tools": [{"name": "y" * 300}]}).prompt > 300


def test_of_several_words_for_an_answer_s_length_the_largest_is_held() -> None:
    for word in ("max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict"):
        for params in ({word: 900}, {"extra_body": {word: 900}}):
            assert most_tokens((), {"max_tokens": 5, **params}).completion == 900
    assert most_tokens((), {"max_tokens": 5, "n": 3}).completion == 15


def test_prompt_and_completion_are_held_each_at_its_price() -> None:
    price = price_of(ModelSettings(model="hosted_vllm/x", price=PriceSettings(input=1.0, output=50.0)))
    most = most_tokens((said("user", "x" * 936),), {"max_tokens": 100})
    assert price.most(*most) == pytest.approx((936 + 80) * 1e-6 + 100 * 50e-6)
    assert price.dearest == 50e-6


@pytest.mark.parametrize(
    ("paid", "lost"),
    [(None, Lost(100, 0.5)), (0, Lost(0, 0.0)), (10, Lost(10, 0.1)), (90, Lost(90, 0.5)), (200, Lost(200, 2.0))],
)
def test_a_failed_request_loses_what_it_was_paid_for(paid: int | None, lost: Lost) -> None:
    assert Held("user", 100, 0.5, 0.01).lost(paid) == lost
    assert Held("user", 100, None).lost(paid).usd == (0.0 if paid == 0 else None)


def test_holding_costs_next_to_nothing_even_with_a_long_history() -> None:
    history = tuple(Message(role="user", content="a plain sentence of some length. " * 20) for _ in range(64))
    budget = Budget(BudgetSettings())

    async def hold() -> float:
        began = time.perf_counter()
        for _ in range(20):
            held = Held("user", sum(most_tokens(history, {"max_tokens": 512, "temperature": 0.7, "seed": 3})), 0.0)
            assert await budget.hold(held, nobody_stops_it) is None
            budget.give_back(held)
        return (time.perf_counter() - began) / 20

    assert min(asyncio.run(hold()) for _ in range(30)) < 60e-6
