"""RMBoost and its rivals against known truth: whose labels are wrong how often, and what a reward model learns from each.

For each random seed: every method's campaign at each rate of the grid that it depends on (`lab.rmboost_material`), over the
same prompts; a first stage, a small language model that has learned to answer right; and reward models that start from it
and differ only in their pairs, at equal steps. West-of-N picks by the one of the real-like pairs. The oracle then says which
labels are wrong, and held-out items of known truth what the reward models learned.

How often a label is wrong follows from rates that we set: it is a measurement of the recipes and no claim of a paper. What
comes of it is a line, the rate of failed edits up to which RMBoost's labels are as clean as a rival's (`lab.break_even`).
Only what the reward models do with the pairs can speak for or against the paper (`lab.comparison`). Nothing is hoped for.

The folder holds everything; the same command goes on where it was stopped, and prints the same page when all is done.
"""

import json
import time
from pathlib import Path
from typing import NamedTuple

from configs.lab_settings import RmboostArm, RmboostLabSettings
from configs.settings import ScorerSettings
from lab.best_of_n import load_reward_model
from lab.break_even import BreakEven, Outcomes, break_even
from lab.comparison import Claim, Finding, Wins, judge
from lab.material import read_plain
from lab.music import ask
from lab.rmboost_material import (
    MIXED,
    PLAIN,
    REAL,
    Played,
    Point,
    Quality,
    at_centre,
    grid,
    make_items,
    make_plain,
    make_point,
    point_of,
    quality,
    read_source,
    sources_of,
)
from lab.workers import Job, run_aloud
from store.records import Metric
from store.writer import write_through
from train.checkpoint import write_json
from train.mixture import Sets
from train.reward import FitResult, fit_reward
from train.sft import fit_sft

PICKER: RmboostArm = "real"
"""The reward model that West-of-N picks by."""
RIVALS: tuple[Played, ...] = ("rlaif", "rlaif_by_pair", "rlcd", "west_of_n")


class Trained(NamedTuple):
    """An arm of one random seed, and what it made of the items."""

    random_seed: int
    arm: RmboostArm
    fit_id: str
    steps: int
    pairs: dict[str, int]
    """That it learned from, by source."""
    seconds: float
    wins: dict[str, list[float]]
    """By cell; see `lab.comparison.Wins`."""


class Line(NamedTuple):
    """Up to which rate of failed edits a method's labels are as clean as a rival's."""

    played: Played
    rival: Played
    judge_error: float
    found: BreakEven | None


class RmboostLabResult(NamedTuple):
    """All that a lab found."""

    settings: RmboostLabSettings
    qualities: list[Quality]
    arms: list[Trained]
    seconds: float
    """Of this run; little when all was done before."""

    @property
    def wins(self) -> Wins:
        return {(row.arm, row.random_seed, cell): wins for row in self.arms for cell, wins in row.wins.items()}

    @property
    def points(self) -> list[Point]:
        """Every campaign of the grid, in the order in which it is told."""
        return list(dict.fromkeys(row.point for row in self.qualities))

    def outcomes(self, point: Point) -> Outcomes:
        return {row.random_seed: row.outcomes for row in self.qualities if row.point == point}

    def lines(self) -> list[Line]:
        """RMBoost against each rival whose labels do not depend on failed edits, for each error of the judge."""
        settings, known = self.settings, set(self.points)
        found = []
        for played, rival in matches(settings):
            for error in settings.judge_errors:
                theirs = point_of(rival, error, None)
                curve = {rate: point_of(played, error, rate) for rate in rates_of(settings, played)}
                if theirs in known and known.issuperset(curve.values()):
                    outcomes = {rate: self.outcomes(point) for rate, point in curve.items()}
                    found.append(Line(played, rival, error, break_even(outcomes, self.outcomes(theirs))))
        return found

    def findings(self) -> list[Finding]:
        return [judge(claim, self.wins) for claim in claims(self.settings)] if self.arms else []


def matches(settings: RmboostLabSettings) -> list[tuple[Played, Played]]:
    """Whose break-even is sought: verified labels meet the rival that the same judge serves."""
    found: list[tuple[Played, Played]] = [("rmboost", "rlaif"), ("rmboost", "rlaif_by_pair"), ("rmboost", "west_of_n")]
    if settings.verified_failures:
        found += [("rmboost_verified", "rlaif"), ("rmboost_verified_by_pair", "rlaif_by_pair")]
    return found


def rates_of(settings: RmboostLabSettings, played: Played) -> tuple[float, ...]:
    """The edit failures at which a method is played, rising."""
    return settings.edit_failures if played == "rmboost" else settings.verified_failures


def claims(settings: RmboostLabSettings) -> list[Claim]:
    """What the paper says of reward models, in parts that these arms can test, and what our control asks."""
    known = set(settings.arms)
    wanted: list[tuple[str, str, str]] = [("real + RMBoost beats real alone", "real_rmboost", "real")]
    names = {"rlaif": "RLAIF", "rlaif_by_pair": "RLAIF (by pair)", "rlcd": "RLCD", "west_of_n": "West-of-N"}
    wanted += [(f"RMBoost's pairs beat {names[rival]}'s", "rmboost", rival) for rival in RIVALS]
    wanted += [(f"real + RMBoost beats real + {names[rival]}", "real_rmboost", f"real_{rival}") for rival in RIVALS]
    wanted.append(("real + RMBoost beats RMBoost alone", "real_rmboost", "rmboost"))
    wanted += [(f"real + {names[rival]} beats {names[rival]} alone", f"real_{rival}", rival) for rival in RIVALS]
    wanted.append(("ours: real + RMBoost beats twice as many real", "real_rmboost", "more_real"))
    return [
        Claim(f"{text}, {cell} items", arm, rival, (cell,))
        for cell in (REAL, MIXED)
        for text, arm, rival in wanted
        if {arm, rival} <= known
    ]


def run_rmboost_lab(settings: RmboostLabSettings, out: Path, *, quiet: bool = False) -> RmboostLabResult:
    """Run, or go on with, the lab in the folder `out`.

    Raises:
        LabFolderError: the folder cannot be made.
        DescantError: whatever stops a campaign or a fit; what is done is kept.
    """
    started = time.monotonic()
    results = run_aloud(_jobs(settings, out), out, processes=settings.processes, quiet=quiet)
    arms = [found for found in results.values() if isinstance(found, Trained)]
    qualities = [row for found in results.values() if isinstance(found, list) for row in found]
    order = {arm: place for place, arm in enumerate(settings.arms)}
    arms.sort(key=lambda row: (order[row.arm], row.random_seed))
    result = RmboostLabResult(settings, qualities, arms, time.monotonic() - started)
    content = {
        "settings": settings.model_dump(mode="json"),
        "qualities": [row._asdict() | {"point": row.point._asdict()} for row in qualities],
        "arms": [row._asdict() for row in arms],
    }
    (out / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return result


# the jobs


def _jobs(settings: RmboostLabSettings, out: Path) -> list[Job]:
    """All that is to be done, campaigns first.

    One campaign holds a corpus at a time, and a fit writes to it at its end: West-of-N's campaign waits for the reward model
    that it picks by, and all other fits of its random seed wait for it.
    """
    first, then, arms = [], [], []
    for seed in settings.random_seeds:
        place = out / str(seed)
        plain, played, stage, picker, west = (
            (name, seed) for name in (PLAIN, "grid", "first stage", "picker", "west of n")
        )
        first.append(Job(plain, play_plain, (settings, seed, place)))
        first.append(Job(played, play_grid, (settings, seed, place), (plain,)))
        first.append(Job(stage, first_stage, (settings, seed, place), (plain,)))
        then.append(Job(picker, fit_arm, (settings, seed, PICKER, place), (played, stage)))
        then.append(Job(west, play_west_of_n, (settings, seed, place), (picker,)))
        arms += [Job((arm, seed), train_arm, (settings, seed, arm, place), (west,)) for arm in settings.arms]
    return first + then + arms


def play_plain(settings: RmboostLabSettings, random_seed: int, place: Path) -> None:
    """The conversations that the first stage and the real-like pairs are made of."""
    place.mkdir(parents=True, exist_ok=True)
    made = place / "plain.json"
    made_for = settings.model_dump(mode="json", include={"prompts", "pairs", "mistakes", "dialogues", "items"})
    if made.exists() and json.loads(made.read_text("utf-8")) == made_for:
        return
    make_plain(settings, random_seed, place / "corpus.duckdb")
    write_json(made, made_for)


def play_grid(settings: RmboostLabSettings, random_seed: int, place: Path) -> list[Quality]:
    """Every campaign that waits for no reward model, and what became of its labels."""
    return [_played(settings, point, random_seed, place) for point in grid(settings)]


def play_west_of_n(settings: RmboostLabSettings, random_seed: int, place: Path) -> list[Quality]:
    """West-of-N's campaign, its best and worst picked by the reward model of the real-like pairs."""
    model = place / "arms" / PICKER / "model"
    return [_played(settings, at_centre(settings, "west_of_n"), random_seed, place, model)]


def _played(
    settings: RmboostLabSettings, point: Point, random_seed: int, place: Path, model: Path | None = None
) -> Quality:
    """A campaign, played once for these sizes, and its quality."""
    corpus = place / "corpus.duckdb"
    scorer = load_reward_model(ScorerSettings(model=str(model))) if model else None
    kept = place / "quality" / f"{point.name}.json"
    sizes = settings.model_dump(mode="json", include={"prompts", "mistakes", "items", "candidates"})
    made_for = sizes | {"scorer": scorer.fit.fit_id if scorer else None}
    if kept.exists() and (found := json.loads(kept.read_text("utf-8")))["made_for"] == made_for:
        return Quality(**found["quality"] | {"point": point})
    make_point(settings, point, random_seed, corpus, scorer)
    made = quality(settings, point, random_seed, corpus)
    kept.parent.mkdir(exist_ok=True)
    write_json(kept, {"made_for": made_for, "quality": made._asdict()})
    return made


def first_stage(settings: RmboostLabSettings, random_seed: int, place: Path) -> None:
    """What all arms of a random seed start from: a language model of right answers."""
    language = settings.language.model_copy(update={"random_seed": random_seed, "out": str(place / "language")})
    fit_sft(language, read_plain(place / "corpus.duckdb", PLAIN))


def fit_arm(settings: RmboostLabSettings, random_seed: int, arm: RmboostArm, place: Path) -> tuple[FitResult, Sets]:
    """One arm's reward model, and what it learned from; a finished one is left as it is."""
    corpus = place / "corpus.duckdb"
    own = settings.fit.model_copy(
        update={
            "name": f"lab-rmboost-{arm}",
            "model": str(place / "language" / "model"),
            "random_seed": random_seed,
            "out": str(place / "arms" / arm),
        }
    )
    sets = {source: read_source(settings, source, random_seed, corpus) for source in sources_of(arm)}
    return fit_reward(own, sets=sets, corpus=corpus, arm=arm), sets


def train_arm(settings: RmboostLabSettings, random_seed: int, arm: RmboostArm, place: Path) -> Trained:
    """One arm's reward model, and what it makes of the items."""
    corpus = place / "corpus.duckdb"
    fit, sets = fit_arm(settings, random_seed, arm, place)
    wins = ask(fit.model_dir, make_items(settings, random_seed, corpus))
    metrics = [
        Metric(fit_id=fit.fit_id, name="lab_accuracy", slice=cell, value=sum(of) / len(of), n=len(of), step=fit.steps)
        for cell, of in wins.items()
        if of
    ]
    write_through(corpus, metrics)
    sizes = {source: len(pairs) for source, pairs in sets.items()}
    return Trained(random_seed, arm, fit.fit_id, fit.steps, sizes, fit.seconds, wins)
