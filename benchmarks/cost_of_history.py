"""CPU a call by turn, in dialogues of forty turns: Descant beside a plain aiohttp loop, in one run.

    .venv/bin/python -m benchmarks.cost_of_history --rounds 3

All dialogues go side by side against a server of fixed latency, so that they are at the same turn at the same time: the CPU
time of the whole process (journal, store and all threads included) between two turns, over the calls in between, is what a
call costs there. Bodies grow by 60 words a message on both sides; what any client pays for more bytes shows in the loop's
own curve. A figure is the mean of a turn and the three before and after it, since rows go into DuckDB every few seconds, and
the median of the rounds.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agents.llm import LanguageModel
from benchmarks.latency_server import LatencyServer, serve
from benchmarks.sides import campaign, loops
from graphs.campaign import run_campaign

AROUND = 3
SHOWN = (4, 8, 16, 24, 32, 37)
SIDES = ("aiohttp", "descant")


class Marks:
    """The CPU clock at the beginning of each call, with the call's turn."""

    def __init__(self) -> None:
        self._cpu: list[float] = []
        self._turns: list[int] = []

    def call_begins(self, turn: int) -> None:
        self._cpu.append(time.process_time())
        self._turns.append(turn)

    def microseconds(self, turn: int, dialogues: int) -> float:
        """Of a call around a turn."""
        first, last = (self._middle(at, dialogues) for at in (turn - AROUND, turn + AROUND + 1))
        return 1e6 * (self._cpu[last] - self._cpu[first]) / (last - first)

    def _middle(self, turn: int, dialogues: int) -> int:
        """The call by which half of the dialogues have come to a turn, each by its two calls."""
        places = [place for place, at in enumerate(self._turns) if at == turn]
        return places[dialogues // 2]


def play_descant(server: LatencyServer, turns: int, dialogues: int) -> Marks:
    marks = Marks()
    complete = LanguageModel.complete

    async def marked(self: LanguageModel, messages: Any, site: Any, **more: Any) -> Any:
        marks.call_begins(site.depth // 2 + 1)
        return await complete(self, messages, site, **more)

    settings = campaign.settings_of(_arguments(server, turns, dialogues))
    with patch.object(LanguageModel, "complete", marked), tempfile.TemporaryDirectory() as folder:
        report = run_campaign(settings, campaign.seeds_of(dialogues), Path(folder) / "corpus.duckdb")
    assert report.done == dialogues, report
    return marks


def play_aiohttp(server: LatencyServer, turns: int, dialogues: int) -> Marks:
    marks = Marks()
    spoken: Counter[int] = Counter()
    play_all = loops.play_all

    async def marked(dialogues: int, turns: int, concurrency: int, ask: loops.Ask) -> None:
        async def marked_ask(messages: loops.Messages, number: int) -> str:
            spoken[number] += 1
            marks.call_begins(spoken[number] // 2 + 1)
            return await ask(messages, number)

        await play_all(dialogues, turns, concurrency, marked_ask)

    with patch.object(loops, "play_all", marked):
        asyncio.run(loops.by_aiohttp(_arguments(server, turns, dialogues)))
    return marks


def _arguments(server: LatencyServer, turns: int, dialogues: int) -> argparse.Namespace:
    return argparse.Namespace(
        api_base=server.api_base,
        model=server.endpoint.model,
        dialogues=dialogues,
        turns=turns,
        concurrency=dialogues,
        model_settings="{}",
    )


def print_curves(curves: dict[str, list[dict[int, float]]], shown: Sequence[int]) -> None:
    """Medians over the rounds, and what the 32nd turn costs over the 4th, round by round."""
    print(f"\n{'CPU µs a call at turn':<24}" + "".join(f"{turn:>7}" for turn in shown) + "   32nd over 4th, each round")
    for side, rounds in curves.items():
        middle = [statistics.median(found[turn] for found in rounds) for turn in shown]
        ratios = [found[32] / found[4] for found in rounds]
        told = f"{statistics.median(ratios):.2f}   {' '.join(f'{ratio:.2f}' for ratio in ratios)}"
        print(f"{side:<24}" + "".join(f"{value:>7.0f}" for value in middle) + f"   {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=42, help="At least 42.")
    parser.add_argument("--dialogues", type=int, default=100, help="Side by side.")
    parser.add_argument("--latency", type=float, default=250.0, help="Milliseconds.")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, Python {sys.version.split()[0]}")
    plays = {"aiohttp": play_aiohttp, "descant": play_descant}
    curves: dict[str, list[dict[int, float]]] = {side: [] for side in SIDES}
    with serve(arguments.latency) as server:
        for number in range(arguments.rounds):
            for side in SIDES:
                marks = plays[side](server, arguments.turns, arguments.dialogues)
                found = {turn: marks.microseconds(turn, arguments.dialogues) for turn in SHOWN}
                curves[side].append(found)
                print(f"round {number + 1} {side} (load {os.getloadavg()[0]:.1f})", file=sys.stderr)
    print_curves(curves, SHOWN)


if __name__ == "__main__":
    main()
