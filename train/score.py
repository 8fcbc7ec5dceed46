"""Rewards of whole conversations from a trained model's folder, and of their beginnings up to each answer.

A reward depends on the conversation alone: batches are padded on the right and read at the last real token, so that
neither the batch nor the padding side changes it beyond the noise of floating point. Nothing is truncated. A causal model
reads no token before its time, so one pass over a conversation gives the rewards of all its beginnings, where the chat template
writes them as it writes the whole; else each is read by itself.
Knows nothing of pairs.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from store.identity import content_hash
from store.identity import fit_id as fit_identity
from store.records import Fit, Message, Metric, Score
from train.backbone import freeze_date, positions_of, reading_pad
from train.errors import TrainError
from train.hub import require_model
from train.masks import Reader
from train.model import device_of, fitting_threads, load_model, rewards
from train.reading import alike, reads_streams
from train.tokenizer import encode, load_tokenizer

ATTENTION_CELLS = 1 << 26  # conversations times tokens squared in one batch: eager attention keeps them all


class Answers(NamedTuple):
    """The rewards of one conversation."""

    whole: float
    after_answers: list[float]
    """Of the conversation up to and with its first answer, its second one, and so on."""


class Scorer(NamedTuple):
    """A model that is ready to score."""

    model: Any
    tokenizer: Any
    device: torch.device
    name: str
    max_length: int
    """Tokens; the tokenizer's limit or the model's, whichever is less."""
    card: dict[str, Any]
    """`descant.json` of a model of ours; empty for others."""

    @property
    def fit_id(self) -> str:
        """The fit that the model came from; for a model that is not ours, a hash of its shape and its head."""
        if "fit_id" in self.card:
            return str(self.card["fit_id"])
        head = content_hash(self.model.score.weight.detach().flatten().tolist())
        return fit_identity(self.name, "reward", {"shape": self.model.config.to_diff_dict(), "head": head})

    def encode(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        return encode(self.tokenizer, conversations)

    def score_tokens(self, sequences: Sequence[Sequence[int]], *, batch_size: int = 32) -> list[float]:
        with fitting_threads(self.model, self.device):
            return score_tokens(
                self.model,
                sequences,
                pad_token_id=reading_pad(self.tokenizer),
                device=self.device,
                batch_size=batch_size,
            )

    def score_answers(
        self,
        conversations: Sequence[Sequence[Message]],
        sequences: Sequence[Sequence[int]],
        *,
        ids: Sequence[str],
        batch_size: int = 32,
    ) -> list[Answers]:
        """The reward of each conversation, and of its beginning up to each answer: what it would get if it ended there.

        Args:
            sequences: the conversations' tokens, as `encode` gives them; each no longer than `max_length`.
            ids: what an error calls them.

        Raises:
            TrainError: a conversation's text contains the mark that ends a turn.
        """
        reader = Reader(self.tokenizer)
        rows = [list(sequence) for sequence in sequences]
        places = [[len(row) - 1] for row in rows]
        beginnings: dict[int, list[int]] = {}  # of conversations whose beginnings are read one by one: in which rows
        for number, (name, conversation, row) in enumerate(zip(ids, conversations, sequences, strict=True)):
            try:
                (read,) = reader.read([conversation])
                ends = reader.answer_ends(conversation, read)
            except TrainError as error:
                raise TrainError(f"conversation {name}: {error}") from None
            if ends is not None:
                places[number] = [*ends, len(row) - 1]
                continue
            cut = [conversation[: end + 1] for end, message in enumerate(conversation) if message.role == "assistant"]
            beginnings[number] = list(range(len(rows), len(rows) + len(cut)))
            rows += self.encode(cut)
            places += [[len(row) - 1] for row in rows[len(places) :]]
        with fitting_threads(self.model, self.device):
            found = score_places(
                self.model,
                rows,
                places,
                pad_token_id=reading_pad(self.tokenizer),
                device=self.device,
                batch_size=batch_size,
            )
        return [
            Answers(found[number][-1], [found[row][0] for row in beginnings[number]])
            if number in beginnings
            else Answers(found[number][-1], found[number][:-1])
            for number in range(len(sequences))
        ]

    def score(self, conversations: Sequence[Sequence[Message]], *, batch_size: int = 32) -> list[float]:
        """Rewards in the order of the conversations; a TrainError for one that is too long."""
        sequences = self.encode(conversations)
        for place, sequence in enumerate(sequences):
            if len(sequence) > self.max_length:
                raise TrainError(
                    f"conversation {place + 1} has {len(sequence)} tokens, more than the model's {self.max_length}: "
                    "it is not truncated; leave it out"
                )
        return self.score_tokens(sequences, batch_size=batch_size)


def score_conversations(
    model_dir: str | Path, conversations: Sequence[Sequence[Message]], batch_size: int = 32
) -> list[float]:
    """The reward of each conversation, by the model in a folder (or of a Hugging Face id)."""
    return load_scorer(model_dir).score(conversations, batch_size=batch_size)


def load_scorer(model_dir: str | Path, *, device: str = "auto") -> Scorer:
    """A model folder, a fit's folder (its finished model) or a Hugging Face id, ready to score."""
    source = model_source(model_dir)
    tokenizer = load_tokenizer(source)
    freeze_date(tokenizer)
    model = load_model(source, tokenizer, needs_head=True)
    where = device_of(device)
    path = Path(source) / "descant.json"
    card = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return Scorer(
        model=model.to(where).eval(),
        tokenizer=tokenizer,
        device=where,
        name=str(card.get("name") or Path(model_dir).name),
        max_length=min(int(tokenizer.model_max_length), positions_of(model.config) or int(tokenizer.model_max_length)),
        card=card,
    )


def model_source(model_dir: str | Path) -> str:
    """The folder or Hugging Face id to load for `--model`; a TrainError when there is no model there."""
    path = Path(model_dir).expanduser()
    if (path / "run.json").exists() and not (path / "model").exists():
        raise TrainError(f"the fit in {str(path)!r} is not finished: run its descant fit command again, which goes on")
    if (path / "model" / "config.json").exists():
        return str(path / "model")
    if path.is_dir():
        if not (path / "config.json").exists():
            raise TrainError(f"{str(path)!r} is not a model's folder: it has no config.json (a fit's is fits/NAME)")
        return str(path)
    if not path.exists() and path.parts[:1] == ("fits",):
        raise TrainError(f"no model in {str(model_dir)!r}: there is no such fit; make it first with descant fit")
    if path.exists() or _means_a_path(str(model_dir)):
        raise TrainError(
            f"no model in {str(model_dir)!r}: name a fit's folder (fits/NAME), a Hugging Face folder or an id"
        )
    require_model(str(model_dir))
    return str(model_dir)


def _means_a_path(name: str) -> bool:
    """Whether it is no Hugging Face id: those are OWNER/NAME, and OWNER is no folder here."""
    return name.startswith((".", "/", "~")) or name.count("/") != 1 or Path(name).parent.is_dir()


def score_tokens(
    model: Any,
    sequences: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    device: torch.device,
    batch_size: int,
    streams: bool | None = None,
) -> list[float]:
    """Rewards of token sequences at their last tokens; see `score_places`."""
    places = [[len(sequence) - 1] for sequence in sequences]
    found = score_places(
        model,
        sequences,
        places,
        pad_token_id=pad_token_id,
        device=device,
        batch_size=batch_size,
        streams=streams,
    )
    return [reward for (reward,) in found]


@torch.no_grad()
def score_places(
    model: Any,
    sequences: Sequence[Sequence[int]],
    places: Sequence[Sequence[int]],
    *,
    pad_token_id: int,
    device: torch.device,
    batch_size: int,
    streams: bool | None = None,
) -> list[list[float]]:
    """Rewards of token sequences read at several places each, in one pass a sequence; what they begin with is read once.

    Args:
        streams: null reads streams where the model can; false pads batches of like length.
    """
    as_stream = reads_streams(model) if streams is None else streams
    batches = _alike_batches(sequences, batch_size) if as_stream else _even_batches(sequences, batch_size)
    found: list[list[float]] = [[] for _ in sequences]
    for batch in batches:
        order = [index for group in batch for index in group]
        readings = [(row, place) for row, index in enumerate(order) for place in places[index]]
        groups = [[sequences[index] for index in group] for group in batch]
        reward_N = rewards(model, groups, readings, pad_token_id=pad_token_id, device=device, streams=as_stream)
        for (row, _), reward in zip(readings, reward_N.tolist(), strict=True):
            found[order[row]].append(reward)
    return found


def _alike_batches(sequences: Sequence[Sequence[int]], batch_size: int) -> list[list[list[int]]]:
    """Batches of groups that begin alike; a group larger than a batch is read in parts."""
    parts = [
        group[start : start + batch_size] for group in alike(sequences) for start in range(0, len(group), batch_size)
    ]
    batches: list[list[list[int]]] = []
    room = 0
    for part in parts:
        if len(part) > room:
            batches.append([])
            room = batch_size
        batches[-1].append(part)
        room -= len(part)
    return batches


def _even_batches(sequences: Sequence[Sequence[int]], batch_size: int) -> list[list[list[int]]]:
    """Batches of like length, the longest first, each sequence by itself."""
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index]))
    batches: list[list[list[int]]] = []
    start = 0
    while start < len(order):
        longest = len(sequences[order[start]])
        size = min(batch_size, max(1, ATTENTION_CELLS // longest**2))
        batches.append([[index] for index in order[start : start + size]])
        start += size
    return batches


def keep_scores(
    corpus: Path,
    scorer: Scorer,
    rewards: Mapping[str, float],
    *,
    after_answers: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Rewards by dialogue id, into the corpus; `after_answers`: by dialogue id and turn_id."""
    from store.writer import write_through

    scores = [Score(fit_id=scorer.fit_id, dialogue_id=key, reward=reward) for key, reward in rewards.items()]
    scores += [
        Score(fit_id=scorer.fit_id, dialogue_id=key, turn_id=turn_id, reward=reward)
        for key, turns in (after_answers or {}).items()
        for turn_id, reward in turns.items()
    ]
    write_through(corpus, [*_unknown_fit(corpus, scorer), *scores])


def keep_metrics(corpus: Path, scorer: Scorer, metrics: Sequence[Metric]) -> None:
    """Figures of an evaluation, into the corpus."""
    from store.writer import write_through

    write_through(corpus, [*_unknown_fit(corpus, scorer), *metrics])


def _unknown_fit(corpus: Path, scorer: Scorer) -> list[Fit]:
    """A row for a model that was not trained in this corpus, so that its figures belong to something."""
    from store.database import query

    if corpus.exists() and query(corpus, "SELECT 1 FROM fits WHERE fit_id = ?", [scorer.fit_id]):
        return []
    return [
        Fit(
            fit_id=scorer.fit_id,
            name=scorer.name,
            objective="reward",
            config={},
            data_card={},
            checkpoint=str(scorer.model.config.name_or_path),
            status="done",
            created_at=datetime.now(UTC),
        )
    ]
