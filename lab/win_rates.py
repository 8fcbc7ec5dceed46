"""What a Best-of-N evaluation found: win rates and agreements with intervals, as table, JSON, rows and plot.

Win rate: the share of verdicts for A's conversation, a tie counting as half; a verdict that is `invalid` counts for
nobody and is reported. Intervals are bootstrapped over prompts (BCa, 95 %; percentile where BCa is not defined), since
all that is said of one prompt's conversations hangs together. Knows no models and no database.
"""

import json
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np

from lab.match import Meeting
from store.records import Metric
from train.errors import TrainError

POOLED = "pooled"
ALL = "all"
RESAMPLES = 9_999
WIDTH = 79
SIDES = ("A", "B")


class Share(NamedTuple):
    """A share with its interval; all null when there is nothing to count."""

    value: float | None
    low: float | None
    """Null with fewer than two prompts, too."""
    high: float | None
    n: int


class WinRate(NamedTuple):
    """How often A's conversation is found better, by one judge or by all."""

    candidates: int
    judge: str
    """`judge 1`, `judge 2`, ..., and `pooled` where there are several."""
    share: Share
    """`n` counts verdicts; pooled, each judge's on each prompt."""
    wins: int
    ties: int
    losses: int
    invalid: int
    unanswered: int
    """A call failed in a way that may pass."""


class Agreement(NamedTuple):
    """How often a reward model prefers the whole conversation that a judge prefers, where both prefer one.

    One of the two conversations was picked by this very model, and the better it picks by its own measure, the more it
    prefers that one whatever the judge says: so a model of no use falls below one half here.
    """

    candidates: str
    """N, or `all`."""
    side: str
    """Whose reward model: `A` or `B`."""
    judge: str
    share: Share
    judge_ties: int
    reward_ties: int
    unscored: int
    """One of the two conversations is longer than the reward model's limit."""


class Side(NamedTuple):
    """One of the two reward models."""

    name: str
    fit_id: str
    model: str
    """As it was named."""


class BestOfN(NamedTuple):
    """All that was found."""

    name: str
    sides: tuple[Side, Side]
    judges: list[str]
    """Model strings."""
    turns: int
    seeds: int
    unmatched: dict[int, int]
    """By N, plays of a seed that one side or both did not end."""
    win_rates: list[WinRate]
    agreements: list[Agreement]
    campaigns: dict[int, tuple[str, str]]
    """By N, the two campaigns."""
    calls_sent: int
    rehearsed: bool

    def of(self, candidates: int, judge: str) -> WinRate:
        return next(row for row in self.win_rates if (row.candidates, row.judge) == (candidates, judge))

    def metrics(self) -> list[Metric]:
        """Rows for the corpus: win rates belong to A's fit, agreements to the fit of the reward model."""
        a, b = self.sides
        judges = {f"judge {place + 1}": f"{place + 1}:{model}" for place, model in enumerate(self.judges)}
        rows = []
        for win in self.win_rates:
            where = f"campaign={self.name} candidates={win.candidates} judge={judges.get(win.judge, win.judge)}"
            rows.append((a.fit_id, "best_of_n_win_rate", f"{where} opponent={b.fit_id}", win.share))
        for row in self.agreements:
            side, other = (a, b) if row.side == "A" else (b, a)
            where = f"campaign={self.name} candidates={row.candidates} judge={judges.get(row.judge, row.judge)}"
            rows.append((side.fit_id, "best_of_n_agreement", f"{where} opponent={other.fit_id}", row.share))
        return [
            Metric(fit_id=fit, name=name, slice=part, value=share.value, low=share.low, high=share.high, n=share.n)
            for fit, name, part, share in rows
            if share.value is not None
        ]

    def to_json(self) -> str:
        def plain(row: WinRate | Agreement) -> dict[str, Any]:
            return {key: value for key, value in row._asdict().items() if key != "share"} | row.share._asdict()

        return json.dumps(
            {
                "name": self.name,
                "turns": self.turns,
                "seeds": self.seeds,
                "interval": "bootstrap over prompts, 95 %, BCa or percentile",
                "ties": "half a win",
                "invalid": "counted for nobody",
                "rehearsed": self.rehearsed,
                "calls_sent": self.calls_sent,
                "A": self.sides[0]._asdict(),
                "B": self.sides[1]._asdict(),
                "judges": self.judges,
                "campaigns": {str(n): ids for n, ids in self.campaigns.items()},
                "unmatched": {str(n): count for n, count in self.unmatched.items()},
                "win_rates": [plain(row) for row in self.win_rates],
                "agreements": [plain(row) for row in self.agreements],
            },
            indent=1,
        )

    def to_table(self) -> str:
        """Plain text, at most 79 wide."""
        wins = [["N", "judge", "n", "A's win rate, %", "A", "tie", "B", "invalid"]]
        wins += [
            [str(w.candidates), w.judge, str(w.share.n), _cell(w.share)]
            + [str(count) for count in (w.wins, w.ties, w.losses, w.invalid)]
            for w in self.win_rates
        ]
        agrees = [["N", "model", "judge", "n", "agree, %", "judge ties", "reward ties", "unscored"]]
        agrees += [
            [row.candidates, row.side, row.judge, str(row.share.n), _cell(row.share)]
            + [str(count) for count in (row.judge_ties, row.reward_ties, row.unscored)]
            for row in self.agreements
        ]
        legend = [f"{letter}: {side.name} ({side.fit_id})" for letter, side in zip(SIDES, self.sides, strict=True)]
        legend += [f"judge {place + 1}: {model}" for place, model in enumerate(self.judges)]
        notes = [
            f"{self.seeds} seeds, {self.turns} turns. 95 % bootstrap intervals over prompts. Each judge compares in "
            "both orders; a verdict that flips is a tie, a tie counts as half, an invalid verdict counts for nobody.",
            "Each model picked one of the two conversations itself and likes that one: one of no use agrees in less than half.",
        ]
        unanswered = sum(row.unanswered for row in self.win_rates if row.judge != POOLED)
        if unanswered:
            notes.append(
                f"{unanswered} comparisons have no verdict yet, since a call failed: run the same command again."
            )
        for n, count in self.unmatched.items():
            if count:
                notes.append(f"N = {n}: {count} plays of a seed left out, since a side failed (`FROM errors`).")
        if self.rehearsed:
            notes.append("A rehearsal model played: the figures say nothing about real models.")
        titles = ("Whose conversations do the judges prefer?", "How often does a reward model agree with a judge?")
        parts = [line for text in legend for line in wrap(text, WIDTH)]
        parts += ["", titles[0], *columns(wins, left=(1,)), "", titles[1], *columns(agrees, left=(1, 2))]
        return "\n".join([*parts, "", *(line for note in notes for line in wrap(note, WIDTH))])


def win_rates(meetings: Mapping[int, Sequence[Meeting]], judges: int) -> list[WinRate]:
    """For each N, each judge's verdicts and all of them together."""
    rows = []
    for candidates, met in meetings.items():
        places = [(f"judge {place + 1}", [place]) for place in range(judges)]
        for name, those in [*places, *([(POOLED, list(range(judges)))] if judges > 1 else [])]:
            said = [(meeting.prompt, meeting.verdicts[place]) for meeting in met for place in those]
            count = [verdict for _, verdict in said].count
            points = {"dialogue": 1.0, "tie": 0.5, "opponent": 0.0}
            share = share_of((prompt, points[verdict]) for prompt, verdict in said if verdict in points)
            rows.append(
                WinRate(
                    candidates,
                    name,
                    share,
                    count("dialogue"),
                    count("tie"),
                    count("opponent"),
                    count("invalid"),
                    count(None),
                )
            )
    return rows


def agreements(
    meetings: Mapping[int, Sequence[Meeting]], rewards: Sequence[Mapping[str, float]], judges: int
) -> list[Agreement]:
    """Each reward model against each judge on whole conversations, by N and over all of them.

    `rewards`: by side, the reward of each dialogue; one that is missing could not be scored.
    """
    groups = {str(n): list(met) for n, met in meetings.items()}
    if len(groups) > 1:
        groups[ALL] = [meeting for met in meetings.values() for meeting in met]
    return [
        _agreement(candidates, side, place, met, rewards[SIDES.index(side)])
        for candidates, met in groups.items()
        for side in SIDES
        for place in range(judges)
    ]


def _agreement(
    candidates: str, side: str, place: int, met: Sequence[Meeting], reward: Mapping[str, float]
) -> Agreement:
    found: list[tuple[str, float]] = []
    judge_ties = reward_ties = unscored = 0
    for meeting in met:
        verdict = meeting.verdicts[place]
        ours, theirs = (reward.get(one.dialogue_id) for one in (meeting.dialogue, meeting.opponent))
        if verdict == "tie":
            judge_ties += 1
        elif verdict not in ("dialogue", "opponent"):
            continue
        elif ours is None or theirs is None:
            unscored += 1
        elif ours == theirs:
            reward_ties += 1
        else:
            found.append((meeting.prompt, float((ours > theirs) == (verdict == "dialogue"))))
    return Agreement(candidates, side, f"judge {place + 1}", share_of(found), judge_ties, reward_ties, unscored)


def share_of(points: Iterable[tuple[str, float]]) -> Share:
    """The mean of points that belong to prompts, with its bootstrap interval over prompts.

    A prompt's points are drawn together (a cluster bootstrap of the ratio of sums). The resampling has a fixed seed.
    """
    by_prompt: dict[str, list[float]] = defaultdict(list)
    for prompt, point in points:
        by_prompt[prompt].append(point)
    if not by_prompt:
        return Share(None, None, None, 0)
    sums = np.array([sum(by_prompt[prompt]) for prompt in sorted(by_prompt)])
    counts = np.array([float(len(by_prompt[prompt])) for prompt in sorted(by_prompt)])
    value, n = float(sums.sum() / counts.sum()), int(counts.sum())
    if len(sums) < 2:
        return Share(value, None, None, n)
    low, high = _bootstrap(sums, counts)
    return Share(value, min(low, value), max(high, value), n)


def _bootstrap(sums: Any, counts: Any) -> tuple[float, float]:
    """BCa (Efron 1987); the percentile interval where BCa is not a number, as when all prompts say the same."""
    from scipy.stats import bootstrap

    def ratio(top: Any, bottom: Any, axis: int = -1) -> Any:
        return top.sum(axis=axis) / bottom.sum(axis=axis)

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # that the distribution is degenerate is seen from the result
            found = bootstrap(
                (sums, counts),
                ratio,
                paired=True,
                vectorized=True,
                n_resamples=RESAMPLES,
                batch=1_000,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        if np.isfinite([found.low, found.high]).all():
            break
    return float(found.low), float(found.high)


def _cell(share: Share) -> str:
    if share.value is None:
        return "-"
    interval = "" if share.low is None or share.high is None else f" [{100 * share.low:.0f}, {100 * share.high:.0f}]"
    return f"{100 * share.value:.0f}{interval}"


def columns(lines: Sequence[Sequence[str]], *, left: tuple[int, ...]) -> list[str]:
    """A table as lines; the columns of `left` stand left, the others right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def plot_win_rates(found: BestOfN, *paths: Path) -> None:
    """A's win rate by N with 95 % intervals: a line a judge, and one for all of them. PNG or SVG by the file's ending."""
    import matplotlib
    from matplotlib.figure import Figure

    from train.plot import SETTINGS

    colours = ("#8a8a8a", "#d98032", "#4a9b6e", "#8d6cab")
    judges = list(dict.fromkeys(row.judge for row in found.win_rates))
    numbers = list(dict.fromkeys(row.candidates for row in found.win_rates))
    labels = {f"judge {place + 1}": f"judge {place + 1}: {model}" for place, model in enumerate(found.judges)}
    labels[POOLED] = "all judges"
    for path in paths:  # a figure each: a layout that was solved once comes out a hair different the next time
        with matplotlib.rc_context(SETTINGS):
            figure = Figure(figsize=(6.4, 4.2), layout="constrained")
            axes = figure.subplots()
            for index, judge in enumerate(judges):
                rows = [row for row in found.win_rates if row.judge == judge and row.share.value is not None]
                offset = (index - (len(judges) - 1) / 2) * 0.07
                values = [row.share.value or 0.0 for row in rows]
                ends = [(row.share.low, row.share.high) for row in rows]
                errors = [
                    [0.0 if low is None else value - low for value, (low, _) in zip(values, ends, strict=True)],
                    [0.0 if high is None else high - value for value, (_, high) in zip(values, ends, strict=True)],
                ]
                is_last = index == len(judges) - 1
                axes.errorbar(
                    [numbers.index(row.candidates) + offset for row in rows],
                    values,
                    errors,
                    fmt="o-",
                    capsize=3,
                    linewidth=2.2 if is_last else 1.2,
                    color="#1b6ca8" if is_last else colours[index % len(colours)],
                    label=labels[judge],
                )
            axes.axhline(0.5, color="#222222", linewidth=0.8, linestyle=":")
            axes.set_xticks(range(len(numbers)), [str(n) for n in numbers])
            axes.set_xlim(-0.4, len(numbers) - 0.6)
            axes.set_ylim(0, 1)
            axes.set_xlabel("candidates a turn (N)")
            axes.set_ylabel(f"win rate of {found.sides[0].name} against {found.sides[1].name}")
            axes.legend(frameon=False, fontsize=8, loc="lower right")
            axes.set_title(f"Best-of-N, {found.seeds} seeds, {found.turns} turns", fontsize=10)
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            try:
                figure.savefig(path, dpi=150, metadata=metadata)
            except OSError as error:
                raise TrainError(f"cannot write {str(path)!r}: {error.strerror}") from error
