"""Graphs for LangGraph's own tools, named in `langgraph.json`: built when a tool asks, on the rehearsal backend.

Nothing is compiled at import. What a graph writes here is seen in the tool only; campaigns keep their
corpus through `graphs.campaign`.
"""

from datetime import UTC, datetime
from typing import Any

from agents.ledger import Ledger, forget
from configs.comparison import load_campaigns
from configs.load import load
from configs.settings import CampaignSettings
from graphs.best_of_n import RewardModel
from graphs.cast import build_cast, prompts_of
from graphs.execute import build_recipe
from store.records import Fit


def dialogue() -> Any:
    """The `dialogue` graph of the preset of that name."""
    return _graph("dialogue")


def music() -> Any:
    """The `music` graph, with verification and judges."""
    return _graph("rehearsal")


def capo() -> Any:
    """The `capo` graph, on the rehearsal."""
    return _graph("capo-rehearsal")


def rmboost() -> Any:
    """The `rmboost` graph, on the rehearsal."""
    settings = next(one for one in load_campaigns("compare-rehearsal") if one.recipe == "rmboost")
    return _built(settings)


def best_of_n() -> Any:
    """The `best_of_n` graph. What picks here is the shortest answer: this floor has no reward model."""
    return _graph("best-of-n-rehearsal", _shortest())


def _shortest() -> RewardModel:
    fit = Fit(
        fit_id="fit_shortest",
        name="the shortest answer",
        objective="reward",
        config={},
        data_card={},
        checkpoint=None,
        status="done",
        created_at=datetime.now(UTC),
    )
    return RewardModel(fit, lambda conversations: [-float(len(messages[-1].content)) for messages in conversations])


def _graph(preset: str, scorer: RewardModel | None = None) -> Any:
    return _built(load(preset, CampaignSettings), scorer)


def _built(settings: CampaignSettings, scorer: RewardModel | None = None) -> Any:
    prompts = prompts_of(settings)
    ledger = Ledger(forget, settings.budget)
    return build_recipe(settings, "camp_studio", prompts.hashes, build_cast(settings, prompts, ledger), scorer).graph
