"""What counts against a budget when a campaign begins or goes on: all that was paid before, by it and by those that share."""

import os
from collections.abc import Sequence

from agents.budget import Spending
from agents.prices import Price, price_of
from configs.model_settings import ModelSettings, ModelsSettings
from configs.settings import BudgetSettings
from store import resume


def spent_so_far(
    database: str | os.PathLike[str], campaign_ids: Sequence[str], budget: BudgetSettings, models: ModelsSettings
) -> tuple[Spending, dict[str, Spending]]:
    """By all of these campaigns together, and by each of their roles.

    Where dollars are capped, what was spent while its price was unknown counts at the price that is known now; as calls
    that brought no answer do, at the most.
    """
    together = Spending(**resume.spent(database, *campaign_ids)._asdict())
    by_role = _by_role(database, campaign_ids)
    if budget.needs_prices:
        for use in resume.unpriced(database, *campaign_ids):
            for spending in (together, by_role[use.agent]):
                _add(spending, use, _price(use, models))
    return together, by_role


def spent_by_role(
    database: str | os.PathLike[str], campaign_ids: Sequence[str], models: ModelsSettings
) -> dict[str, Spending]:
    """What each role has spent, by the prices that are known now: `unpriced_calls` are those whose price still is not."""
    by_role = _by_role(database, campaign_ids)
    unknown: dict[str, int] = dict.fromkeys(by_role, 0)
    for use in resume.unpriced(database, *campaign_ids):
        price = _price(use, models)
        _add(by_role[use.agent], use, price)
        unknown[use.agent] += 0 if price.is_known else use.calls
    for role, calls in unknown.items():
        by_role[role].unpriced_calls = calls
        by_role[role].unpriced_lost = 0  # it is among them
    return by_role


def _by_role(database: str | os.PathLike[str], campaign_ids: Sequence[str]) -> dict[str, Spending]:
    found = resume.spent_by_agent(database, *campaign_ids)
    return {role: Spending(**spent._asdict()) for role, spent in found.items()}


def _add(spending: Spending, use: resume.Unpriced, price: Price) -> None:
    """What calls without a price cost at most by the one that is known now."""
    spending.cost_usd += price.most(use.prompt_tokens, use.completion_tokens)
    spending.lost_usd += use.lost_tokens * price.dearest


def _price(use: resume.Unpriced, models: ModelsSettings) -> Price:
    """By the config, which names the model for this role or for another one, else by LiteLLM's map; of several the dearest."""
    judges = [models.of("judge", index) for index in range(len(models.judges))]
    named = {"user": models.of("user"), "assistant": models.of("assistant"), "perturbation": models.of("perturbation")}
    own = judges if use.agent == "judge" else [named[use.agent]] if use.agent in named else []
    for candidates in (own, [*judges, *named.values()]):
        prices = [price_of(settings) for settings in candidates if settings.model == use.model]
        if known := [price for price in prices if price.is_known]:
            return max(known, key=lambda price: price.most(use.prompt_tokens, use.completion_tokens + use.lost_tokens))
    return price_of(ModelSettings(model=use.model))
