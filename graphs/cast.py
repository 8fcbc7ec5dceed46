"""The cast: the agents that play in a campaign's graphs, built from its settings."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agents.assistant import Assistant, ContrastiveAssistant
from agents.context_errors import ContextErrors
from agents.gate import Gate
from agents.judge import Judge, names_apart
from agents.ledger import Ledger
from agents.llm import LanguageModel
from agents.perturbation import PerturbationAgent
from agents.prompts import BOOST, CONTEXT_VARIABLES, GATE_VARIABLES, PREFER, STEER, VARIABLES, Prompts
from agents.protocol import Agent
from agents.second_answer import SecondAnswerWriter, SteeredAssistant
from agents.secrets import Redactor
from agents.user import ScriptedUser, TrainedUserSimulator, UserSimulator
from configs.errors import DescantError
from configs.model_settings import ModelSettings, Role
from configs.settings import CONTEXT_KINDS, CampaignSettings
from store.records import Record

NO_SHAPE = ("name", "seeds", "trials", "concurrency", "models", "budget")
"""Settings that change no call; of the models only what they are asked for does."""


class ModelMissingError(DescantError):
    """Raised here: a role without a model."""


@dataclass(frozen=True)
class Cast:
    """Who speaks."""

    user: Agent
    assistant: Assistant
    contrastive_assistant: ContrastiveAssistant
    perturbation: PerturbationAgent
    context_errors: ContextErrors
    second_answers: SecondAnswerWriter
    steered_assistant: SteeredAssistant
    judges: tuple[Judge, ...]
    note_once: Callable[[str, Record], Awaitable[None]]
    """Notes a record of this id in the journal, if an earlier run did not."""
    gate: Gate | None = None
    """Between the user and the dialogue; null lets everything pass."""


def prompts_of(settings: CampaignSettings) -> Prompts:
    """The prompts of a campaign: those of every one, and those that its gate, its errors of context or its pairs ask for.

    Only these, since prompts are part of a campaign's identity.
    """
    variables = dict(VARIABLES)
    if settings.gate is not None:
        variables |= GATE_VARIABLES
    if settings.perturb is not None and set(settings.perturb.kinds) & set(CONTEXT_KINDS):
        variables |= CONTEXT_VARIABLES
    if settings.recipe == "rmboost":
        variables |= BOOST
    if settings.recipe == "rlcd":
        variables |= STEER
    if asks_which_is_better(settings):
        variables |= PREFER
    return Prompts(settings.prompts, variables=variables)


def asks_which_is_better(settings: CampaignSettings) -> bool:
    """Whether judges compare two answers to one prompt while the campaign runs."""
    verifies = settings.pairing is not None and settings.pairing.boost.verify
    return settings.recipe == "rlaif" or (settings.recipe == "rmboost" and verifies)


MakeModel = Callable[[ModelSettings], LanguageModel]


def build_cast(
    settings: CampaignSettings, prompts: Prompts, ledger: Ledger, *, make_model: MakeModel | None = None
) -> Cast:
    """`make_model`: what a role's settings become, in place of the model that they name."""
    redact = Redactor(key_references(settings) if make_model is None else ())
    model = make_model or (lambda role_settings: LanguageModel(role_settings, ledger, redact))
    models = settings.models
    user: Agent = ScriptedUser()
    if settings.script != "only":
        simulator = _simulator(settings, model(models.of("user")), prompts)
        user = simulator if settings.script is None else ScriptedUser(simulator)
    assistant, perturbation = model(models.of("assistant")), model(models.of("perturbation"))
    judges = [models.of("judge", index) for index in range(len(models.judges))]
    known_as = names_apart([judge.model for judge in judges])
    cast_judges = tuple(
        Judge(model(judge), prompts, index, known_as=known_as[index], repairs=settings.judge_repairs)
        for index, judge in enumerate(judges)
    )
    return Cast(
        user=user,
        assistant=Assistant(assistant),
        contrastive_assistant=ContrastiveAssistant(assistant, prompts),
        perturbation=PerturbationAgent(perturbation, prompts),
        context_errors=ContextErrors(perturbation, assistant, prompts),
        second_answers=SecondAnswerWriter(perturbation, prompts),
        steered_assistant=SteeredAssistant(assistant, prompts),
        note_once=ledger.note_once,
        judges=cast_judges,
        gate=None
        if settings.gate is None
        else Gate(settings.gate, prompts, cast_judges[0] if settings.gate.model else None),
    )


def _simulator(settings: CampaignSettings, model: LanguageModel, prompts: Prompts) -> Agent:
    gated = settings.gate is not None
    if settings.simulator == "trained":
        return TrainedUserSimulator(model, gated=gated)
    return UserSimulator(model, prompts, gated=gated)


def roles_in_use(settings: CampaignSettings) -> list[tuple[Role, int]]:
    """The roles that the recipe really plays, judges with their place."""
    roles: list[tuple[Role, int]] = [("assistant", 0)]
    if _plays_a_user(settings):
        roles.insert(0, ("user", 0))
    if settings.recipe == "rmboost":
        roles.append(("perturbation", 0))
    perturb = settings.perturb
    if perturb and perturb.altered_by == "perturbation" and perturb.kinds != ("context_neglect",):
        roles.append(("perturbation", 0))
    checks = settings.capo is not None and settings.capo.check
    if (perturb and perturb.verify) or settings.judge_pairs or checks or asks_which_is_better(settings):
        roles += [("judge", index) for index in range(len(settings.models.judges))]
    elif settings.gate and settings.gate.model:
        roles.append(("judge", 0))
    return roles


def _plays_a_user(settings: CampaignSettings) -> bool:
    """No user is asked where a script has all its turns, where a conversation is given, or where one answer is all of it."""
    if settings.script == "only" or (settings.capo is not None and not settings.capo.play):
        return False
    if settings.pairing is None:
        return True
    return settings.pairing.play and (settings.turns != 1 or settings.seeds.cut == "last_assistant")


def models_in_use(settings: CampaignSettings) -> dict[str, ModelSettings]:
    """The models that will really be called, by role (`judge_0`, `judge_1`, ... for judges)."""
    return {
        f"judge_{index}" if role == "judge" else role: settings.models.of(role, index)
        for role, index in roles_in_use(settings)
    }


def shape_of(settings: CampaignSettings, *, without: Sequence[str] = ()) -> dict[str, Any]:
    """What of the settings says which calls are made and what is asked of whom; not how models are reached, or of how many seeds.

    Args:
        without: settings that are left out beside.
    """
    kept = settings.model_dump(mode="json", exclude={*NO_SHAPE, *without})
    return kept | {"models": {role: model.sampling() for role, model in models_in_use(settings).items()}}


def require_named_models(settings: CampaignSettings) -> None:
    """Real seeds want a model that somebody chose: the rehearsal would answer them with plain nothings.

    Raises:
        ModelMissingError: seeds from a file, and a role whose model nobody named.
    """
    if settings.seeds.format == "rehearsal":
        return
    unnamed = [role for role, index in roles_in_use(settings) if not settings.models.is_named(role, index)]
    if unnamed:
        raise ModelMissingError(
            f"no model for {', '.join(dict.fromkeys(unnamed))}: set models.default.model to a LiteLLM model string "
            "(rehearsal/default is the built-in stand-in, which knows nothing of real seeds)"
        )


def key_references(settings: CampaignSettings) -> set[str]:
    """Every `env:NAME` that the models in use name."""
    references: set[str] = set()
    for model in models_in_use(settings).values():
        references.update(model.headers.values())
        if model.api_key:
            references.add(model.api_key)
    return references
