"""A plan as a table for people, at most 80 wide, and as JSON for machines."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from graphs.plan import CapVerdict, Forecast, Plan, Range
from graphs.progress import clock
from graphs.rehearse import Usage
from store.transcript import neutral, print_wide


def print_plans(plans: Sequence[Plan], verdicts: Sequence[CapVerdict], console: Console) -> None:
    for number, plan in enumerate(plans):
        if number:
            console.print()
        _print_plan(plan, console)
    if len(plans) > 1:
        console.print()
        _line(console, Text("all of them together", style="bold"))
        print_wide(_table({"total": together(plans)}), console)
    console.print()
    for verdict in verdicts:
        _line(console, Text(f"budget     {_told(verdict)}"))
    if not verdicts:
        _line(console, Text("budget     none: set budget.usd, budget.tokens or budget.calls, or budget.roles.ROLE.usd"))
    for line in dict.fromkeys(line for plan in plans for line in plan.unpriced):
        _line(console, Text(f"no price   {neutral(line)}"))


def together(plans: Sequence[Plan]) -> Forecast:
    """The sum of several campaigns: lows with lows, highs with highs."""
    first, *others = [plan.total for plan in plans]
    calls, prompt, completion, usd = first
    for other in others:
        calls, prompt, completion = (
            calls + other.calls,
            prompt + other.prompt_tokens,
            completion + other.completion_tokens,
        )
        usd = None if usd is None or other.usd is None else usd + other.usd
    return Forecast(calls, prompt, completion, usd)


def to_json(plan: Plan) -> dict[str, Any]:
    return plan._asdict() | {
        "roles": {role: _forecast_json(forecast) for role, forecast in plan.roles.items()},
        "total": _forecast_json(plan.total),
        "spent": {role: usage._asdict() for role, usage in plan.spent.items()},
    }


def verdicts_json(verdicts: Sequence[CapVerdict]) -> list[dict[str, Any]]:
    return [
        verdict._asdict()
        | {"forecast": None if verdict.forecast is None else verdict.forecast._asdict(), "verdict": verdict.verdict}
        for verdict in verdicts
    ]


def _forecast_json(forecast: Forecast) -> dict[str, Any]:
    return {name: None if found is None else found._asdict() for name, found in forecast._asdict().items()}


def _print_plan(plan: Plan, console: Console) -> None:
    _line(
        console,
        Text.assemble(
            (neutral(plan.name), "bold"),
            f"  {plan.playings - plan.ended:,} playings of seeds to come"
            + (f", {plan.ended:,} ended" if plan.ended else ""),
        ),
    )
    if plan.ended < plan.playings:
        print_wide(_table({**plan.roles, "total": plan.total}), console)
    if plan.spent:
        spent = Usage()
        for usage in plan.spent.values():
            spent += usage
        usd = "price unknown" if spent.usd is None else f"${_usd(spent.usd)}"
        tokens = amount(spent.prompt_tokens + spent.completion_tokens)
        _line(console, Text(f"spent      {amount(spent.calls)} calls, {tokens} tokens, {usd}: so far"))
    _line(console, Text(f"from       {_source(plan)}"))
    if plan.seconds is not None and plan.ended < plan.playings:
        _line(console, Text(f"time       about {clock(plan.seconds)} at this pace and concurrency"))


def _source(plan: Plan) -> str:
    played = f"{plan.sample} recorded playing{'' if plan.sample == 1 else 's'}"
    lost = "; their requests without an answer count too, at the most they can cost" if plan.lost_tokens else ""
    if plan.source == "this campaign":
        return f"{played} of this campaign{lost}"
    if plan.source == "another campaign":
        return f"{played} of {neutral(plan.recorded_in or '')}, which asks the same of the same models{lost}"
    lengths = "" if plan.is_rehearsal else "; the lengths of answers are assumed: docs/budgets.md says how"
    return f"{plan.sample} playing{'' if plan.sample == 1 else 's'} rehearsed in memory{lengths}"


def _table(forecasts: dict[str, Forecast]) -> Table:
    """Each role in two lines: what is expected, and from low to high."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("role", no_wrap=True)
    for name in ("calls", "tokens in", "tokens out", "USD"):
        table.add_column(name, justify="right", no_wrap=True)
    for role, forecast in forecasts.items():
        ranges = (forecast.calls, forecast.prompt_tokens, forecast.completion_tokens)
        table.add_row(
            Text(role, style="bold" if role == "total" else ""),
            *(amount(found.expected) for found in ranges),
            "unknown" if forecast.usd is None else _usd(forecast.usd.expected),
        )
        spans = [_span(found, amount) for found in ranges]
        spans.append("" if forecast.usd is None else _span(forecast.usd, _usd))
        if any(spans):
            table.add_row("", *(Text(span, style="dim") for span in spans))
    return table


def _span(found: Range, shown: Any) -> str:
    low, high = shown(found.low), shown(found.high)
    return "" if low == high == shown(found.expected) else f"{low} to {high}"


def _told(verdict: CapVerdict) -> str:
    limit = f"${verdict.limit:g}" if verdict.cap.endswith("usd") else f"{verdict.limit:,.0f}"
    if verdict.forecast is None:
        return f"{verdict.cap} {limit}: cannot be told without the price"
    shown = _usd if verdict.cap.endswith("usd") else amount
    expected, high = shown(verdict.forecast.expected), shown(verdict.forecast.high)
    so_far = f", {shown(verdict.spent)} of it spent" if verdict.spent else ""
    return f"{verdict.cap} {limit}: {verdict.verdict} ({expected} expected, {high} at most{so_far})"


def amount(count: float) -> str:
    """A count in at most five characters: `9,999`, `12.3k`, `1.23M`."""
    if round(count) < 10_000:
        return f"{round(count):,}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        scaled = count / size
        if scaled < 999.5 or unit == "G":
            break
    return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"


def _usd(cost: float) -> str:
    return f"{cost:.{4 if cost < 1 else 2}f}" if cost else "0"


def _line(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)
