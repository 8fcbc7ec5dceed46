"""Workers that take things off one list until none is left, the ledger stops them, or somebody presses Ctrl-C.

What a thing is, a dialogue, a verdict, a meeting, the caller knows. While they work, there may come to be more workers or
fewer, and more things (`graphs.control`).
"""

import asyncio
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress
from typing import Any, Generic, Protocol, TypeVar

from agents.ledger import CampaignStopping, Ledger
from configs.errors import DescantError
from graphs.progress import Counters, Progress

Thing = TypeVar("Thing")
INTERRUPTED = "interrupted: everything finished is kept, and the same command goes on from here"
TICK_SECONDS = 0.25
START_SECONDS = 0.001
"""Between the starts of two workers, so that the first requests of many do not meet the provider in one instant."""
LONGEST_START_SECONDS = 1.0
"""Until the last of them has started, however many they are."""
PACE_SECONDS = 10.0
"""What the calls a second are counted over."""


class Watch(Protocol):
    """Who looks on while a crew works, such as `graphs.control.Control`."""

    def over(self, crew: "Crew[Any]") -> AbstractAsyncContextManager[object]: ...


class Crew(Generic[Thing]):
    """Workers on one list.

    Args:
        workers: how many at once.
        per_thing: as how many dialogues a thing counts while it is worked on.
        staggered: whether they start one after another.
    """

    def __init__(
        self,
        things: Iterable[Thing],
        work: Callable[[Thing], Awaitable[None]],
        *,
        workers: int,
        ledger: Ledger,
        counters: Counters,
        progress: Progress,
        per_thing: int = 1,
        staggered: bool = True,
    ) -> None:
        self.wanted = workers
        """How many may work at once."""
        self.ledger = ledger
        self.counters = counters
        self.progress = progress
        self.per_thing = per_thing
        self._things = deque(things)
        self._work = work
        self._staggered = staggered
        self._working = 0
        self._expected = 0
        self._changed = asyncio.Event()
        self._fatal: list[DescantError] = []
        self._paces: deque[tuple[float, int]] = deque([(time.monotonic(), ledger.sent)])

    async def to_the_end(self) -> DescantError | None:
        """Work until the list is empty or the ledger stops; the error that stopped all, if one did."""
        async with asyncio.TaskGroup() as group:
            while not self._is_over():
                if self._wants_one_more():
                    self._working += 1
                    group.create_task(self._worker())
                    if self._staggered:
                        await asyncio.sleep(min(START_SECONDS, LONGEST_START_SECONDS / self.wanted))
                    continue
                self._changed.clear()
                await self._changed.wait()
        return self.fatal

    @property
    def fatal(self) -> DescantError | None:
        """What stopped all, and first."""
        return self._fatal[0] if self._fatal else None

    def resize(self, workers: int) -> None:
        """From now on so many at once: more start, or those over end after the thing that they are at."""
        self.wanted = workers
        self.wake()

    def add(self, things: Iterable[Thing]) -> None:
        """More to do, after all that waits."""
        self._things.extend(things)
        self.wake()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Within, more things may come: an empty list is not the end."""
        self._expected += 1
        try:
            yield
        finally:
            self._expected -= 1
            self.wake()

    def wake(self) -> None:
        """Look again at what there is to do."""
        self._changed.set()

    def sample(self) -> None:
        """Notes how many calls were sent until now."""
        now = time.monotonic()
        self._paces.append((now, self.ledger.sent))
        while now - self._paces[1][0] > PACE_SECONDS:
            self._paces.popleft()

    @property
    def calls_a_second(self) -> float:
        """Requests sent in the last seconds."""
        (since, before), now = self._paces[0], time.monotonic()
        return (self.ledger.sent - before) / (now - since) if now > since else 0.0

    def _wants_one_more(self) -> bool:
        return bool(self._things) and self.ledger.stop_reason is None and self._working < self.wanted

    def _is_over(self) -> bool:
        if self._working:
            return False
        return self.ledger.stop_reason is not None or not (self._things or self._expected)

    async def _worker(self) -> None:
        """One thing after another. A CampaignStopping ends this worker alone."""
        try:
            while self._things and self.ledger.stop_reason is None and self._working <= self.wanted:
                thing = self._things.popleft()
                self.counters.in_flight += self.per_thing
                try:
                    await self._work(thing)
                except CampaignStopping:
                    return
                except DescantError as error:
                    self._fatal.append(error)
                    self.ledger.stop(str(error))
                    return
                finally:
                    self.counters.in_flight -= self.per_thing
        finally:
            self._working -= 1
            self.wake()


async def work_off(
    things: Iterable[Thing],
    work: Callable[[Thing], Awaitable[None]],
    *,
    workers: int,
    ledger: Ledger,
    counters: Counters,
    progress: Progress,
    in_flight: int = 1,
    staggered: bool = True,
    watch: Watch | None = None,
) -> DescantError | None:
    """Do `work` on all things, `workers` at once; the error that stopped them all, if one did.

    The first SIGINT or SIGTERM lets calls in flight come back, a second one leaves them; either way the ledger holds the
    reason.

    Args:
        in_flight: as how many dialogues a thing counts while it is worked on.
        staggered: whether the workers start one after another; in-process models gain nothing by it.
        watch: looks on, and may change how many work.
    """
    task = asyncio.current_task()
    assert task is not None
    crew = Crew(
        things,
        work,
        workers=workers,
        ledger=ledger,
        counters=counters,
        progress=progress,
        per_thing=in_flight,
        staggered=staggered,
    )

    def interrupt() -> None:
        if ledger.stop_reason is not None:
            task.cancel()
            return
        progress.say("stopping: calls in flight are waited for; Ctrl-C again leaves them")
        ledger.stop(INTERRUPTED, "interrupt")
        crew.wake()

    async def tick() -> None:
        while True:
            crew.sample()
            progress.update(counters, ledger)
            await asyncio.sleep(TICK_SECONDS)

    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError, RuntimeError):  # no signal handlers outside a main thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
        loop.add_signal_handler(signal.SIGTERM, interrupt)
    ticker = asyncio.create_task(tick())
    fatal: DescantError | None = None
    try:
        async with watch.over(crew) if watch is not None else nullcontext():
            fatal = await crew.to_the_end()
    except asyncio.CancelledError:
        if ledger.stop_reason is None:
            raise
        fatal = crew.fatal
    finally:
        ticker.cancel()
        progress.update(counters, ledger)
    return fatal
