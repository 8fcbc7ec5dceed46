"""What RMBoost's lab prints: wrong labels with their price, the break-even, reward models, a plot. Knows no models and no campaigns."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from configs.lab_settings import RmboostLabSettings
from lab.break_even import TIE, count, label_noise, noise_gap
from lab.comparison import FEWEST, FEWEST_SEEDS, accuracy, difference
from lab.rmboost import Line, RmboostLabResult, matches, rates_of
from lab.rmboost_material import MIXED, REAL, RECIPES, Played, Point, Quality, at_centre, point_of
from lab.tables import COLOURS, WIDTH, findings_table, gain, has, points, share, table
from train.statistics import Share

NOTE = (
    "The backend was the rehearsal: a rule-based stand-in for a language model in a small closed world, and the reward "
    "models are of less than a million weights. How often a label is wrong follows here from rates that we set, so the "
    "first two parts measure the recipes and test nothing; the last one tests the claims there. Nothing here speaks of "
    "real models."
)
PAPER = (
    "RMBoost (arXiv 2407.16008) claims fewer wrong labels than RLAIF, and that reward models learn more from its pairs "
    "than from those of RLAIF, RLCD and West-of-N, most of all together with real ones. Its figures are not known to us."
)
SHORT: dict[Played, str] = {
    "rmboost": "RMBoost",
    "rmboost_verified": "verified",
    "rmboost_verified_by_pair": "verified, pair",
    "rlaif": "RLAIF",
    "rlaif_by_pair": "RLAIF, pair",
    "rlcd": "RLCD",
    "west_of_n": "West-of-N",
}


def page(result: RmboostLabResult) -> str:
    """The whole page as plain text, at most WIDTH wide."""
    settings = result.settings
    parts = [
        fill(NOTE, WIDTH),
        fill(PAPER, WIDTH),
        f"## Wrong labels where the judge errs {_percent(settings.judge_error)} % and edits fail {_percent(settings.edit_failure)} %",
        centre_table(result),
        "\n".join(fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False) for line in explained(settings)),
        "## The break-even: edits that may fail, %",
        break_even_table(result),
        rlcd_table(result),
        "## Wrong labels at every point of the grid",
        grid_table(result),
    ]
    if result.arms:
        parts += [
            f"## What reward models learn ({settings.fit.steps} steps of {settings.fit.batch_size} pairs)",
            accuracy_table(result),
            gain_table(result),
            "## What became of each claim",
            fill(
                f"Accuracy gained, in points. Nothing is decided on fewer than {FEWEST} items or {FEWEST_SEEDS} random "
                "seeds; intervals are over items.",
                WIDTH,
            ),
            findings_table(result.findings(), "items"),
        ]
    return "\n\n".join(part for part in parts if part)


# wrong labels


def centre_table(result: RmboostLabResult) -> str:
    """Every method at the grid's centre: what its labels, its pairs and its answers are like."""
    lines = [["", "wrong labels, %", "ties", "pairs", "calls", "tokens", "ROUGE", "dist-2"]]
    for played in RECIPES:
        point = at_centre(result.settings, played)
        if point in result.points:
            noise = label_noise(result.outcomes(point))
            lines.append([SHORT[played], _interval(noise), *_figures(result, point)])
    return table(lines)


def grid_table(result: RmboostLabResult) -> str:
    """A row a campaign, all random seeds together."""
    lines = [["", "judge", "edit", "wrong, %", "ties", "pairs", "calls", "tok.", "ROUGE", "dist-2"]]
    for point in sorted(result.points, key=_order):
        noise = label_noise(result.outcomes(point))
        rates = [_percent(rate) for rate in (point.judge_error, point.edit_failure)]
        lines.append([SHORT[point.played], *rates, _half(noise), *_figures(result, point)])
    note = (
        "judge, edit: how often the judge errs and edits fail, in %. The other columns are those of the first table; "
        "half widths of Wilson's 95 % intervals."
    )
    return table(lines) + "\n" + fill(note, WIDTH)


def _figures(result: RmboostLabResult, point: Point) -> list[str]:
    """Ties, pairs of 1,000 prompts, calls and tokens a pair, Self-ROUGE, distinct-2."""
    rows = [row for row in result.qualities if row.point == point]
    outcomes = result.outcomes(point)
    prompts = sum(map(len, outcomes.values()))
    pairs = pairs_of(rows)
    if not pairs:
        return ["", "0", "", "", "", ""]
    return [
        f"{100 * count(outcomes, TIE) / pairs:.0f}",
        f"{1000 * pairs / prompts:.0f}",
        f"{_mean(row.calls_a_pair for row in rows):.1f}",
        f"{_mean(row.tokens_a_pair for row in rows):.0f}",
        f"{_mean(row.self_rouge for row in rows):.0f}",
        f"{_mean(row.distinct_2 for row in rows):.2f}",
    ]


def pairs_of(rows: Sequence[Quality]) -> int:
    return sum(len(row.outcomes) - row.outcomes.count("-") for row in rows)


def _chance(settings: RmboostLabSettings) -> str:
    seeds = ", ".join(map(str, settings.random_seeds))
    return f"Random seed{'s' * (len(settings.random_seeds) > 1)} {seeds}"


def explained(settings: RmboostLabSettings) -> list[str]:
    """What rows and columns are."""
    lines = [
        "RMBoost: the label is drawn, then a second answer is written for it.",
        "verified: as RMBoost, but a pair stands only where the judge, asked in both orders, agrees with the label.",
        "RLAIF: two samples, labelled by the judge, asked in both orders; no pair where it tells both ways.",
        "RLCD: an answer asked to be good, and one asked to be poor.",
        f"West-of-N: the best and the worst of {settings.candidates} samples, by a reward model of the real-like pairs.",
        "pair: the judge errs by the pair of answers, so that asking again does not help; else it errs anew each time.",
        f"Wrong labels are of pairs with a better answer, [95 % interval, Wilson]; ties, in % of pairs, have two equally good "
        f"answers. Pairs are of 1,000 prompts, calls and tokens for one pair. ROUGE (Self-ROUGE, 0 to 100, lower is more "
        f"varied) and dist-2 (distinct-2) are of answers to different prompts. {_chance(settings)}, {settings.prompts} prompts each, the same for all "
        f"methods; the assistant errs in {_percent(settings.mistakes)} % of what it says.",
    ]
    return lines if settings.verified_failures else [line for line in lines if not line.startswith("verified")]


# the break-even


def break_even_table(result: RmboostLabResult) -> str:
    """Judge errors down, whom RMBoost meets across."""
    met = [
        match
        for match in matches(result.settings)
        if any((line.played, line.rival) == match for line in result.lines())
    ]
    found = {(line.played, line.rival, line.judge_error): line for line in result.lines()}
    heads = [
        ["judge", *(_plain(SHORT[played]) for played, _ in met)],
        ["errs", *(f"vs {_plain(SHORT[rival])}" for _, rival in met)],
        ["", *("by pair" if rival.endswith("_by_pair") else "" for _, rival in met)],
    ]
    most = max(result.settings.edit_failures)
    rows = [
        [f"{_percent(error)} %", *(_told(result.settings, found.get((*match, error))) for match in met)]
        for error in result.settings.judge_errors
    ]
    note = (
        f"Up to which share of failed edits RMBoost's labels are at least as clean as the rival's, read between the points of "
        f"the grid, with 95 % intervals (bootstrap over prompts). none: its labels are worse even where no edit fails. >{_percent(most)}: they are no worse as "
        "far as the grid goes. West-of-N asks no judge."
    )
    return table([*heads, *rows]) + "\n" + fill(note, WIDTH)


def _plain(name: str) -> str:
    """Without how its judge errs."""
    return name.removesuffix(", pair")


def rlcd_table(result: RmboostLabResult) -> str:
    """RMBoost and RLCD, which both depend on failed edits: no line, but a gap at each rate."""
    lines = [["edits fail", "RMBoost", "RLCD", "gap, points"]]
    for failure in result.settings.edit_failures:
        mine, theirs = (result.outcomes(point_of(played, None, failure)) for played in ("rmboost", "rlcd"))
        if mine and theirs:
            gap = noise_gap(mine, theirs)
            lines.append(
                [f"{_percent(failure)} %", _half(label_noise(mine)), _half(label_noise(theirs)), _half(gap, "+")]
            )
    note = "RLCD's answers are written for a label too, so it has no line: wrong labels of both, in %, by failed edits."
    return table(lines) + "\n" + fill(note, WIDTH) if len(lines) > 1 else ""


def _told(settings: RmboostLabSettings, line: Line | None) -> str:
    if line is None or line.found is None:
        return ""
    rates = rates_of(settings, line.played)
    least, most = rates[0], rates[-1]
    value, low, high = (_end(rate, least, most) for rate in line.found)
    return f"{value}" if low == high == value else f"{value} [{low}, {high}]"


def _end(rate: float, least: float, most: float) -> str:
    if math.isfinite(rate):
        return f"{100 * rate:.0f}"
    return f">{_percent(most)}" if rate > 0 else f"<{_percent(least)}" if least else "none"


# reward models


def accuracy_table(result: RmboostLabResult) -> str:
    """Arms down, kinds of items across."""
    wins, settings = result.wins, result.settings
    cells = [cell for cell in (REAL, MIXED) if has(wins, settings.arms[0], cell)]
    lines = [["accuracy, %", "pairs", *(head for cell in cells for head in (cell, "by seed"))]]
    for arm in settings.arms:
        found = [accuracy(wins, arm, cell) for cell in cells]
        rows = [row for row in result.arms if row.arm == arm]
        sizes = "+".join(f"{_mean(row.pairs[source] for row in rows):.0f}" for source in rows[0].pairs)
        told = [(share(one), " ".join(f"{100 * value:.0f}" for value in one.by_seed)) for one in found]
        lines.append([arm, sizes, *(part for both in told for part in both)])
    note = (
        f"{accuracy(wins, settings.arms[0], cells[0]).n} real-like items: two natural samples, true labels; in training {_percent(settings.real_noise)} % of their labels are wrong. "
        f"{accuracy(wins, settings.arms[0], cells[-1]).n} mixed items: as many of each method's own pairs, on prompts held out, with true labels. Every arm takes equal "
        "steps from the language model of its random seed; `more_real` has as many pairs as an arm of two sources. Half widths of Wilson's 95 % intervals."
    )
    return table(lines) + "\n" + fill(note, WIDTH)


def gain_table(result: RmboostLabResult) -> str:
    """What each arm gains on the real-like pairs alone, on the same items."""
    wins, arms = result.wins, result.settings.arms
    if "real" not in arms:
        return ""
    cells = [cell for cell in (REAL, MIXED) if has(wins, "real", cell)]
    lines = [["gain on real, points", *cells]]
    lines += [[arm, *[gain(difference(wins, arm, "real", (cell,))) for cell in cells]] for arm in arms if arm != "real"]
    return table(lines) + "\n" + fill("Paired on the same items, with half widths of 95 % intervals.", WIDTH)


def plot(result: RmboostLabResult, *paths: Path) -> None:
    """The break-even lines on the left; on the right what the reward models learned."""
    import matplotlib
    from matplotlib.figure import Figure

    from train.plot import SETTINGS, save_figure

    settings, wins = result.settings, result.wins
    most = max(settings.edit_failures)
    for path in paths:
        with matplotlib.rc_context(SETTINGS):
            figure = Figure(figsize=(10.5, 4.8), layout="constrained")
            left, right = figure.subplots(1, 2, width_ratios=(1, 1))
            lines = result.lines()
            for place, match in enumerate(matches(settings)):
                known = [line for line in lines if (line.played, line.rival) == match and line.found is not None]
                if known:
                    _draw_line(left, settings, known, COLOURS[(place + 1) % len(COLOURS)], 0.003 * (place - 2))
            left.set_xlabel("the judge errs in")
            left.set_ylabel("edits that may fail")
            left.set_title("below its line, RMBoost's labels are the cleaner (▲: as far as it was played)", fontsize=10)
            left.set_ylim(-0.015, 1.12 * most)
            left.axhline(most, color="#cccccc", linewidth=1, zorder=0)
            left.annotate("end of the grid", (settings.judge_errors[0], most), fontsize=7, color="#8a8a8a", va="bottom")
            left.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
            arms = [arm for arm in settings.arms if has(wins, arm, REAL)]
            for place, cell in enumerate((REAL, MIXED)):
                known_arms = [arm for arm in arms if has(wins, arm, cell)]
                places = [arms.index(arm) + 0.25 * (place - 0.5) for arm in known_arms]
                found = [accuracy(wins, arm, cell) for arm in known_arms]
                points(right, places, found, COLOURS[3 if place else 2], f"{cell} items", line=False)
            right.set_xticks(range(len(arms)), list(arms), rotation=40, ha="right", fontsize=8)
            right.set_ylabel("pairwise accuracy")
            right.set_title("what a reward model learned", fontsize=10)
            if arms:
                right.legend(frameon=False, fontsize=8)
            save_figure(figure, path)


def _draw_line(axes: Any, settings: RmboostLabSettings, known: Sequence[Line], colour: str, shift: float) -> None:
    """A break-even line with its intervals, cut off where its rates end; a triangle points to where it lies beyond."""
    rates = rates_of(settings, known[0].played)
    label = f"{SHORT[known[0].played]} vs {SHORT[known[0].rival]}"
    found = [line.found for line in known if line.found is not None]
    places = [line.judge_error + shift for line in known]
    values, lows, highs = ([min(max(rate, rates[0]), rates[-1]) for rate in ends] for ends in zip(*found, strict=True))
    errors = [
        [value - low for value, low in zip(values, lows, strict=True)],
        [high - value for value, high in zip(values, highs, strict=True)],
    ]
    axes.errorbar(places, values, errors, color=colour, label=label, capsize=2, linewidth=1.4, elinewidth=1)
    for place, value, one in zip(places, values, found, strict=True):
        marker = "o" if math.isfinite(one.value) else "^" if one.value > 0 else "v"
        axes.plot([place], [value], marker=marker, markersize=7 if marker != "o" else 4, color=colour)


def as_json(result: RmboostLabResult) -> list[dict[str, Any]]:
    """Every figure of the page, a row each."""
    rows: list[dict[str, Any]] = []
    for point in result.points:
        noise = label_noise(result.outcomes(point))
        mine = [row for row in result.qualities if row.point == point]
        rows.append(
            {
                **point._asdict(),
                "noise": noise and noise._asdict(),
                "pairs": pairs_of(mine),
                "ties": count(result.outcomes(point), TIE),
                "prompts": sum(len(row.outcomes) for row in mine),
                "calls_a_pair": _mean(row.calls_a_pair for row in mine),
                "tokens_a_pair": _mean(row.tokens_a_pair for row in mine),
                "self_rouge": _mean(row.self_rouge for row in mine),
                "distinct_2": _mean(row.distinct_2 for row in mine),
                "chosen_longer": _mean(row.longer for row in mine),
            }
        )
    for line in result.lines():
        rates = {name: _finite(rate) for name, rate in line.found._asdict().items()} if line.found else None
        rows.append({**line._asdict(), "found": rates})
    for arm in result.settings.arms:
        for cell in (REAL, MIXED):
            if has(result.wins, arm, cell):
                rows.append({"arm": arm, "items": cell, **accuracy(result.wins, arm, cell)._asdict()})
    for claim, found, verdict in result.findings():
        rows.append({"claim": claim._asdict(), "difference": found._asdict(), "verdict": verdict})
    return rows


def _finite(rate: float) -> float | str:
    """JSON has no infinity."""
    return rate if math.isfinite(rate) else "none" if rate < 0 else "beyond the grid"


def _order(point: Point) -> tuple[int, float, float]:
    return (list(RECIPES).index(point.played), point.judge_error or 0.0, point.edit_failure or 0.0)


def _mean(figures: Iterable[float | None]) -> float:
    known = [figure for figure in figures if figure is not None]
    return sum(known) / len(known) if known else math.nan


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:g}"


def _interval(found: Share | None) -> str:
    return "" if found is None else f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _half(found: Share | None, sign: str = "") -> str:
    return "" if found is None else f"{100 * found.value:{sign}.1f} ±{50 * (found.high - found.low):.1f}"
