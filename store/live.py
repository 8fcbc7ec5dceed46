"""The live half of `descant status`: what the campaign that runs now says of itself, and what waits to be played again."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from store.control import NoAnswerError, RefusedError, ask
from store.transcript import neutral, print_wide

STATES = {
    "running": "running",
    "held": "held by `descant pause`: `descant resume` goes on",
    "stopping": "stopping: calls in flight are waited for",
    "waiting": "waiting",
}


def live_of(database: Path) -> tuple[dict[str, Any] | None, str | None]:
    """What the running campaign says; null when none runs, with the reason where one runs and does not say."""
    try:
        return ask(database, {"ask": "status"}), None
    except (NoAnswerError, RefusedError) as error:
        return None, str(error)


def print_live(live: dict[str, Any] | None, unanswered: str | None, console: Console) -> bool:
    """The same for people; false, and nothing, where no campaign runs."""
    if live is None:
        if unanswered is not None:
            console.print(Text(f"now: {unanswered}", style="yellow"), soft_wrap=not console.is_terminal)
        return unanswered is not None
    state = STATES.get(live["state"], live["state"])
    if live["trouble"]:
        state += f" ({live['trouble']})"
        if live.get("held"):
            state += ", and held by `descant pause`"
    lines = [
        f"now: {neutral(live['name'])} is {state}",
        f"  {live['unit']}: {live['done']:,} of {live['total']:,} done, {live['failed']:,} failed, {live['open']:,} open, at most "
        f"{live['concurrency']:,} at once",
        f"  calls: {live['calls_in_flight']:,} in flight, "
        f"{live['calls_a_second']:.{0 if live['calls_a_second'] >= 10 else 1}f}/s",
    ]
    for account in live["budget"]:
        if spent := _spent(account):
            whose = "" if account["role"] is None else f" of the {neutral(account['role'])}"
            lines.append(f"  budget{whose}: {spent}")
    for line in lines:
        console.print(Text(line), soft_wrap=not console.is_terminal)
    if live["limiters"]:
        print_wide(_limiters(live["limiters"]), console)
    return True


def _spent(account: dict[str, Any]) -> str:
    """What is spent of each cap; nothing where there are none."""
    parts = []
    if account["usd_cap"] is not None:
        parts.append(f"${account['usd']:.4f} of ${account['usd_cap']:g}")
    for what in ("tokens", "calls"):
        if account[f"{what}_cap"] is not None:
            parts.append(f"{account[what]:,} of {account[f'{what}_cap']:,} {what}")
    return " · ".join(parts)


def _limiters(limiters: list[dict[str, Any]]) -> Table:
    """One row an endpoint: how many requests at once it takes, as far as it has said, and what waits for it."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("endpoint")
    for name in ("in\nflight", "limit", "wait-\ning", "told too\nmuch", "held\ns", "a minute"):
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for limiter in limiters:
        caps = [f"{limiter[cap]:g} {what}" for cap, what in (("rpm", "calls"), ("tpm", "tokens")) if limiter[cap]]
        table.add_row(
            Text(neutral(" ".join(filter(None, (limiter["model"], limiter["api_base"])))), overflow="fold"),
            str(limiter["in_flight"]),
            "none" if limiter["limit"] is None else str(limiter["limit"]),
            str(limiter["waiting"]),
            str(limiter["times_limited"]),
            f"{limiter['held_seconds']:g}",
            ", ".join(caps),
        )
    return table
