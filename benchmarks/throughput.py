"""Calls a second against a server of fixed latency: a plain aiohttp loop, Descant, plain LiteLLM and sdialog, in one run.

    .venv/bin/python -m benchmarks.throughput --latency 200 --latency 1000 --rounds 3
    .venv/bin/python -m benchmarks.throughput --latency 200 --rounds 5 --only aiohttp descant forgetful

Two agents talk, the assistant answers eight times, 256 dialogues at once. Each side is a process of its own that calls the
same server (`benchmarks.latency_server`); rounds are interleaved, ratios are taken within a round, and medians are printed.
Calls a second are the server's: all calls over the time from the first request to the last answer, so start and end count
and imports do not. The sides stand in `benchmarks/sides`; a slow one plays fewer dialogues, never fewer than at once.

- aiohttp: two loops around one shared session, nothing else
- descant: `run_campaign`, with journal and store
- forgetful: the same with a writer that keeps nothing (asked for by `--only`): what journaling and storing cost
- litellm: two loops around `litellm.acompletion`
- sdialog: `Agent.dialog_with` of sdialog 0.5.3, in threads and processes: the ways are tried first, the best one plays. Its
  environment is made on first use (`python -m venv`, `pip install`; some gigabytes)
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.latency_server import LatencyServer, serve

HOME = Path(__file__).parent.parent
SDIALOG = "0.5.3"
SECONDS_AT_BEST = 15.0
"""How long a side without any overhead plays."""
SIDES = {
    "aiohttp": ["loops", "--by", "aiohttp"],
    "descant": ["campaign"],
    "forgetful": ["campaign", "--forget"],
    "litellm": ["loops", "--by", "litellm"],
    "sdialog": ["sdialog_agents"],
}
SLOW = ("litellm", "sdialog")
THREADS_AND_PROCESSES = ((16, 1), (64, 1), (256, 1), (64, 2), (256, 2))


class Setting(NamedTuple):
    """What all sides play."""

    latency_ms: float
    turns: int
    concurrency: int

    @property
    def calls(self) -> int:
        """A dialogue."""
        return 2 * self.turns - 1

    def dialogues(self, side: str) -> int:
        if side in SLOW:
            return self.concurrency
        return self.concurrency * math.ceil(SECONDS_AT_BEST / (self.calls * self.latency_ms / 1000.0))

    @property
    def limit(self) -> float:
        """Calls a second that the latency alone allows."""
        return self.concurrency / (self.latency_ms / 1000.0)


class Played(NamedTuple):
    """One side in one round."""

    calls_per_second: float
    calls: int
    peak_in_flight: int
    cpu_ms: float
    """Of the side, a call."""
    server_us: float
    """CPU of the server, a call."""
    peak_mib: float
    process_seconds: float
    """Of the whole process, imports included."""


def play(
    side: str,
    server: LatencyServer,
    setting: Setting,
    python: str,
    *,
    more: Sequence[str] = (),
    dialogues: int | None = None,
) -> Played:
    """One side plays once. Exits where it fails or sends another number of calls than it should."""
    dialogues = dialogues or setting.dialogues(side)
    words = {
        "--api-base": server.api_base,
        "--model": server.endpoint.model,
        "--dialogues": dialogues,
        "--turns": setting.turns,
    }
    module, *own = SIDES[side]
    command = [python, "-m", f"benchmarks.sides.{module}", *own]
    command += [str(part) for pair in words.items() for part in pair]
    command += more or ["--concurrency", str(setting.concurrency)]
    server.reset()
    started = time.monotonic()
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
    process_seconds = time.monotonic() - started
    stats = server.stats()
    if done.returncode:
        sys.exit(f"{side} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    if stats.requests != dialogues * setting.calls:
        sys.exit(f"{side} sent {stats.requests} calls and not {dialogues * setting.calls}")
    told = json.loads(done.stdout.splitlines()[-1])
    return Played(
        calls_per_second=stats.calls_per_second,
        calls=stats.requests,
        peak_in_flight=stats.peak_in_flight,
        cpu_ms=1e3 * told["cpu_seconds"] / stats.requests,
        server_us=stats.cpu_us_a_request,
        peak_mib=told["peak_mib"],
        process_seconds=process_seconds,
    )


def best_way(server: LatencyServer, setting: Setting, python: str) -> list[str]:
    """The threads and processes that sdialog is fastest with, each tried once with a dialogue a thread."""
    ways: list[tuple[float, int, int]] = []
    for threads, processes in THREADS_AND_PROCESSES:
        more = ["--concurrency", str(threads), "--processes", str(processes)]
        played = play("sdialog", server, setting, python, more=more, dialogues=threads)
        ways.append((played.calls_per_second, threads, processes))
        print(f"sdialog with {threads} threads in {processes} process(es): {played.calls_per_second:.0f} calls/s")
    _, threads, processes = max(ways)
    return ["--concurrency", str(threads), "--processes", str(processes)]


def sdialog_python(folder: Path) -> str:
    """The Python of sdialog's environment, which is made if it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making sdialog's environment in {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", f"sdialog=={SDIALOG}", "aiohttp"]
        subprocess.run(pip, check=True)
    return str(python)


def compare(setting: Setting, sides: Sequence[str], rounds: int, sdialog: Path) -> None:
    """All rounds of one latency, and the table."""
    pythons = dict.fromkeys(sides, sys.executable)
    more: dict[str, list[str]] = {}
    found: dict[str, list[Played]] = {side: [] for side in sides}
    with serve(setting.latency_ms) as server:
        if "sdialog" in sides:
            pythons["sdialog"] = sdialog_python(sdialog)
            more["sdialog"] = best_way(server, setting, pythons["sdialog"])
        for place in range(rounds):
            for side in sides:
                played = play(side, server, setting, pythons[side], more=more.get(side, ()))
                found[side].append(played)
                load = os.getloadavg()[0]
                print(
                    f"round {place + 1} {side}: {played.calls_per_second:.0f} calls/s (load {load:.1f})",
                    file=sys.stderr,
                )
    print_table(setting, found)


def print_table(setting: Setting, found: dict[str, list[Played]]) -> None:
    print(
        f"\n{setting.latency_ms:g} ms, {setting.concurrency} dialogues at once, {setting.turns} turns: "
        f"the latency alone allows {setting.limit:.0f} calls/s"
    )
    first = next(iter(found))
    print(
        f"{'side':<10} {'calls/s':>8} {'of ' + first:>11} {'each round':>22} {'CPU ms/call':>12} {'server µs':>10} "
        f"{'peak MiB':>9} {'process s':>10} {'calls':>7} {'in flight':>10}"
    )
    for side, plays in found.items():
        ratios = ratios_of(plays, found[first])
        middle = Played(*(statistics.median(column) for column in zip(*plays, strict=True)))
        print(
            f"{side:<10} {middle.calls_per_second:>8.0f} {statistics.median(ratios):>11.2f} "
            f"{' '.join(f'{ratio:.2f}' for ratio in ratios):>22} {middle.cpu_ms:>12.2f} {middle.server_us:>10.0f} "
            f"{middle.peak_mib:>9.0f} {middle.process_seconds:>10.1f} {middle.calls:>7.0f} {middle.peak_in_flight:>10.0f}"
        )
    if "descant" in found:
        for side in found:
            if side not in ("descant", first):
                ratio = statistics.median(ratios_of(found["descant"], found[side]))
                print(f"descant is {ratio:.2f} times {side}")


def ratios_of(plays: Sequence[Played], others: Sequence[Played]) -> list[float]:
    """Round by round."""
    return [one.calls_per_second / other.calls_per_second for one, other in zip(plays, others, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, action="append", help="Milliseconds; 200 and 1000 unless given.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--without", nargs="+", choices=SIDES, default=["forgetful"])
    parser.add_argument(
        "--only", nargs="+", choices=SIDES, help="These sides; the first is what others are held against."
    )
    parser.add_argument("--sdialog", type=Path, default=HOME / ".venv-sdialog", help="Its environment.")
    arguments = parser.parse_args()
    sides = arguments.only or [side for side in SIDES if side not in {*arguments.without, "forgetful"}]
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, Python {sys.version.split()[0]}")
    for latency in arguments.latency or [200.0, 1000.0]:
        compare(Setting(latency, arguments.turns, arguments.concurrency), sides, arguments.rounds, arguments.sdialog)


if __name__ == "__main__":
    main()
