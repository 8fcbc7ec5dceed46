"""What the pages of labs are put together from: figures with their intervals, tables in plain text, points of a plot."""

from collections.abc import Sequence

from lab.comparison import Accuracy, Difference, Finding, Wins

WIDTH = 79
COLOURS = ("#8a8a8a", "#c9a227", "#d98032", "#1b6ca8", "#7a5195", "#2f9e8f", "#a05d56", "#c0392b")


def findings_table(findings: Sequence[Finding], items: str = "pairs") -> str:
    """Two lines a claim: what became of it, and the figures."""
    lines = []
    for claim, found, verdict in findings:
        seeds = " ".join(f"{100 * gain:+.0f}" for gain in found.by_seed)
        interval = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        lines += [f"{verdict.upper()}: {claim.text}", f"    {interval} on {found.n} {items}; by random seed {seeds}"]
    return "\n".join(lines)


def share(found: Accuracy) -> str:
    return f"{100 * found.value:.0f} ±{50 * (found.high - found.low):.0f}"


def gain(found: Difference) -> str:
    return f"{100 * found.value:+.0f} ±{50 * (found.high - found.low):.0f}"


def table(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def points(
    axes: object, places: Sequence[float], found: Sequence[Accuracy], colour: str, label: str, *, line: bool
) -> None:
    values = [point.value for point in found]
    errors = [[p.value - p.low for p in found], [p.high - p.value for p in found]]
    axes.errorbar(  # type: ignore[attr-defined]  # matplotlib is not followed by mypy
        places, values, errors, color=colour, label=label, marker="o", markersize=4, capsize=2,
        linestyle="-" if line else "none", linewidth=1.4, elinewidth=1,
    )  # fmt: skip


def has(wins: Wins, arm: str, cell: str) -> bool:
    """Whether an arm has items of a cell at all."""
    return any(name == arm and kind == cell and found for (name, _, kind), found in wins.items())
