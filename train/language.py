"""A language model from whole conversations: of the user (`ask`) or of the assistant (`sft`).

    loss = mean over the targets of a batch of -log p(token | everything before it)

After Parrot (arXiv 2310.07301): Parrot-Ask learns the user's turns given all that was said before, the inverse of an
ordinary fine-tuning, which learns the answers. The paper trains LLaMA-13B with all its weights; batches of like length,
AdamW's betas, gradient clipping and what happens to over-long conversations are ours. The loop stands in `train.loop`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from configs.language_settings import AskFitSettings, LanguageFitSettings, SftFitSettings
from store.identity import fit_id as fit_identity
from train.batches import plan_batches
from train.causal import causal_model, export_model, target_losses
from train.data import is_corpus
from train.errors import TrainError
from train.loop import Finished, Show, Task, folder_of, matrices_decay, origin_of, run_fit
from train.reading import alike
from train.score import model_source
from train.sessions import (
    EncodedSession,
    Session,
    Sessions,
    encode_sessions,
    limited_sessions,
    read_sessions,
    session_card,
    sessions_hash,
)

PARROT_EPOCHS = 3.0

# Shapes: B conversations, T tokens, A targets.


class LanguageFitResult(NamedTuple):
    """A finished fit of a language model."""

    fit_id: str
    model_dir: Path
    steps: int
    already_done: bool
    """The folder held this fit, finished; nothing was done."""
    seconds: float
    data_card: dict[str, Any]
    validation_loss: float | None
    """Mean over the held-out targets (for `dpo` pairs); a language model's perplexity is its exponential."""
    validation_accuracy: float | None = None
    """`dpo`: share of held-out pairs that chosen wins."""


def fit_language(
    settings: AskFitSettings | SftFitSettings,
    *,
    sessions: Sequence[Session] | None = None,
    corpus: Path | None = None,
    arm: str | None = None,
    progress: Show | None = None,
) -> LanguageFitResult:
    """Train a model of the user or of the assistant, or go on with one; a finished run is left as it is.

    Args:
        sessions: train on these instead of reading `settings.data`.
        corpus: where the fit and its curves are kept too; the data's own corpus when it is one.
        arm: which training of a comparison this is.

    Raises:
        TrainError: no conversations, all of them too long, a folder that holds another run.
        StoppedError: the loss is not a finite number.
        InterruptedFitError: Ctrl-C while it trained.
    """
    corpus = corpus_beside(settings, corpus, given=sessions is not None)
    found = Sessions(list(sessions), [], 0) if sessions is not None else read_sessions(settings.data)
    of_all = limited_sessions(found.sessions, settings.data.limit, random_seed=settings.random_seed)
    by_split = {split: [one for one in of_all if one.split == split] for split in ("train", "validation")}
    by_split["validation"] = by_split["validation"][: settings.evaluate_limit]
    if not by_split["train"]:
        raise TrainError(f"none of the {len(of_all)} conversations is in the train split: take more")
    source = settings.data.path or "given" if sessions is None else "given"

    def prepare(out: Path, device: torch.device, resumed: Path | None) -> Task:
        del out
        texts = [message.content for session in by_split["train"] for message in session.messages]
        model, tokenizer = causal_model(settings, resumed, texts)
        model = model.to(device).train()
        encoded = {split: encode_sessions(settings, of_split, tokenizer) for split, of_split in by_split.items()}
        train = encoded["train"]
        if not train.sessions:
            raise TrainError(
                f"none of {len(by_split['train'])} training conversations can be learned from: {train.counts['too_long']} are "
                f"longer than max_length {settings.max_length}, {train.counts['nothing_to_learn']} have no turn to learn, "
                f"{train.counts['imitates_marks']} hold the template's own marks"
            )
        card = session_card(source, of_all, encoded, max_length=settings.max_length)
        card |= {"skipped": len(found.skipped), "repeated": found.repeated}
        return _task(settings, model, tokenizer, train.sessions, encoded["validation"].sessions, card, device)

    finished = run_fit(
        settings,
        fit_id=identity_of(settings, sessions_hash(by_split["train"]), arm),
        objective=settings.objective,
        prepare=prepare,
        summary=lambda validation: {"validation_loss": validation.get("loss")},
        corpus=corpus,
        arm=arm,
        progress=progress,
    )
    return result_of(settings, finished)


def corpus_beside(settings: AskFitSettings | SftFitSettings | Any, corpus: Path | None, *, given: bool) -> Path | None:
    """Where a fit is kept beside its folder: the named corpus, or the one that its data stand in."""
    path = settings.data.path
    return Path(path) if corpus is None and not given and path and is_corpus(Path(path)) else corpus


def identity_of(settings: LanguageFitSettings, data: str, arm: str | None) -> str:
    """The fit's id; a start model that is not there is an error before a folder is claimed for the run."""
    if settings.model != "tiny" and not (folder_of(settings) / "run.json").exists():
        model_source(settings.model)
    shape = settings.identity() | {"model": origin_of(settings.model), "data": data, "arm": arm}
    return fit_identity(settings.name, str(shape["objective"]), shape)


def result_of(settings: LanguageFitSettings, finished: Finished) -> LanguageFitResult:
    return LanguageFitResult(
        **finished.found, model_dir=folder_of(settings) / "model", already_done=finished.already_done
    )


def steps_and_rise(settings: LanguageFitSettings, items: int, default_epochs: float) -> tuple[int, int]:
    """How many steps a run has, and over how many the learning rate rises."""
    a_pass = math.ceil(items / settings.batch_size)
    epochs = settings.epochs or default_epochs
    steps = settings.steps or math.ceil(epochs * a_pass)
    return steps, min(steps, math.ceil(settings.warmup_epochs * a_pass))


def _task(
    settings: AskFitSettings | SftFitSettings,
    model: Any,
    tokenizer: Any,
    train: Sequence[EncodedSession],
    validation: Sequence[EncodedSession],
    card: dict[str, Any],
    device: torch.device,
) -> Task:
    steps, rise = steps_and_rise(settings, len(train), PARROT_EPOCHS)
    plan = plan_batches(train, batch_size=settings.batch_size, steps=steps, random_seed=settings.random_seed)

    def export(folder: Path, origin: dict[str, Any]) -> None:
        export_model(folder, model, tokenizer, origin | {"base": settings.model}, asks=settings.objective == "ask")

    return language_task(
        settings,
        model,
        tokenizer,
        train,
        plan,
        optimizer=matrices_decay(model, settings),
        validate=lambda: validation_loss(model, validation, tokenizer.pad_token_id, device, settings.batch_size),
        export=export,
        card=card,
        rise=rise,
        device=device,
    )


def language_task(
    settings: AskFitSettings | SftFitSettings,
    model: Any,
    tokenizer: Any,
    train: Sequence[EncodedSession],
    plan: Sequence[Sequence[int]],
    *,
    optimizer: torch.optim.Optimizer,
    validate: Callable[[], dict[str, float]],
    export: Callable[[Path, dict[str, Any]], None],
    card: dict[str, Any],
    rise: int,
    device: torch.device,
) -> Task:
    """What the loop needs to know of conversations and their loss."""

    def slices(batch: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        of_batch = [train[place] for place in batch]
        targets = sum(session.n_targets for session in of_batch)
        size = math.ceil(len(of_batch) / settings.accumulate)
        for start in range(0, len(of_batch), size):
            loss = summed_loss(model, of_batch[start : start + size], tokenizer.pad_token_id, device) / targets
            yield loss, loss.detach()[None]

    return Task(
        model=model,
        tokenizer=tokenizer,
        optimizer=optimizer,
        plan=plan,
        figures=("loss",),
        slices=slices,
        tokens=lambda batch: sum(train[place].tokens for place in batch),
        size=len,
        names=lambda batch: [train[place].session_id for place in batch],
        validate=validate,
        export=export,
        card=card,
        rise=rise,
    )


def summed_loss(model: Any, sessions: Sequence[EncodedSession], pad_token_id: int, device: torch.device) -> Tensor:
    """The sum of the losses of all targets."""
    order = alike([session.ids for session in sessions])
    groups = [[sessions[place].ids for place in group] for group in order]
    targets = [sessions[place].targets for group in order for place in group]
    return target_losses(model, groups, targets, pad_token_id=pad_token_id, device=device).sum()


@torch.no_grad()
def validation_loss(
    model: Any, sessions: Sequence[EncodedSession], pad_token_id: int, device: torch.device, batch_size: int
) -> dict[str, float]:
    """Mean loss over the targets of held-out conversations, and its exponential."""
    if not sessions:
        return {}
    model.eval()
    by_length = sorted(sessions, key=lambda session: session.tokens)
    total = sum(
        summed_loss(model, by_length[start : start + batch_size], pad_token_id, device).item()
        for start in range(0, len(by_length), batch_size)
    )
    model.train()
    mean = total / sum(session.n_targets for session in sessions)
    return {"loss": mean, "perplexity": math.exp(min(mean, 700.0))}
