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
    by_role = {
        role: Spending(**found._asdict()) for role, found in resume.spent_by_agent(database, *campaign_ids).items()
    }
    if budget.needs_prices:
        for use in resume.unpriced(database, *campaign_ids):
            price = _price(use, models)
            usd = price.most(use.prompt_tokens, use.completion_tokens) + use.lost_tokens * price.dearest
            together.lost_usd += usd
            by_role[use.agent].lost_usd += usd
    return together, by_role


def _price(use: resume.Unpriced, models: ModelsSettings) -> Price:
    """By the config, which names the model or another role of it, else by LiteLLM's map."""
    judges = [models.of("judge", index) for index in range(len(models.judges))]
    named = {"user": models.of("user"), "assistant": models.of("assistant"), "perturbation": models.of("perturbation")}
    own = judges if use.agent == "judge" else [named[use.agent]] if use.agent in named else []
    candidates = [*own, *judges, *named.values(), ModelSettings(model=use.model)]
    prices = [price_of(settings) for settings in candidates if settings.model == use.model]
    return next((price for price in prices if price.is_known), prices[-1])
