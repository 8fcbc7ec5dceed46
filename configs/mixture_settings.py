"""How a training mixes several sets of pairs: shares, order, and what must not stand in it twice or at all.

RMBoost (arXiv 2407.16008) finds real and synthetic pairs together best; how it mixes them is not known to us, so all of
this is ours. What the settings do to pairs stands in `train.mixture`.
"""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from configs.base import Settings

DATA = "data"
"""What the set of a training is called that names no sets."""


class StageSettings(Settings):
    """A part of a curriculum. A bare list of sets is one too."""

    sets: Annotated[tuple[str, ...], Field(min_length=1)]
    """The sets that this stage trains on."""
    share: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Its share of the steps; stages with null divide what is left in proportion to their pairs."""

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"sets": value} if isinstance(value, list | tuple) else value


class MixtureSettings(Settings):
    """Sets of pairs in one training. Always: a prompt (first user turn) that is held out in one set is trained on in none, and the same two conversations count once. All of it is ours."""

    weights: dict[str, Annotated[float, Field(gt=0.0)]] = Field(default={})
    """Shares of the training pairs by set, such as `{real: 1, rmboost: 2}`, drawn by chance from `random_seed`; empty takes all. A set offers at most its `limit` to the draw."""
    size: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Training pairs of the whole mixture; null is the most that keeps the weights without repeating a pair. A larger one adds to a smaller one."""
    repeat: bool = False
    """Where a set has too few for `size`: repeat its pairs instead of refusing."""
    contradictions: Literal["drop", "keep"] = "drop"
    """The same two conversations with opposite labels: leave both pairs out, or keep them."""
    apart_from: tuple[str, ...] = ()
    """Files, data sets or corpora (such as RewardBench's) whose prompts must not be trained on."""
    order: Literal["union", "curriculum"] = "union"
    """`union` shuffles all sets together; `curriculum` trains on one stage after another."""
    stages: tuple[StageSettings, ...] = ()
    """Of a curriculum, such as `[[synthetic], [real, synthetic]]`; empty makes each set a stage, in the order of the sets."""

    @model_validator(mode="after")
    def _fits_together(self) -> "MixtureSettings":
        if self.size is not None and not self.weights:
            raise ValueError("size divides by weights: give weights too, or limit the sets (sets.NAME.limit)")
        if self.repeat and self.size is None:
            raise ValueError("repeat fills up to a size: give size too")
        if self.stages and self.order != "curriculum":
            raise ValueError("stages are a curriculum's: set order to curriculum")
        shares = [stage.share for stage in self.stages]
        given = sum(share for share in shares if share is not None)
        if None in shares and given > 1 - 1e-9:
            raise ValueError("the shares of the stages leave no step to those without one")
        if shares and None not in shares and abs(given - 1) > 1e-6:
            raise ValueError(f"the shares of the stages add up to {given:g}, not 1")
        return self

    def check(self, sets: Collection[str], arms: Collection[Collection[str]]) -> None:
        """Raises a ValueError where this names other sets than there are, or leaves one out."""
        used = {name for arm in arms for name in arm} if arms else set(sets)
        in_stages = {name for stage in self.stages for name in stage.sets}
        for key, named in (("weights", set(self.weights)), ("stages", in_stages)):
            known = ", ".join(sets)
            unknown, missing = sorted(named - set(sets)), [name for name in sets if name in used - named]
            if unknown:
                raise ValueError(f"mixture.{key}: no set is called {unknown[0]!r}; the sets are: {known}")
            if named and missing:
                raise ValueError(f"mixture.{key} says nothing of the set {missing[0]!r}: name it there, or drop it")
        stages = len(self.stages or sets)
        if self.order == "curriculum" and not arms and stages < 2:
            raise ValueError("mixture.order: a curriculum has at least two stages, and there is only one")

    def of_sets(self, names: Collection[str]) -> "MixtureSettings":
        """The same for some of the sets; the shares of the stages that stay are scaled up where no other can take the rest."""
        kept = [(stage, tuple(name for name in stage.sets if name in names)) for stage in self.stages]
        kept = [(stage, of_stage) for stage, of_stage in kept if of_stage]
        shares = [stage.share for stage, _ in kept]
        whole = 1.0 if None in shares else sum(share for share in shares if share is not None)
        stages = tuple(
            StageSettings(sets=of_stage, share=None if stage.share is None else min(1.0, stage.share / whole))
            for stage, of_stage in kept
        )
        weights = {name: weight for name, weight in self.weights.items() if name in names}
        return self.model_copy(update={"weights": weights, "stages": stages})
