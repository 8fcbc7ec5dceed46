"""What MUSIC's lab learns from and is asked: campaigns on the rehearsal backend, and held-out items with known truth.

Sets of one random seed grow from the same seeds, so that arms differ in the contrast alone; items grow from seeds of the
test split. Nothing is verified on the way (`verify: false`): the oracle sorts the items afterwards, and the training
pairs keep the assistant's natural mistakes.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from agents.ledger import CampaignStopping
from agents.rehearsal.oracle import TurnGrade, grade
from configs.lab_settings import Arm, MusicLabSettings, WorldName
from configs.settings import BernoulliSchedule, CampaignSettings, PerturbSettings, SeedSettings
from graphs.best_of_n import RewardModel
from graphs.campaign import run_campaign
from graphs.seeds import load_seeds
from store.database import query
from store.queries import messages_of, preference_pairs
from store.records import Message, PreferencePair, Seed

PlayedWorld = Literal["easy", "hard", "lists"]
CONCURRENCY = 64
SEEDS_A_TRY = 2.4
"""Seeds that are played for each item that is wanted, at first: some branches slip on their own, and leave no item."""
MOST_TRIES = 6
SPLIT_SHARES = {"train": 0.8, "test": 0.1}

SINGLE = "single turn"
SEVERAL = "several turns"
STANDING = "standing instruction"


def at_turn(turn: int) -> str:
    """The name of the items whose only error is in this turn, from 1."""
    return f"turn {turn}"


def cells(turns: int) -> list[str]:
    """The kinds of held-out items, in the order of tables."""
    return [SINGLE, *(at_turn(turn) for turn in range(1, turns + 1)), SEVERAL, STANDING]


class Source(NamedTuple):
    """How the pairs of a set are made."""

    turns: int
    perturb: PerturbSettings


def sources(turns: int) -> dict[str, Source]:
    """Every set of pairs by name."""
    return {
        "base": Source(1, PerturbSettings(schedule="every")),
        "single_turn": Source(1, PerturbSettings(schedule="every")),
        "last_turn": Source(turns, PerturbSettings(schedule="last", share="trunk")),
        "music": Source(turns, PerturbSettings(schedule="every")),
        "bernoulli": Source(turns, PerturbSettings(schedule=BernoulliSchedule(bernoulli=0.5))),
        "one": Source(turns, PerturbSettings(schedule="one")),
        "spotlight": Source(turns, PerturbSettings(schedule="one", share="rest")),
    }


SETS_OF_ARM: dict[Arm, tuple[str, ...]] = {
    "base": ("base",),
    "more_single_turn": ("base", "single_turn"),
    "last_turn": ("base", "last_turn"),
    "music": ("base", "music"),
    "bernoulli": ("base", "bernoulli"),
    "one": ("base", "one"),
    "union": ("base", "last_turn", "music"),
    "spotlight": ("base", "spotlight"),
    "mixture": ("base", "music", "spotlight"),
}
"""An arm adds to the base as many pairs as any other: where it adds two sets, half of each."""


def sets_of(arms: Sequence[Arm]) -> list[str]:
    """The sets that these arms need, each once."""
    return list(dict.fromkeys(name for arm in arms for name in SETS_OF_ARM[arm]))


def make_sets(settings: MusicLabSettings, world: WorldName, random_seed: int, corpus: Path) -> None:
    """Play the campaigns of every set and of the plain dialogues into `corpus`, or go on with them."""
    base = seeds_of("train", settings.base_pairs, world, random_seed)
    extra = seeds_of("train", settings.base_pairs + settings.extra_pairs, world, random_seed)[settings.base_pairs :]
    talks = seeds_of("train", settings.dialogues, world, random_seed)
    play(CampaignSettings(name="plain", recipe="dialogue", turns=settings.turns), world, random_seed, talks, corpus)
    made = sources(settings.turns)
    for name in sets_of(settings.arms):
        campaign = CampaignSettings(name=name, recipe="music", turns=made[name].turns, perturb=made[name].perturb)
        play(campaign, world, random_seed, base if name == "base" else extra, corpus)


def read_arm(settings: MusicLabSettings, arm: Arm, corpus: Path) -> dict[str, list[PreferencePair]]:
    """The pairs that an arm learns from, by set."""
    base, *added = SETS_OF_ARM[arm]
    sets = {base: preference_pairs(corpus, campaign=base)}
    for name in added:
        pairs = preference_pairs(corpus, campaign=name)
        sets[name] = pairs[: math.ceil(settings.extra_pairs / len(added))]  # by pair_id, which is a hash
    return sets


def read_plain(corpus: Path, campaign: str = "plain") -> list[tuple[Message, ...]]:
    """The conversations of a campaign without branches, by dialogue_id."""
    rows = query(
        corpus,
        """
        SELECT messages FROM transcripts JOIN campaigns USING (campaign_id)
        WHERE campaigns.name = $campaign ORDER BY dialogue_id
        """,
        {"campaign": campaign},
    )
    return [messages_of(row["messages"]) for row in rows]


def make_items(
    settings: MusicLabSettings, world: WorldName, random_seed: int, corpus: Path
) -> dict[str, list[PreferencePair]]:
    """Held-out pairs by cell, `settings.items` of each, sorted by what the oracle finds wrong in them.

    In an item every chosen answer is right, and in the rejected conversation all but those that the cell names; both
    have all their turns. More seeds are played until every cell is full, and a cell that stays short is what it is.
    """
    single = CampaignSettings(name="items single turn", turns=1, perturb=PerturbSettings(schedule="every"))
    one = CampaignSettings(name="items one", turns=settings.turns, perturb=PerturbSettings(schedule="one"))
    several = CampaignSettings(
        name="items several",
        turns=settings.turns,
        perturb=PerturbSettings(schedule=BernoulliSchedule(bernoulli=0.6)),
    )
    found = _fill([SINGLE], single, 1, settings.items, world, random_seed, corpus)
    ones = [at_turn(turn) for turn in range(1, settings.turns + 1)] + [STANDING]
    found |= _fill(ones, one, settings.turns, settings.items, world, random_seed, corpus)
    return found | _fill([SEVERAL], several, settings.turns, settings.items, world, random_seed, corpus)


def _fill(
    names: Sequence[str],
    campaign: CampaignSettings,
    turns: int,
    wanted: int,
    world: WorldName,
    random_seed: int,
    corpus: Path,
) -> dict[str, list[PreferencePair]]:
    seeds = math.ceil(wanted * SEEDS_A_TRY * (turns if len(names) > 1 else 1))
    found: dict[str, list[PreferencePair]] = {}
    for _ in range(MOST_TRIES):
        play(campaign, world, random_seed, seeds_of("test", seeds, world, random_seed), corpus)
        found = {name: [] for name in names}
        for pair in preference_pairs(corpus, campaign=campaign.name):
            for cell in cells_of(pair, turns):
                if cell in found and len(found[cell]) < wanted:
                    found[cell].append(pair)
        if all(len(pairs) == wanted for pairs in found.values()):
            break
        seeds = math.ceil(seeds * 1.4)
    return found


def cells_of(pair: PreferencePair, turns: int) -> list[str]:
    """The cells that a pair belongs to, by the oracle; none where something else is wrong, or turns are missing."""
    chosen, rejected = grade(pair.chosen), grade(pair.rejected)
    if len(chosen) != turns or len(rejected) != turns or not all(turn.verdict == "right" for turn in chosen):
        return []
    if any(turn.verdict == "unknown" for turn in rejected):
        return []
    wrong: list[TurnGrade] = [turn for turn in rejected if turn.verdict == "wrong"]
    if turns == 1:
        return [SINGLE] if wrong else []
    if len(wrong) > 1:
        return [SEVERAL]
    if not wrong:
        return []
    broken = wrong[0].reasons == ("standing instruction broken",)
    return [at_turn(wrong[0].turn), *([STANDING] if broken else [])]


def seeds_of(split: str, count: int, world: PlayedWorld, random_seed: int) -> list[Seed]:
    """The first `count` seeds of a split."""
    drawn = math.ceil(count / SPLIT_SHARES[split])
    while True:
        limit = SeedSettings(format="rehearsal", world=world, limit=drawn)
        seeds = load_seeds(CampaignSettings(random_seed=random_seed, seeds=limit)).seeds
        found = [seed for seed in seeds if seed.split == split]
        if len(found) >= count:
            return found[:count]
        drawn = math.ceil(drawn * 1.1) + 20


def play(
    campaign: CampaignSettings,
    world: PlayedWorld,
    random_seed: int,
    seeds: Sequence[Seed],
    corpus: Path,
    scorer: RewardModel | None = None,
) -> None:
    """A campaign of a lab over these seeds, or go on with it; `scorer` is for recipes that pick by a reward model."""
    settings = campaign.model_copy(
        update={
            "random_seed": random_seed,
            "concurrency": CONCURRENCY,
            "seeds": SeedSettings(format="rehearsal", world=world, limit=len(seeds)),
        }
    )
    report = run_campaign(settings, seeds, corpus, scorer=scorer)
    if report.stop_reason is not None:
        raise CampaignStopping(report.stop_reason)
