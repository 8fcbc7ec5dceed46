"""Progress of a campaign on stderr: a live line on a terminal, a plain line now and then elsewhere.

It reads counters and draws them; it decides nothing.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from agents.ledger import Ledger

PLAIN_LINE_SECONDS = 10.0
BAR_WIDTH = 12
WIDE = 110
"""Columns of a terminal in which there is room for a bar."""
LONGEST_NAME, SHORTEST_NAME = 24, 6
LIVE_REFRESHES_A_SECOND = 4


@dataclass
class Counters:
    """Where a campaign stands, in dialogues; a judging in verdicts."""

    total: int
    done: int = 0
    """Those of earlier runs included."""
    failed: int = 0
    in_flight: int = 0
    ended_before: int = 0
    """Done or failed when this run began."""
    unit: str = "dialogues"
    """What is counted."""

    @property
    def ended(self) -> int:
        return self.done + self.failed


class Progress(Protocol):
    """What the campaign tells as it runs."""

    def __enter__(self) -> "Progress": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def update(self, counters: Counters, ledger: Ledger) -> None: ...
    def say(self, line: str) -> None: ...


class Silent:
    """No progress."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, counters: Counters, ledger: Ledger) -> None:
        pass

    def say(self, line: str) -> None:
        pass


class StderrProgress:
    """A rich bar on a terminal, plain lines in a pipe or in CI.

    Args:
        started: called when the work begins.
    """

    def __init__(self, description: str, started: Callable[[], None] = lambda: None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, TextColumn
        from rich.progress import Progress as Bar

        self._description = description
        self._began = started
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self._next_line = self._started + PLAIN_LINE_SECONDS
        self._last = ""
        self._bar: Bar | None = None
        if self._console.is_terminal:
            bar: list[ProgressColumn] = [BarColumn(bar_width=BAR_WIDTH)] if self._console.width >= WIDE else []
            self._bar = Bar(
                TextColumn("{task.description}"),
                *bar,
                TextColumn("{task.fields[detail]}"),
                console=self._console,
                transient=True,
                refresh_per_second=LIVE_REFRESHES_A_SECOND,
            )
            self._task = self._bar.add_task(description[:LONGEST_NAME], total=None, detail="")

    def __enter__(self) -> "StderrProgress":
        self._began()
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
        if self._last:
            print(self._last, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        if self._bar:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def update(self, counters: Counters, ledger: Ledger) -> None:
        now = time.monotonic()
        if not self._bar and now < self._next_line and counters.ended < counters.total:
            return
        detail = summary_line(counters, ledger, now - self._started)
        self._last = f"{self._description} {detail}"
        if self._bar:
            name, detail = fitted(self._description, detail, counters.unit, self._console.width)
            self._bar.update(
                self._task, description=name, completed=counters.ended, total=counters.total, detail=detail
            )
            return
        if now >= self._next_line:
            self._next_line = now + PLAIN_LINE_SECONDS
            print(self._last, file=sys.stderr, flush=True)
            self._last = ""


def summary_line(counters: Counters, ledger: Ledger, seconds: float) -> str:
    """`846/1200 dialogues · 2 failed · 128 open · 310/s · $0.0421 · 0:01:10 left`, or `held` at its end."""
    ended_now = counters.ended - counters.ended_before
    left = (counters.total - counters.ended) * seconds / ended_now if ended_now else None
    rate = ledger.sent / seconds if seconds else 0.0
    until = "held" if ledger.is_held else f"{clock(left) if left is not None else '-:--:--'} left"
    return (
        f"{counters.ended}/{counters.total} {counters.unit} · {counters.failed} failed · {counters.in_flight} open · "
        f"{rate:.0f}/s · {_cost(ledger)} · {until}"
    )


def _cost(ledger: Ledger) -> str:
    """What answers have cost, as far as it is known."""
    spent = ledger.spent
    if not spent.unpriced_calls:
        return f"${spent.cost_usd:.4f}"
    return f"over ${spent.cost_usd:.4f}" if spent.cost_usd else "no price"


def fitted(name: str, line: str, unit: str, width: int) -> tuple[str, str]:
    """A name and a summary line as they fit beside each other; where they do not, the name is cut, then the unit left out."""
    if len(line) + SHORTEST_NAME >= width:
        line = line.replace(f" {unit}", "", 1)
    return name[: max(SHORTEST_NAME, min(LONGEST_NAME, width - len(line) - 2))], line


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
