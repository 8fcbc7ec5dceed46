"""The main job end to end on the built-in backend: campaign, pairs, reward model, held-out accuracy, report.

Every figure that it prints is measured in the run. Started again in the same folder, it goes on where it
left off: the campaign from its journal, the training from its checkpoint.
"""

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import NamedTuple

from rich.console import Console

from agents.ledger import CampaignStopping
from agents.rehearsal.oracle import grade
from configs.errors import DescantError
from configs.fit_settings import RewardFitSettings, SftSettings, TinySettings
from configs.load import load
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport, run_campaign
from graphs.progress import StderrProgress
from graphs.report import report_lines
from graphs.seeds import load_seeds
from store.database import query
from store.queries import preference_pairs
from store.records import Message, PreferencePair
from store.transcript import show
from train.evaluate import Evaluation, evaluate_pairs
from train.loop import Progress
from train.plot import plot_evaluation
from train.progress import StderrProgress as FitProgress
from train.reward import FitResult, fit_reward
from train.score import keep_metrics, load_scorer
from train.sft import fit_sft

REHEARSAL_NOTE = (
    "The backend was the rehearsal: a rule-based stand-in for a language model in a small closed world. "
    "These figures show that the chain works; they say nothing about real models."
)


WIDTH = 79
LANGUAGE_STEPS = 300


class DemoError(DescantError):
    """Raised here: the demo has no place to work in."""


class Truth(NamedTuple):
    """What the oracle, which knows the closed world, says of the pairs' labels afterwards."""

    pairs: int
    right_labels: int
    """Pairs whose chosen side has a larger share of right answers than the rejected one."""


class DemoResult(NamedTuple):
    campaign: CampaignReport
    fit: FitResult
    evaluation: Evaluation
    truth: Truth


def run_demo(out: Path, console: Console, *, seeds: int | None = None, steps: int | None = None) -> DemoResult:
    """Run, or go on with, the demo in the folder `out`; `seeds` and `steps` replace the presets' figures.

    Raises:
        DemoError: the folder cannot be made.
        CampaignStopping: the campaign was interrupted; nothing was trained.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"cannot make the folder {str(out)!r} ({error.strerror}): name another with --out") from error
    corpus = out / "corpus.duckdb"

    def echo(text: str) -> None:
        console.print(text + "\n", markup=False, highlight=False, soft_wrap=True)

    echo("1. A campaign: each seed grows a chosen and a rejected conversation.")
    settings = load("demo", CampaignSettings, overrides=[f"seeds.limit={seeds}"] if seeds else [])
    campaign = run_campaign(settings, load_seeds(settings).seeds, corpus, progress=StderrProgress("demo"))
    echo("\n".join(report_lines(campaign, database=str(corpus), skipped=0)))
    if campaign.stop_reason is not None:  # a model of half the pairs would stand in the way of the whole one's
        raise CampaignStopping(campaign.stop_reason)

    echo("2. A perturbed conversation beside its clean twin.")
    example = _example(corpus)
    show(corpus, example, console)
    echo("")

    echo("3. A small Gemma-2 learns to answer, and then which conversation is better.")
    pairs = preference_pairs(corpus, campaign=campaign.campaign_id)
    language = _learn_to_answer(pairs, out / "language-model", steps)
    changes = {"data.path": str(corpus), "out": str(out / "reward-model"), "model": str(language)}
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    overrides += [f"steps={steps}"] if steps else []
    fit_settings = load("reward-demo", RewardFitSettings, folder="fit", overrides=overrides)
    with FitProgress(fit_settings.name) as progress:
        fit = fit_reward(fit_settings, progress=progress, corpus=corpus)
    echo(f"{fit.data_card['splits']['train']['kept']} pairs, {fit.steps} steps, {fit.seconds:.0f} s: {fit.model_dir}")

    echo("4. Its accuracy on conversations whose seeds it never saw.")
    evaluation = _evaluate(pairs, fit)
    keep_metrics(corpus, load_scorer(fit.model_dir), evaluation.metrics(fit.fit_id, step=fit.steps))
    plot_evaluation(evaluation, out / "accuracy.png", out / "accuracy.svg", title="Which conversation is better?")
    truth = ask_oracle(pairs)
    verdict = (
        "The reward model stands above every null baseline, intervals apart."
        if evaluation.beats_baselines()
        else "The reward model does NOT stand above every null baseline with intervals apart: take more --seeds."
    )
    echo(f"{evaluation.to_table()}\n{verdict}\n{fill(_truth_line(truth), WIDTH)}\n\n{fill(REHEARSAL_NOTE, WIDTH)}")

    result = DemoResult(campaign, fit, evaluation, truth)
    (out / "report.md").write_text(report(result, example=_as_text(corpus, example), verdict=verdict), encoding="utf-8")
    echo(
        f"Kept: {corpus} (the corpus), {out / 'accuracy.png'} (the plot), {out / 'report.md'}, {fit.model_dir}\n"
        "Look further:\n"
        f"  descant status --db {corpus}\n"
        f"  descant show {example} --db {corpus}\n"
        f'  descant sql --db {corpus} "SELECT kind, verdict, count(*) FROM perturbations GROUP BY ALL"'
    )
    return result


def _learn_to_answer(pairs: list[PreferencePair], out: Path, steps: int | None) -> Path:
    """A language model of the chosen conversations of the train split: a reward model starts from one that can read."""
    settings = SftSettings(name="demo", tiny=TinySettings(layers=4), steps=steps or LANGUAGE_STEPS, out=str(out))

    def say(progress: Progress) -> None:
        if progress.step % 50 == 0:
            print(
                f"fit demo: learns to answer, step {progress.step} of {progress.steps}  loss {progress.loss:.3f}",
                file=sys.stderr,
                flush=True,
            )

    return fit_sft(settings, [pair.chosen for pair in pairs if pair.split == "train"], progress=say)


def _example(corpus: Path) -> str:
    """A short pair whose perturbations all landed, the first by id."""
    (row,) = query(
        corpus,
        """
        SELECT pair_id FROM preference_pairs
        WHERE n_turns = (SELECT least(2, max(n_turns)) FROM preference_pairs)
        ORDER BY n_contrast_turns DESC, pair_id LIMIT 1
        """,
    )
    return str(row["pair_id"])


def _as_text(corpus: Path, identity: str) -> str:
    page = io.StringIO()
    show(corpus, identity, Console(file=page, width=100))
    return page.getvalue().strip()


def _evaluate(pairs: list[PreferencePair], fit: FitResult) -> Evaluation:
    return evaluate_pairs(
        [pair for pair in pairs if pair.split == "test"],
        load_scorer(fit.model_dir),
        train_pairs=[pair for pair in pairs if pair.split == "train"],
    )


def ask_oracle(pairs: list[PreferencePair]) -> Truth:
    """How many labels are true. The oracle is asked afterwards; nothing is filtered by it."""
    return Truth(len(pairs), sum(_share_right(pair.chosen) > _share_right(pair.rejected) for pair in pairs))


def _share_right(messages: Sequence[Message]) -> float:
    grades = grade(messages)
    return sum(turn.verdict == "right" for turn in grades) / max(1, len(grades))


def _truth_line(truth: Truth) -> str:
    return (
        f"The oracle finds {truth.right_labels} of {truth.pairs} labels true "
        f"({truth.right_labels / truth.pairs:.1%}); what is not comes from the assistant's natural mistakes and missed contrasts."
    )


def report(result: DemoResult, *, example: str, verdict: str) -> str:
    """The demo as one Markdown page."""
    campaign, fit = result.campaign, result.fit
    return f"""# Descant demo

{REHEARSAL_NOTE}

## Campaign

```
{chr(10).join(report_lines(campaign, database="corpus.duckdb", skipped=0))}
```

{_truth_line(result.truth)}

## A pair

```
{example}
```

## Reward model

{fit.steps} steps in {fit.seconds:.0f} s on {fit.data_card["splits"]["train"]["kept"]} training pairs; config and data card stand in the corpus (`FROM fits`).

```
{result.evaluation.to_table()}
```

{verdict}

![Held-out accuracy](accuracy.png)
"""
