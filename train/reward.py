"""A reward model from preference pairs: the Bradley-Terry loss and what a step of it is; the loop stands in `train.loop`.

After MUSIC (arXiv 2512.24693): one reward for a whole conversation, read at its last token; no margin and no centring
unless asked for. The paper does not state its optimiser, schedule, warm-up and weight decay: AdamW with a cosine and 3 %
warm-up is our choice. Batches are sorted by length, which the paper does not speak of either.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from configs.fit_settings import RewardFitSettings
from store.identity import fit_id as fit_identity
from store.records import PreferencePair
from train.backbone import backbone_card, freeze_date, positions_of, settle_embeddings, settle_tokens
from train.batches import plan_batches, plan_stages
from train.checkpoint import save_model
from train.data import Encoded, EncodedPair, data_card, encode_pairs, is_corpus, pairs_hash
from train.errors import TrainError
from train.loop import Show, Task, folder_of, matrices_decay, origin_of, rising_and_falling, run_fit
from train.model import load_model, rewards, tiny_model
from train.score import model_source, score_tokens
from train.sources import Undecided, gather, places_of_stages, stages_of
from train.sources_card import mixture_card, sources_card
from train.tokenizer import load_tokenizer, train_tokenizer

MUSIC_STEPS = 2500

# Shapes: P comparisons (pairs, or answers of pairs).


class FitResult(NamedTuple):
    """A finished fit."""

    fit_id: str
    model_dir: Path
    steps: int
    already_done: bool
    """The folder held this fit, finished; nothing was done."""
    seconds: float
    data_card: dict[str, Any]
    validation_accuracy: float | None


def bradley_terry(
    chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | None = None, centering: float = 0.0
) -> Tensor:
    """The loss of each comparison.

        loss = -log sigmoid(r_chosen - r_rejected - margin) + centering * (r_chosen + r_rejected)^2

    The first term is Bradley and Terry's likelihood that chosen wins (MUSIC, margin 0); equal rewards cost ln 2. The
    second keeps rewards around 0, which the first leaves open.
    """
    difference_P = chosen_P - rejected_P
    if margin_P is not None:
        difference_P = difference_P - margin_P
    loss_P = -logsigmoid(difference_P)
    if centering:
        loss_P = loss_P + centering * (chosen_P + rejected_P).square()
    return loss_P


def learning_rate_at(step: int, steps: int, settings: RewardFitSettings) -> float:
    """The learning rate of step `step`, from 1."""
    rise = math.ceil(settings.warmup * steps)
    return settings.learning_rate * rising_and_falling(step, steps, rise=rise, schedule=settings.schedule)


def compare(
    model: Any, pairs: Sequence[EncodedPair], device: torch.device, *, pad_token_id: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """chosen_P, rejected_P, margin_P and weight_P of all comparisons of `pairs`; a pair's weights add up to 1.

    Both sides of a pair go through the model together, what they begin with once.
    """
    rows = [row for row, pair in enumerate(pairs) for _ in pair.ends]
    readings = [(2 * row, chosen) for row, pair in enumerate(pairs) for chosen, _ in pair.ends]
    readings += [(2 * row + 1, rejected) for row, pair in enumerate(pairs) for _, rejected in pair.ends]
    groups = [[pair.chosen, pair.rejected] for pair in pairs]
    reward_N = rewards(model, groups, readings, pad_token_id=pad_token_id, device=device)
    margin_P = torch.tensor([pairs[row].margin for row in rows], device=device)
    weight_P = torch.tensor([1.0 / len(pairs[row].ends) for row in rows], device=device)
    return reward_N[: len(rows)], reward_N[len(rows) :], margin_P, weight_P


def fit_reward(
    settings: RewardFitSettings,
    *,
    progress: Show | None = None,
    pairs: Sequence[PreferencePair] | None = None,
    sets: Mapping[str, Sequence[PreferencePair]] | None = None,
    undecided: Undecided | None = None,
    corpus: Path | None = None,
    arm: str | None = None,
) -> FitResult:
    """Train a reward model, or go on with one; a finished run is left as it is.

    Args:
        progress: called after each step.
        pairs: train on these instead of reading `settings.data`.
        sets: train on these instead of reading `settings.sets`: their union, or mixed as `settings.mixture` says.
        undecided: what the files of these sets held that makes no pair, for the data card.
        corpus: where the fit and its curves are kept too; the data's own corpus when it is one.
        arm: which training of a comparison this is.

    Raises:
        TrainError: no pairs, all of them too long, a mixture that they do not give, a folder that holds another run.
        StoppedError: the loss is not a finite number.
        InterruptedFitError: Ctrl-C while it trained.
    """
    if corpus is None and pairs is None and sets is None and settings.data.path and is_corpus(Path(settings.data.path)):
        corpus = Path(settings.data.path)
    gathered = gather(settings, pairs, sets, undecided)
    all_pairs, stages = gathered.pairs, stages_of(settings, gathered)
    rows = list(zip(all_pairs, gathered.names, strict=True))
    split_rows = {split: [row for row in rows if row[0].split == split] for split in ("train", "validation")}
    split_rows["validation"] = split_rows["validation"][: settings.evaluate_limit]
    by_split = {split: [pair for pair, _ in of_split] for split, of_split in split_rows.items()}
    names = {split: [name for _, name in of_split] for split, of_split in split_rows.items()}
    if not by_split["train"]:
        raise TrainError(f"none of the {len(all_pairs)} pairs is in the train split: take more seeds")
    shape = settings.identity() | {"model": origin_of(settings.model)}
    shape |= {"data": pairs_hash(by_split["train"]), "arm": arm}
    if stages:  # a mixture that only changes which pairs there are is told by the pairs
        shape["curriculum"] = [
            [stage.share, pairs_hash([pair for pair, name in split_rows["train"] if name in stage.sets])]
            for stage in stages
        ]
    fit_id = fit_identity(settings.name, "reward", shape)
    out = folder_of(settings)
    if settings.model != "tiny" and not (out / "run.json").exists():
        model_source(settings.model)  # before the folder is claimed: a mistyped id is mended and run again
    has_sets = sets is not None or bool(settings.sets and pairs is None)
    source = " + ".join(gathered.read) if has_sets else settings.data.path or "given"

    def prepare(out: Path, device: torch.device, resumed: Path | None) -> Task:
        del out
        model, tokenizer = _model_and_tokenizer(settings, resumed, by_split["train"])
        model = model.to(device).train()
        every_answer = settings.read_at == "every_answer"
        encoded = {
            split: encode_pairs(of_split, tokenizer, max_length=settings.max_length, every_answer=every_answer)
            for split, of_split in by_split.items()
        }
        if not encoded["train"].pairs:
            raise TrainError(
                f"all {len(by_split['train'])} training pairs are longer than max_length {settings.max_length}: raise it"
            )
        train = encoded["train"]
        steps = _steps(settings, len(train.pairs))
        places = places_of_stages(stages, [names["train"][place] for place in train.places], steps) if stages else []
        named = gathered.mixture.sets if has_sets else None
        card = data_card(source, all_pairs, encoded, max_length=settings.max_length, sets=named)
        card["backbone"] = backbone_card(model, tokenizer)
        card["sources"] = sources_card(settings, gathered, names, encoded)
        told = [(stage, *of_stage) for stage, of_stage in zip(stages, places, strict=True)]
        card["mixture"] = mixture_card(settings, gathered, told)
        return _task(settings, model, tokenizer, encoded, card, device, _plan(settings, train.pairs, places, steps))

    finished = run_fit(
        settings,
        fit_id=fit_id,
        objective="reward",
        prepare=prepare,
        summary=lambda validation: {"validation_accuracy": validation.get("accuracy")},
        corpus=corpus,
        arm=arm,
        progress=progress,
    )
    return FitResult(**finished.found, model_dir=out / "model", already_done=finished.already_done)


def _steps(settings: RewardFitSettings, pairs: int) -> int:
    a_pass = math.ceil(pairs / settings.batch_size)
    return math.ceil(settings.epochs * a_pass) if settings.epochs else settings.steps or MUSIC_STEPS


def _plan(
    settings: RewardFitSettings, train: Sequence[EncodedPair], stages: Sequence[tuple[Sequence[int], int]], steps: int
) -> list[list[int]]:
    """Which pairs each step takes."""
    if stages:
        return plan_stages(train, stages, batch_size=settings.batch_size, random_seed=settings.random_seed)
    return plan_batches(
        train,
        batch_size=settings.batch_size,
        steps=steps,
        random_seed=settings.random_seed,
        short_first_share=settings.short_first_share if settings.order == "short_first" else None,
    )


def _model_and_tokenizer(
    settings: RewardFitSettings, resumed: Path | None, train_pairs: Sequence[PreferencePair]
) -> tuple[Any, Any]:
    """From the newest checkpoint, else from where the settings say."""
    if resumed is not None:
        tokenizer = load_tokenizer(str(resumed))
        return load_model(resumed, tokenizer), tokenizer
    if settings.model == "tiny":
        texts = [message.content for pair in train_pairs for side in (pair.chosen, pair.rejected) for message in side]
        tokenizer = train_tokenizer(
            texts, vocab_size=settings.tiny.vocab_size, max_length=settings.max_length, family=settings.tiny.family
        )
        settle_tokens(tokenizer)
        model = tiny_model(settings.tiny, tokenizer, max_length=settings.max_length, random_seed=settings.random_seed)
        return model, tokenizer
    source = model_source(settings.model)
    tokenizer = load_tokenizer(source)
    freeze_date(tokenizer)
    settle_tokens(tokenizer)
    model = load_model(source, tokenizer, random_seed=settings.random_seed)
    settle_embeddings(model, tokenizer)
    positions = positions_of(model.config) or settings.max_length
    if settings.max_length > positions:
        raise TrainError(
            f"max_length {settings.max_length} is more than the {positions} positions of {settings.model!r}"
        )
    tokenizer.model_max_length = settings.max_length
    return model, tokenizer


def _task(
    settings: RewardFitSettings,
    model: Any,
    tokenizer: Any,
    encoded: Mapping[str, Encoded],
    card: dict[str, Any],
    device: torch.device,
    plan: Sequence[Sequence[int]],
) -> Task:
    """What the loop needs to know of the pairs and their loss."""
    train = encoded["train"].pairs

    def slices(batch: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        pairs = [train[place] for place in batch]
        size = math.ceil(len(pairs) / settings.accumulate)
        for start in range(0, len(pairs), size):
            chosen_P, rejected_P, margin_P, weight_P = compare(
                model, pairs[start : start + size], device, pad_token_id=tokenizer.pad_token_id
            )
            loss_P = bradley_terry(chosen_P, rejected_P, margin_P if settings.margin else None, settings.centering)
            loss = (loss_P * weight_P).sum() / len(pairs)
            with torch.no_grad():
                won_P = (chosen_P > rejected_P).float() + 0.5 * (chosen_P == rejected_P).float()
                parts_FP = torch.stack([loss_P, won_P, chosen_P - rejected_P, (chosen_P + rejected_P) / 2])
                figures_F = (parts_FP * weight_P).sum(dim=1) / len(pairs)
            yield loss, figures_F

    def validate() -> dict[str, float]:
        return _validate(model, encoded["validation"].pairs, tokenizer.pad_token_id, device)

    return Task(
        model=model,
        tokenizer=tokenizer,
        optimizer=matrices_decay(model, settings),
        plan=plan,
        figures=("loss", "accuracy", "margin", "reward"),
        slices=slices,
        tokens=lambda batch: sum(len(train[place].chosen) + len(train[place].rejected) for place in batch),
        size=len,
        names=lambda batch: [train[place].pair_id for place in batch],
        validate=validate,
        export=lambda folder, origin: save_model(folder, model, tokenizer, origin),
        card=card,
        rise=math.ceil(settings.warmup * len(plan)),
    )


def _validate(model: Any, pairs: Sequence[EncodedPair], pad_token_id: int, device: torch.device) -> dict[str, float]:
    """Share of whole conversations that chosen wins, ties as half."""
    if not pairs:
        return {}
    sequences = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    model.eval()
    found = score_tokens(model, sequences, pad_token_id=pad_token_id, device=device, batch_size=32)
    model.train()
    won = [(c > r) + 0.5 * (c == r) for c, r in zip(found[: len(pairs)], found[len(pairs) :], strict=True)]
    return {"accuracy": sum(won) / len(won)}
