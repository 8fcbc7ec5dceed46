"""The report of pairs as one table for people: campaigns and methods side by side, at most 79 wide."""

import io
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.pair_report import MethodReport, Noise
from store.pair_views import MAJORITY, ORACLE
from store.transcript import neutral

ABREAST = 4
"""Campaigns side by side; more go on below."""
LABEL_WIDTH, CELL_WIDTH = 27, 12
WIDTH = LABEL_WIDTH + ABREAST * (1 + CELL_WIDTH)
Cell = Callable[[MethodReport], str]


def print_report(reports: Sequence[MethodReport], console: Console) -> None:
    for start in range(0, len(reports), ABREAST):
        if start:
            console.print()
        _print(_table(reports[start : start + ABREAST]), console)
    console.print()
    for note in _notes(reports):
        console.print(Text(note, style="dim"), soft_wrap=True)


def _print(table: Table, console: Console) -> None:
    """As wide as it is, with no blanks at the ends of lines where it goes into a pipe."""
    if console.is_terminal:
        console.print(table)
        return
    page = io.StringIO()
    Console(file=page, width=WIDTH, color_system=None).print(table)
    console.file.writelines(line.rstrip() + "\n" for line in page.getvalue().splitlines())


def _table(reports: Sequence[MethodReport]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("", width=LABEL_WIDTH, overflow="fold")
    for report in reports:
        name = "\n".join(wrap(neutral(report.figures["name"]), CELL_WIDTH))
        table.add_column(Text(name), justify="right", max_width=CELL_WIDTH)

    def row(label: str, cell: Cell | None = None) -> None:
        if cell is None:
            table.add_row(Text(label, style="bold"), *[""] * len(reports))
        else:
            table.add_row(neutral(label), *(cell(report) for report in reports))

    row("method", lambda report: neutral(report.figures["method"]))
    row("pairs", lambda report: f"{report.figures['pairs']:,}")
    row("a pair costs")
    row("  calls", lambda report: _number(report.figures["calls_a_pair"], 2))
    row("  tokens in", lambda report: _number(report.figures["prompt_tokens_a_pair"], 0))
    row("  tokens out", lambda report: _number(report.figures["completion_tokens_a_pair"], 0))
    row("  USD", _usd("cost_usd_a_pair"))
    if any(report.figures["lost_tokens_a_pair"] for report in reports):
        row("  tokens lost, at most", lambda report: _number(report.figures["lost_tokens_a_pair"], 0))
        row("  USD lost, at most", _usd("lost_usd_a_pair"))
    row("  calls of the campaign", lambda report: f"{report.figures['calls']:,}")
    row("wrong labels, %")
    for label_set, judges in _judges(reports).items():
        row(f"  by the {ORACLE}" if label_set == ORACLE else f"  by {label_set}", _said(label_set, MAJORITY, _wrong))
        row("    ties, % of judged", _said(label_set, MAJORITY, lambda noise: _percent(noise.tie)))
        for judge in judges if len(judges) > 1 else ():
            row(f"    {judge}", _said(label_set, judge, _wrong))
    row("  judged as intended, %", lambda report: _percent(report.figures["labels_agree"]))
    row("between pairs")
    row("  Self-ROUGE", _between("self_rouge", 1))
    row("  distinct-1", _between("distinct_1", 2))
    row("  distinct-2", _between("distinct_2", 2))
    row("within a pair")
    row("  distinct-1", lambda report: _number(report.figures["distinct_1_within"], 2))
    row("  distinct-2", lambda report: _number(report.figures["distinct_2_within"], 2))
    row("  likeness of the sides", lambda report: _number(report.figures["similarity"], 2))
    row("  near-identical pairs", lambda report: f"{report.figures['near_identical']:,}")
    row("length")
    row("  chosen longer, %", lambda report: _percent(report.figures["chosen_longer"]))
    row("  words, chosen", lambda report: _number(report.figures["chosen_words"], 1))
    row("  words, rejected", lambda report: _number(report.figures["rejected_words"], 1))
    row("answers caught", lambda report: f"{report.figures['caught']:,}")
    for reason in dict.fromkeys(loss.reason for report in reports for loss in report.lost):
        row(f"  {reason}", _lost(reason))
    row("places without a pair", lambda report: f"{report.figures['without_pair']:,}")
    return table


def _notes(reports: Sequence[MethodReport]) -> list[str]:
    notes = [
        "Wrong: of labels of which one can tell. [95 % intervals]; - is unknown, or too",
        "few to count. docs/pair-quality.md says what each figure means.",
    ]
    for label_set, judges in _judges(reports).items():
        if label_set != ORACLE:
            several = "the majority of its judges" if len(judges) > 1 else ""
            notes.append(f"{label_set}: {several or ', '.join(judges)}")
    if any(report.figures["lost_tokens_a_pair"] for report in reports):
        notes.append("Lost: for requests that brought no answer, and may be billed all the same.")
    invalid = sum(noise.invalid for report in reports for noise in report.noise if noise.judge != MAJORITY)
    if invalid:
        notes.append(f"{invalid} labels of judges could not be read, and count for nothing.")
    if any(report.was_rehearsed for report in reports):
        notes.append("A rehearsal model played: this says nothing about real models.")
    return [neutral(note) for note in notes]


def _judges(reports: Sequence[MethodReport]) -> dict[str, list[str]]:
    """The judges of each set of verdicts."""
    found: dict[str, list[str]] = {}
    for report in reports:
        for noise in report.noise:
            judges = found.setdefault(noise.label_set, [])
            if noise.judge not in (MAJORITY, *judges):
                judges.append(noise.judge)
    return found


def _said(label_set: str, judge: str, shown: Callable[[Noise], str]) -> Cell:
    def cell(report: MethodReport) -> str:
        return next(
            (shown(noise) for noise in report.noise if (noise.label_set, noise.judge) == (label_set, judge)), "-"
        )

    return cell


def _wrong(noise: Noise) -> str:
    return _with_interval(
        *(None if end is None else 100 * end for end in (noise.noise, noise.low, noise.high)), digits=1
    )


def _between(name: str, digits: int) -> Cell:
    def cell(report: MethodReport) -> str:
        found: dict[str, Any] = report.diversity or {}
        return _with_interval(found.get(name), found.get(f"{name}_low"), found.get(f"{name}_high"), digits=digits)

    return cell


def _with_interval(value: float | None, low: float | None, high: float | None, *, digits: int) -> str:
    shown = _number(value, digits)
    return shown if low is None or high is None else f"{shown}\n[{low:.{digits}f}, {high:.{digits}f}]"


def _lost(reason: str) -> Cell:
    return lambda report: f"{sum(loss.answers for loss in report.lost if loss.reason == reason):,}"


def _usd(figure: str) -> Cell:
    def cell(report: MethodReport) -> str:
        cost = report.figures[figure]
        if cost is None:
            return "unknown" if report.figures["pairs"] else "-"
        return f"{cost:.3g}"

    return cell


def _percent(share: float | None) -> str:
    return _number(None if share is None else 100 * share, 1)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
