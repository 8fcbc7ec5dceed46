"""Parrot's two ablations against known truth: SFT on the first turns or on all, and DPO against each error of context.

For each random seed: campaigns on the rehearsal backend (`lab.parrot_material`) and a first stage, a small language model
that has begun to talk. From it, SFT on the first 1, 3, 5 answers of each conversation and on all, at equal steps; from the
last of these, DPO against context neglect, hallucination and misunderstanding, alone and together, and controls of ours.
Every model then answers each turn of the same held-out conversations, and the oracle grades. Nothing is hoped for: what
the items say of each claim (`lab.comparison`) is printed whichever way it goes.

The folder holds everything; the same command goes on where it was stopped, and prints the same page when all is done.
What differs from the paper: the world, the models' size, the oracle in place of a judge's 1 to 10, and that all arms of an
ablation take as many steps on as many conversations or pairs; see the page.
"""

import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from configs.lab_settings import ParrotArm, ParrotLabSettings
from lab.comparison import Claim, Finding, Wins, judge
from lab.parrot_material import (
    ALL,
    EARLY,
    KIND_OF_ARM,
    answers_to_others,
    chosen_sessions,
    graded,
    make_material,
    pairs_of_errors,
    questions,
    read_contrasts,
    read_held_out,
    read_sessions,
    rejecting,
)
from lab.workers import Job, run_aloud
from store.records import Message, Metric
from store.writer import write_through
from train.checkpoint import write_json
from train.dpo import fit_dpo
from train.generate import generate
from train.language import LanguageFitResult, fit_language
from train.sessions import Session

STAGE, NO_CAPO, SPREAD = "stage", "sft_all", "sft_spread"
"""What all start from; the SFT on all turns, from which CaPO's arms go on; and SFT on all turns with as many answers a step as the SFT on the first."""
MOST_TOKENS = 24
"""Of an answer; those of the world have half as many."""


class Trained(NamedTuple):
    """An arm of one random seed, and what it made of the held-out conversations."""

    random_seed: int
    arm: str
    fit_id: str
    steps: int
    examples: int
    """Conversations or pairs that it learned from."""
    seconds: float
    wins: dict[str, list[float]]
    """By cell; see `lab.parrot_material.graded`."""


class ParrotLabResult(NamedTuple):
    """All that a lab found."""

    settings: ParrotLabSettings
    arms: list[Trained]
    seconds: float
    """Of this run; little when all was done before."""

    @property
    def wins(self) -> Wins:
        return {(row.arm, row.random_seed, cell): wins for row in self.arms for cell, wins in row.wins.items()}

    def findings(self) -> list[Finding]:
        return [judge(claim, self.wins) for claim in claims(self.settings)]


def sft_arms(settings: ParrotLabSettings) -> list[str]:
    """The arms of the first ablation, in the order of tables."""
    return [*(f"sft_{first}" for first in sorted(settings.first)), NO_CAPO, *([SPREAD] if 1 in settings.first else [])]


def claims(settings: ParrotLabSettings) -> list[Claim]:
    """What the paper's two tables say, in parts that these arms can test, and what our controls ask."""
    ladder = [*(f"sft_{first}" for first in sorted(settings.first)), NO_CAPO]
    found = [
        Claim(f"{more} beats {fewer}: more SFT turns are better", more, fewer, (ALL,))
        for fewer, more in pairwise(ladder)
    ]
    if 1 in settings.first:
        found.append(Claim("ours: as many answers, but of all turns, beat the first answers", SPREAD, "sft_1", (ALL,)))
    arms: set[str] = set(settings.arms)
    found += [Claim(f"{arm} negatives alone help", arm, NO_CAPO, (ALL,)) for arm in KIND_OF_ARM if arm in arms]
    if "all_three" in arms:
        found.append(Claim("all three together help", "all_three", NO_CAPO, (ALL,)))
        found += [Claim(f"all three beat {arm} alone", "all_three", arm, (ALL,)) for arm in KIND_OF_ARM if arm in arms]
    if "misunderstanding" in arms:
        found.append(
            Claim("misunderstanding alone costs on the first two turns", NO_CAPO, "misunderstanding", (EARLY,))
        )
    if "hallucination" in arms:
        found.append(Claim("hallucination alone helps on the first two turns", "hallucination", NO_CAPO, (EARLY,)))
    if "all_three" in arms:
        controls = {
            "more_sft": "as many more steps of SFT",
            "own_neglect": "the model's own answers without the history",
            "arbitrary": "answers to other queries",
        }
        found += [
            Claim(f"ours: all three beat {text}", "all_three", arm, (ALL,))
            for arm, text in controls.items()
            if arm in arms
        ]
    return found


def run_parrot_lab(settings: ParrotLabSettings, out: Path, *, quiet: bool = False) -> ParrotLabResult:
    """Run, or go on with, the lab in the folder `out`.

    Raises:
        LabFolderError: the folder cannot be made.
        DescantError: whatever stops a campaign or a fit; what is done is kept.
    """
    started = time.monotonic()
    results = run_aloud(_jobs(settings, out), out, processes=settings.processes, quiet=quiet)
    arms = [found for found in results.values() if isinstance(found, Trained)]
    result = ParrotLabResult(settings, arms, time.monotonic() - started)
    content = {"settings": settings.model_dump(mode="json"), "arms": [row._asdict() for row in arms]}
    (out / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return result


# the jobs


def _jobs(settings: ParrotLabSettings, out: Path) -> list[Job]:
    """All that is to be done, what others wait for first."""
    first: list[Job] = []
    rest: list[Job] = []
    for seed in settings.random_seeds:
        place = out / str(seed)
        made, stage, base = ("campaigns", seed), (STAGE, seed), (NO_CAPO, seed)
        first.append(Job(made, make_campaigns, (settings, seed, place)))
        first.append(Job(stage, train_stage, (settings, seed, place), (made,)))
        first.append(Job(base, train_sft, (settings, seed, NO_CAPO, place), (stage,)))
        others = [arm for arm in sft_arms(settings) if arm != NO_CAPO]
        rest += [Job((arm, seed), train_sft, (settings, seed, arm, place), (stage,)) for arm in others]
        rest += [Job((arm, seed), train_capo, (settings, seed, arm, place), (base,)) for arm in settings.arms]
    return first + rest


def make_campaigns(settings: ParrotLabSettings, random_seed: int, place: Path) -> None:
    """The campaigns of a random seed; made once for these sizes."""
    place.mkdir(parents=True, exist_ok=True)
    corpus, made = place / "corpus.duckdb", place / "material.json"
    sizes = {"world", "turns", "dialogues", "capo_dialogues", "queries", "items"}
    made_for = settings.model_dump(mode="json", include=sizes)
    if made.exists() and json.loads(made.read_text("utf-8")) == made_for:
        return
    make_material(settings, random_seed, corpus)
    write_json(made, made_for)


def train_stage(settings: ParrotLabSettings, random_seed: int, place: Path) -> Trained:
    """The language model that all arms of a random seed start from."""
    changes = {"name": "lab-parrot-stage", "random_seed": random_seed, "out": str(place / STAGE)}
    sessions = read_sessions(place / "corpus.duckdb")
    fit = fit_language(settings.stage.model_copy(update=changes), sessions=sessions, corpus=place / "corpus.duckdb")
    return _trained(settings, random_seed, STAGE, fit, len(sessions), place)


def train_sft(settings: ParrotLabSettings, random_seed: int, arm: str, place: Path) -> Trained:
    """SFT from the stage on: on the first answers that the arm's name tells, or on all."""
    share = settings.turns if arm == SPREAD else 1  # of a step's conversations
    answers = {f"sft_{first}": first for first in settings.first}.get(arm)
    own = settings.sft.model_copy(
        update={
            "name": f"lab-parrot-{arm}",
            "model": str(place / STAGE / "model"),
            "random_seed": random_seed,
            "turns": answers,
            "batch_size": max(1, settings.sft.batch_size // share),
            "warmup_epochs": settings.sft.warmup_epochs / share,
            "out": str(place / "arms" / arm),
        }
    )
    sessions = read_sessions(place / "corpus.duckdb")
    fit = fit_language(own, sessions=sessions, corpus=place / "corpus.duckdb", arm=arm)
    return _trained(settings, random_seed, arm, fit, len(sessions), place)


def train_capo(settings: ParrotLabSettings, random_seed: int, arm: ParrotArm, place: Path) -> Trained:
    """From the SFT on all turns on: DPO against what the arm's name tells, or more SFT."""
    corpus, base = place / "corpus.duckdb", place / "arms" / NO_CAPO / "model"
    contrasts = read_contrasts(corpus, settings.pairs)
    chosen = pairs_of_errors("all_three", contrasts)
    start = {
        "name": f"lab-parrot-{arm}",
        "model": str(base),
        "random_seed": random_seed,
        "out": str(place / "arms" / arm),
    }
    if arm == "more_sft":
        sessions: list[Session] = chosen_sessions(chosen)
        same = {name: getattr(settings.dpo, name) for name in ("steps", "batch_size", "learning_rate", "warmup_epochs")}
        own = settings.sft.model_copy(update=start | same)
        fit = fit_language(own, sessions=sessions, corpus=corpus, arm=arm)
        return _trained(settings, random_seed, arm, fit, len(sessions), place)
    if arm == "own_neglect":
        alone = [pair.chosen[-2:-1] for pair in chosen]  # the query without what was said before
        pairs = rejecting(arm, chosen, generate(base, alone, max_tokens=MOST_TOKENS))
    elif arm == "arbitrary":
        pairs = rejecting(arm, chosen, answers_to_others(chosen))
    else:
        pairs = pairs_of_errors(arm, contrasts)
    fit = fit_dpo(settings.dpo.model_copy(update=start), pairs=pairs, corpus=corpus, arm=arm)
    return _trained(settings, random_seed, arm, fit, len(pairs), place)


# what a model answers


def _trained(
    settings: ParrotLabSettings, random_seed: int, arm: str, fit: LanguageFitResult, examples: int, place: Path
) -> Trained:
    """The fit with its answers graded, and the accuracies as rows of the corpus."""
    corpus = place / "corpus.duckdb"
    talks = read_held_out(corpus, settings.turns)
    kept = fit.model_dir.parent / "answers.json"
    made_for = {"fit_id": fit.fit_id, "items": settings.items, "own_history": settings.own_history}
    found = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
    if found.get("made_for") != made_for:
        found = {"made_for": made_for, "answers": after_right_answers(fit.model_dir, talks)}
        found["own"] = after_own_answers(fit.model_dir, talks) if settings.own_history else []
        write_json(kept, found)
    wins = graded(talks, found["answers"], found["own"])
    metrics = [
        Metric(fit_id=fit.fit_id, name="lab_accuracy", slice=cell, value=sum(of) / len(of), n=len(of), step=fit.steps)
        for cell, of in wins.items()
        if of
    ]
    write_through(corpus, metrics)
    return Trained(random_seed, arm, fit.fit_id, fit.steps, examples, fit.seconds, wins)


def after_right_answers(model: Path, talks: Sequence[Sequence[Message]]) -> list[list[str]]:
    """The model's answers, turn by turn, each after the held-out conversation's own history."""
    turns = len(talks[0]) // 2
    asked = [question for turn in range(1, turns + 1) for question in questions(talks, turn)]
    answers = generate(model, asked, max_tokens=MOST_TOKENS)
    return [answers[turn * len(talks) : (turn + 1) * len(talks)] for turn in range(turns)]


def after_own_answers(model: Path, talks: Sequence[Sequence[Message]]) -> list[list[str]]:
    """The model's answers, turn by turn, each after the held-out user's turns and its own earlier answers."""
    rows: list[list[str]] = []
    histories: list[list[Message]] = [[] for _ in talks]
    for turn in range(len(talks[0]) // 2):
        histories = [[*history, talk[2 * turn]] for history, talk in zip(histories, talks, strict=True)]
        rows.append(generate(model, histories, max_tokens=MOST_TOKENS))
        histories = [
            [*history, Message(role="assistant", content=answer)]
            for history, answer in zip(histories, rows[-1], strict=True)
        ]
    return rows
