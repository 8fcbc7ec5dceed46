"""What RMBoost's lab plays: every method's campaign at every point of the grid, over the same prompts of the world `lists`.

A method depends on the rates that its writer and its judge are asked to fail at and on no others, so each campaign is played
once. Also here: the plain conversations of the first stage, real-like pairs (two natural samples to a prompt, labelled as
people would), the held-out items, and what the oracle says of every pair's label. Nobody else asks the oracle.
"""

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agents.rehearsal.oracle import Better, better
from configs.lab_settings import RmboostLabSettings
from configs.model_settings import ModelsSettings, RoleSettings
from configs.pairing_settings import BoostSettings, Method, PairingSettings
from configs.settings import CampaignSettings
from graphs.best_of_n import RewardModel
from lab.break_even import NO_PAIR, RIGHT, TIE, WRONG
from lab.material import play, seeds_of
from store.database import query
from store.diversity import between
from store.identity import chance
from store.queries import messages_of, preference_pairs
from store.records import PreferencePair, Seed

Played = Literal[
    "rmboost", "rmboost_verified", "rmboost_verified_by_pair", "rlaif", "rlaif_by_pair", "rlcd", "west_of_n"
]
"""The methods, and how their judge errs: anew each time that it is asked unless `by_pair`."""
RECIPES: dict[Played, Method] = {
    "rmboost": "rmboost",
    "rmboost_verified": "rmboost",
    "rmboost_verified_by_pair": "rmboost",
    "rlaif": "rlaif",
    "rlaif_by_pair": "rlaif",
    "rlcd": "rlcd",
    "west_of_n": "west_of_n",
}
JUDGED: tuple[Played, ...] = ("rlaif", "rlaif_by_pair", "rmboost_verified", "rmboost_verified_by_pair")
WRITTEN: tuple[Played, ...] = ("rmboost", "rmboost_verified", "rmboost_verified_by_pair", "rlcd")
"""Whose answers are written for a label, and so can fail it."""
MIXED_FROM: tuple[Played, ...] = ("rmboost", "rlaif", "rlcd", "west_of_n")
"""Whose held-out pairs are the mixed items: each recipe's, once."""
WORLD: Literal["lists"] = "lists"
PLAIN, REAL = "plain", "real-like"
"""The campaigns beside the grid; `REAL` names the items from it too."""
MIXED = "mixed"
"""Items of every method's own pairs."""
LETTERS: dict[Better, str] = {"first": RIGHT, "second": WRONG, "tie": TIE}
TESTS_AN_ITEM = 1.7
"""Prompts of the test split for each held-out item: some give no pair, or two answers that are equally good."""
PROMPTS_A_REAL_PAIR = 1.7
"""Two natural samples are equally good in about every third prompt."""


class Point(NamedTuple):
    """A campaign of the grid."""

    played: Played
    judge_error: float | None
    """Null where no judge is asked."""
    edit_failure: float | None
    """Null where nothing is written for a label."""

    @property
    def name(self) -> str:
        """The campaign's."""
        parts = [
            f"{rate} {100 * value:g} %"
            for rate, value in (("judge", self.judge_error), ("edit", self.edit_failure))
            if value is not None
        ]
        return ", ".join([self.played, *parts])


class Quality(NamedTuple):
    """What a campaign of one random seed made of the prompts."""

    point: Point
    random_seed: int
    outcomes: str
    """A letter for each prompt; see `lab.break_even`."""
    calls_a_pair: float | None
    tokens_a_pair: float | None
    """Prompt and completion tokens; null where there is no pair, as for calls."""
    self_rouge: float | None
    distinct_2: float | None
    longer: float | None
    """Share of the pairs whose chosen answer has more words, equal ones as half."""


def grid(settings: RmboostLabSettings) -> list[Point]:
    """Every campaign that waits for no reward model: each method at each rate that it depends on.

    Where the judge never errs, it does not matter how it would.
    """
    errors, failures = settings.judge_errors, settings.edit_failures
    points = [Point("rlaif", error, None) for error in errors]
    points += [Point("rlaif_by_pair", error, None) for error in errors if error > 0]
    points += [Point("rmboost", None, failure) for failure in failures]
    points += [Point("rlcd", None, failure) for failure in failures]
    kinds: tuple[Played, ...] = ("rmboost_verified", "rmboost_verified_by_pair")
    points += [
        Point(played, error, failure)
        for played in kinds
        for error in errors
        for failure in settings.verified_failures
        if error > 0  # a judge that never errs lets no wrong label pass
    ]
    return points


def point_of(played: Played, error: float | None, failure: float | None) -> Point:
    """Where a method stands at these rates, of those that it depends on."""
    if error == 0 and played.endswith("_by_pair"):
        played = "rlaif" if played == "rlaif_by_pair" else "rmboost_verified"
    return Point(played, error if played in JUDGED else None, failure if played in WRITTEN else None)


def at_centre(settings: RmboostLabSettings, played: Played) -> Point:
    return point_of(played, settings.judge_error, settings.edit_failure)


def campaign_of(settings: RmboostLabSettings, point: Point) -> CampaignSettings:
    """The campaign of a point of the grid; its seeds and its random seed are filled in by `play`."""
    recipe = RECIPES[point.played]
    verify = point.played.startswith("rmboost_verified")
    writes: dict[str, Any] = {"mistake_rate": settings.mistakes}
    if point.edit_failure is not None:
        writes["edit_failure_rate"] = point.edit_failure
    rate = "judge_blind_rate" if point.played.endswith("_by_pair") else "judge_error_rate"
    judges = {"judge_error_rate": 0.0, "position_bias": 0.0} | {rate: point.judge_error or 0.0}
    return CampaignSettings(
        name=point.name,
        recipe=recipe,
        turns=1,
        candidates=settings.candidates,
        pairing=PairingSettings(boost=BoostSettings(verify=verify)),
        models=ModelsSettings(default=RoleSettings(params=writes), judges=(RoleSettings(params=judges),)),
    )


def prompts(settings: RmboostLabSettings, random_seed: int) -> list[Seed]:
    """The prompts of every campaign of the grid."""
    return seeds_of("train", settings.prompts, WORLD, random_seed)


def held_out_prompts(random_seed: int, items: int) -> list[Seed]:
    """Of the test split, enough for so many items."""
    return seeds_of("test", math.ceil(items * TESTS_AN_ITEM), WORLD, random_seed)


def make_plain(settings: RmboostLabSettings, random_seed: int, corpus: Path) -> None:
    """Right answers for the language model, and two natural samples to each prompt of the real-like pairs."""
    right = CampaignSettings(
        name=PLAIN, recipe="dialogue", turns=1, models=ModelsSettings(default=RoleSettings(model="rehearsal/perfect"))
    )
    play(right, WORLD, random_seed, seeds_of("train", settings.dialogues, WORLD, random_seed), corpus)
    natural = CampaignSettings(
        name=REAL,
        recipe="dialogue",
        turns=1,
        trials=2,
        models=ModelsSettings(default=RoleSettings(params={"mistake_rate": settings.mistakes})),
    )
    more = round(2 * settings.pairs * PROMPTS_A_REAL_PAIR)
    own = seeds_of("train", settings.prompts + more, WORLD, random_seed)[settings.prompts :]
    play(natural, WORLD, random_seed, [*own, *held_out_prompts(random_seed, settings.items)], corpus)


def make_point(
    settings: RmboostLabSettings, point: Point, random_seed: int, corpus: Path, scorer: RewardModel | None = None
) -> None:
    """Play a campaign of the grid, or go on with it; those whose pairs are items play the held-out prompts too."""
    seeds = prompts(settings, random_seed)
    if point in (at_centre(settings, played) for played in MIXED_FROM):
        seeds += held_out_prompts(random_seed, items_each(settings))
    play(campaign_of(settings, point), WORLD, random_seed, seeds, corpus, scorer)


# what the oracle says


def truth(pair: PreferencePair) -> Better:
    """Whether the chosen answer is the better one (`first`), by the oracle."""
    *history, chosen = pair.chosen
    assert tuple(history) == pair.rejected[:-1], "both answers are to one prompt"
    return better(history, chosen.content, pair.rejected[-1].content)


def quality(settings: RmboostLabSettings, point: Point, random_seed: int, corpus: Path) -> Quality:
    """What became of each prompt, and what the campaign's pairs cost."""
    seeds = prompts(settings, random_seed)
    pairs = pairs_by_seed(corpus, point.name)
    found = {seed: LETTERS[truth(pair)] for seed, pair in pairs.items()}
    train = [pair for pair in pairs.values() if pair.split == "train"]
    varied = between(
        {
            seed: [pair.chosen[-1].content, pair.rejected[-1].content]
            for seed, pair in pairs.items()
            if pair.split == "train"
        },
        random_seed=point.name,
    )
    paid = query(
        corpus,
        """
        SELECT calls_a_pair, prompt_tokens_a_pair + completion_tokens_a_pair AS tokens_a_pair FROM pair_costs WHERE name = ?
        """,
        [point.name],
    )[0]
    words = [(len(pair.chosen[-1].content.split()), len(pair.rejected[-1].content.split())) for pair in train]
    longer = [(good > bad) + 0.5 * (good == bad) for good, bad in words]
    return Quality(
        point,
        random_seed,
        "".join(found.get(seed.seed_id, NO_PAIR) for seed in seeds),
        paid["calls_a_pair"],
        paid["tokens_a_pair"],
        varied.self_rouge.value,
        varied.distinct_2.value,
        sum(longer) / len(longer) if longer else None,
    )


def pairs_by_seed(corpus: Path, campaign: str) -> dict[str, PreferencePair]:
    """A campaign's pairs by the seed that they start from; each has one at most."""
    rows = query(
        corpus,
        "SELECT pair_id, seed_id FROM preference_pairs JOIN campaigns USING (campaign_id) WHERE campaigns.name = ?",
        [campaign],
    )
    seed_of = {row["pair_id"]: row["seed_id"] for row in rows}
    return {seed_of[pair.pair_id]: pair for pair in preference_pairs(corpus, campaign=campaign)}


# what reward models learn from, and are asked


def real_pairs(settings: RmboostLabSettings, random_seed: int, corpus: Path, split: str) -> list[PreferencePair]:
    """Two natural samples to a prompt, of which one is better; in training labels some are wrong, held out none.

    Where both are equally good, people would say so, and there is no pair.
    """
    rows = query(
        corpus,
        """
        SELECT seeds.seed_id, list(transcripts.messages ORDER BY trial) AS samples
        FROM transcripts JOIN campaigns USING (campaign_id) JOIN seeds USING (seed_id)
        WHERE campaigns.name = ? AND seeds.split = ? AND transcripts.status = 'done'
        GROUP BY seeds.seed_id HAVING count(*) = 2 ORDER BY seeds.seed_id
        """,
        [REAL, split],
    )
    found = []
    for row in rows:
        one, other = (tuple(messages_of(sample)) for sample in row["samples"])
        told = better(one[:-1], one[-1].content, other[-1].content)
        if told in ("tie", "unknown"):
            continue
        chosen, rejected = (one, other) if told == "first" else (other, one)
        errs = split == "train" and chance("real noise", random_seed, row["seed_id"]).random() < settings.real_noise
        if errs:
            chosen, rejected = rejected, chosen
        found.append(PreferencePair(f"real {row['seed_id']}", chosen, rejected, split, "real", 1, 1))
    return found


def read_source(settings: RmboostLabSettings, source: str, random_seed: int, corpus: Path) -> list[PreferencePair]:
    """The training pairs of a source by its name in an arm: `real`, `more_real` or a method at the grid's centre."""
    if source in ("real", "more_real"):
        most = settings.pairs * (2 if source == "more_real" else 1)
        return real_pairs(settings, random_seed, corpus, "train")[:most]
    point = at_centre(settings, source)  # type: ignore[arg-type]  # the names of arms are those of methods
    return preference_pairs(corpus, campaign=point.name, split="train")[: settings.pairs]  # by pair_id, a hash


def sources_of(arm: str) -> list[str]:
    """The sources of an arm's pairs."""
    return ["real", arm.removeprefix("real_")] if arm.startswith("real_") else [arm]


def items_each(settings: RmboostLabSettings) -> int:
    """Mixed items of each method."""
    return settings.items // len(MIXED_FROM)


def make_items(settings: RmboostLabSettings, random_seed: int, corpus: Path) -> dict[str, list[PreferencePair]]:
    """Held-out pairs with true labels: real-like ones, and equally many of each method's for the mixed ones."""
    mixed = []
    for played in MIXED_FROM:
        held_out = preference_pairs(corpus, campaign=at_centre(settings, played).name, split="test")
        mixed += [set_right(pair) for pair in held_out if truth(pair) != "tie"][: items_each(settings)]
    return {REAL: real_pairs(settings, random_seed, corpus, "test")[: settings.items], MIXED: mixed}


def set_right(pair: PreferencePair) -> PreferencePair:
    """The pair with its true label."""
    if truth(pair) == "first":
        return pair
    return pair._replace(chosen=pair.rejected, rejected=pair.chosen)
