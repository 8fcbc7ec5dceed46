"""Every setting of the loop that a user simulator learns by (`descant loop`), typed, with its default. The loop is ours."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from configs.base import Settings
from configs.judge_settings import JudgeModelsSettings
from configs.language_settings import AskFitSettings
from configs.model_settings import RoleSettings
from configs.settings import CampaignSettings


class KeepSettings(Settings):
    """Which collected conversations the next round learns from; each one that is dropped is counted by its reason."""

    fewest_turns: Annotated[int, Field(strict=True, ge=1)] = 2
    """A conversation of fewer answers is `too_few_turns`."""
    most_self_rouge: Annotated[float, Field(ge=0.0, le=100.0)] = 50.0
    """One whose queries are more alike than this (Self-ROUGE) is `too_alike`."""
    cut_short: bool = False
    """Keep those that the gate ended before their target; otherwise they are `cut_short`."""


class CompareSettings(Settings):
    """The trained simulator beside a prompted one, on seeds that no round learned from."""

    prompted: RoleSettings = RoleSettings()
    """The prompted simulator; what it leaves open is taken from `collect.models.default`, not from the trained one's `collect.models.user`."""
    seeds: Annotated[int, Field(strict=True, ge=1)] = 200
    """Held-out seeds at most (validation and test), from the front."""
    judges: JudgeModelsSettings = JudgeModelsSettings()
    """Who grades how like a person's the queries are (rubric `realism`)."""


class LoopSettings(Settings):
    """Train a user simulator, let it collect conversations, keep the good ones, train again; then compare it."""

    name: str = "loop"
    """What people call it: its fits and campaigns carry the name."""
    rounds: Annotated[int, Field(strict=True, ge=1)] = 2
    """Trainings; each but the first learns from what the ones before it collected, too."""
    fit: AskFitSettings = AskFitSettings()
    """The training; `data` are the real sessions of the first round. Every round starts from `model` anew."""
    collect: CampaignSettings = CampaignSettings(recipe="dialogue", simulator="trained")
    """The campaign that collects; the loop gives it the trained model as its user, and each round a random seed of its own."""
    keep: KeepSettings = KeepSettings()
    compare: CompareSettings | None = CompareSettings()
    """Null compares nothing."""

    @field_validator("collect")
    @classmethod
    def _collects_dialogues(cls, value: CampaignSettings) -> CampaignSettings:
        if value.recipe != "dialogue" or value.perturb is not None:
            raise ValueError("it collects plain conversations: set collect.recipe=dialogue, without perturb")
        if value.simulator != "trained":
            raise ValueError("the trained model plays the user: set collect.simulator=trained")
        return value

    @model_validator(mode="after")
    def _the_user_is_the_loops(self) -> "LoopSettings":
        user = self.collect.models.user
        if user.model is not None or user.checkpoint is not None:
            raise ValueError("collect.models.user: the loop puts the trained model there, so name none")
        return self
