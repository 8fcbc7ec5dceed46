"""What a fit shows on stderr while it runs: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from train.loop import Progress

LINE_EVERY_SECONDS = 10.0


class StderrProgress:
    """What a fit calls after each step; shows means over the latest steps."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.console = Console(file=sys.stderr)
        self.bar = Bar(
            TextColumn("fit {task.description}"),
            BarColumn(bar_width=6),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self.task = self.bar.add_task(name, total=None, figures="")
        self.loss = self.accuracy = self.tokens_per_second = 0.0
        self.seen = 0
        self.last_line = time.monotonic()

    def __enter__(self) -> "StderrProgress":
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def __call__(self, progress: Progress) -> None:
        if not self.seen and progress.step > 1:
            self.console.print(f"fit {self.name}: goes on from step {progress.step - 1}", markup=False, highlight=False)
        self.seen += 1
        share = max(0.05, 1 / self.seen)  # a mean over about the last 20 steps
        self.loss += share * (progress.loss - self.loss)
        self.accuracy += share * ((progress.accuracy or 0.0) - self.accuracy)
        self.tokens_per_second += share * (progress.tokens_per_second - self.tokens_per_second)
        accuracy = "" if progress.accuracy is None else f"accuracy {self.accuracy:.3f}  "
        figures = f"loss {self.loss:.3f}  {accuracy}{self.tokens_per_second / 1000:.1f}k tokens/s"
        if self.console.is_terminal:
            self.bar.update(self.task, completed=progress.step, total=progress.steps, figures=figures)
        elif time.monotonic() - self.last_line > LINE_EVERY_SECONDS or progress.step == progress.steps:
            self.last_line = time.monotonic()
            print(f"fit {self.name}: step {progress.step} of {progress.steps}  {figures}", file=sys.stderr, flush=True)
