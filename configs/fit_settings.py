"""Every setting of a training run, typed, with its default and where it comes from.

"MUSIC" names a value that the paper states (arXiv 2512.24693); all other defaults are ours, and say so.
What the settings mean to a model stands in `train`; campaigns have their own settings in `configs.settings`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from configs.base import Settings
from configs.mixture_settings import DATA, MixtureSettings


class TinySettings(Settings):
    """The shape of a model that starts from random weights, small enough for one CPU core. All of it is ours."""

    family: Literal["gemma2", "gemma3", "llama", "qwen2", "qwen3", "mistral"] = "gemma2"
    """Whose architecture, special tokens and chat format it has (MUSIC: Gemma-2)."""
    hidden_size: Annotated[int, Field(strict=True, ge=8)] = 128
    """Width of the residual stream."""
    intermediate_size: Annotated[int, Field(strict=True, ge=8)] = 256
    """Width of the gated feed-forward layer."""
    layers: Annotated[int, Field(strict=True, ge=1)] = 2
    """Decoder layers; a Gemma's alternate sliding and full attention, as Gemma-2's do."""
    heads: Annotated[int, Field(strict=True, ge=1)] = 4
    """Query heads."""
    kv_heads: Annotated[int, Field(strict=True, ge=1)] = 2
    """Key and value heads; divides `heads`."""
    vocab_size: Annotated[int, Field(strict=True, ge=270)] = 1024
    """Tokens at most; a small corpus gives fewer. The 256 bytes are always among them, so any text can be read."""
    initializer_range: Annotated[float, Field(gt=0.0)] = 0.08
    """Standard deviation of the first weights. Gemma's 0.02 is made for wider layers: a tiny model learns slowly from it."""
    sliding_window: Annotated[int, Field(strict=True, ge=1)] = 4096
    """Tokens that a sliding layer sees (Gemma-2: 4096); for the Gemmas, and for all layers of a `mistral`."""
    attention_softcap: Annotated[float, Field(gt=0.0)] = 50.0
    """Where attention logits are capped (Gemma-2: 50), of a `gemma2` alone."""

    @model_validator(mode="after")
    def _heads_divide(self) -> "TinySettings":
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        return self

    @model_serializer(mode="wrap")
    def _as_before_there_were_families(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A Gemma-2 says nothing of its family, so that its fits keep their ids."""
        found: dict[str, Any] = dump(self)
        if self.family == "gemma2":
            found.pop("family", None)
        return found


class PairSettings(Settings):
    """Which preference pairs are learned from. Splits come with the pairs, by seed, and are never drawn here."""

    path: str | None = None
    """A corpus (.duckdb), a preference file (JSONL or Parquet), or a Hugging Face dataset's id. Null takes the corpus that the command line names with `--db`."""
    campaign: str | None = None
    """Only pairs of this campaign (id or name); null takes all. For a corpus."""
    method: str | None = None
    """Only pairs made by this method, such as `music`; null takes all."""
    limit: Annotated[int, Field(strict=True, ge=1)] | None = None
    """At most this many training pairs, drawn by chance from `random_seed`; null takes all. Other splits stay whole."""


class FitSettings(Settings):
    """What every training of weights has in common; the figures that a paper states stand in the objectives' own settings."""

    name: str
    """What people call the run; part of its identity."""
    model: str
    """Where the weights start: a Hugging Face id or a folder, or `tiny` for random weights of the shape under `tiny`."""
    tiny: TinySettings = TinySettings()
    """Read only with `model: tiny`."""
    max_length: Annotated[int, Field(strict=True, ge=8)]
    """Tokens of a conversation; what is longer is dropped and counted, never truncated."""
    learning_rate: Annotated[float, Field(gt=0.0)]
    """At its peak."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up; cosine and linear end at 0 (Parrot: cosine; for MUSIC ours)."""
    batch_size: Annotated[int, Field(strict=True, ge=1)]
    """Pairs or conversations a step."""
    accumulate: Annotated[int, Field(strict=True, ge=1)] = 1
    """In how many slices a step's batch goes through the model, to save memory; the gradient is the whole batch's (ours)."""
    steps: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Optimiser steps."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the training data, instead of `steps`."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """AdamW's, on matrices only (ours)."""
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest norm of a step's gradient (ours)."""
    random_seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Of the first weights and the order of the data."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Weights are fp32 always; bf16 makes the matrix products in bf16 (autocast on a GPU, torch's matmul precision on a CPU that has it) (ours)."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them (ours)."""
    evaluate_every: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Steps between measurements on the validation split; null measures once, at the end (ours)."""
    evaluate_limit: Annotated[int, Field(strict=True, ge=1)] = 500
    """Validation pairs or conversations at most, from the front (ours)."""
    checkpoint_every: Annotated[int, Field(strict=True, ge=1)] = 500
    """Steps between checkpoints; the last step always makes one (ours)."""
    keep: Annotated[int, Field(strict=True, ge=1)] = 2
    """Checkpoints kept, the newest (ours)."""
    out: str | None = None
    """Folder of the run; null is `fits/<name>`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    @model_validator(mode="after")
    def _one_length(self) -> "FitSettings":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("steps and epochs are both given: drop one of the two")
        return self

    def identity(self) -> dict[str, Any]:
        """What shapes the weights: not where the data lies, where the run is kept, how often it is watched, or on what it runs."""
        unseen = {
            "name",
            "data",
            "sets",
            "arms",
            "mixture",  # its pairs and stages are part of the identity as they are drawn
            "evaluate_every",
            "evaluate_limit",
            "checkpoint_every",
            "keep",
            "out",
            "device",
        }
        if self.model != "tiny":
            unseen.add("tiny")
        return self.model_dump(mode="json", exclude=unseen)


class RewardFitSettings(FitSettings):
    """A reward model trained on whole conversations with the Bradley-Terry loss."""

    name: str = "reward"
    """What people call the run; part of its identity."""
    objective: Literal["reward"] = "reward"
    """What is learned."""
    model: str = "google/gemma-2-9b-it"
    """Where the weights start: a Hugging Face id or a folder (MUSIC: Gemma-2-9B-Instruct), or `tiny` for random weights of the shape under `tiny`."""
    data: PairSettings = PairSettings()
    """What is learned from, where there are no `sets`."""
    sets: dict[str, PairSettings] = Field(default={})
    """Sets of pairs by name. Without `arms`, one training learns from all of them."""
    arms: dict[str, tuple[str, ...]] = Field(default={})
    """Trainings to compare: which sets each learns from. Each is a fit of its own in `out`/ARM."""
    mixture: MixtureSettings | None = None
    """How sets are mixed, and what is left out of them; null is their plain union (MUSIC). Arms mix their sets alike."""
    max_length: Annotated[int, Field(strict=True, ge=8)] = 2048
    """Tokens of a conversation (MUSIC); a pair with a longer side is dropped and counted, never truncated."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 2e-6
    """At its peak (MUSIC)."""
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.03
    """Share of the steps over which the learning rate rises from 0 (ours)."""
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 64
    """Pairs a step (MUSIC)."""
    steps: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Optimiser steps (MUSIC: 2,500). Null with `epochs` null means 2,500."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the training pairs, instead of `steps`."""
    read_at: Literal["end", "every_answer"] = "end"
    """Where the reward is compared: at the conversation's last token (MUSIC), or at the end of every answer from the first that differs on, each a pair of prefixes (ours)."""
    margin: bool = False
    """Ask chosen to win by the pair's margin, where it has one (MUSIC: none)."""
    centering: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the squared sum of a pair's rewards, which keeps rewards around 0 (MUSIC: none)."""
    order: Literal["shuffled", "short_first"] = "shuffled"
    """`shuffled` batches of like length; `short_first` begins with the conversations of fewest turns and adds the longer ones, a curriculum (ours)."""
    short_first_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """With `short_first`: after this share of the steps all pairs are in (ours)."""

    @model_validator(mode="after")
    def _arms_of_known_sets(self) -> "RewardFitSettings":
        for arm, names in self.arms.items():
            unknown = [name for name in names if name not in self.sets]
            if unknown or not names:
                known = ", ".join(self.sets) or "none is named"
                problem = f"no set is called {unknown[0]!r}" if unknown else "it names no set"
                raise ValueError(f"arms.{arm}: {problem}; the sets are: {known}")
        if self.arms and self.epochs is not None:
            raise ValueError("arms are compared at equal steps, and epochs differ with their sizes: give steps")
        if self.sets and not self.arms and self.data != PairSettings():
            raise ValueError("data and sets are both given: make the data one of the sets, or drop one of the two")
        return self

    @model_validator(mode="after")
    def _mixture_of_known_sets(self) -> "RewardFitSettings":
        if self.mixture is None:
            return self
        self.mixture.check(tuple(self.sets) or (DATA,), tuple(self.arms.values()))
        if self.mixture.order == "curriculum" and self.order == "short_first":
            raise ValueError("order: short_first and mixture.order: curriculum are two curricula: choose one")
        return self


class SftSettings(Settings):
    """A tiny language model trained on the answers of conversations. All of it is ours."""

    name: str = "sft"
    """What people call the run; part of its identity."""
    tiny: TinySettings = TinySettings()
    """The shape of the model, which starts from random weights."""
    max_length: Annotated[int, Field(strict=True, ge=8)] = 2048
    """Tokens of a conversation; longer ones are left out."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-3
    """At its peak."""
    warmup: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.06
    """Share of the steps over which the learning rate rises from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 16
    """Conversations a step."""
    steps: Annotated[int, Field(strict=True, ge=1)] = 800
    """Optimiser steps."""
    gradient_clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest norm of a step's gradient."""
    random_seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    """Of the first weights and the order of the conversations."""
    out: str | None = None
    """Folder of the run; null is `fits/<name>`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one."""

    def identity(self) -> dict[str, Any]:
        """What shapes the weights."""
        return self.model_dump(mode="json", exclude={"name", "out", "device"})
