"""MUSIC's claim against known truth: arms that differ only in their pairs, asked about the same held-out items.

For each world and random seed: campaigns on the rehearsal backend (`lab.material`), a first stage from which all arms
start (a small language model of plain conversations, made a reward model of the base pairs), and each arm's reward model
at equal steps. Then every arm is asked about items
whose only error stands in a known turn, in several turns, in the standing instruction, or in a single turn. Nothing is
hoped for: what the items say of each claim (`lab.comparison`) is printed whichever way it goes.

The folder holds everything; the same command goes on where it was stopped, and prints the same page when all is done.
What differs from the paper: the world, the models' size, the first stage, three turns instead of five; see the page.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from configs.lab_settings import Arm, MusicLabSettings, WorldName
from lab.comparison import Claim, Finding, Wins, judge
from lab.material import SETS_OF_ARM, SEVERAL, SINGLE, at_turn, cells, make_items, make_sets, read_arm, read_plain
from lab.workers import Job, run_aloud, run_jobs
from store.queries import preference_pairs
from store.records import Metric, PreferencePair
from store.writer import write_through
from train.checkpoint import read_metrics, write_json
from train.reward import fit_reward
from train.score import load_scorer
from train.sft import fit_sft

OURS: Arm = "spotlight"
"""The arm that is no paper's: pairs that share all text but one answer."""
COST = 0.02
"""A loss of accuracy up to this still counts as none (ours)."""


class Trained(NamedTuple):
    """An arm of one world and random seed, and what it made of the items."""

    world: WorldName
    random_seed: int
    arm: Arm
    fit_id: str
    steps: int
    tokens: int
    """Real tokens that it learned from, padding not counted."""
    seconds: float
    wins: dict[str, list[float]]
    """By cell; see `lab.comparison.Wins`."""


class LabResult(NamedTuple):
    """All that a lab found."""

    settings: MusicLabSettings
    arms: list[Trained]
    at_equal_tokens: list[Trained]
    seconds: float
    """Of this run; little when all was done before."""

    def wins(self, world: WorldName, *, equal_tokens: bool = False) -> Wins:
        rows = self.at_equal_tokens if equal_tokens else self.arms
        return {
            (row.arm, row.random_seed, cell): wins
            for row in rows
            if row.world == world
            for cell, wins in row.wins.items()
        }

    def findings(self, world: WorldName, *, equal_tokens: bool = False) -> list[Finding]:
        wins = self.wins(world, equal_tokens=equal_tokens)
        return [judge(claim, wins) for claim in claims(self.settings.arms, self.settings.turns)]


def claims(arms: Sequence[Arm], turns: int) -> list[Claim]:
    """The paper's claim in parts that these arms can test, and ours about our own recipe."""
    early = tuple(at_turn(turn) for turn in range(1, turns))
    every = tuple(at_turn(turn) for turn in range(1, turns + 1))
    known = set(arms)
    found = []
    if "music" in known:
        found += [
            Claim("MUSIC beats the base where several turns are wrong", "music", "base", (SEVERAL,)),
            Claim("MUSIC beats the base on errors in the early turns", "music", "base", early),
            Claim("MUSIC costs nothing on single turns, against the base", "music", "base", (SINGLE,), COST),
        ]
    if {"music", "last_turn"} <= known:
        found.append(Claim("MUSIC beats last-turn contrasts on early errors", "music", "last_turn", early))
    if {"music", "more_single_turn"} <= known:
        found.append(Claim("MUSIC beats as many single-turn pairs, all turns", "music", "more_single_turn", every))
    if OURS in known:
        rivals = [arm for arm in arms if arm != OURS]
        found += [Claim(f"{OURS} beats {arm} on errors in one turn", OURS, arm, every) for arm in rivals]
        found += [Claim(f"{OURS} costs nothing on single turns", OURS, "base", (SINGLE,), COST)]
    return found


def run_music_lab(settings: MusicLabSettings, out: Path, *, quiet: bool = False) -> LabResult:
    """Run, or go on with, the lab in the folder `out`.

    Raises:
        LabFolderError: the folder cannot be made.
        DescantError: whatever stops a campaign or a fit; what is done is kept.
    """
    started = time.monotonic()
    results = run_aloud(_jobs(settings, out), out, processes=settings.processes, quiet=quiet)
    arms = [result for result in results.values() if isinstance(result, Trained)]
    again = [
        Job(
            (arm.arm, arm.world, arm.random_seed),
            at_tokens,
            (arm, out / arm.world / str(arm.random_seed), most),
        )
        for arm in arms
        for most in [min(a.tokens for a in arms if (a.world, a.random_seed) == (arm.world, arm.random_seed))]
    ]
    earlier = run_jobs(again, processes=settings.processes, done=lambda _job, _done: None)
    result = LabResult(settings, arms, [earlier[job.key] for job in again], time.monotonic() - started)
    _keep(result, out)
    return result


# the jobs


def _jobs(settings: MusicLabSettings, out: Path) -> list[Job]:
    """All that is to be done, campaigns first: what waits for nothing should not be waited for."""
    campaigns, stages, arms = [], [], []
    for world in settings.worlds:
        for seed in settings.random_seeds:
            place = out / world / str(seed)
            made, stage = ("campaigns", world, seed), ("first stage", world, seed)
            campaigns.append(Job(made, make_material, (settings, world, seed, place)))
            stages.append(Job(stage, first_stage, (settings, seed, place), (made,)))
            arms += [
                Job((arm, world, seed), train_arm, (settings, world, seed, arm, place), (stage,))
                for arm in settings.arms
            ]
    return campaigns + stages + arms


def make_material(settings: MusicLabSettings, world: WorldName, random_seed: int, place: Path) -> None:
    """The campaigns of one world and random seed, and which of their pairs are items."""
    place.mkdir(parents=True, exist_ok=True)
    corpus, made = place / "corpus.duckdb", place / "items.json"
    sizes = {"turns", "arms", "dialogues", "base_pairs", "extra_pairs", "items"}
    made_for = settings.model_dump(mode="json", include=sizes)
    if made.exists() and json.loads(made.read_text("utf-8"))["made_for"] == made_for:
        return
    make_sets(settings, world, random_seed, corpus)
    items = make_items(settings, world, random_seed, corpus)
    listed = {cell: [pair.pair_id for pair in items[cell]] for cell in cells(settings.turns)}
    write_json(made, {"made_for": made_for, "items": listed})


def first_stage(settings: MusicLabSettings, random_seed: int, place: Path) -> None:
    """What all arms of a random seed start from: a language model, then a reward model of the base pairs."""
    corpus = place / "corpus.duckdb"
    language = settings.language.model_copy(update={"random_seed": random_seed, "out": str(place / "language")})
    model = fit_sft(language, read_plain(corpus))
    changes = {"name": "lab-music-stage", "model": str(model), "random_seed": random_seed, "out": str(place / "stage")}
    fit_reward(settings.stage.model_copy(update=changes), sets=read_arm(settings, "base", corpus), corpus=corpus)


def train_arm(settings: MusicLabSettings, world: WorldName, random_seed: int, arm: Arm, place: Path) -> Trained:
    """One arm's reward model, and what it makes of the items."""
    corpus, folder = place / "corpus.duckdb", place / "arms" / arm
    steps = settings.fit.steps or 1
    own = settings.fit.model_copy(
        update={
            "name": f"lab-music-{arm}",
            "model": str(place / "stage" / "model"),
            "random_seed": random_seed,
            "out": str(folder),
            "checkpoint_every": max(1, steps // settings.points),
            "keep": settings.points,
        }
    )
    fit = fit_reward(own, sets=read_arm(settings, arm, corpus), corpus=corpus, arm=arm)
    wins = ask(folder / "model", read_items(place))
    tokens = sum(line["tokens"] for line in read_metrics(folder / "metrics.jsonl"))
    return Trained(world, random_seed, arm, fit.fit_id, fit.steps, tokens, fit.seconds, wins)


def at_tokens(trained: Trained, place: Path, most: int) -> Trained:
    """The arm at the checkpoint whose tokens are nearest to `most`: its last one, or one on the way there."""
    folder = place / "arms" / trained.arm
    seen, total = {}, 0
    for line in read_metrics(folder / "metrics.jsonl"):
        total += line["tokens"]
        seen[line["step"]] = total
    kept = {int(path.name.removeprefix("step-")): path for path in (folder / "checkpoints").glob("step-*")}
    kept[trained.steps] = folder / "model"
    step = min(kept, key=lambda step: (abs(seen[step] - most), step))
    wins = trained.wins if step == trained.steps else ask(kept[step], read_items(place))
    return trained._replace(steps=step, tokens=seen[step], wins=wins)


def read_items(place: Path) -> dict[str, list[PreferencePair]]:
    """The held-out items by cell."""
    listed: dict[str, list[str]] = json.loads((place / "items.json").read_text("utf-8"))["items"]
    pairs = {pair.pair_id: pair for pair in preference_pairs(place / "corpus.duckdb", split="test")}
    return {cell: [pairs[identity] for identity in ids] for cell, ids in listed.items()}


def ask(model: Path, items: dict[str, list[PreferencePair]]) -> dict[str, list[float]]:
    """For each item of each cell 1 where the chosen conversation has the higher reward, 0.5 for a tie, else 0."""
    scorer = load_scorer(model)
    asked = {pair.pair_id: pair for pairs in items.values() for pair in pairs}
    chosen = scorer.score([pair.chosen for pair in asked.values()], batch_size=64)
    rejected = scorer.score([pair.rejected for pair in asked.values()], batch_size=64)
    won = {
        identity: (good > bad) + 0.5 * (good == bad)
        for identity, good, bad in zip(asked, chosen, rejected, strict=True)
    }
    return {cell: [won[pair.pair_id] for pair in pairs] for cell, pairs in items.items()}


# what is kept


def _keep(result: LabResult, out: Path) -> None:
    """The accuracies as rows of each corpus, and everything as JSON."""
    for name, rows in (("lab_accuracy", result.arms), ("lab_accuracy_at_equal_tokens", result.at_equal_tokens)):
        for row in rows:
            metrics = [
                Metric(
                    fit_id=row.fit_id, name=name, slice=cell, value=sum(wins) / len(wins), n=len(wins), step=row.steps
                )
                for cell, wins in row.wins.items()
                if wins
            ]
            write_through(out / row.world / str(row.random_seed) / "corpus.duckdb", metrics)
    content = {
        "settings": result.settings.model_dump(mode="json"),
        "sets_of_arm": SETS_OF_ARM,
        "arms": [row._asdict() for row in result.arms],
        "at_equal_tokens": [row._asdict() for row in result.at_equal_tokens],
    }
    (out / "results.json").write_text(json.dumps(content), encoding="utf-8")
