"""Workers on one list: how they begin, become more and fewer, and end."""

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from agents.ledger import CampaignStopping, Ledger, forget
from configs.errors import DescantError
from graphs.control import Control
from graphs.crew import LONGEST_START_SECONDS, START_SECONDS, Crew, work_off
from graphs.progress import Counters, Silent
from store.writer import Writer
from tests.store.store_samples import campaign


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Site:
    """Things that are worked on until the test lets them go."""

    def __init__(self, things: int, *, workers: int, staggered: bool = False) -> None:
        self.ledger = Ledger(forget)
        self.counters = Counters(things)
        self.began: list[tuple[int, float]] = []
        self.ended: list[int] = []
        self.doors: dict[int, asyncio.Event] = {}
        self.crew = Crew(
            range(things),
            self.work,
            workers=workers,
            ledger=self.ledger,
            counters=self.counters,
            progress=Silent(),
            staggered=staggered,
        )

    async def work(self, thing: int) -> None:
        self.began.append((thing, time.monotonic()))
        self.doors[thing] = asyncio.Event()
        await self.doors[thing].wait()
        del self.doors[thing]
        self.ended.append(thing)

    @property
    def at_work(self) -> list[int]:
        return sorted(self.doors)

    async def settle(self) -> None:
        """Let everybody do what can be done now."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def finish(self, *things: int) -> None:
        for thing in things:
            self.doors[thing].set()
        await self.settle()

    def run(self, script: Callable[[], Awaitable[None]]) -> DescantError | None:
        """Works while the script says what happens; then the rest is let go."""

        async def both() -> DescantError | None:
            working = asyncio.create_task(self.crew.to_the_end())
            await self.settle()
            await script()
            while not working.done():
                await self.finish(*self.at_work)
            return await working

        return asyncio.run(both())


def test_no_more_work_at_once_than_workers_in_the_order_of_the_list() -> None:
    site = Site(7, workers=3)

    async def script() -> None:
        assert site.at_work == [0, 1, 2]
        await site.finish(1)
        assert site.at_work == [0, 2, 3]

    assert site.run(script) is None
    assert [thing for thing, _ in site.began] == list(range(7))
    assert sorted(site.ended) == list(range(7))


def test_more_workers_begin_at_once_and_fewer_end_after_their_thing() -> None:
    site = Site(12, workers=2)

    async def script() -> None:
        site.crew.resize(5)
        await site.settle()
        assert site.at_work == [0, 1, 2, 3, 4]
        assert site.counters.in_flight == 5
        site.crew.resize(1)
        await site.settle()
        assert site.at_work == [0, 1, 2, 3, 4]
        await site.finish(0, 1, 2)
        assert site.at_work == [3, 4]
        await site.finish(3)
        assert site.at_work == [4]
        await site.finish(4)
        assert site.at_work == [5]

    site.run(script)
    assert sorted(site.ended) == list(range(12))


def test_what_is_added_is_done_and_waited_for_where_it_is_expected() -> None:
    site = Site(1, workers=2)

    async def script() -> None:
        with site.crew.expecting():
            await site.finish(0)
            assert site.at_work == []
            await site.settle()
            site.crew.add([7, 8, 9])
        await site.settle()
        assert site.at_work == [7, 8]

    site.run(script)
    assert sorted(site.ended) == [0, 7, 8, 9]


def test_a_stop_does_not_wait_for_what_is_expected() -> None:
    site = Site(1, workers=1)

    async def script() -> None:
        with site.crew.expecting():
            await site.finish(0)
            site.ledger.stop("enough")
            site.crew.wake()
            await site.settle()
            site.crew.add([5])
            await site.settle()

    site.run(script)
    assert site.ended == [0]


def test_many_workers_start_one_after_another_and_a_few_lose_nothing() -> None:
    site = Site(64, workers=64, staggered=True)

    async def script() -> None:
        await until(lambda: len(site.began) == 64)

    site.run(script)
    times = [when for _, when in site.began]
    assert times[-1] - times[0] >= 63 * min(START_SECONDS, LONGEST_START_SECONDS / 64)
    assert sum(later - earlier >= START_SECONDS / 2 for earlier, later in pairwise(times)) > 40
    assert START_SECONDS * 8 < 0.05


@pytest.mark.parametrize(
    ("error", "kept"), [(DescantError("the key is wrong"), True), (CampaignStopping("held"), False)]
)
def test_what_is_fatal_stops_all_and_a_stop_only_its_worker(error: DescantError, kept: bool) -> None:
    done: list[int] = []

    async def work(thing: int) -> None:
        if thing == 1:
            raise error
        done.append(thing)

    ledger = Ledger(forget)
    found = asyncio.run(
        work_off(range(9), work, workers=1, ledger=ledger, counters=Counters(9), progress=Silent(), staggered=False)
    )
    assert (found is error, ledger.stop_reason == str(error)) == (kept, kept)
    assert done == ([0] if kept else [0, *range(2, 9)])


def test_calls_a_second_are_those_of_the_last_seconds() -> None:
    site = Site(1, workers=1)

    async def script() -> None:
        assert site.crew.calls_a_second == 0.0
        site.ledger.sent = 500
        await asyncio.sleep(0.05)
        site.crew.sample()
        assert 500 / 5.0 < site.crew.calls_a_second < 500 / 0.05

    site.run(script)


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def test_a_full_disk_is_told_where_the_campaign_runs_and_so_is_its_end(tmp_path: Path) -> None:
    """The largest file that this process may write stands for the disk."""
    progress, before = Lines(), resource.getrlimit(resource.RLIMIT_FSIZE)

    async def told(n: int) -> None:
        await until(lambda: len(progress.lines) >= n)

    async def work(_: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8, before[1]))
        try:
            noting = asyncio.create_task(writer.note(campaign("camp_b")))
            await told(1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await noting
        await told(2)

    def row(_: Any) -> Any:
        return campaign()

    with Writer(tmp_path / "corpus.duckdb") as writer:
        ledger = Ledger(writer.note)
        watch = Control(writer, row)
        things = work_off([1], work, workers=1, ledger=ledger, counters=Counters(1), progress=progress, watch=watch)
        assert asyncio.run(things) is None
    assert "is full: the campaign waits" in progress.lines[0]
    assert progress.lines[1] == "there is room again: the campaign goes on"
