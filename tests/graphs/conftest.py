"""Recipes played without a disk, by models that answer by the task that a prompt names."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import pytest

from configs.settings import CampaignSettings
from graphs.best_of_n import RewardModel, Rewards
from graphs.campaign import campaign_identity
from graphs.cast import build_cast, prompts_of
from graphs.execute import build_recipe
from graphs.outcome import Outcome
from store.identity import seed_id, split_of
from store.records import Call, Dialogue, Fit, Judgement, Message, Pair, Perturbation, Record, Seed, Turn
from tests.scripted import PatientLedger, said, scripted_model

Kind = TypeVar("Kind", bound=Record)
Part = Callable[[str], str]
"""From a prompt (for chat: the last message) to an answer."""

DEFAULT_PARTS: Mapping[str, Part] = {
    "chat": lambda text: f"answer to <{text}>",
    "ask": lambda text: f"question {text.count('<user>')}",
    "ask_again": lambda text: f"better question {text.count('<user>')}",
    "gate": lambda _: '{"rationale": "r", "problem": "none"}',
    "query": lambda text: f"what of <{text}>?",
    "alter": lambda _: "something else",
    "contrast": lambda _: json.dumps({"altered_instruction": "something else", "answer": "beside the point"}),
    "verify": lambda _: '{"rationale": "r", "fails": true}',
    "compare": lambda _: '{"better": "A"}',
    "depends": lambda _: '{"depends": true}',
    "guess": lambda text: f"a guess of {text.count('<missed>') + 1}",
    "misread": lambda text: f"a misreading of {text.count('<missed>') + 1}",
    "verify_context": lambda _: '{"rationale": "r", "fails": true}',
}


class Played(NamedTuple):
    """What a seed left behind, and what was asked on the way."""

    outcome: Outcome
    calls: list[Call]
    """Those that came back, in their order."""

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [record for record in self.outcome.records if isinstance(record, kind)]

    @property
    def dialogues(self) -> dict[str, Dialogue]:
        return {dialogue.branch: dialogue for dialogue in self.of(Dialogue)}

    @property
    def turns(self) -> dict[str, Turn]:
        return {turn.turn_id: turn for turn in self.of(Turn)}

    @property
    def pairs(self) -> list[Pair]:
        return self.of(Pair)

    @property
    def perturbations(self) -> list[Perturbation]:
        return self.of(Perturbation)

    @property
    def judgements(self) -> list[Judgement]:
        return self.of(Judgement)

    def texts(self, branch: str = "main") -> list[str]:
        return [self.turns[turn].content for turn in self.dialogues[branch].turn_ids]

    def prompts(self, purpose: str, branch: str = "main") -> list[str]:
        """The last message of each call of a branch with this purpose."""
        identity = self.dialogues[branch].dialogue_id
        return self.asked(purpose, identity)

    def asked(self, purpose: str, dialogue: str | None = None) -> list[str]:
        """The last message of each call with this purpose, of one dialogue or of all."""
        return [
            call.messages[-1].content
            for call in self.calls
            if call.messages and call.purpose == purpose and dialogue in (None, call.dialogue_id)
        ]


Play = Callable[..., Played]


def seed_of(*messages: Message, occurrence: int = 0) -> Seed:
    return Seed(
        seed_id=seed_id(messages, occurrence), source="test", messages=messages, metadata={}, split=split_of(messages)
    )


FIRST = seed_of(said("user", "the first instruction"))


def task_of(messages: Sequence[Mapping[str, str]]) -> tuple[str, str]:
    """The task that the prompt names, and its text; `query` after the assistant's turn of a bare conversation."""
    text = messages[-1]["content"]
    if messages[-1]["role"] == "assistant":
        return "query", text
    return (text.split("\n", 1)[0].removeprefix("Task: "), text) if text.startswith("Task: ") else ("chat", text)


def reward_model(rewards: Rewards, name: str = "toy") -> RewardModel:
    """A reward model that is a function."""
    fit = Fit(
        fit_id=f"fit_{name}",
        name=name,
        objective="reward",
        config={},
        data_card={},
        checkpoint=None,
        status="done",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return RewardModel(fit, rewards)


@pytest.fixture
def play() -> Play:
    """Play one seed of a recipe; keywords are settings, but for `parts`, `seed`, `trial` and `picks_by`."""

    def run(
        *,
        parts: Mapping[str, Part] | None = None,
        seed: Seed = FIRST,
        trial: int = 0,
        picks_by: RewardModel | None = None,
        **given: Any,
    ) -> Played:
        speakers = {**DEFAULT_PARTS, **(parts or {})}

        def speak(messages: list[dict[str, str]]) -> str:
            task, text = task_of(messages)
            return speakers[task](text)

        ledger = PatientLedger()
        with scripted_model(speak) as model:
            settings = CampaignSettings.model_validate({"models": {"default": {"model": model}}, **given})
            prompts = prompts_of(settings)
            recipe = build_recipe(
                settings,
                campaign_identity(settings, prompts, picks_by),
                prompts.hashes,
                build_cast(settings, prompts, ledger),
                picks_by,
            )
            outcome = asyncio.run(recipe.play(seed, trial))
        return Played(outcome, [call for call in ledger.notes if call.status != "started"])

    return run
