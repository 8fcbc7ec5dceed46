"""Several sets of pairs as one training: what is left out of each, what is drawn from each, and in which stages they come.

In this order, each rule on what the one before left, all counted by set:

1. `held_out_prompt`: a training pair whose prompt stands in validation or test of any set. A set may bring its own splits.
2. `apart_from`: a training pair whose prompt stands in a file that is to be evaluated on.
3. `contradiction`: the same two conversations with opposite labels; both pairs go, since nothing says who is right.
4. `duplicate`: a pair that stands in a set named earlier, or earlier in its own.
5. `limit`, then `weights`: training pairs that were not drawn.

Conversations are the same by roles and texts, not by ids, and a prompt is the text of the first user turn without its
system message; runs of white space count as one blank. Knows no tokens: what is too long goes later, and is counted there.
RMBoost (arXiv 2407.16008) does not tell us how it mixes, so all of this is ours.
"""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.mixture_settings import MixtureSettings
from store.identity import content_hash
from store.records import Message, PreferencePair
from train.data import dataset_files, is_corpus, limited
from train.errors import TrainError

Sets = Mapping[str, Sequence[PreferencePair]]


class Mixture(NamedTuple):
    """What goes into a training, by set."""

    sets: dict[str, list[PreferencePair]]
    """All splits; a training pair that is repeated stands there as often as it counts."""
    left_out: dict[str, dict[str, Counter[str]]]
    """Counts by set, split and reason."""
    repeated: dict[str, int]
    """Training pairs of a set beyond the first time that each stands there."""


class _Read(NamedTuple):
    """A pair and what it is compared by."""

    pair: PreferencePair
    prompt: str
    chosen: str
    rejected: str

    @property
    def conversations(self) -> tuple[str, str]:
        return (self.chosen, self.rejected) if self.chosen <= self.rejected else (self.rejected, self.chosen)


Leaves = Callable[[_Read], bool]


def mix(
    sets: Sets,
    settings: MixtureSettings,
    *,
    limits: Mapping[str, int | None],
    random_seed: int,
    apart_from: Collection[str] = (),
) -> Mixture:
    """The sets without what must go, cut to their limits and drawn by their weights.

    Args:
        limits: training pairs of a set at most.
        apart_from: prompts, as `prompt_of` gives them, that must not be trained on.

    Raises:
        TrainError: a set has too few pairs for its weight.
    """
    found = {name: [_read(pair) for pair in pairs] for name, pairs in sets.items()}
    left_out: dict[str, dict[str, Counter[str]]] = {name: {} for name in sets}

    def count(name: str, split: str, reason: str, n: int = 1) -> None:
        if n:
            left_out[name].setdefault(split, Counter())[reason] += n

    rules: list[tuple[str, Callable[[], Leaves]]] = [
        ("held_out_prompt", lambda: _held_out(found)),
        ("apart_from", lambda: lambda read: read.pair.split == "train" and read.prompt in apart_from),
    ]
    if settings.contradictions == "drop":
        rules.append(("contradiction", lambda: _contradicted(found)))
    rules.append(("duplicate", _seen_before))
    for reason, rule in rules:
        leaves = rule()
        for name, reads in found.items():
            kept = []
            for read in reads:
                if leaves(read):
                    count(name, read.pair.split, reason)
                else:
                    kept.append(read)
            found[name] = kept
    mixed: dict[str, list[PreferencePair]] = {}
    for name, reads in found.items():
        pairs = [read.pair for read in reads]
        mixed[name] = limited(pairs, limits.get(name), random_seed=random_seed)
        count(name, "train", "limit", len(pairs) - len(mixed[name]))
    if not settings.weights:
        return Mixture(mixed, left_out, dict.fromkeys(mixed, 0))
    repeated = {}
    for name, n in shares(settings, {name: _trained(pairs) for name, pairs in mixed.items()}).items():
        offered = _trained(mixed[name])
        count(name, "train", "weights", max(0, offered - n))
        repeated[name] = max(0, n - offered)
        mixed[name] = _drawn(mixed[name], n, random_seed=random_seed)
    return Mixture(mixed, left_out, repeated)


def prompt_of(conversation: Sequence[Message]) -> str:
    """What makes two pairs ones of the same prompt: the first user turn, without system message and spacing."""
    first = next((message.content for message in conversation if message.role == "user"), "")
    return _plain(first)


def prompts_to_avoid(sources: Sequence[str]) -> dict[str, set[str]]:
    """The prompts of each source: a corpus's seeds; a file's or data set's `prompt`, or the first user turn of its conversations.

    Raises:
        TrainError: a source that does not exist.
        StoreError: a row without a prompt or a conversation.
    """
    return {source: _prompts(source) for source in sources}


def _prompts(source: str) -> set[str]:
    path = Path(source)
    if is_corpus(path):
        from store.database import query
        from store.queries import messages_of

        prompts = {prompt_of(messages_of(row["messages"])) for row in query(path, "SELECT messages FROM seeds")}
    else:
        files = [path] if path.exists() else dataset_files(source)
        prompts = {prompt for file in files for prompt in _prompts_of_file(file)}
    if not prompts - {""}:
        raise TrainError(f"mixture.apart_from: {source!r} holds no prompts")
    return prompts - {""}


def _prompts_of_file(file: Path) -> Iterator[str]:
    """As the format's own reader makes them, where there is one; else a benchmark's `prompt`, a text or messages."""
    from store.export import rows_of
    from store.seeds import conversations
    from store.shapes import SHAPES

    _, first = next(rows_of(file, "prompts"), (0, {}))
    is_benchmark = isinstance(first.get("prompt"), list) or {"prompt", "subset"} <= first.keys()
    if is_benchmark or ("prompt" in first and not any(shape.is_of(first) for shape in SHAPES.values())):
        for number, row in rows_of(file, "prompts"):
            yield _prompt_of_row(file, number, row)
    else:
        for found in conversations(str(file), what="prompts"):
            yield prompt_of(found.messages)


def _prompt_of_row(file: Path, number: int, row: Mapping[str, Any]) -> str:
    from store.rows import RowError
    from store.shapes import conversation_of_list

    prompt = row.get("prompt")
    if isinstance(prompt, str):
        return _plain(prompt)
    try:
        return prompt_of(conversation_of_list(prompt, "prompt"))
    except RowError as error:
        raise TrainError(f"mixture.apart_from: {file}:{number}: {error}") from None


def shares(settings: MixtureSettings, offered: Mapping[str, int]) -> dict[str, int]:
    """How many training pairs each set gives: `size` divided by the weights, or the largest size that all sets can fill.

    Divided by Webster's method (as seats are), which never takes a pair from a set when the size grows.

    Raises:
        TrainError: a set has too few, and may not repeat them.
    """
    for name, there in offered.items():
        if not there:
            raise TrainError(f"sets.{name} has no training pair left for its weight: give it more, or drop it")
    weights = {name: settings.weights[name] for name in offered}
    most = _largest(weights, offered)
    divided = divide(most if settings.size is None else settings.size, weights)
    for name, n in divided.items():
        if not n:
            raise TrainError(
                f"a mixture of {sum(divided.values())} training pairs has none of {name} (weight {weights[name]:g}): "
                "take more pairs, or another weight"
            )
        if n > offered[name] and not settings.repeat:
            raise TrainError(
                f"mixture.size {settings.size} asks for {n} training pairs of {name}, which has {offered[name]}: "
                f"{n - offered[name]} too few; take at most {most}, or set mixture.repeat=true"
            )
    return divided


def divide(size: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`size` by weights, in whole numbers: the nearest ones, mended where they do not add up.

    Webster's method, in which the k-th pair of a set has the rank weight / (2k - 1) and the first `size` ranks are taken,
    those of equal rank by the sets' order: so a larger size takes nothing away.
    """
    whole = sum(weights.values())
    found = {name: max(0, math.ceil(size * weight / whole - 0.5 - 1e-9)) for name, weight in weights.items()}
    while sum(found.values()) < size:
        found[max(found, key=lambda name: weights[name] / (2 * found[name] + 1))] += 1
    while sum(found.values()) > size:
        given = [name for name in reversed(found) if found[name]]
        found[min(given, key=lambda name: weights[name] / (2 * found[name] - 1))] -= 1
    return found


def stage_steps(pairs: Sequence[int], given: Sequence[float | None], steps: int) -> list[int]:
    """How many steps each stage of a curriculum takes; where no share is given, what is left is divided by pairs.

    Raises:
        TrainError: a stage without a pair or a step.
    """
    for place, n in enumerate(pairs, start=1):
        if not n:
            raise TrainError(
                f"stage {place} of the curriculum has no training pair left: drop it, or give it other sets"
            )
    left = 1.0 - sum(share for share in given if share is not None)
    open_pairs = sum(n for n, share in zip(pairs, given, strict=True) if share is None)
    found, done, before = [], 0.0, 0
    for place, (n, share) in enumerate(zip(pairs, given, strict=True), start=1):
        done += left * n / open_pairs if share is None else share
        end = steps if place == len(pairs) else min(steps, round(steps * done))
        if end <= before:
            raise TrainError(
                f"stage {place} of the curriculum has no step of the {steps}: give it a larger share, or more steps"
            )
        found.append(end - before)
        before = end
    return found


def _read(pair: PreferencePair) -> _Read:
    return _Read(pair, prompt_of(pair.chosen), _text(pair.chosen), _text(pair.rejected))


def _text(conversation: Sequence[Message]) -> str:
    return content_hash([[message.role, _plain(message.content)] for message in conversation])


def _plain(text: str) -> str:
    return " ".join(text.split())


def _held_out(found: Mapping[str, Sequence[_Read]]) -> Leaves:
    prompts = {read.prompt for reads in found.values() for read in reads if read.pair.split != "train"}
    return lambda read: read.pair.split == "train" and read.prompt in prompts


def _contradicted(found: Mapping[str, Sequence[_Read]]) -> Leaves:
    labels: dict[tuple[str, str], set[str]] = {}
    for reads in found.values():
        for read in reads:
            labels.setdefault(read.conversations, set()).add(read.chosen)
    return lambda read: len(labels[read.conversations]) > 1


def _seen_before() -> Leaves:
    seen: set[tuple[str, str]] = set()

    def leaves(read: _Read) -> bool:
        key = (read.chosen, read.rejected)
        if key in seen:
            return True
        seen.add(key)
        return False

    return leaves


def _trained(pairs: Sequence[PreferencePair]) -> int:
    return sum(pair.split == "train" for pair in pairs)


def _largest(weights: Mapping[str, float], offered: Mapping[str, int]) -> int:
    """The largest size of which no set must give more than it offers."""
    low, high = 0, sum(offered.values())
    while low < high:
        middle = (low + high + 1) // 2
        if all(n <= offered[name] for name, n in divide(middle, weights).items()):
            low = middle
        else:
            high = middle - 1
    return low


def _drawn(pairs: Sequence[PreferencePair], n: int, *, random_seed: int) -> list[PreferencePair]:
    """`pairs` with `n` of the train split, in the order that `limited` draws them; beyond their number from the front again."""
    passes, more = divmod(n, max(1, _trained(pairs)))
    some = {pair.pair_id for pair in limited(pairs, more, random_seed=random_seed) if pair.split == "train"}
    return [pair for pair in pairs for _ in range(passes + (pair.pair_id in some) if pair.split == "train" else 1)]
