"""Every setting of a benchmark of assistants (`descant evaluate mtbench`), typed, with its default and the default's reason.

From them come the settings of a campaign that answers and of a judging that grades: `lab.mtbench`.
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from configs.base import Settings
from configs.model_settings import ModelsSettings
from configs.settings import BudgetSettings, GateSettings

Benchmark = Literal["mtbench", "mtbench++", "mtbench101"]
MTBENCH_TURNS, EXTENDED_TURNS = 2, 8
"""User turns of a question: MT-Bench's, and those of MT-Bench++ (Parrot)."""


class BenchmarkSettings(Settings):
    """An assistant on MT-Bench, on its extension, or on MT-Bench-101."""

    name: str = "mtbench"
    """What people call the run; part of its identity, and the beginning of its set of verdicts."""
    benchmark: Benchmark = "mtbench"
    """`mtbench`: two scripted turns a question. `mtbench++`: eight turns, from a file that has them, or MT-Bench's two and then the user simulator's (ours: Parrot's MT-Bench++ was written by people and is not public). `mtbench101`: each turn of a dialogue, after the gold turns before it."""
    questions: str | None = None
    """The questions' file: MT-Bench's `question.jsonl` (or one with more `turns`), or MT-Bench-101's `mtbench101.jsonl`."""
    references: str | None = None
    """MT-Bench's file of reference answers, by which math, coding and reasoning are graded; null takes what the questions bring. MT-Bench-101 brings its own."""
    turns: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Turns a question, for `mtbench++` alone; null: 8 (Parrot)."""
    random_seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] = 0
    """Of all chance in the run."""
    simulator: Literal["prompted", "trained"] = "prompted"
    """How the user's model is asked where it extends questions: as in a campaign."""
    gate: GateSettings | None = None
    """Checks on the queries of the simulator that extends; null lets every query pass."""
    concurrency: Annotated[int, Field(strict=True, ge=1)] = 64
    """Dialogues, and then verdicts, at once (ours)."""
    repairs: Annotated[int, Field(strict=True, ge=0)] = 2
    """Times a judge is asked again, with what was wrong, when its answer cannot be read (ours); then the verdict is `invalid`."""
    prompts: dict[str, str] = Field(default={})
    """Path of a file that replaces a prompt, by name: score_turn and reference_turn (the judges'), ask (the simulator's)."""
    models: ModelsSettings = ModelsSettings()
    """`assistant` answers, `judges` grade (each every turn; temperature 0 unless given), `user` is asked only where questions are extended."""
    budget: BudgetSettings = BudgetSettings()
    """For answers and verdicts together."""

    @field_validator("name")
    @classmethod
    def _usable_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,79}", value):
            raise ValueError(f"{value!r:.60} is no name of a run: use letters, digits and . _ + -, at most 80")
        return value

    @model_validator(mode="after")
    def _fitting(self) -> "BenchmarkSettings":
        if self.benchmark != "mtbench++":
            for key in ("turns", "gate"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} is for benchmark mtbench++: with benchmark {self.benchmark}, drop it")
        if self.benchmark == "mtbench101" and self.references is not None:
            raise ValueError("references: MT-Bench-101's dialogues bring their own right answers: drop it")
        return self

    @property
    def turns_played(self) -> int:
        """Turns a question; of MT-Bench-101 the one that is answered."""
        if self.benchmark == "mtbench101":
            return 1
        return self.turns or (EXTENDED_TURNS if self.benchmark == "mtbench++" else MTBENCH_TURNS)
