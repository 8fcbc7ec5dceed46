"""Direct preference optimisation on whole conversations, as Parrot's CaPO uses it on top of a fine-tuned model.

    loss = -log sigmoid(beta * ((log pi(c) - log ref(c)) - (log pi(r) - log ref(r))))

log pi of a side is the sum over its answers' tokens, end marks too, from the first answer that differs on; what the user
says there is conditioned on. ref is the model that the training starts from: its log-probabilities are computed once,
and kept in the run's folder. After Parrot (arXiv 2310.07301): standard DPO, learning rate 1e-5, batch 32; beta, which the
paper does not state, is ours. Several rejected answers to one chosen go through the model as one stream (`train.stream`), which
changes neither loss nor gradients. Differs from TRL's data: the line's end behind Gemma's end mark carries no loss here.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import logsigmoid

from configs.language_settings import DpoFitSettings
from store.identity import content_hash
from store.records import Message, PreferencePair
from train.batches import plan_batches
from train.causal import causal_model, causal_of, export_model, start_model, target_losses
from train.data import data_card, limited, pairs_hash, pairs_of
from train.errors import TrainError
from train.language import LanguageFitResult, corpus_beside, identity_of, result_of, steps_and_rise
from train.loop import Show, Task, matrices_decay, run_fit
from train.masks import IGNORED, Reader
from train.model import computing, fitting_threads
from train.reading import why_no_streams
from train.stream import stream_of

EPOCHS = 1.0
REFERENCE = "reference.safetensors"

# Shapes: P pairs, S sequences, A targets, B rows, T tokens.


class Contrast(NamedTuple):
    """One rejected side of a group."""

    pair_id: str
    chosen_from: int
    """The chosen side's targets count from this token on."""
    rejected_from: int


class Group(NamedTuple):
    """Pairs with one chosen side."""

    sequences: list[list[int]]
    """The chosen side's tokens, then those of each rejected side."""
    targets: list[list[int]]
    contrasts: list[Contrast]
    n_turns: int
    tokens: int
    """Of the group as a tree."""

    @property
    def size(self) -> int:
        return len(self.contrasts)


class EncodedGroups(NamedTuple):
    """What a split became."""

    groups: list[Group]
    kept: list[PreferencePair]
    """The pairs in them as text, in the order of the groups and of what is in them."""
    counts: dict[str, int]


def dpo_loss(
    chosen_P: Tensor, rejected_P: Tensor, reference_chosen_P: Tensor, reference_rejected_P: Tensor, *, beta: float
) -> Tensor:
    """The loss of each pair, from the log-probabilities of its sides.

    loss = -log sigmoid(beta * ((chosen - reference_chosen) - (rejected - reference_rejected)))
    """
    return -logsigmoid(beta * ((chosen_P - reference_chosen_P) - (rejected_P - reference_rejected_P)))


def encode_groups(pairs: Sequence[PreferencePair], tokenizer: Any, *, max_length: int) -> EncodedGroups:
    """All pairs whose sides both fit into `max_length`, grouped by their chosen side, with counts of the others.

    Raises:
        TrainError: a pair whose turns do not alternate, or a template that cannot be used.
    """
    reader = Reader(tokenizer)
    counts = Counter(
        pairs=len(pairs), kept=0, dropped=0, chosen_too_long=0, rejected_too_long=0, equal=0, nothing_to_learn=0,
        imitates_marks=0, groups=0, tokens=0, tree_tokens=0,
    )  # fmt: skip
    by_chosen: dict[str, list[tuple[PreferencePair, list[list[int]], list[list[int]]]]] = {}
    for pair in pairs:
        sides = [_to_last_answer(pair.chosen), _to_last_answer(pair.rejected)]
        answers = [sum(message.role == "assistant" for message in side) for side in sides]
        if pair.first_divergent_turn == 0:
            counts["equal"] += 1
        elif min(answers) < pair.first_divergent_turn:
            counts["nothing_to_learn"] += 1
        elif any(map(reader.imitates_marks, sides)):
            counts["imitates_marks"] += 1
        else:
            try:
                read = reader.read(sides)
            except TrainError as error:
                raise TrainError(f"pair {pair.pair_id}: {error}") from None
            too_long = [len(side.ids) > max_length for side in read]
            counts["chosen_too_long"] += too_long[0]
            counts["rejected_too_long"] += too_long[1]
            if any(too_long):
                continue
            targets = [
                side.targets("assistant", range(pair.first_divergent_turn - 1, n))
                for side, n in zip(read, answers, strict=True)
            ]
            ids = [side.ids for side in read]
            by_chosen.setdefault(content_hash(list(pair.chosen)), []).append((pair, ids, targets))
    groups = [_group(members) for members in by_chosen.values()]
    kept = [pair for members in by_chosen.values() for pair, _, _ in members]
    counts.update(
        kept=len(kept),
        dropped=len(pairs) - len(kept),
        groups=len(groups),
        tokens=sum(len(side) for group in groups for side in group.sequences),
        tree_tokens=sum(group.tokens for group in groups),
    )
    return EncodedGroups(groups, kept, dict(counts))


def _to_last_answer(messages: Sequence[Message]) -> tuple[Message, ...]:
    last = max((place for place, message in enumerate(messages) if message.role == "assistant"), default=-1)
    return tuple(messages[: last + 1])


def _group(members: Sequence[tuple[PreferencePair, list[list[int]], list[list[int]]]]) -> Group:
    """The chosen side with the targets of the pair that differs first, of which the others' are the later ones."""
    first = min(members, key=lambda member: member[0].first_divergent_turn)
    contrasts = [
        Contrast(pair.pair_id, _first_target(targets[0]), _first_target(targets[1])) for pair, _, targets in members
    ]
    group = Group(
        sequences=[first[1][0], *(ids[1] for _, ids, _ in members)],
        targets=[first[2][0], *(targets[1] for _, _, targets in members)],
        contrasts=contrasts,
        n_turns=max(pair.n_turns for pair, _, _ in members),
        tokens=0,
    )
    return group._replace(tokens=len(stream_of([group.sequences]).ids))


def _first_target(targets: Sequence[int]) -> int:
    return next(place for place, target in enumerate(targets) if target != IGNORED)


def log_probabilities(
    model: Any, groups: Sequence[Group], pad_token_id: int, device: torch.device, *, trees: bool
) -> tuple[Tensor, Tensor]:
    """chosen_P and rejected_P: log-probabilities of the sides of all pairs, in the order of the groups."""
    sequences = [(group, number) for group in groups for number in range(len(group.sequences))]
    wanted = [
        (row, place)
        for row, (group, number) in enumerate(sequences)
        for place, target in enumerate(group.targets[number])
        if target != IGNORED
    ]
    row_A = torch.tensor([row for row, _ in wanted], device=device)
    place_A = torch.tensor([place for _, place in wanted], device=device)
    targets = [group.targets[number] for group, number in sequences]
    log_probability_A = -target_losses(
        model,
        [group.sequences for group in groups],
        targets,
        pad_token_id=pad_token_id,
        device=device,
        streams=trees,
    )

    readings: list[
        tuple[int, int]
    ] = []  # row, and from which token on: the chosen sides of all pairs, then the rejected
    row = 0
    rejected: list[tuple[int, int]] = []
    for group in groups:
        for number, contrast in enumerate(group.contrasts, start=1):
            readings.append((row, contrast.chosen_from))
            rejected.append((row + number, contrast.rejected_from))
        row += len(group.sequences)
    readings += rejected
    row_R = torch.tensor([row for row, _ in readings], device=device)
    from_R = torch.tensor([start for _, start in readings], device=device)
    counts_RA = (row_A[None] == row_R[:, None]) & (place_A[None] >= from_R[:, None])
    sums_R = (counts_RA * log_probability_A[None]).sum(dim=1)
    return sums_R[: len(rejected)], sums_R[len(rejected) :]


def fit_dpo(
    settings: DpoFitSettings,
    *,
    pairs: Sequence[PreferencePair] | None = None,
    corpus: Path | None = None,
    arm: str | None = None,
    progress: Show | None = None,
) -> LanguageFitResult:
    """Train on preferences, or go on; a finished run is left as it is.

    Args:
        pairs: train on these instead of reading `settings.data`.
        corpus: where the fit and its curves are kept too; the data's own corpus when it is one.
        arm: which training of a comparison this is.

    Raises:
        TrainError: no pairs, all of them too long, a folder that holds another run, reference log-probabilities that were
            changed.
        StoppedError: the loss is not a finite number.
        InterruptedFitError: Ctrl-C while it trained.
    """
    corpus = corpus_beside(settings, corpus, given=pairs is not None)
    found = sorted(pairs, key=lambda pair: pair.pair_id) if pairs is not None else pairs_of(settings.data)
    all_pairs = limited(found, settings.data.limit, random_seed=settings.random_seed)
    by_split = {split: [pair for pair in all_pairs if pair.split == split] for split in ("train", "validation")}
    by_split["validation"] = by_split["validation"][: settings.evaluate_limit]
    if not by_split["train"]:
        raise TrainError(f"none of the {len(all_pairs)} pairs is in the train split: take more seeds")
    source = settings.data.path or "given" if pairs is None else "given"
    fit_id = identity_of(settings, pairs_hash(by_split["train"]), arm)
    texts = [message.content for pair in by_split["train"] for side in (pair.chosen, pair.rejected) for message in side]

    def prepare(out: Path, device: torch.device, resumed: Path | None) -> Task:
        model, tokenizer = causal_model(settings, resumed, texts)
        model = model.to(device).train()
        encoded = {
            split: encode_groups(of_split, tokenizer, max_length=settings.max_length)
            for split, of_split in by_split.items()
        }
        if not encoded["train"].groups:
            raise TrainError(_nothing_left(settings, encoded["train"].counts))
        card = data_card(source, all_pairs, encoded, max_length=settings.max_length)
        why = "trees: never" if settings.trees == "never" else why_no_streams(causal_of(model).config)
        card |= {"trees": why is None, "why_no_trees": why}
        groups = [group for split in encoded.values() for group in split.groups]
        reference = _Reference(settings, fit_id, groups, tokenizer.pad_token_id, device, trees=why is None)
        kept = reference.read(out)
        if kept is None:
            kept = reference.compute(out, _reference_model(settings, model, texts, resumed, device))
        return _task(settings, model, tokenizer, encoded, kept, card, device, trees=why is None)

    finished = run_fit(
        settings,
        fit_id=fit_id,
        objective="dpo",
        prepare=prepare,
        summary=lambda found: {"validation_loss": found.get("loss"), "validation_accuracy": found.get("accuracy")},
        corpus=corpus,
        arm=arm,
        progress=progress,
    )
    return result_of(settings, finished)


def _nothing_left(settings: DpoFitSettings, counts: Mapping[str, int]) -> str:
    return (
        f"none of {counts['pairs']} training pairs can be learned from: {counts['chosen_too_long']} chosen and "
        f"{counts['rejected_too_long']} rejected sides are longer than max_length {settings.max_length}, {counts['equal']} "
        f"pairs have equal sides, {counts['nothing_to_learn']} no answer where they differ"
    )


def _reference_model(
    settings: DpoFitSettings, model: Any, texts: Sequence[str], resumed: Path | None, device: torch.device
) -> Any:
    """The model that the training started from, where `model` may have gone on from it."""
    if resumed is None or settings.lora is not None:  # adapters are turned off while the reference is computed
        return model
    start, _ = start_model(settings, texts)
    return start.to(device)


class _Reference(NamedTuple):
    """The reference's log-probabilities of all pairs: computed once, kept beside the run, and never taken for others'."""

    settings: DpoFitSettings
    fit_id: str
    groups: Sequence[Group]
    pad_token_id: int
    device: torch.device
    trees: bool

    @property
    def key(self) -> str:
        """Of the start model and the training data (by the fit) and of all tokens and targets that were read."""
        return content_hash(self.fit_id, [[group.sequences, group.targets] for group in self.groups])

    def read(self, out: Path) -> dict[str, tuple[float, float]] | None:
        """What is kept, by pair; null when nothing is, or it is of other data.

        Raises:
            TrainError: the file was changed or cut off.
        """
        path = out / REFERENCE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                found = file.metadata() or {}
                values = {name: file.get_tensor(name) for name in ("chosen", "rejected")}
        except (SafetensorError, OSError) as error:
            raise TrainError(f"{str(path)!r} cannot be read ({error}): remove it, and it is computed again") from None
        if found.get("key") != self.key:
            return None
        if found.get("values") != _values_hash(values):
            raise TrainError(f"{str(path)!r} was changed since it was written: remove it, and it is computed again")
        return self._by_pair(values)

    def compute(self, out: Path, model: Any) -> dict[str, tuple[float, float]]:
        """By the model as the training starts from it; written into the run's folder."""
        without_adapters = model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
        parts: list[tuple[Tensor, Tensor]] = []
        model.eval()
        precision = computing(self.settings.precision, self.device)
        with torch.no_grad(), without_adapters, fitting_threads(model, self.device), precision:
            for start in range(0, len(self.groups), self._at_once):
                few = self.groups[start : start + self._at_once]
                parts.append(log_probabilities(model, few, self.pad_token_id, self.device, trees=self.trees))
        model.train()
        values = {
            name: torch.cat([part[side] for part in parts]).float().cpu()
            for side, name in enumerate(("chosen", "rejected"))
        }
        path = out / REFERENCE
        partial = path.with_name(f".{path.name}.partial")
        save_file(values, partial, metadata={"key": self.key, "values": _values_hash(values)})
        partial.rename(path)
        return self._by_pair(values)

    @property
    def _at_once(self) -> int:
        return max(1, self.settings.batch_size // self.settings.accumulate)

    def _by_pair(self, values: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        ids = [contrast.pair_id for group in self.groups for contrast in group.contrasts]
        return dict(zip(ids, zip(values["chosen"].tolist(), values["rejected"].tolist(), strict=True), strict=True))


def _values_hash(values: Mapping[str, Tensor]) -> str:
    return content_hash({name: tensor.tolist() for name, tensor in values.items()})


def _task(
    settings: DpoFitSettings,
    model: Any,
    tokenizer: Any,
    encoded: Mapping[str, EncodedGroups],
    reference: Mapping[str, tuple[float, float]],
    card: dict[str, Any],
    device: torch.device,
    *,
    trees: bool,
) -> Task:
    """What the loop needs to know of the pairs and their loss."""
    train = encoded["train"].groups
    steps, rise = steps_and_rise(settings, sum(group.size for group in train), EPOCHS)

    def figures(groups: Sequence[Group]) -> Tensor:
        """figures_FP, the loss first."""
        chosen_P, rejected_P = log_probabilities(model, groups, tokenizer.pad_token_id, device, trees=trees)
        kept = [reference[contrast.pair_id] for group in groups for contrast in group.contrasts]
        reference_P2 = torch.tensor(kept, device=device)
        loss_P = dpo_loss(chosen_P, rejected_P, reference_P2[:, 0], reference_P2[:, 1], beta=settings.beta)
        rewards_2P = settings.beta * (torch.stack([chosen_P, rejected_P]) - reference_P2.T).detach()
        won_P = (rewards_2P[0] > rewards_2P[1]).float() + 0.5 * (rewards_2P[0] == rewards_2P[1]).float()
        return torch.stack([loss_P, won_P, rewards_2P[0] - rewards_2P[1], rewards_2P[0], rewards_2P[1]])

    def slices(batch: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        groups = [train[place] for place in batch]
        pairs = sum(group.size for group in groups)
        size = math.ceil(len(groups) / settings.accumulate)
        for start in range(0, len(groups), size):
            sums_F = figures(groups[start : start + size]).sum(dim=1) / pairs
            yield sums_F[0], sums_F.detach()

    @torch.no_grad()
    def validate() -> dict[str, float]:
        held_out = encoded["validation"].groups
        if not held_out:
            return {}
        model.eval()
        at_once = max(1, settings.batch_size // settings.accumulate)
        found = [figures(held_out[start : start + at_once]) for start in range(0, len(held_out), at_once)]
        model.train()
        means = torch.cat(found, dim=1).mean(dim=1).tolist()
        return {"loss": means[0], "accuracy": means[1], "margin": means[2]}

    def export(folder: Path, origin: dict[str, Any]) -> None:
        export_model(folder, model, tokenizer, origin | {"base": settings.model})

    return Task(
        model=model,
        tokenizer=tokenizer,
        optimizer=matrices_decay(model, settings),
        plan=plan_batches(train, batch_size=settings.batch_size, steps=steps, random_seed=settings.random_seed),
        figures=("loss", "accuracy", "margin", "chosen_reward", "rejected_reward"),
        slices=slices,
        tokens=lambda batch: sum(len(side) for place in batch for side in train[place].sequences),
        size=lambda batch: sum(train[place].size for place in batch),
        names=lambda batch: [contrast.pair_id for place in batch for contrast in train[place].contrasts],
        validate=validate,
        export=export,
        card=card,
        rise=rise,
    )
