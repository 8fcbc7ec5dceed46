"""Progress of a campaign on stderr: a live line on a terminal, a plain line now and then elsewhere.

It reads counters and draws them; it decides nothing.
"""

import sys
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from agents.ledger import Ledger

PLAIN_LINE_SECONDS = 10.0
BAR_WIDTH = 6
LONGEST_NAME = 12
"""With the figures they fit into 80 columns."""
LIVE_REFRESHES_A_SECOND = 4


@dataclass
class Counters:
    """Where a campaign stands, in dialogues."""

    total: int
    done: int = 0
    """Those of earlier runs included."""
    failed: int = 0
    in_flight: int = 0
    ended_before: int = 0
    """Done or failed when this run began."""

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
    """A rich bar on a terminal, plain lines in a pipe or in CI."""

    def __init__(self, description: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._description = description
        self._console = Console(stderr=True)
        self._started = time.monotonic()
        self._next_line = self._started + PLAIN_LINE_SECONDS
        self._last = ""
        self._bar: Bar | None = None
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=BAR_WIDTH),
                TextColumn("{task.fields[detail]}"),
                console=self._console,
                transient=True,
                refresh_per_second=LIVE_REFRESHES_A_SECOND,
            )
            self._task = self._bar.add_task(description[:LONGEST_NAME], total=None, detail="")

    def __enter__(self) -> "StderrProgress":
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
            self._bar.update(self._task, completed=counters.ended, total=counters.total, detail=detail)
            return
        if now >= self._next_line:
            self._next_line = now + PLAIN_LINE_SECONDS
            print(self._last, file=sys.stderr, flush=True)
            self._last = ""


def summary_line(counters: Counters, ledger: Ledger, seconds: float) -> str:
    """`846/1200 · 2 failed · 128 open · 310/s · $0.0421 · 0:01:10 left`; a cost that is a lower bound ends in `+?`."""
    spent = ledger.spent
    ended_now = counters.ended - counters.ended_before
    left = (counters.total - counters.ended) * seconds / ended_now if ended_now else None
    rate = ledger.sent / seconds if seconds else 0.0
    cost = f"${spent.cost_usd:.4f}" + ("+?" if spent.unpriced_calls else "")
    return (
        f"{counters.ended}/{counters.total} · {counters.failed} failed · {counters.in_flight} open · {rate:.0f}/s · {cost} · "
        f"{clock(left) if left is not None else '-:--:--'} left"
    )


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
