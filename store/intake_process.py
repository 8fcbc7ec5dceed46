"""An intake in a process of its own, so that a campaign's event loop does not share Python's lock with it.

    python -m store.intake_process DATABASE

It answers one request a line with one line, both JSON. It ends when nobody can ask any more, after the batch that it has begun,
and holds the writer's lock until then: who comes next finds no batch on its way.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from store.database import StoreBusyError, StoreError
from store.ingest import FullDiskError, IngestError, is_full_disk
from store.intake import OwnIntake

ROOT = Path(__file__).resolve().parent.parent
_KINDS = {"busy": StoreBusyError, "full": FullDiskError, "ingest": IngestError, "store": StoreError}


class GoneError(StoreError):
    """Raised when the process is gone: what it did not finish is left to another intake."""


class IntakeProcess:
    """An intake beside this process.

    Args:
        path: the database.
        lock: the descriptor of the writer's lock.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.unreadable_lines = 0
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "store.intake_process", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[lock],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )

    def take_batch(self, *, is_closing: bool = False) -> bool:
        return bool(self._ask("take_batch", is_closing=is_closing))

    def remove_finished_segments(self) -> None:
        self._ask("remove_finished_segments")

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._process.communicate()

    def _ask(self, what: str, **how: bool) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps([what, how]), file=self._process.stdin, flush=True)
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:  # a broken pipe, or no answer
            self.close()
            raise GoneError(f"the process that takes rows in has ended ({self._process.returncode})") from error
        self.unreadable_lines = answer["unreadable_lines"]
        if answer["error"] is not None:
            kind, text = answer["error"]
            raise _KINDS[kind](text)
        return answer["found"]


def _kind_of(error: StoreError) -> str:
    if is_full_disk(error):
        return "full"
    return next(kind for kind, cls in _KINDS.items() if isinstance(error, cls))


def main() -> None:
    """Answers until nobody asks any more."""
    for sent_to_the_group in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sent_to_the_group, signal.SIG_IGN)  # the writer says when it is over
    intake = OwnIntake(Path(sys.argv[1]), goes_on=True)
    for line in sys.stdin:
        what, how = json.loads(line)
        found: bool | None = None
        problem: tuple[str, str] | None = None
        try:
            if what == "take_batch":
                found = intake.take_batch(**how)
            else:
                intake.remove_finished_segments()
        except StoreError as error:
            problem = _kind_of(error), str(error)
        print(json.dumps({"found": found, "error": problem, "unreadable_lines": intake.unreadable_lines}), flush=True)
    intake.close()


if __name__ == "__main__":
    main()
