"""The cast: the agents that play in a campaign's graphs, built from its settings."""

from dataclasses import dataclass

from agents.assistant import Assistant, ContrastiveAssistant
from agents.judge import Judge
from agents.ledger import Ledger
from agents.llm import LanguageModel
from agents.perturbation import PerturbationAgent
from agents.prompts import Prompts
from agents.protocol import Agent
from agents.secrets import Redactor
from agents.user import UserSimulator
from configs.settings import CampaignSettings, ModelSettings


@dataclass(frozen=True)
class Cast:
    """Who speaks."""

    user: Agent
    assistant: Assistant
    contrastive_assistant: Agent
    perturbation: Agent
    judges: tuple[Judge, ...]


def build_cast(settings: CampaignSettings, prompts: Prompts, ledger: Ledger) -> Cast:
    redact = Redactor(key_references(settings))

    def model(role_settings: ModelSettings) -> LanguageModel:
        return LanguageModel(role_settings, ledger, redact)

    models = settings.models
    assistant = model(models.of("assistant"))
    return Cast(
        user=UserSimulator(model(models.of("user")), prompts),
        assistant=Assistant(assistant),
        contrastive_assistant=ContrastiveAssistant(assistant, prompts),
        perturbation=PerturbationAgent(model(models.of("perturbation")), prompts),
        judges=tuple(Judge(model(models.of("judge", index)), prompts, index) for index in range(len(models.judges))),
    )


def models_in_use(settings: CampaignSettings) -> dict[str, ModelSettings]:
    """The models that the recipe will really call, by role."""
    models = {"user": settings.models.of("user"), "assistant": settings.models.of("assistant")}
    perturb = settings.perturb
    if perturb and perturb.altered_by == "perturbation":
        models["perturbation"] = settings.models.of("perturbation")
    if (perturb and perturb.verify) or settings.judge_pairs:
        for index in range(len(settings.models.judges)):
            models[f"judge_{index}"] = settings.models.of("judge", index)
    return models


def key_references(settings: CampaignSettings) -> set[str]:
    """Every `env:NAME` that the models in use name."""
    references: set[str] = set()
    for model in models_in_use(settings).values():
        references.update(model.headers.values())
        if model.api_key:
            references.add(model.api_key)
    return references
