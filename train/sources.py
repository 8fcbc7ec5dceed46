"""Where the pairs of a training come from: reads its sets, and puts them together in one order, or in stages. Knows no tokens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.fit_settings import PairSettings, RewardFitSettings
from configs.mixture_settings import DATA, StageSettings
from store.database import StoreError
from store.human_feedback import LeftOut
from store.records import PreferencePair
from train.data import limited, pairs_of, union
from train.errors import TrainError
from train.mixture import Mixture, Sets, mix, prompts_to_avoid, stage_steps

Undecided = Mapping[str, Counter[LeftOut]]
"""By set, the comparisons of its files that make no pair: people's ties, equal or empty texts."""


class Gathered(NamedTuple):
    """The pairs of a training."""

    pairs: list[PreferencePair]
    """Of every split, in the order of their ids."""
    names: list[str]
    """The set that each comes from."""
    read: dict[str, list[PreferencePair]]
    """What each set held before anything was left out."""
    mixture: Mixture
    """What was left of them; for a plain union what stays of each set when a pair counts for the first that has it."""
    avoided: dict[str, int]
    """How many prompts each source has that nothing is trained on."""
    undecided: Undecided


class ReadSets(NamedTuple):
    """Sets as they were read."""

    pairs: dict[str, list[PreferencePair]]
    undecided: Undecided


def read_sets(settings: RewardFitSettings, names: Sequence[str]) -> ReadSets:
    """These sets, each read once and whole: `gather` cuts it to its limit.

    Raises:
        TrainError: a set's source does not exist, cannot be read, or holds no pair.
    """
    found: dict[str, list[PreferencePair]] = {}
    undecided: dict[str, Counter[LeftOut]] = {}
    for name in dict.fromkeys(names):
        undecided[name] = Counter()
        try:
            found[name] = pairs_of(settings.sets[name], left_out=undecided[name])
        except (TrainError, StoreError) as error:
            raise TrainError(f"sets.{name}: {error}") from None
    return ReadSets(found, undecided)


def gather(
    settings: RewardFitSettings,
    pairs: Sequence[PreferencePair] | None,
    sets: Sets | None,
    undecided: Undecided | None = None,
) -> Gathered:
    """The pairs to learn from: `sets` or `pairs` where they are given, else what the settings name.

    Args:
        undecided: what the given sets' files held beside them.

    Raises:
        TrainError: a source that cannot be read, or a mixture that cannot be made of what is there.
    """
    alone = sets is None and (pairs is not None or not settings.sets)
    if sets is None and pairs is not None:
        sets = {DATA: sorted(pairs, key=lambda pair: pair.pair_id)}
    elif sets is None and alone:
        left_out: Counter[LeftOut] = Counter()
        sets, undecided = {DATA: pairs_of(settings.data, left_out=left_out)}, {DATA: left_out}
    elif sets is None:
        sets, undecided = read_sets(settings, list(settings.sets))
    read = {name: list(of_set) for name, of_set in sets.items()}
    undecided = {name: (undecided or {}).get(name, Counter()) for name in read}
    limits = {name: source_of(settings, name).limit for name in read}
    if settings.mixture is None:
        union_of_all = _plain_union(read, limits, alone=alone, random_seed=settings.random_seed)
        return union_of_all._replace(undecided=undecided)
    try:
        avoided = prompts_to_avoid(settings.mixture.apart_from)
    except StoreError as error:
        raise TrainError(f"mixture.apart_from: {error}") from None
    mixture = mix(
        read,
        settings.mixture,
        limits=limits,
        random_seed=settings.random_seed,
        apart_from=set().union(*avoided.values()),
    )
    rows = sorted(
        ((pair, name) for name, of_set in mixture.sets.items() for pair in of_set), key=lambda row: row[0].pair_id
    )
    counts = {shown(source): len(found) for source, found in avoided.items()}
    return Gathered([pair for pair, _ in rows], [name for _, name in rows], read, mixture, counts, undecided)


def _plain_union(
    read: dict[str, list[PreferencePair]], limits: Mapping[str, int | None], *, alone: bool, random_seed: int
) -> Gathered:
    """Each set cut to its limit, and pairs of one id once; a single source is taken as it is."""
    offered = {name: limited(pairs, limits[name], random_seed=random_seed) for name, pairs in read.items()}
    together = offered[DATA] if alone else union(offered)
    first: dict[str, str] = {}
    for name, pairs in offered.items():
        for pair in pairs:
            first.setdefault(pair.pair_id, name)
    names = [first[pair.pair_id] for pair in together]
    left_out: dict[str, dict[str, Counter[str]]] = {name: {} for name in read}
    for name, pairs in read.items():
        if len(offered[name]) < len(pairs):
            left_out[name]["train"] = Counter(limit=len(pairs) - len(offered[name]))
        for pair in offered[name]:
            if first[pair.pair_id] != name:
                left_out[name].setdefault(pair.split, Counter())["duplicate"] += 1
    kept = {name: [pair for pair, own in zip(together, names, strict=True) if own == name] for name in read}
    return Gathered(together, names, read, Mixture(kept, left_out, dict.fromkeys(read, 0)), {}, {})


def source_of(settings: RewardFitSettings, name: str) -> PairSettings:
    """What the settings say of a set; nothing, where the pairs were handed over."""
    return settings.sets.get(name) or (settings.data if name == DATA else PairSettings())


def shown(source: str) -> str:
    """A source as a data card names it: a file without its folder."""
    return Path(source).name if Path(source).exists() else source


def stages_of(settings: RewardFitSettings, gathered: Gathered) -> tuple[StageSettings, ...]:
    """The stages of a curriculum, at least two; empty for a training that shuffles all."""
    if settings.mixture is None or settings.mixture.order != "curriculum":
        return ()
    stages = settings.mixture.stages or tuple(StageSettings(sets=(name,)) for name in gathered.read)
    return stages if len(stages) > 1 else ()


def places_of_stages(stages: Sequence[StageSettings], names: Sequence[str], steps: int) -> list[tuple[list[int], int]]:
    """Of each stage the places of its pairs, by the set that each comes from, and its steps.

    Raises:
        TrainError: a stage without a pair or a step.
    """
    places = [[place for place, name in enumerate(names) if name in stage.sets] for stage in stages]
    found = stage_steps([len(of_stage) for of_stage in places], [stage.share for stage in stages], steps)
    return list(zip(places, found, strict=True))
