"""Every setting of a language model's training: the user (`ask`), the assistant (`sft`), and preferences (`dpo`).

"Parrot" names a value that the paper states (arXiv 2310.07301); all other defaults are ours, and say so.
"""

from typing import Annotated, Literal

from pydantic import Field

from configs.base import Settings
from configs.fit_settings import FitSettings, PairSettings


class SessionSettings(Settings):
    """Which whole conversations are learned from. Splits are drawn by a conversation's first user turn, as seeds' are."""

    path: str | None = None
    """A corpus (.duckdb), a file of conversations (`.jsonl`, `.jsonl.gz`, `.parquet`), or a Hugging Face dataset's id. Null takes the corpus that the command line names with `--db`."""
    format: Literal[
        "auto", "messages", "mtbench101", "skywork", "ultrafeedback", "hh", "ultrainteract", "sharegpt", "ultrachat"
    ] = "auto"
    """The rows' shape; `auto` looks at the first one. Of preference data the chosen side is the conversation. For files."""
    skip_bad: bool = False
    """Leave out rows that are no conversation and count them, in place of refusing the file."""
    campaign: str | None = None
    """Only dialogues of this campaign (id or name); null takes all. For a corpus."""
    branches: tuple[str, ...] = ("main", "chosen")
    """Only dialogues of these branches. For a corpus, of which only dialogues that are done are read."""
    method: str | None = None
    """Only the chosen sides of pairs made by this method, such as `capo`; null asks for no pair. For a corpus."""
    perturbed: bool = False
    """Read dialogues too into which an error was injected that is not known to have missed. For a corpus."""
    distinct: bool = True
    """Of conversations that are equal, keep one."""
    limit: Annotated[int, Field(strict=True, ge=1)] | None = None
    """At most this many training conversations, drawn by chance from `random_seed`; null takes all. Other splits stay whole."""


class LoraSettings(Settings):
    """Low-rank adapters beside frozen weights, merged into them when the model is exported. All of it is ours: Parrot trains all weights."""

    rank: Annotated[int, Field(strict=True, ge=1)] = 16
    """Of the adapters' matrices."""
    alpha: Annotated[float, Field(gt=0.0)] = 32.0
    """Scale: the adapters' product is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of the adapters' inputs that chance sets to 0 in training."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which layers get one: all linear ones but the head, or layers by the ends of their names, such as `[q_proj, v_proj]`."""


class LanguageFitSettings(FitSettings):
    """What the trainings of a language model have in common."""

    model: str = "google/gemma-2-9b-it"
    """Where the weights start: a causal language model that transformers loads, by Hugging Face id or folder (ours; Parrot: LLaMA-13B), or `tiny` for random weights of the shape under `tiny`."""
    chat_template: str | None = None
    """How turns are written: null for the tokenizer's own template; `gemma`, `chatml` or `plain` (USER: and ASSISTANT:, each turn ended by the end-of-text token), or a file with a Jinja template, for a model without one, such as LLaMA-13B. The marks that a template needs become tokens of their own (ours; `plain` needs none)."""
    max_length: Annotated[int, Field(strict=True, ge=8)] = 4096
    """Tokens of a conversation (Parrot); a longer one is dropped and counted, never truncated (ours)."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] = 0.1
    """Passes over the training data while the learning rate rises from 0 (Parrot), at most the whole run."""
    batch_size: Annotated[int, Field(strict=True, ge=1)] = 32
    """Conversations (for `dpo` pairs) a step (Parrot)."""
    lora: LoraSettings | None = None
    """Train adapters alone; null trains all weights (Parrot)."""


class AskFitSettings(LanguageFitSettings):
    """A model of the user: the loss is on the user's turns, given all that was said before (Parrot-Ask)."""

    name: str = "ask"
    """What people call the run; part of its identity."""
    objective: Literal["ask"] = "ask"
    """What is learned."""
    data: SessionSettings = SessionSettings()
    """What is learned from (Parrot: 70K sessions of ShareGPT)."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-5
    """At its peak (Parrot)."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the training conversations (Parrot: 3); null with `steps` null means 3."""
    first_query: bool = True
    """Learn the first user turn too, so that the model can open a conversation (ours; Parrot's collection takes its first queries from real sessions)."""


class SftFitSettings(LanguageFitSettings):
    """A model of the assistant: the loss is on the answers (Parrot-Chat)."""

    name: str = "sft"
    """What people call the run; part of its identity."""
    objective: Literal["sft"] = "sft"
    """What is learned."""
    data: SessionSettings = SessionSettings()
    """What is learned from (Parrot: the 40K sessions that its own collection made)."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-5
    """At its peak (ours, as Parrot-Ask's)."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the training conversations; null with `steps` null means 3 (ours, as Parrot-Ask's)."""
    turns: Annotated[int, Field(strict=True, ge=1)] | None = None
    """Cut every conversation after so many answers (Parrot compares 1, 3, 5 and all); null takes all."""


class DpoFitSettings(LanguageFitSettings):
    """Preferences, learned by direct preference optimisation on top of a fine-tuned model (Parrot's CaPO)."""

    name: str = "dpo"
    """What people call the run; part of its identity."""
    objective: Literal["dpo"] = "dpo"
    """What is learned."""
    data: PairSettings = PairSettings()
    """What is learned from (Parrot: about 30K pairs, three rejected answers to one chosen)."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 1e-5
    """At its peak (Parrot)."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Passes over the training pairs; null with `steps` null means 1 (ours)."""
    beta: Annotated[float, Field(gt=0.0)] = 0.1
    """How strongly the model is held to the one it started from, which is the reference (ours; Parrot does not state it)."""
    trees: Literal["auto", "never"] = "auto"
    """`auto`: the sides of a group of pairs share their trunk in one sequence, where the model's architecture is known to take it; `never`: each side is a sequence of its own. Loss and gradients are equal (ours)."""
