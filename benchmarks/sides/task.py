"""What every side of the throughput benchmark plays, and how it tells what that cost it. Standard library alone.

Dialogues that begin with a user turn; the assistant answers `turns` times, and before each further answer the user
speaks: `2 * turns - 1` calls a dialogue. A side prints one line of JSON when it is done.
"""

import argparse
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

TEMPERATURE = 0.7
MAX_TOKENS = 512
OPENINGS = ("How would I plan", "What do I need for", "Tell me about", "Help me choose", "Could you explain")
SUBJECTS = ("a garden", "a long walk", "a small kitchen", "an old bicycle", "a first concert", "a quiet weekend")
DETAILS = ("with two children", "on a tight budget", "before the winter", "in a town that I do not know", "by the sea")


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The words that every side takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--api-base", required=True)
    parser.add_argument("--model", required=True, help="As the server calls it.")
    parser.add_argument("--dialogues", type=int, required=True)
    parser.add_argument("--turns", type=int, required=True, help="Answers of the assistant a dialogue.")
    parser.add_argument("--concurrency", type=int, required=True, help="Dialogues at once.")
    return parser


def first_turns(n: int) -> list[str]:
    """What the users open with, all different."""
    drawn = random.Random(0)
    return [
        f"{drawn.choice(OPENINGS)} {drawn.choice(SUBJECTS)} {drawn.choice(DETAILS)}? My number is {number}."
        for number in range(n)
    ]


@contextmanager
def measured() -> Iterator[None]:
    """Prints what the block took: seconds, CPU seconds of this process and its children, and memory at its peak."""
    started, cpu = time.monotonic(), _cpu()
    yield
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    taken = {"seconds": time.monotonic() - started, "cpu_seconds": _cpu() - cpu, "peak_mib": peak}
    print(json.dumps(taken), flush=True)
    sys.stdout.flush()


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
