"""Preference pairs as token ids, with a card that says what was kept and dropped.

A pair with a side longer than `max_length` is dropped and counted, never truncated: a cut would take away the very
turns that differ. Splits come with the pairs. Knows nothing of models or losses.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from configs.fit_settings import PairSettings
from store import hub
from store.human_feedback import LeftOut
from store.identity import content_hash
from store.records import Message, PreferencePair
from train.errors import TrainError
from train.masks import Reader
from train.tokenizer import encode, fold_system


class EncodedPair(NamedTuple):
    """A pair that fits; `ends` are the tokens at which the two rewards are compared, the conversation's last one last."""

    pair_id: str
    chosen: list[int]
    rejected: list[int]
    ends: list[tuple[int, int]]
    n_turns: int
    margin: float

    @property
    def tokens(self) -> int:
        return max(len(self.chosen), len(self.rejected))

    @property
    def size(self) -> int:
        return 1


class Encoded(NamedTuple):
    """What a split became."""

    pairs: list[EncodedPair]
    kept: list[PreferencePair]
    """The same pairs as text, in the same order."""
    counts: dict[str, int]
    places: list[int]
    """Where each of them stood among the pairs that were given."""


class KeptPairs(Protocol):
    """What a split became, as a data card tells it."""

    @property
    def kept(self) -> list[PreferencePair]: ...

    @property
    def counts(self) -> dict[str, int]: ...


def read_pairs(
    source: str,
    *,
    campaign: str | None = None,
    method: str | None = None,
    left_out: Counter[LeftOut] | None = None,
) -> list[PreferencePair]:
    """Pairs of a corpus, a preference file or a Hugging Face dataset, in the order of their ids.

    Args:
        left_out: where comparisons of files that make no pair (people's ties, equal texts) are counted.

    Raises:
        TrainError: the source does not exist, or holds no pair that passes the filters.
    """
    path = Path(source)
    if is_corpus(path):
        from store.queries import preference_pairs

        pairs = preference_pairs(path, campaign=campaign, method=method)
    else:
        from store.export import read_preference_file

        files = [path] if path.exists() else dataset_files(source)
        pairs = [pair for file in files for pair in read_preference_file(file, left_out=left_out)]
        pairs = [pair for pair in pairs if method is None or pair.method == method]
    if not pairs:
        wanted = " and ".join(
            f"{name} {value!r}" for name, value in (("campaign", campaign), ("method", method)) if value
        )
        raise TrainError(
            f"no preference pairs in {source!r}" + (f" of {wanted}" if wanted else "") + "; make some with descant run"
        )
    return sorted(pairs, key=lambda pair: pair.pair_id)


def pairs_of(settings: PairSettings, *, left_out: Counter[LeftOut] | None = None) -> list[PreferencePair]:
    if settings.path is None:
        raise TrainError("no data is named: set data.path, or name a corpus with --db")
    return read_pairs(settings.path, campaign=settings.campaign, method=settings.method, left_out=left_out)


def limited(pairs: Sequence[PreferencePair], limit: int | None, *, random_seed: int) -> list[PreferencePair]:
    """`pairs` with at most `limit` of the train split, drawn by chance but always the same; a larger limit adds to them."""
    if limit is None:
        return list(pairs)
    train = [pair.pair_id for pair in pairs if pair.split == "train"]
    kept = set(sorted(train, key=lambda identity: content_hash("limit", random_seed, identity))[:limit])
    return [pair for pair in pairs if pair.split != "train" or pair.pair_id in kept]


def union(sets: Mapping[str, Sequence[PreferencePair]]) -> list[PreferencePair]:
    """All pairs of several sets in the order of their ids, one that stands in two of them once."""
    found = {pair.pair_id: pair for pairs in sets.values() for pair in pairs}
    return [found[identity] for identity in sorted(found)]


def read_conversations(source: str) -> list[tuple[str, tuple[Message, ...]]]:
    """Conversations with their ids, in the source's order: a corpus's dialogues by dialogue_id, the `messages` of a JSONL or
    Parquet file (by the row's own `id`, else its number from 1), or both sides of a preference file (`ROW/chosen`,
    `ROW/rejected`).

    Raises:
        TrainError: no such file, nothing in it, a row that is no conversation, or two rows of one id.
    """
    path = Path(source)
    if not path.exists():
        raise TrainError(f"no file {source!r}: name a corpus, a JSONL file of conversations or a preference file")
    if is_corpus(path):
        from store.database import query
        from store.queries import messages_of

        rows = query(path, "SELECT dialogue_id, messages FROM transcripts WHERE status = 'done' ORDER BY dialogue_id")
        found = [(row["dialogue_id"], messages_of(row["messages"])) for row in rows]
    else:
        found = _conversations_of_file(path)
    if not found:
        raise TrainError(f"no conversations in {source!r}")
    return found


def _conversations_of_file(path: Path) -> list[tuple[str, tuple[Message, ...]]]:
    from store.export import numbered_pairs, rows_of
    from store.pair_shapes import holds_pairs
    from store.rows import RowError
    from store.shapes import conversation_of_list

    _, first = next(rows_of(path, "conversations"), (0, {"messages": []}))
    if "messages" not in first:
        if not holds_pairs(first):
            raise TrainError(
                f"{str(path)!r} has no conversations: a row holds a list `messages` of role and content, or two such lists, "
                f"`chosen` and `rejected`; its first has {', '.join(first) or 'nothing'}"
            )
        return [
            (f"{number}/{side}", conversation)
            for number, pair in numbered_pairs(path)
            for side, conversation in (("chosen", pair.chosen), ("rejected", pair.rejected))
        ]
    found: dict[str, tuple[Message, ...]] = {}
    for number, row in rows_of(path, "conversations"):
        identity = str(row["id"]) if isinstance(row.get("id"), str | int) else str(number)
        if identity in found:
            raise TrainError(
                f"{path}:{number}: an earlier row has the id {identity!r} too: give each row an `id` of its own, or none "
                "of them one"
            )
        try:
            found[identity] = conversation_of_list(row.get("messages"), "messages")
        except RowError as error:
            raise TrainError(f"{path}:{number}: {error}; mend the row") from None
    return list(found.items())


def is_corpus(path: Path) -> bool:
    return path.suffix in (".duckdb", ".db")


def dataset_files(dataset: str) -> list[Path]:
    """The Parquet or JSONL files of a Hugging Face dataset, downloaded into its own cache.

    Raises:
        TrainError: this cannot be the name of one.
        StoreError: it cannot be had, or has no such files.
    """
    if not hub.may_be_dataset(dataset):
        raise TrainError(f"no file {dataset!r}: name a corpus (.duckdb), a preference file or a Hugging Face dataset")
    return hub.dataset_files(dataset)


def encode_pairs(
    pairs: Sequence[PreferencePair], tokenizer: Any, *, max_length: int, every_answer: bool = False
) -> Encoded:
    """Token ids of all pairs whose sides both fit into `max_length`, with counts of the others.

    A pair whose sides are equal in tokens is kept, and counted as `equal`: it cannot teach anything but its loss, ln 2.
    """
    for pair in pairs:
        try:
            fold_system(pair.chosen)
            fold_system(pair.rejected)
        except TrainError as error:
            raise TrainError(f"pair {pair.pair_id}: {error}") from None
    reader = Reader(tokenizer) if every_answer else None
    chosen = encode(tokenizer, [pair.chosen for pair in pairs])
    rejected = encode(tokenizer, [pair.rejected for pair in pairs])
    counts = Counter(pairs=len(pairs), kept=0, dropped=0, chosen_too_long=0, rejected_too_long=0, equal=0, tokens=0)
    encoded, kept, places = [], [], []
    for place, (pair, chosen_ids, rejected_ids) in enumerate(zip(pairs, chosen, rejected, strict=True)):
        too_long = (len(chosen_ids) > max_length, len(rejected_ids) > max_length)
        counts["chosen_too_long"] += too_long[0]
        counts["rejected_too_long"] += too_long[1]
        if any(too_long):
            counts["dropped"] += 1
            continue
        counts["kept"] += 1
        counts["equal"] += chosen_ids == rejected_ids
        counts["tokens"] += len(chosen_ids) + len(rejected_ids)
        last = (len(chosen_ids) - 1, len(rejected_ids) - 1)
        ends = [last]
        if reader is not None:
            # The shorter side's answers count; the last tokens are compared in any case.
            answers = zip(
                *(_answer_ends(reader, pair.pair_id, side) for side in (pair.chosen, pair.rejected)), strict=False
            )
            ends = [end for end in list(answers)[pair.first_divergent_turn - 1 :] if end != last] + [last]
        encoded.append(EncodedPair(pair.pair_id, chosen_ids, rejected_ids, ends, pair.n_turns, pair.margin or 0.0))
        kept.append(pair)
        places.append(place)
    return Encoded(encoded, kept, dict(counts), places)


def _answer_ends(reader: Reader, name: str, conversation: Sequence[Message]) -> list[int]:
    try:
        (read,) = reader.read([conversation])
        ends = reader.answer_ends(conversation, read)
    except TrainError as error:
        raise TrainError(f"pair {name}: {error}") from None
    if ends is None:
        raise TrainError(
            "the chat template writes an answer otherwise once something follows it, so that one reading cannot stop at "
            "every answer: take read_at end"
        )
    return ends


def data_card(
    source: str,
    pairs: Sequence[PreferencePair],
    encoded: Mapping[str, KeptPairs],
    *,
    max_length: int,
    sets: Mapping[str, Sequence[PreferencePair]] | None = None,
) -> dict[str, Any]:
    """What was learned from: sources, sets, methods, counts a split, what was dropped and why, and hashes of the texts."""
    return {
        "source": Path(source).name if Path(source).exists() else source,
        "sets": {name: sum(pair.split == "train" for pair in of_set) for name, of_set in (sets or {}).items()},
        "max_length": max_length,
        "methods": dict(sorted(Counter(pair.method for pair in pairs).items())),
        "n_turns": {str(n): count for n, count in sorted(Counter(pair.n_turns for pair in pairs).items())},
        "splits": {
            split: encoded[split].counts | {"hash": pairs_hash(encoded[split].kept)}
            if split in encoded
            else {"pairs": n}
            for split, n in sorted(Counter(pair.split for pair in pairs).items())
        },
        "chosen_is_longer": round(
            sum(characters(pair.chosen) > characters(pair.rejected) for pair in pairs) / max(1, len(pairs)), 4
        ),
    }


def pairs_hash(pairs: Sequence[PreferencePair]) -> str:
    return content_hash(
        [[list(pair.chosen), list(pair.rejected), pair.margin, pair.first_divergent_turn] for pair in pairs]
    )


def characters(conversation: Sequence[Any]) -> int:
    return sum(len(message.content) for message in conversation)
