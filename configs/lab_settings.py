"""Every setting of a lab: which worlds, arms and sizes it compares. All of it is ours; what is learned from stands in `lab`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.base import Settings
from configs.fit_settings import RewardFitSettings, SftSettings
from configs.language_settings import DpoFitSettings, SftFitSettings

Arm = Literal["base", "more_single_turn", "last_turn", "music", "bernoulli", "one", "union", "spotlight", "mixture"]
WorldName = Literal["easy", "hard"]
ParrotArm = Literal["neglect", "hallucination", "misunderstanding", "all_three", "more_sft", "own_neglect", "arbitrary"]
RmboostArm = Literal[
    "real",
    "more_real",
    "rmboost",
    "rmboost_verified",
    "rlaif",
    "rlaif_by_pair",
    "rlcd",
    "west_of_n",
    "real_rmboost",
    "real_rmboost_verified",
    "real_rlaif",
    "real_rlaif_by_pair",
    "real_rlcd",
    "real_west_of_n",
]


class LabSettings(Settings):
    """What labs have in common."""

    random_seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    """Each has its own dialogues, weights and held-out items."""
    processes: Annotated[int, Field(strict=True, ge=1)] = 2
    """Jobs at once, each on one core."""

    def require_each_once(self, *names: str) -> None:
        """Raise ValueError where one of these lists has an item twice."""
        for name in names:
            items = getattr(self, name)
            if len(set(items)) < len(items):
                raise ValueError(f"{name} names one of its items twice: drop it")


class MusicLabSettings(LabSettings):
    """The lab of MUSIC's claim: reward models that differ only in the pairs they learned from."""

    worlds: tuple[WorldName, ...] = ("easy",)
    """Rehearsal worlds, each with its own arms and held-out items."""
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

    @model_validator(mode="after")
    def _something_to_compare(self) -> "MusicLabSettings":
        self.require_each_once("worlds", "random_seeds", "arms")
        if "base" not in self.arms:
            raise ValueError("arms: every claim is measured against `base`: name it too")
        return self


class ParrotLabSettings(LabSettings):
    """The lab of Parrot's two ablations: how many turns are fine-tuned on, and which errors of context are preferred against."""

    world: WorldName = "easy"
    """The rehearsal's world (the lab's decision tells why not `hard`)."""
    turns: Annotated[int, Field(strict=True, ge=2)] = 8
    """Answers of a conversation (MT-Bench++: 8)."""
    first: tuple[Annotated[int, Field(strict=True, ge=1)], ...] = (1, 3, 5)
    """SFT on the first so many answers of each conversation; one more arm learns from all (Parrot: 1, 3, 5 and all)."""
    arms: tuple[ParrotArm, ...] = (
        "neglect",
        "hallucination",
        "misunderstanding",
        "all_three",
        "more_sft",
        "own_neglect",
        "arbitrary",
    )
    """What goes on from the SFT on all turns. Parrot: DPO against each error alone and against all three. Ours: as many steps of SFT on the chosen answers, DPO against the SFT model's own answers without the history, and DPO against answers to other queries."""
    dialogues: Annotated[int, Field(strict=True, ge=1)] = 2000
    """Plain conversations for the first stage and for SFT."""
    capo_dialogues: Annotated[int, Field(strict=True, ge=1)] = 600
    """Other conversations, whose context-dependent queries get negatives."""
    queries: Annotated[int, Field(strict=True, ge=1)] = 2
    """Of each such conversation."""
    pairs: Annotated[int, Field(strict=True, ge=3)] = 1000
    """For every arm at most; all three errors together share as many."""
    items: Annotated[int, Field(strict=True, ge=1)] = 150
    """Held-out conversations a random seed; each gives an item of every turn."""
    own_history: bool = True
    """Ask for every turn a second time, after the model's own earlier answers in place of the right ones."""
    stage: SftFitSettings = SftFitSettings(model="tiny")
    """The language model that all arms of a random seed start from: SFT on all turns, broken off early. Its `random_seed` and `out`, and of the others `model` too, are the lab's to fill in."""
    sft: SftFitSettings = SftFitSettings()
    """Each arm of the first ablation, from that stage on."""
    dpo: DpoFitSettings = DpoFitSettings()
    """Each arm of the second, from the SFT on all turns on; `more_sft` takes its steps, batch size and learning rate."""

    @model_validator(mode="after")
    def _arms_apart(self) -> "ParrotLabSettings":
        self.require_each_once("random_seeds", "first", "arms")
        if self.first and max(self.first) >= self.turns:
            raise ValueError(f"first: {max(self.first)} of {self.turns} turns is no part of them: take fewer")
        return self


Rate = Annotated[float, Field(ge=0.0, le=0.5)]


class RmboostLabSettings(LabSettings):
    """The lab of RMBoost and its rivals: how many of each method's labels are wrong, and what a reward model learns from its pairs."""

    judge_errors: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.0, 0.1, 0.2, 0.3)
    """Shares of its answers in which the judge errs. Each above 0 is played twice: drawn anew each time that the judge is asked, and by the pair of answers, so that asking in both orders does not help."""
    edit_failures: Annotated[tuple[Rate, ...], Field(min_length=2)] = (0.0, 0.1, 0.2, 0.3)
    """Shares of the answers written for a label that do not deserve it; rising, since the break-even line is read between them."""
    judge_error: Rate = 0.2
    """The centre of the grid, one of `judge_errors`, where reward models are trained."""
    edit_failure: Rate = 0.2
    """The centre of the grid, one of `edit_failures`."""
    verified_failures: tuple[Rate, ...] = (0.2,)
    """The edit failures at which RMBoost is played with verified labels too, wherever the judge errs: it costs three times as many calls. Empty plays none."""
    mistakes: Rate = 0.15
    """How often the assistant errs by itself, for each value of a description and for the name."""
    prompts: Annotated[int, Field(strict=True, ge=1)] = 1000
    """Of every campaign of the grid, always the same."""
    candidates: Annotated[int, Field(strict=True, ge=2)] = 4
    """Samples of West-of-N."""
    arms: Annotated[tuple[RmboostArm, ...], Field(min_length=1)] = (
        "real",
        "more_real",
        "rmboost",
        "rlaif",
        "rlaif_by_pair",
        "rlcd",
        "west_of_n",
        "real_rmboost",
        "real_rlaif",
        "real_rlcd",
        "real_west_of_n",
    )
    """What reward models learn from: real-like pairs, twice as many of them, the pairs of a method, or both together."""
    pairs: Annotated[int, Field(strict=True, ge=1)] = 700
    """Of each source at most."""
    real_noise: Rate = 0.1
    """Share of the real-like pairs whose label is wrong."""
    items: Annotated[int, Field(strict=True, ge=4)] = 300
    """Held-out pairs, real-like ones and mixed ones each, a random seed."""
    dialogues: Annotated[int, Field(strict=True, ge=1)] = 2000
    """Conversations with right answers, from which the first stage learns to talk."""
    language: SftSettings = SftSettings()
    """The first stage that all arms of a random seed share: a language model. Its `random_seed` and `out` are the lab's to fill in."""
    fit: RewardFitSettings = RewardFitSettings(model="tiny")
    """Each arm's training, from that stage on; its `model`, `tiny`, `random_seed` and `out` are the lab's to fill in, and a `mixture` is for the arms of two sources."""

    @model_validator(mode="after")
    def _a_grid_around_its_centre(self) -> "RmboostLabSettings":
        self.require_each_once("random_seeds", "judge_errors", "edit_failures", "verified_failures", "arms")
        for name in ("edit_failures", "verified_failures"):
            if list(getattr(self, name)) != sorted(getattr(self, name)):
                raise ValueError(f"{name}: sort them, the break-even line is read between neighbours")
        for value, name, known in (
            (self.judge_error, "judge_error", self.judge_errors),
            (self.edit_failure, "edit_failure", self.edit_failures),
        ):
            if value not in known:
                raise ValueError(f"{name}: {value:g} is not on the grid: add it to {name}s, or take one of them")
        if any("verified" in arm for arm in self.arms) and (
            self.edit_failure not in self.verified_failures or not self.judge_error
        ):
            raise ValueError(
                f"verified_failures: an arm learns from verified pairs, and they are not played at edit_failure {self.edit_failure:g}"
            )
        if "real" not in self.arms:
            raise ValueError(
                "arms: West-of-N picks by the reward model of `real`, and gains are measured against it: name it too"
            )
        return self
