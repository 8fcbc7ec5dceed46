"""Looking at a campaign while it runs: how long `status`, `sql` and `show` take, and what they cost the campaign.

    .venv/bin/python -m benchmarks.look_while_it_runs
    .venv/bin/python -m benchmarks.look_while_it_runs --concurrency 256 --rounds 3     near what two cores can do

A campaign plays against a server of fixed latency (`benchmarks.latency_server`), each time into a new corpus, in rounds:
alone; with somebody who asks one command a second, in turn `status`, `sql` (a summary of a view) and `show` (the dialogue
that the summary named last), each a process of its own, from before the campaign's start until after its end; and, to
provoke errors, with four who ask all the time, while the campaign is killed halfway (SIGKILL) and started again.

Calls a second are the server's, from the first request to the last answer. Lookers are processes on the same cores, so two
figures are told: what they took of the campaign's calls a second, and what CPU they used themselves, which a campaign that
needs all cores must lose, wherever the corpus lies. A command that finds no database yet is counted apart.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.latency_server import LatencyServer, serve

HOME = Path(__file__).parent.parent
LIMIT_SECONDS = 2.0
SLOWED_LIMIT = 0.05
SUMMARY = (
    "SELECT status, count(*) AS dialogues, avg(n_turns) AS turns, max(dialogue_id) AS id FROM transcripts GROUP BY ALL"
)
CROWD = 4
TOO_EARLY = "there is no database"


class Look(NamedTuple):
    """One command that was asked."""

    command: str
    seconds: float
    cpu_seconds: float
    error: str | None


class Lookers:
    """Threads that ask in turn, each a command every `every_seconds`, or one after the other where it is 0."""

    def __init__(self, database: Path, *, several: int, every_seconds: float) -> None:
        self.looks: list[Look] = []
        self.too_early = 0
        self._database = database
        self._every_seconds = every_seconds
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._look_on) for _ in range(several)]

    def __enter__(self) -> "Lookers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _look_on(self) -> None:
        shown: str | None = None
        while not self._over.is_set():
            for command in ("status", "sql", "show"):
                if command == "show" and shown is None:  # no dialogue has ended yet
                    continue
                words = {"sql": ["sql", SUMMARY, "--format", "json"], "show": ["show", str(shown)]}.get(
                    command, ["status"]
                )
                began = time.monotonic()
                answer = self._ask(words)
                if command == "sql" and answer and (rows := json.loads(answer)):
                    shown = rows[0]["id"]
                left = self._every_seconds - (time.monotonic() - began)
                if self._over.wait(max(0.0, left)):
                    return

    def _ask(self, words: Sequence[str]) -> str | None:
        """What a command printed; null where it failed."""
        done = run([*words, "--db", str(self._database)])
        if done.code and TOO_EARLY in done.error:
            self.too_early += 1
            return None
        told = f"exit {done.code}: {done.error.strip()[-300:]}" if done.code else None
        self.looks.append(Look(words[0], done.seconds, done.cpu_seconds, told))
        return None if done.code else done.out


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    error: str
    seconds: float
    cpu_seconds: float


def run(words: Sequence[str], *, kill_when: Callable[[], bool] | None = None) -> Done:
    """One `descant` command as a process of its own; SIGKILL as soon as `kill_when` says so."""
    command = [sys.executable, "-m", "descant", *words]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as error:
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=HOME, stdout=out, stderr=error)
        while kill_when is not None and process.poll() is None and not kill_when():
            time.sleep(0.05)
        if kill_when is not None:
            if process.returncode is not None:
                sys.exit("the campaign ended before it could be killed: take more dialogues")
            process.kill()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        out.seek(0)
        error.seek(0)
        return Done(process.returncode, out.read(), error.read(), seconds, used.ru_utime + used.ru_stime)


class Played(NamedTuple):
    """A campaign that was played to its end."""

    calls_per_second: float
    seconds: float
    """Of the campaign's process."""
    cpu_seconds: float
    looks: list[Look]
    too_early: int


def play(
    folder: Path,
    server: LatencyServer,
    arguments: argparse.Namespace,
    *,
    several: int,
    every_seconds: float = 0.0,
    killed: bool = False,
) -> Played:
    """One campaign from its start to its end, in a new corpus, and so many who look at it."""
    database = folder / "corpus.duckdb"
    for old in folder.glob("corpus.duckdb*"):
        old.unlink()
    server.reset()
    calls = arguments.dialogues * (2 * arguments.turns - 1)
    with Lookers(database, several=several, every_seconds=every_seconds) as lookers:
        words = _campaign(database, server, arguments)
        if killed:
            run(words, kill_when=lambda: server.stats().requests > calls // 2)
        done = run(words)
    if done.code:
        sys.exit(f"the campaign ended with {done.code}: {done.error[-2000:]}")
    report = json.loads(done.out)
    if report["done"] != arguments.dialogues:
        sys.exit(f"the campaign did not play all dialogues: {done.out}")
    stats = server.stats()
    return Played(stats.calls_per_second, done.seconds, done.cpu_seconds, lookers.looks, lookers.too_early)


def _campaign(database: Path, server: LatencyServer, arguments: argparse.Namespace) -> list[str]:
    """The command of the campaign."""
    settings = {
        "name": "looked-at",
        "models.default.model": f"hosted_vllm/{server.endpoint.model}",
        "models.default.api_base": server.api_base,
        "models.default.max_tokens": 128,
        "turns": arguments.turns,
        "concurrency": arguments.concurrency,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    seeds = ["--seeds", str(database.parent / "seeds.jsonl")]
    return ["run", "dialogue", *seeds, "--db", str(database), "--json", "--quiet", *sets]


def print_looks(looks: Sequence[Look], too_early: int) -> bool:
    """The table of what was asked; whether all were answered, in time."""
    print(f"{'command':<8} {'asked':>6} {'median':>8} {'slowest':>8} {'errors':>7}   s")
    by_command: dict[str, list[Look]] = defaultdict(list)
    for look in looks:
        by_command[look.command].append(look)
    for name, found in by_command.items():
        seconds = [look.seconds for look in found]
        errors = sum(look.error is not None for look in found)
        print(f"{name:<8} {len(found):>6} {statistics.median(seconds):>8.2f} {max(seconds):>8.2f} {errors:>7}")
    print(f"{too_early} more came before there was a database, and were told so")
    for error in sorted({look.error for look in looks if look.error is not None}):
        print(f"  {error}")
    return not any(look.error for look in looks) and max(look.seconds for look in looks) <= LIMIT_SECONDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=1500)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=200.0, help="Milliseconds, of the server.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=float, default=1.0, help="Seconds between two commands.")
    arguments = parser.parse_args()
    alone: list[Played] = []
    looked: list[Played] = []
    with tempfile.TemporaryDirectory() as name, serve(arguments.latency) as server:
        folder = Path(name)
        asked = (f"Tell me about river number {number}, please." for number in range(arguments.dialogues))
        seeds = [json.dumps({"messages": [{"role": "user", "content": text}]}) for text in asked]
        (folder / "seeds.jsonl").write_text("\n".join(seeds) + "\n")
        for place in range(arguments.rounds):
            alone.append(play(folder, server, arguments, several=0))
            looked.append(play(folder, server, arguments, several=1, every_seconds=arguments.every))
            for what, played in (("alone", alone[-1]), ("looked at", looked[-1])):
                print(
                    f"round {place + 1} {what:<9} {played.calls_per_second:7.1f} calls/s, process {played.seconds:6.1f} s, "
                    f"{played.cpu_seconds:5.1f} s of CPU (load {os.getloadavg()[0]:.1f})",
                    flush=True,
                )
        crowd = play(folder, server, arguments, several=CROWD, killed=True)
    slowed = 1 - statistics.median(b.calls_per_second / a.calls_per_second for a, b in zip(alone, looked, strict=True))
    looks = [look for played in looked for look in played.looks]
    cpu = sum(look.cpu_seconds for look in looks) / sum(played.seconds for played in looked)
    more = statistics.median(b.cpu_seconds / a.cpu_seconds for a, b in zip(alone, looked, strict=True)) - 1
    print(f"\none who asks a command every {arguments.every:g} s")
    holds = print_looks(looks, sum(played.too_early for played in looked))
    holds &= slowed < SLOWED_LIMIT
    print(
        f"calls/s lost: {100 * slowed:.1f} % (median of {arguments.rounds} rounds; at most {100 * SLOWED_LIMIT:.0f} %)"
    )
    print(f"the campaign's own CPU: {100 * more:+.1f} %; the lookers': {100 * cpu:.0f} % of a core")
    print(f"\n{CROWD} who ask all the time, while the campaign starts, is killed, starts again and ends")
    print_looks(crowd.looks, crowd.too_early)
    holds &= not any(look.error for look in crowd.looks)
    print("PASS" if holds else "FAIL")
    sys.exit(not holds)


if __name__ == "__main__":
    main()
