"""Every setting of a later judging (`descant judge`), typed, with its default and the default's reason."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from configs.base import Settings
from configs.model_settings import Endpoint, ModelSettings, ModelsSettings, RoleSettings
from configs.settings import BudgetSettings

Rubric = Literal["compare", "score", "reference", "reference_compare", "realism"]
RESERVED = ("campaign", "best_of_n", "intended", "oracle")
"""Names that verdicts of other origin have."""


class JudgeModelsSettings(Settings):
    """The models that judge."""

    default: RoleSettings = RoleSettings(temperature=0.0)
    """What every judge falls back on. The temperature is 0 unless given (ours): a judge should say the same again."""
    judges: Annotated[tuple[RoleSettings, ...], Field(min_length=1)] = (RoleSettings(),)
    """Who judges: each gives verdicts of its own. Two with the same model string are told apart as `MODEL` and `MODEL#2`."""

    @field_validator("default")
    @classmethod
    def _steady(cls, value: RoleSettings) -> RoleSettings:
        return value if value.temperature is not None else value.model_copy(update={"temperature": 0.0})

    _endpoints: dict[str, Endpoint] = PrivateAttr(default_factory=dict)

    def served(self, endpoints: Mapping[str, Endpoint]) -> Self:
        """The same judges with the places where their checkpoints answer, which are never stored."""
        found = self.model_copy()
        found._endpoints = dict(endpoints)
        return found

    def as_roles(self) -> ModelsSettings:
        """The same as the models of a campaign in which only judges play."""
        return ModelsSettings(default=self.default, judges=self.judges).served(self._endpoints)

    def resolved(self) -> list[ModelSettings]:
        """The settings of each judge, with what it leaves open taken from `default`."""
        models = self.as_roles()
        return [models.of("judge", index) for index in range(len(self.judges))]

    def unnamed(self) -> bool:
        """Whether some judge has no model that somebody chose."""
        models = self.as_roles()
        return not all(models.is_named("judge", index) for index in range(len(self.judges)))


class JudgeSettings(Settings):
    """A judging: a set of verdicts on what a corpus already has."""

    name: str = "judge"
    """What the set of verdicts is called: `label_set` of its rows. The same name means the same set, which goes on."""
    rubric: Rubric = "compare"
    """`compare`: which side of a pair is better, asked in both orders (a verdict that flips is a tie). `score`: each conversation alone, from 1 to 10. `reference`: the same by right answers. `reference_compare`: pairs by right answers. `realism`: how like a person's the user's turns of a conversation are, from 1 to 10 (ours)."""
    per_turn: bool = False
    """Grade every answer alone, after the history before it, in place of the whole conversation; for `score` and `reference`."""
    otherwise: Literal["leave_out", "score"] = "leave_out"
    """With rubric `reference`, what becomes of an answer whose right answer nobody knows: it is left out, or graded without one (its row then says rubric `score`)."""
    references: str | None = None
    """A JSONL file of right answers; null takes `reference` from the seeds' metadata, as MT-Bench's seeds have it. A line names a seed by `seed_id`, or by `question_id` or `id` as its metadata does, and has `reference` (a text, or a list by turn); MT-Bench's files of reference answers are read as they are."""
    models: JudgeModelsSettings = JudgeModelsSettings()
    repairs: Annotated[int, Field(strict=True, ge=0)] = 2
    """Times a judge is asked again, with what was wrong, when its answer cannot be read (ours); then the verdict is `invalid`."""
    concurrency: Annotated[int, Field(strict=True, ge=1)] = 64
    """Verdicts in the making at once (ours)."""
    prompts: dict[str, str] = Field(default={})
    """Path of a file that replaces a prompt, by name: compare, reference_compare, score, score_turn, reference, reference_turn, realism."""
    budget: BudgetSettings = BudgetSettings()

    @field_validator("name")
    @classmethod
    def _usable_name(cls, value: str) -> str:
        if value in RESERVED:
            raise ValueError(f"the name {value!r} belongs to verdicts that campaigns make: choose another")
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", value):
            raise ValueError(f"{value!r:.60} is no name of a set: use letters, digits and . _ + -, at most 100")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> "JudgeSettings":
        if self.per_turn and self.compares:
            raise ValueError(f"per_turn grades single answers: with rubric {self.rubric}, drop it")
        if self.per_turn and self.rubric == "realism":
            raise ValueError("per_turn grades answers, and rubric realism the user: drop it")
        if self.references is not None and not self.by_reference:
            raise ValueError(f"references are for the rubrics reference and reference_compare, not {self.rubric}")
        if self.otherwise == "score" and self.rubric != "reference":
            raise ValueError(f"otherwise: score is for rubric reference: with rubric {self.rubric}, drop it")
        return self

    @property
    def compares(self) -> bool:
        """Whether the rubric wants two sides."""
        return self.rubric in ("compare", "reference_compare")

    @property
    def by_reference(self) -> bool:
        return self.rubric in ("reference", "reference_compare")

    @property
    def purpose(self) -> str:
        """The prompt that the rubric asks by."""
        return f"{self.rubric}_turn" if self.per_turn else self.rubric

    @property
    def purposes(self) -> tuple[str, ...]:
        """All prompts that the judges may be asked by."""
        plain = "score_turn" if self.per_turn else "score"
        return (self.purpose, plain) if self.otherwise == "score" else (self.purpose,)
