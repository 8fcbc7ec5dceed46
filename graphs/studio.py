"""Graphs for LangGraph's own tools, named in `langgraph.json`: built when a tool asks, on the rehearsal backend.

Nothing is compiled at import. What a graph writes here is seen in the tool only; campaigns keep their
corpus through `graphs.campaign`.
"""

from typing import Any

from agents.ledger import Ledger
from agents.prompts import Prompts
from configs.load import load
from configs.settings import CampaignSettings
from graphs.cast import build_cast
from graphs.execute import build_recipe
from store.records import Record


def dialogue() -> Any:
    """The `dialogue` graph of the preset of that name."""
    return _graph("dialogue")


def music() -> Any:
    """The `music` graph, with verification and judges."""
    return _graph("rehearsal")


def _graph(preset: str) -> Any:
    settings = load(preset, CampaignSettings)
    prompts = Prompts(settings.prompts)
    ledger = Ledger(_forget, settings.budget)
    return build_recipe(settings, "camp_studio", prompts.hashes, build_cast(settings, prompts, ledger)).graph


def _forget(*records: Record) -> None:
    """No journal: these calls are not part of a corpus."""
