"""A backend that fails in every way and a process that is killed at random: is anything lost, or paid twice?

    .venv/bin/python -m benchmarks.faults_and_kills
    .venv/bin/python -m benchmarks.faults_and_kills --dialogues 60 --kills 2 --random-seed 7

A `music` campaign with verification and judged pairs, over HTTP, three times with `descant run`, each into a corpus of its own:
without a fault; with faults (`agents.rehearsal.faults`, all kinds) and SIGKILL at moments drawn from a seed, the same
command after each; and the same again under a budget of calls that does not suffice. The server's log, the journal as each
kill left it, and the corpora are then held against each other (`benchmarks.accounts`). Exit code 1: something is lost, or
was paid twice, or differs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agents.rehearsal.faults import FAULTS
from agents.rehearsal.request_log import Arrival, read_log
from agents.rehearsal.server import ServerSettings, serving
from benchmarks.accounts import (
    Killed,
    corpus_of,
    differences,
    duplicates,
    ends_of,
    good_dialogues,
    payments,
    when_killed,
)
from store.identity import chance

ROOT = Path(__file__).resolve().parent.parent
POLL_SECONDS = 0.01
SETTLE_SECONDS = 0.3
"""After a kill: so long may what the dead process had sent be on its way to the server."""
MOST_RUNS = 12
"""Runs of one campaign besides those that were killed; a run that stops by itself is started again."""
FEWEST_GOOD = 0.4
"""Share of the dialogues that must be good, or the comparison shows little."""


class Shape(NamedTuple):
    """How large the campaign is, how bad the backend, and when the process dies."""

    dialogues: int = 500
    kills: int = 5
    fault_rate: float = 0.3
    random_seed: int = 1
    latency_ms: float = 50.0
    concurrency: int = 64
    turns: int = 2
    timeout_seconds: float = 4.0
    slow_ms: float = 300.0
    attempts: int = 5
    retry_after_seconds: float = 1.0
    kills_under_budget: int = 2


class Run(NamedTuple):
    """A campaign from its first start to its last."""

    database: Path
    log: list[Arrival]
    kills: list[Killed]
    stops: list[str]
    """What the command said where it stopped by itself before the end."""
    seconds: float


def settings_of(shape: Shape, api_base: str, budget: int | None = None) -> dict[str, Any]:
    model = {
        "model": "hosted_vllm/default",
        "api_base": api_base,
        "timeout_seconds": shape.timeout_seconds,
        "attempts": shape.attempts,
    }
    return {
        "name": "faults",
        "recipe": "music",
        "turns": shape.turns,
        "concurrency": shape.concurrency,
        "seeds": {"format": "rehearsal", "limit": shape.dialogues // 2},
        "perturb": {"verify": True},
        "judge_pairs": True,
        "models": {"default": model},
        "budget": {"calls": budget},
    }


def play(
    folder: Path, name: str, shape: Shape, *, fault_rate: float, kill_at: Sequence[int] = (), budget: int | None = None
) -> Run:
    """The campaign against a server of its own, killed when the server has got as many requests as `kill_at` says.

    Without a budget it is started until every dialogue has ended, with one until it says that the budget is spent.
    """
    database, log = folder / f"{name}.duckdb", folder / f"{name}.jsonl"
    server = ServerSettings(
        latency_ms=shape.latency_ms,
        fault_rate=fault_rate,
        faults=FAULTS,
        slow_ms=shape.slow_ms,
        retry_after_seconds=shape.retry_after_seconds,
        random_seed=shape.random_seed,
        log=str(log),
    )
    kills: list[Killed] = []
    stops: list[str] = []
    started = time.monotonic()
    with serving(server) as api_base:
        config = folder / f"{name}.yaml"
        config.write_text(json.dumps(settings_of(shape, api_base, budget)), encoding="utf-8")
        command = [
            sys.executable,
            str(ROOT / "descant.py"),
            "run",
            str(config),
            "--db",
            str(database),
            "--quiet",
            "--json",
        ]
        for moment in kill_at:
            if not _killed_at(command, api_base, moment):
                raise SystemExit(f"{name}: the campaign stopped before request {moment}, at which it was to be killed")
            killed_at = time.time()
            kills.append(when_killed(database, _settled(api_base), killed_at))
        while (stop := _to_the_end(command)) is not None:
            stops.append(stop)
            if (budget is not None and "budget" in stop) or len(stops) == MOST_RUNS:
                break
    return Run(database, read_log(log), kills, stops, time.monotonic() - started)


def _killed_at(command: Sequence[str], api_base: str, moment: int) -> bool:
    """Start it and end it by SIGKILL once the server has got so many requests; false where it ended before."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and _arrivals(api_base) < moment:
            time.sleep(POLL_SECONDS)
        was_running = process.poll() is None
        process.kill()
    return was_running


def _to_the_end(command: Sequence[str]) -> str | None:
    """Run it; why it stopped, where it did so by itself before the end."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    return done.stderr.strip() or str(json.loads(done.stdout)["stop_reason"])


def _arrivals(api_base: str) -> int:
    with urllib.request.urlopen(f"{api_base.removesuffix('/v1')}/health") as answer:
        return int(json.load(answer)["requests"])


def _settled(api_base: str) -> int:
    """How many requests have arrived once none is on its way any more."""
    arrivals = -1
    while arrivals != (arrivals := _arrivals(api_base)):
        time.sleep(SETTLE_SECONDS)
    return arrivals


def moments(calls: int, kills: int, random_seed: int) -> list[int]:
    """One in each of as many equal parts of the run, drawn from a seed.

    Args:
        calls: of the faultless run; the faulted one sends more requests, or about as many where dialogues fail.
    """
    random = chance("moments of kills", random_seed)
    return [int(calls * 0.9 * (part + 0.1 + 0.8 * random.random()) / kills) for part in range(kills)]


class Verdict(NamedTuple):
    """One thing that must hold."""

    what: str
    found: str
    holds: bool


def check(faultless: Run, faulted: Run, capped: Run, budget: int, timeout_seconds: float) -> list[Verdict]:
    """Everything that must hold, with the figures that show it."""
    whole, ours = corpus_of(faultless.database), corpus_of(faulted.database)
    ends, good = ends_of(ours, whole), good_dialogues(ours)
    n_dialogues = len(whole.tables["dialogues"])
    reasons = ", ".join(f"{reason} {count}" for reason, count in ends.failed.most_common())
    paid = payments(faulted.log, faulted.kills, timeout_seconds)
    differing = differences(ours, whole, good)
    paid_capped = payments(capped.log, capped.kills, timeout_seconds)
    twice = duplicates(ours) | duplicates(corpus_of(capped.database))
    met = Counter(arrival.fault for arrival in faulted.log if arrival.fault)
    return [
        Verdict(
            "the faultless run has no failure",
            f"{n_dialogues} dialogues, {len(faultless.log)} requests",
            not ends_of(whole, whole).failed and not faultless.stops,
        ),
        Verdict(
            "every kind of fault was met",
            f"{len(met)} kinds, {sum(met.values())} of {len(faulted.log)} requests",
            set(met) == set(FAULTS),
        ),
        Verdict("the campaign came to its end", f"{len(faulted.stops)} stops of its own", not faulted.stops),
        Verdict(
            "every dialogue is accounted for",
            f"{ends.done} done, {sum(ends.failed.values())} failed ({reasons}), {ends.missing} missing",
            ends.missing == ends.nameless == 0,
        ),
        Verdict("no id is there twice", json.dumps(twice), not twice),
        Verdict("the journal notes no call twice", str(paid.noted_twice), paid.noted_twice == 0),
        Verdict(
            "no call is asked again that the journal had",
            f"{paid.again_though_noted} of {sum(len(kill.paid) for kill in faulted.kills)} at {len(faulted.kills)} kills",
            paid.again_though_noted == paid_capped.again_though_noted == 0,
        ),
        Verdict(
            "what was paid twice was in flight at a kill",
            f"{paid.answered_again} calls, {paid.in_flight} were in flight; {paid.timed_out} timed out instead",
            paid.not_in_flight == paid_capped.not_in_flight == 0
            and paid.answered_again <= paid.in_flight + paid.timed_out,
        ),
        Verdict(
            "enough dialogues are good",
            f"{len(good)} of {n_dialogues}: done, and no call of theirs failed",
            len(good) >= FEWEST_GOOD * n_dialogues,
        ),
        Verdict(
            "the good dialogues equal the faultless run's",
            ", ".join(f"{table} {rows}" + f" ({odd} DIFFER)" * bool(odd) for table, (rows, odd) in differing.items()),
            not any(odd for _, odd in differing.values()),
        ),
        Verdict(
            "a budget is not passed",
            f"{len(capped.log)} requests of {budget}, with {len(capped.kills)} kills and faults",
            budget - paid_capped.in_flight <= len(capped.log) <= budget and any("budget" in s for s in capped.stops),
        ),
    ]


def prove(folder: Path, shape: Shape) -> list[Verdict]:
    """Play all three and hold them against each other."""
    faultless = play(folder, "faultless", shape, fault_rate=0.0)
    calls = len(faultless.log)
    kill_at = moments(calls, shape.kills, shape.random_seed)
    faulted = play(folder, "faulted", shape, fault_rate=shape.fault_rate, kill_at=kill_at)
    budget = calls // 2
    capped_at = moments(budget, shape.kills_under_budget, shape.random_seed + 1)
    capped = play(folder, "capped", shape, fault_rate=shape.fault_rate, kill_at=capped_at, budget=budget)
    for name, run in (("faultless", faultless), ("faulted", faulted), ("capped", capped)):
        print(
            f"{name:<10} {len(run.log):>6} requests  {run.seconds:>6.1f} s  killed at {[k.arrivals for k in run.kills]}"
        )
        for stop in run.stops:
            print(f"           stopped: {stop}")
    return check(faultless, faulted, capped, budget, shape.timeout_seconds)


def main() -> None:
    defaults = Shape()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dialogues", type=int, default=defaults.dialogues)
    parser.add_argument("--kills", type=int, default=defaults.kills)
    parser.add_argument("--faults", type=float, default=defaults.fault_rate)
    parser.add_argument("--random-seed", type=int, default=defaults.random_seed)
    parser.add_argument("--latency", type=float, default=defaults.latency_ms, help="Milliseconds.")
    parser.add_argument("--concurrency", type=int, default=defaults.concurrency)
    parser.add_argument("--out", type=Path, help="A folder to keep corpora and logs in.")
    arguments = parser.parse_args()
    shape = defaults._replace(
        dialogues=arguments.dialogues,
        kills=arguments.kills,
        fault_rate=arguments.faults,
        random_seed=arguments.random_seed,
        latency_ms=arguments.latency,
        concurrency=arguments.concurrency,
    )
    print(f"{shape}\n")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        verdicts = prove(folder, shape)
    print()
    for verdict in verdicts:
        print(f"{'holds' if verdict.holds else 'FAILS'}  {verdict.what:<44} {verdict.found}")
    sys.exit(not all(verdict.holds for verdict in verdicts))


if __name__ == "__main__":
    main()
