"""What a run of MT-Bench, of its extension or of MT-Bench-101 found: means with intervals, as table, JSON and plot.

MT-Bench: the mean of all turns' grades (as FastChat's), by turn and by category. MT-Bench-101: a dialogue's score is
the LOWEST grade of its judged turns; a task's is the mean of its dialogues, and overall is the mean of the tasks (as
OpenCompass has it) with the mean of all dialogues beside it (ours). A verdict that could not be read is counted and is no
grade; a dialogue that lacks a grade has no lowest one and is left out. Intervals (ours) are 95 % bootstraps over
questions, or dialogues (`lab.win_rates.share_of`); of a mean over tasks they come from the tasks' (`weighted_mean`).
Knows no models and no database.
"""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from lab.win_rates import Share, columns, share_of
from store.mtbench101 import TASKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 79
LOWEST, HIGHEST = 1, 10


class Grade(NamedTuple):
    """One judge's verdict on one turn."""

    question: str
    """The question or dialogue that the turn belongs to."""
    category: str
    """Of MT-Bench-101 the task."""
    turn: int
    """From 1."""
    judge: str
    by_reference: bool
    score: float | None
    """Null: the verdict could not be read."""


class Row(NamedTuple):
    """A line of a table."""

    part: str
    """`overall`, `turn=2`, `category=math`, `task=CM`, `judge=MODEL`, ..."""
    share: Share
    """`n` counts grades, or dialogues where the part is of lowest grades."""


class Counts(NamedTuple):
    """How much was played and judged."""

    questions: int
    """Or dialogues, that were given."""
    failed: int
    """Of the dialogues that were played, those that failed and so were not judged."""
    short: int
    """Those that ended before their number of turns: the user had no more to say, or a gate let no query pass."""
    verdicts: int
    by_reference: int
    invalid: int
    missing: int
    """Verdicts that could not be had: a call failed in a way that may pass."""
    incomplete: int
    """Of MT-Bench-101, dialogues (a judge's each) that lack a grade and so have no lowest one."""


class Usage(NamedTuple):
    """Answered calls of one agent, in all runs of this command."""

    agent: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Null: some price is unknown."""


class BenchmarkResult(NamedTuple):
    """All that was found."""

    name: str
    benchmark: str
    """`mtbench`, `mtbench101`, `mtbench-extended`, or `8 turns from FILE` where people wrote more turns."""
    what: str
    """What was really run, in words."""
    assistant: str
    judges: tuple[str, ...]
    label_set: str
    campaign_id: str
    judging_id: str
    counts: Counts
    headline: list[Row]
    turns: list[Row]
    categories: list[Row]
    usage: list[Usage]
    calls_sent: int
    """Requests of this run, retries included."""
    rehearsed: bool
    left_out: str | None = None
    """That the figures are of a part of the benchmark, in words."""

    @property
    def by_minimum(self) -> bool:
        return self.benchmark == "mtbench101"

    def of(self, part: str) -> Share:
        return next(row.share for row in (*self.headline, *self.turns, *self.categories) if row.part == part)

    def to_json(self) -> str:
        def plain(rows: Iterable[Row]) -> list[dict[str, Any]]:
            return [{"part": row.part, **row.share._asdict()} for row in rows]

        return json.dumps(
            {
                "name": self.name,
                "benchmark": self.benchmark,
                "what": self.what,
                "left_out": self.left_out,
                "assistant": self.assistant,
                "judges": list(self.judges),
                "label_set": self.label_set,
                "campaign_id": self.campaign_id,
                "judging_id": self.judging_id,
                "score": "lowest grade of a dialogue's turns" if self.by_minimum else "mean grade of turns",
                "interval": "bootstrap over questions, 95 %, BCa or percentile",
                "rehearsed": self.rehearsed,
                "counts": self.counts._asdict(),
                "headline": plain(self.headline),
                "turns": plain(self.turns),
                "categories": plain(self.categories),
                "usage": [row._asdict() for row in self.usage],
                "calls_sent": self.calls_sent,
            },
            indent=1,
        )

    def to_table(self) -> str:
        """Plain text, at most 79 wide."""
        counts = self.counts
        lines = wrap(self.what, WIDTH)
        lines += wrap(f"assistant {self.assistant}, judged by {', '.join(self.judges)}", WIDTH)
        unit = "dialogues" if self.by_minimum else "grades"
        score = "lowest grade" if self.by_minimum else "grade, 1-10"
        sections = [
            ("", ["", "n", score], self.headline),
            ("By turn", ["turn", "n", "grade, 1-10"], self.turns),
            ("By task" if self.by_minimum else "By category", ["", "n", score], self.categories),
        ]
        for title, head, rows in sections:
            table = [head, *([_label(row.part), str(row.share.n), _cell(row.share)] for row in rows)]
            lines += ["", *([title] if title else []), *columns(table, left=(0,))]
            if rows is self.headline and self.left_out is not None:
                lines += wrap(self.left_out, WIDTH)
        notes = [
            f"n counts {unit}" + (", by turn grades" if self.by_minimum else "") + "; 95 % bootstrap intervals over "
            f"{'dialogues' if self.by_minimum else 'questions'}. {counts.verdicts} verdicts, {counts.by_reference} of "
            f"them by reference; {counts.invalid} invalid ones count for nothing."
        ]
        if counts.incomplete:
            notes.append(f"{counts.incomplete} dialogues lack a grade: their lowest is unknown, and they are left out.")
        if counts.missing:
            notes.append(f"{counts.missing} verdicts are not there, since a call failed: run the same command again.")
        if counts.failed:
            notes.append(f"{counts.failed} dialogues failed and are left out (`FROM errors`).")
        if counts.short:
            notes.append(
                f"{counts.short} dialogues ended early: the user, or a gate, let them end before their last turn."
            )
        spent = [f"{row.calls} of the {row.agent}" for row in self.usage]
        notes.append(
            f"{sum(row.calls for row in self.usage)} calls answered: {', '.join(spent)}; {self.calls_sent} sent by this "
            f"run; {_tokens(self.usage)}."
        )
        notes.append(f"verdicts: label_set {self.label_set}; dialogues: campaign {self.campaign_id}")
        if self.rehearsed:
            notes.append("A rehearsal model played or judged: the figures say nothing about real models.")
        return "\n".join([*lines, "", *(line for note in notes for line in wrap(note, WIDTH))])


def mean_rows(grades: Sequence[Grade]) -> tuple[list[Row], list[Row], list[Row]]:
    """MT-Bench: headline, by turn and by category, each over all grades that are there."""
    judges = _judges(grades)
    headline = [Row("overall", _mean(grades))]
    headline += [Row(f"judge={judge}", _mean(grades, judge=judge)) for judge in judges if len(judges) > 1]
    return (
        headline,
        turn_rows(grades),
        [
            Row(f"category={category}", _mean([grade for grade in grades if grade.category == category]))
            for category in dict.fromkeys(grade.category for grade in grades)
        ],
    )


def turn_rows(grades: Sequence[Grade]) -> list[Row]:
    """The curve: the mean grade of each turn."""
    turns = sorted({grade.turn for grade in grades})
    return [Row(f"turn={turn}", _mean([grade for grade in grades if grade.turn == turn])) for turn in turns]


class Lowest(NamedTuple):
    """One judge's lowest grade in a dialogue."""

    question: str
    category: str
    judge: str
    score: float


def lowest_grades(grades: Sequence[Grade], judged: Mapping[str, Collection[int]]) -> tuple[list[Lowest], int]:
    """The lowest grade of every dialogue and judge, and how many of these lack a grade and so have none.

    `judged`: by dialogue, the turns that are to be graded.
    """
    found: dict[tuple[str, str, str], dict[int, float | None]] = defaultdict(dict)
    for grade in grades:
        found[grade.question, grade.category, grade.judge][grade.turn] = grade.score
    lowest = []
    for (question, category, judge), scores in found.items():
        there = [scores.get(turn) for turn in judged[question]]
        known = [score for score in there if score is not None]
        if len(known) == len(there):
            lowest.append(Lowest(question, category, judge, min(known)))
    return lowest, len(found) - len(lowest)


def lowest_rows(lowest: Sequence[Lowest]) -> tuple[list[Row], list[Row]]:
    """MT-Bench-101: headline (mean of tasks, mean of dialogues) and the tasks, each a mean of lowest grades."""
    by_task: dict[str, list[Lowest]] = {
        task: [row for row in lowest if row.category == task]
        for task in TASKS
        if any(r.category == task for r in lowest)
    }
    tasks = [Row(f"task={task}", _mean_lowest(rows)) for task, rows in by_task.items()]
    judges = list(dict.fromkeys(row.judge for row in lowest))
    headline = [
        Row("overall", _mean_of_tasks([row.share for row in tasks])),
        Row("mean of dialogues", _mean_lowest(lowest)),
    ]
    if len(judges) > 1:
        for judge in judges:
            own = [[row for row in rows if row.judge == judge] for rows in by_task.values()]
            headline.append(Row(f"judge={judge}", _mean_of_tasks([_mean_lowest(rows) for rows in own if rows])))
    return headline, tasks


def _mean_lowest(lowest: Iterable[Lowest]) -> Share:
    return share_of((row.question, row.score) for row in lowest)


def _mean_of_tasks(shares: Sequence[Share]) -> Share:
    """The plain mean of tasks; its interval from theirs, where each has one."""
    from train.statistics import Share as Whole
    from train.statistics import weighted_mean

    n = sum(share.n for share in shares)
    values = [share.value for share in shares if share.value is not None]
    if not values:
        return Share(None, None, None, 0)
    whole = [Whole(s.value, s.low, s.high) for s in shares if None not in (s.value, s.low, s.high)]  # type: ignore[arg-type]
    if len(whole) < len(shares):
        return Share(sum(values) / len(values), None, None, n)
    mean = weighted_mean(whole, [1.0] * len(whole))
    return Share(mean.value, mean.low, mean.high, n)


def _mean(grades: Iterable[Grade], *, judge: str | None = None) -> Share:
    return share_of(
        (grade.question, grade.score)
        for grade in grades
        if grade.score is not None and (judge is None or grade.judge == judge)
    )


def _judges(grades: Iterable[Grade]) -> list[str]:
    return list(dict.fromkeys(grade.judge for grade in grades))


def _label(part: str) -> str:
    kind, _, name = part.partition("=")
    if kind == "task":
        return f"{name} {TASKS[name]}"
    if kind == "judge":
        return f"by {name}"
    return {"overall": "overall"}.get(part, name or part)


def _cell(share: Share) -> str:
    if share.value is None:
        return "-"
    interval = "" if share.low is None or share.high is None else f" [{share.low:.2f}, {share.high:.2f}]"
    return f"{share.value:.2f}{interval}"


def _tokens(usage: Sequence[Usage]) -> str:
    tokens = f"{sum(row.prompt_tokens for row in usage)} tokens in, {sum(row.completion_tokens for row in usage)} out"
    costs = [row.cost_usd for row in usage]
    cost = "price unknown" if None in costs else f"${sum(cost or 0.0 for cost in costs):.4f}"
    return f"{tokens}, {cost}"


def plot_benchmark(found: BenchmarkResult, *paths: Path) -> None:
    """The curve over turns beside the categories, with 95 % intervals. PNG or SVG by the file's ending."""
    from train.plot import save_figure

    for path in paths:  # a figure each: a layout that was solved once comes out a hair different the next time
        save_figure(_draw(found), path)


def _draw(found: BenchmarkResult) -> "Figure":
    import matplotlib
    from matplotlib.figure import Figure

    from train.plot import SETTINGS

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        curve, parts = figure.subplots(1, 2, width_ratios=(1.25, 1))
        turns = [row for row in found.turns if row.share.value is not None]
        numbers = [int(row.part.partition("=")[2]) for row in turns]
        values = [row.share.value or 0.0 for row in turns]
        curve.errorbar(
            numbers, values, _errors(turns), fmt="o-", capsize=3, color="#1b6ca8", linewidth=1.8, clip_on=False
        )
        for number, row in zip(numbers, turns, strict=True):
            curve.annotate(
                f"n={row.share.n}",
                (number, LOWEST),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color="#6a6a6a",
            )
        curve.set_xticks(numbers)
        curve.margins(x=0.08)
        curve.set_ylim(LOWEST, HIGHEST)
        curve.set_xlabel("turn")
        curve.set_ylabel("mean grade of the turn")
        rows = [row for row in found.categories if row.share.value is not None][::-1]
        places = range(len(rows))
        parts.errorbar(
            [row.share.value for row in rows],
            places,
            xerr=_errors(rows),
            fmt="o",
            capsize=3,
            color="#d98032",
            clip_on=False,
        )
        parts.set_yticks(places, [f"{_label(row.part)} (n={row.share.n})" for row in rows], fontsize=8)
        parts.set_xlim(LOWEST, HIGHEST)
        parts.set_xticks(range(LOWEST, HIGHEST + 1))
        parts.set_xlabel("mean of dialogues' lowest grades" if found.by_minimum else "mean grade")
        overall = found.of("overall").value
        if overall is not None:
            parts.axvline(overall, color="#222222", linewidth=0.8, linestyle=":")
            parts.set_title(f"overall {_cell(found.of('overall'))}", fontsize=9)
        note = ["A rehearsal model played or judged: this says nothing about real models."] if found.rehearsed else []
        title = [*wrap(found.what, 110), f"{found.assistant}, judged by {', '.join(found.judges)}", *note]
        figure.suptitle("\n".join(title), fontsize=9)
    return figure


def _errors(rows: Sequence[Row]) -> list[list[float]]:
    """Below and above, nothing where there is no interval."""
    shares = [row.share for row in rows]
    below = [0.0 if s.low is None or s.value is None else s.value - s.low for s in shares]
    above = [0.0 if s.high is None or s.value is None else s.high - s.value for s in shares]
    return [below, above]
