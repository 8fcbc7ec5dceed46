"""A line on stderr for a start that takes longer than people wait in silence. Imports nothing heavy, since that is what takes."""

import sys
import threading
from collections.abc import Callable

import click

SILENT_SECONDS = 0.7
"""A mistake that is found sooner is told alone."""
ERASED = "\r\x1b[K"


class Starting:
    """What is going on, from when it has taken a moment until the start is over; on a terminal it is then taken back."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lock = threading.Lock()
        self._is_over = False
        self._is_shown = False
        self._timer = threading.Timer(SILENT_SECONDS, self._show)
        self._timer.daemon = True
        self._timer.start()

    def over(self) -> None:
        """Nothing is said from now on."""
        self._timer.cancel()
        with self._lock:
            if self._is_shown and not self._is_over and sys.stderr.isatty():
                print(ERASED, end="", file=sys.stderr, flush=True)
            self._is_over = True

    def _show(self) -> None:
        with self._lock:
            if not self._is_over:
                self._is_shown = True
                print(self._text, end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def starting(config: str, *, quiet: bool) -> Callable[[], None]:
    """Says so of a command that begins; what it returns is called when the work begins. The command's end is over, too."""
    if quiet:
        return lambda: None
    line = Starting(f"{config[-24:]} starts: seeds, models and the corpus are looked at")
    click.get_current_context().call_on_close(line.over)
    return line.over


def sayer(quiet: bool, started: Callable[[], None]) -> Callable[[str], None]:
    """Lines on stderr, after that one; or nothing."""

    def say(line: str) -> None:
        started()
        click.echo(line, err=True)

    return (lambda _: None) if quiet else say
