"""A trained user simulator beside a prompted one, on the same held-out seeds and with the same assistant.

Parrot (arXiv 2310.07301) had people say which questions look like real users': 81 % of its trained simulator's did, and
37 % of those of a model that was merely prompted. Here judges grade each conversation's user (rubric `realism`, ours),
the statistics of Parrot's table stand beside those of the real sessions, and so does what a dialogue costs.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from agents.ledger import CampaignStopping
from configs.judge_settings import JudgeSettings
from configs.loop_settings import LoopSettings
from configs.settings import CampaignSettings
from graphs.campaign import CampaignReport
from graphs.cast import models_in_use
from graphs.judging import run_judging
from graphs.progress import Progress
from store.context import context_dependent
from store.database import query
from store.queries import messages_of
from store.records import Message, Metric, Seed
from store.rouge import self_rouge
from store.writer import write_through
from train.language import LanguageFitResult
from train.sessions import Session

RESAMPLES = 2_000
WIDTH = 79


class Figure(NamedTuple):
    """A mean over dialogues with its 95 % interval (percentile bootstrap over dialogues); null without any."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


class Cost(NamedTuple):
    """What a dialogue takes of the simulator alone: the assistant is the same."""

    calls: float
    prompt_tokens: float | None
    """Null where a provider did not report usage."""
    completion_tokens: float | None
    cost_usd: float | None
    """Null when some price is unknown, as that of one's own server."""
    seconds: float | None
    """The sum of its calls' latencies."""


class Simulator(NamedTuple):
    """One simulator, or the real users."""

    name: str
    model: str
    dialogues: int
    failed: int
    caught: dict[str, int]
    """Queries that the gate caught, by reason."""
    realism: Figure
    """1 to 10, by the judges; a dialogue that failed is not graded."""
    turns: Figure
    words: Figure
    """Of a query after the first."""
    context_dependent: Figure
    """Queries a session, by the rules of `store.context`."""
    self_rouge: Figure
    cost: Cost | None


class Comparison(NamedTuple):
    """The trained simulator, the prompted one, and the real users."""

    simulators: list[Simulator]
    realism_difference: Figure
    """Trained less prompted, on the seeds that both played to an end."""
    seeds: int
    rehearsed: bool

    def to_table(self) -> str:
        """For people."""
        page = io.StringIO()
        console = Console(width=WIDTH, file=page, highlight=False)
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for place, head in enumerate(("", *(one.name for one in self.simulators))):
            table.add_column(head, justify="left" if not place else "right", no_wrap=True)
        for label, cell in ROWS:
            table.add_row(label, *(cell(one) for one in self.simulators))
        console.print(table)
        lines = ["\n".join(line.rstrip() for line in page.getvalue().splitlines())]
        lines += [f"{one.name}: {one.model}" for one in self.simulators]
        difference = _shown(self.realism_difference, "+.2f")
        lines.append(
            f"Realism, trained less prompted: {difference} (seeds that both ended: {self.realism_difference.n})"
        )
        lines.append(f"On {self.seeds} held-out seeds; means with bootstrapped 95 % intervals over dialogues,")
        lines.append("those that failed left out of all but `failed`, `queries caught` and the costs.")
        if self.rehearsed:
            lines.append("A rehearsal model played or judged: this says nothing about real models.")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "seeds": self.seeds,
            "rehearsed": self.rehearsed,
            "realism_difference": self.realism_difference._asdict(),
            "simulators": [
                {
                    key: value._asdict() if isinstance(value, Figure | Cost) else value
                    for key, value in one._asdict().items()
                }
                for one in self.simulators
            ],
        }


Play = Callable[[CampaignSettings, Sequence[Seed], Path, Progress], CampaignReport]
"""Runs a campaign to its end."""
Serve = Callable[[CampaignSettings, Sequence[Seed]], AbstractContextManager[CampaignSettings]]
"""The campaign with its checkpoints served, for as long as the block runs."""


def compare(
    settings: LoopSettings,
    trained: CampaignSettings,
    fit: LanguageFitResult,
    seeds: Sequence[Seed],
    corpus: Path,
    *,
    play: Play,
    serve: Serve,
    judged_by: Callable[[JudgeSettings], AbstractContextManager[JudgeSettings]],
    progress: Callable[[str], Progress],
    real: Sequence[Session],
) -> Comparison:
    """Let both simulators play the same seeds, and say how they differ.

    Args:
        trained: the campaign with the trained model as its user.
        fit: that model's fit, under which the figures are kept.
        judged_by: the judging with its checkpoints served.
        real: the sessions that the first round learned from; those of held-out splits stand for real users.
    """
    assert settings.compare is not None
    models = settings.collect.models.model_copy(update={"user": settings.compare.prompted})
    played = {
        "trained": trained.model_copy(update={"name": f"{settings.name}-trained"}),
        "prompted": settings.collect.model_copy(
            update={"name": f"{settings.name}-prompted", "simulator": "prompted", "models": models}
        ),
    }
    reports: dict[str, CampaignReport] = {}
    for which, campaign in played.items():
        with serve(campaign, seeds) as ready:
            reports[which] = play(ready, seeds, corpus, progress(campaign.name))
            played[which] = ready
    judging = JudgeSettings(name=f"{settings.name}-realism", rubric="realism", models=settings.compare.judges)
    with judged_by(judging) as ready_judging:
        grades = {which: _grades(ready_judging, report, corpus, progress) for which, report in reports.items()}
    simulators = [
        _simulator(
            which,
            played[which].models.of("user").model,
            report,
            corpus,
            [seed.seed_id for seed in seeds],
            grades[which],
        )
        for which, report in reports.items()
    ]
    held_out = [session.messages for session in real if session.split != "train"]
    simulators.append(_real(held_out, settings.fit.data.path or corpus.name))
    both = sorted(grades["trained"].keys() & grades["prompted"].keys())
    difference = figure([grades["trained"][seed] - grades["prompted"][seed] for seed in both])
    models_used = [model for one in played.values() for model in models_in_use(one).values()]
    rehearsed = any(model.model.startswith("rehearsal/") for model in [*models_used, *ready_judging.models.resolved()])
    found = Comparison(simulators, difference, len(seeds), rehearsed)
    write_through(corpus, _metrics(found, fit.fit_id, fit.steps))
    return found


def _grades(
    judging: JudgeSettings, report: CampaignReport, corpus: Path, progress: Callable[[str], Progress]
) -> dict[str, float]:
    """The judges' mean grade of each conversation's user, by seed."""
    judged = run_judging(judging, corpus, campaign=report.campaign_id, progress=progress(judging.name))
    if judged.stop_reason is not None:
        raise CampaignStopping(judged.stop_reason)
    rows = query(
        corpus,
        """
        SELECT seed_id, avg(score) AS score FROM judgements JOIN dialogues USING (dialogue_id)
        WHERE label_set = ? AND campaign_id = ? AND verdict = 'scored' GROUP BY seed_id
        """,
        [judging.name, report.campaign_id],
    )
    return {row["seed_id"]: float(row["score"]) for row in rows}


def _simulator(
    which: str, model: str, report: CampaignReport, corpus: Path, seeds: Sequence[str], grades: dict[str, float]
) -> Simulator:
    rows = query(
        corpus,
        """
        SELECT messages FROM transcripts WHERE campaign_id = ? AND status = 'done'
            AND list_contains(?, seed_id) ORDER BY dialogue_id
        """,
        [report.campaign_id, list(seeds)],
    )
    caught = query(
        corpus,
        "SELECT reason, count(*) AS n FROM caught WHERE campaign_id = ? GROUP BY ALL ORDER BY reason",
        [report.campaign_id],
    )
    return Simulator(
        which,
        model,
        report.done,
        report.failed,
        {row["reason"]: int(row["n"]) for row in caught},
        figure(list(grades.values())),
        *statistics([messages_of(row["messages"]) for row in rows]),
        cost_of(corpus, report),
    )


def _real(conversations: Sequence[Sequence[Message]], source: str) -> Simulator:
    nothing = Figure(None)
    return Simulator("real", source, len(conversations), 0, {}, nothing, *statistics(conversations), None)


def statistics(conversations: Sequence[Sequence[Message]]) -> tuple[Figure, Figure, Figure, Figure]:
    """Turns, words of a query after the first, context-dependent queries and Self-ROUGE of a conversation."""
    turns, words, dependent, alike = [], [], [], []
    for messages in conversations:
        places = [place for place, message in enumerate(messages) if message.role == "user"]
        queries = [messages[place].content for place in places]
        turns.append(float(sum(message.role == "assistant" for message in messages)))
        words += [mean(len(query.split()) for query in queries[1:])] if queries[1:] else []
        dependent.append(float(sum(context_dependent(messages[:place], messages[place].content) for place in places)))
        likeness = self_rouge(queries)
        alike += [] if likeness is None else [likeness]
    return figure(turns), figure(words), figure(dependent), figure(alike)


def cost_of(corpus: Path, report: CampaignReport) -> Cost:
    """What the simulator of a campaign cost a dialogue, one that failed counted too."""
    (row,) = query(
        corpus,
        """
        SELECT count(*) AS calls, sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion,
            bool_or(cost_usd IS NULL) AS unpriced, sum(cost_usd) AS usd, sum(latency_ms) / 1000 AS seconds
        FROM calls WHERE campaign_id = ? AND agent = 'user' AND status = 'done'
        """,
        [report.campaign_id],
    )
    played = max(1, report.done + report.failed)

    def a_dialogue(total: float | None) -> float | None:
        return None if total is None else float(total) / played

    return Cost(
        int(row["calls"]) / played,
        a_dialogue(row["prompt"]),
        a_dialogue(row["completion"]),
        None if row["unpriced"] else a_dialogue(row["usd"]),
        a_dialogue(row["seconds"]),
    )


def figure(values: Sequence[float]) -> Figure:
    """The mean of a sample with its interval."""
    if not values:
        return Figure(None)
    sample = np.asarray(values)
    draws = np.random.default_rng(0).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), (0.025, 0.975))
    return Figure(float(sample.mean()), float(low), float(high), len(values))


def _metrics(found: Comparison, fit_id: str, step: int) -> list[Metric]:
    """The figures as rows under the trained simulator's fit."""
    metrics = []
    for one in found.simulators:
        for name in ("realism", "turns", "words", "context_dependent", "self_rouge"):
            value: Figure = getattr(one, name)
            if value.value is not None:
                metrics.append(
                    Metric(
                        fit_id=fit_id,
                        name=f"simulator_{name}",
                        slice=f"simulator={one.name}",
                        value=value.value,
                        low=value.low,
                        high=value.high,
                        n=value.n,
                        step=step,
                    )
                )
    return metrics


def _shown(value: Figure, shape: str = ".1f") -> str:
    if value.value is None or value.low is None or value.high is None:
        return "-"
    return f"{value.value:{shape}} [{value.low:{shape}}, {value.high:{shape}}]"


def _a_dialogue(name: str, digits: int) -> Callable[[Simulator], str]:
    def cell(one: Simulator) -> str:
        value = None if one.cost is None else getattr(one.cost, name)
        return "-" if value is None else f"{value:.{digits}f}"

    return cell


def _caught(one: Simulator) -> str:
    return "-" if one.cost is None else str(sum(one.caught.values()))


ROWS: tuple[tuple[str, Callable[[Simulator], str]], ...] = (
    ("dialogues", lambda one: str(one.dialogues)),
    ("failed", lambda one: "-" if one.cost is None else str(one.failed)),
    ("queries caught", _caught),
    ("realism, 1-10", lambda one: _shown(one.realism)),
    ("turns", lambda one: _shown(one.turns)),
    ("words a query", lambda one: _shown(one.words)),
    ("context-dependent", lambda one: _shown(one.context_dependent)),
    ("Self-ROUGE", lambda one: _shown(one.self_rouge)),
    ("calls", _a_dialogue("calls", 1)),
    ("tokens in", _a_dialogue("prompt_tokens", 0)),
    ("tokens out", _a_dialogue("completion_tokens", 0)),
    ("dollars", _a_dialogue("cost_usd", 5)),
    ("seconds of calls", _a_dialogue("seconds", 2)),
)
"""What the table shows of each simulator; from `calls` on, of its own calls in a dialogue."""
