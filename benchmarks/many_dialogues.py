"""A thousand and ten thousand dialogues of five turns on the rehearsal backend: time, CPU and memory as they run.

    .venv/bin/python -m benchmarks.many_dialogues
    .venv/bin/python -m benchmarks.many_dialogues --dialogues 500 --dialogues 2000

Each size is a `descant run` of its own, into a corpus of its own. Its memory is read ten times a second from /proc (Linux);
the dialogues that have ended are counted by its progress. Held: at most 1 GiB at any moment, and ten times the dialogues in
at most eleven times the time.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parent.parent
SHARES = (0.2, 0.5, 1.0)
SAMPLE_SECONDS = 0.1
MOST_MIB = 1024.0
MOST_TIMES = 1.1
"""The time a dialogue in the larger campaign, over that in the smaller one."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class Ran(NamedTuple):
    """One campaign."""

    dialogues: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    memory: list[tuple[float, float]]
    """Seconds since the start, and MiB resident then."""
    corpus_mib: float

    def at(self, share: float) -> float:
        """MiB at a share of the time: the most in the tenth of the time that ends there."""
        last = share * self.seconds
        return max(mib for second, mib in self.memory if last - 0.1 * self.seconds <= second <= last)


def run(dialogues: int, turns: int, concurrency: int) -> Ran:
    """A campaign in a process of its own; exits where it does not end well."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.duckdb"
        sets = {
            "seeds.format": "rehearsal",
            "seeds.limit": dialogues,
            "turns": turns,
            "concurrency": concurrency,
        }
        command = [sys.executable, "-m", "descant", "run", "dialogue", "--db", str(corpus), "--quiet", "--json"]
        command += [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True)
        memory: list[tuple[float, float]] = []
        sampler = threading.Thread(target=_sample, args=(process, started, memory))
        sampler.start()
        assert process.stdout is not None
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        sampler.join()
        done = re.search(r'"done": (\d+)', told)
        if process.returncode or done is None or int(done[1]) != dialogues:
            sys.exit(f"the campaign ended with {process.returncode}: {told[-2000:]}")
        return Ran(
            dialogues=dialogues,
            seconds=seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_mib=usage.ru_maxrss / 1024,
            memory=memory,
            corpus_mib=corpus.stat().st_size / 2**20,
        )


def _sample(process: "subprocess.Popen[str]", started: float, memory: list[tuple[float, float]]) -> None:
    statm = Path(f"/proc/{process.pid}/statm")
    while True:
        try:
            pages = int(statm.read_text().split()[1])
        except (OSError, IndexError):
            return
        if pages == 0:  # it has ended, and nobody has taken its status yet
            return
        memory.append((time.monotonic() - started, pages * PAGE / 2**20))
        time.sleep(SAMPLE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, action="append", help="Sizes; 1,000 and 10,000 unless given.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=128)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, Python {sys.version.split()[0]}")
    shares = "".join(f"{f'MiB at {share:.0%}':>13}" for share in SHARES)
    print(
        f"{'dialogues':>9} {'seconds':>8} {'CPU s':>7} {'ms/dialogue':>12}{shares} {'peak MiB':>9} {'corpus MiB':>11}"
    )
    ran = []
    for size in arguments.dialogues or [1_000, 10_000]:
        one = run(size, arguments.turns, arguments.concurrency)
        ran.append(one)
        memory = "".join(f"{one.at(share):>13.0f}" for share in SHARES)
        print(
            f"{size:>9,} {one.seconds:>8.1f} {one.cpu_seconds:>7.1f} {1e3 * one.cpu_seconds / size:>12.2f}{memory} "
            f"{one.peak_mib:>9.0f} {one.corpus_mib:>11.1f}",
            flush=True,
        )
    first, last = ran[0], ran[-1]
    times, most = last.dialogues / first.dialogues, max(one.peak_mib for one in ran)
    took, cpu = last.seconds / first.seconds, last.cpu_seconds / first.cpu_seconds
    print(
        f"{times:g} times the dialogues: {took:.2f} times the time (at most {MOST_TIMES * times:g}), {cpu:.2f} times the "
        f"CPU; {most:.0f} MiB at most (at most {MOST_MIB:.0f})"
    )
    sys.exit(took > MOST_TIMES * times or most > MOST_MIB)


if __name__ == "__main__":
    main()
