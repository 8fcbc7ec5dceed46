"""The command line as people run it: another process, in another folder."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def start_descant(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """`descant ...` with no PYTHONPATH; both outputs are pipes."""
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "descant.py"), *arguments],
        cwd=cwd,
        env={**inherited, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Ended(subprocess.CompletedProcess[str]):
    """How a command ended."""


def descant(*arguments: str, cwd: Path, environment: Mapping[str, str] | None = None) -> Ended:
    process = start_descant(*arguments, cwd=cwd, environment=environment)
    out, err = process.communicate(timeout=120)
    return Ended(arguments, process.returncode, out, err)


def wait_until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true within {seconds:g} s"
        time.sleep(0.01)
