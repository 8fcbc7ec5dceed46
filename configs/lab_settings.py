"""Every setting of a lab: which worlds, arms and sizes it compares. All of it is ours; what is learned from stands in `lab`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Settings
from configs.fit_settings import RewardFitSettings, SftSettings

Arm = Literal["base", "more_single_turn", "last_turn", "music", "bernoulli", "one", "union", "spotlight", "mixture"]
WorldName = Literal["easy", "hard"]


class MusicLabSettings(Settings):
    """The lab of MUSIC's claim: reward models that differ only in the pairs they learned from."""

    worlds: tuple[WorldName, ...] = ("easy",)
    """Rehearsal worlds, each with its own arms and held-out items."""
    random_seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Each has its own dialogues, weights and held-out items."""
    arms: Annotated[tuple[Arm, ...], Field(min_length=1)] = (
        "base",
        "more_single_turn",
        "last_turn",
        "music",
        "spotlight",
    )
    """What is compared."""
    turns: Annotated[int, Field(strict=True, ge=2)] = 3
    """Answers of a whole conversation (MUSIC: 5)."""
    dialogues: Annotated[int, Field(strict=True, ge=1)] = 4000
    """Plain conversations from which the first stage learns to talk."""
    base_pairs: Annotated[int, Field(strict=True, ge=1)] = 4000
    """Seeds of the base: single-turn pairs."""
    extra_pairs: Annotated[int, Field(strict=True, ge=1)] = 4000
    """Seeds of what an arm adds to the base."""
    items: Annotated[int, Field(strict=True, ge=1)] = 300
    """Held-out pairs of each kind, a random seed."""
    language: SftSettings = SftSettings()
    """The first stage that all arms of a random seed share begins with a language model of plain conversations ..."""
    stage: RewardFitSettings = RewardFitSettings(model="tiny")
    """... and ends with a reward model of the base pairs; what the lab fills in is as for `fit`."""
    fit: RewardFitSettings = RewardFitSettings(model="tiny")
    """Each arm's training, from that stage on; its `model`, `tiny`, `random_seed` and `out` are the lab's to fill in."""
    points: Annotated[int, Field(strict=True, ge=1)] = 8
    """Checkpoints of each arm, the last included, among which the table at equal tokens chooses."""
    processes: Annotated[int, Field(strict=True, ge=1)] = 2
    """Jobs at once, each on one core."""

    @model_validator(mode="after")
    def _something_to_compare(self) -> "MusicLabSettings":
        for what, names in (("worlds", self.worlds), ("random_seeds", self.random_seeds), ("arms", self.arms)):
            if len(set(names)) < len(names):
                raise ValueError(f"{what} names one of its items twice: drop it")
        if "base" not in self.arms:
            raise ValueError("arms: every claim is measured against `base`: name it too")
        return self
