"""The limiter: how many requests an endpoint gets at once, how many a minute, and who goes first."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from agents.limiter import DECREASE, STUCK_SECONDS, Limiter, Limiters, Slot
from configs.model_settings import ModelSettings


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def limiter(**caps: float | None) -> tuple[Limiter, Clock]:
    clock = Clock()
    made = Limiter("hosted_vllm/x", "http://127.0.0.1:1/v1", clock)
    made.cap(caps.get("rpm"), caps.get("tpm"))
    return made, clock


def played(play: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(play(), 5.0)

    asyncio.run(run())


async def started(limited: Limiter, n: int) -> list[Slot]:
    return [await limited.start(1) for _ in range(n)]


async def breathe() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_nothing_waits_before_the_endpoint_complains() -> None:
    async def play() -> None:
        limited, _ = limiter()
        await started(limited, 500)
        assert (limited.limit, limited.in_flight) == (None, 500)

    played(play)


def test_too_much_leaves_a_share_of_what_was_in_flight() -> None:
    async def play() -> None:
        limited, _ = limiter()
        slots = await started(limited, 100)
        limited.end(slots[0], answered=False, too_much=True)
        assert limited.limit == 100 * DECREASE

    played(play)


def test_requests_of_one_burst_lower_the_limit_once() -> None:
    async def play() -> None:
        limited, _ = limiter()
        slots = await started(limited, 100)
        for slot in slots[:40]:
            limited.end(slot, answered=False, too_much=True)
        assert (limited.limit, limited.times_limited) == (100 * DECREASE, 40)
        for slot in slots[40:]:
            limited.end(slot, answered=True)
        (later,) = await started(limited, 1)
        limited.end(later, answered=False, too_much=True)
        assert limited.limit == 1.0

    played(play)


def test_a_round_of_answers_raises_the_limit_by_about_one() -> None:
    async def play() -> None:
        limited, _ = limiter()
        limited.limit = 10.0
        for _ in range(10):
            slots = await started(limited, 10)
            limited.end(slots[0], answered=True)
            for slot in slots[1:]:
                limited.end(slot, answered=False)
        assert limited.limit == pytest.approx(11.0, abs=0.1)

    played(play)


def test_answers_of_an_endpoint_that_is_half_idle_raise_nothing() -> None:
    async def play() -> None:
        limited, _ = limiter()
        limited.limit = 10.0
        for slot in await started(limited, 5):
            limited.end(slot, answered=True)
        assert limited.limit == 10.0

    played(play)


def test_the_limit_is_kept_and_the_nearly_finished_go_first() -> None:
    order: list[int] = []

    async def one(limited: Limiter, turns_left: int) -> None:
        slot = await limited.start(turns_left)
        order.append(turns_left)
        assert limited.in_flight <= 2
        await breathe()
        limited.end(slot, answered=False)

    async def play() -> None:
        limited, _ = limiter()
        limited.limit = 2.0
        held = await started(limited, 2)
        waiting = [asyncio.create_task(one(limited, turns)) for turns in (5, 1, 3, 4, 2)]
        await breathe()
        assert order == []
        for slot in held:
            limited.end(slot, answered=False)
        await asyncio.gather(*waiting)

    played(play)
    assert order == [1, 2, 3, 4, 5]


def test_retry_after_holds_every_request() -> None:
    async def play() -> None:
        limited, clock = limiter()
        slots = await started(limited, 3)
        limited.end(slots[0], answered=False, too_much=True, retry_after=0.2)
        waiting = asyncio.create_task(limited.start(1))
        limited.end(slots[1], answered=True)
        limited.end(slots[2], answered=True)
        await breathe()
        assert not waiting.done()
        assert limited.snapshot()["held_seconds"] > 0
        clock.now += 0.25
        await waiting

    played(play)


@pytest.mark.parametrize(("rpm", "minutes"), [(60.0, 3), (7.0, 2), (1.0, 3)])
def test_no_minute_sees_more_requests_than_its_cap(rpm: float, minutes: int) -> None:
    limited, clock = limiter(rpm=rpm)
    times = []
    for _ in range(minutes * 600):
        if limited._seconds_to_wait(0) is None:
            limited._take(0)
            times.append(clock.now)
        clock.now += 0.1
    assert len(times) >= minutes * rpm * 0.9
    assert max(sum(start <= at < start + 60.0 for at in times) for start in times) <= rpm


def test_no_minute_sees_more_tokens_than_its_cap_and_what_was_not_used_is_given_back() -> None:
    limited, clock = limiter(tpm=6000.0)
    spent = []
    for _ in range(1200):
        if limited._seconds_to_wait(400) is None:
            slot = limited._take(400)
            limited.end(slot, answered=True, used_tokens=100)
            spent.append((clock.now, 100))
        clock.now += 0.1
    most = max(sum(n for at, n in spent if start <= at < start + 60.0) for start, _ in spent)
    assert 5000 <= most <= 6000


def test_a_request_that_gives_up_waiting_leaves_its_place() -> None:
    async def play() -> None:
        limited, _ = limiter()
        limited.limit = 1.0
        (held,) = await started(limited, 1)
        first = asyncio.create_task(limited.start(1))
        second = asyncio.create_task(limited.start(2))
        await breathe()
        first.cancel()
        await breathe()
        limited.end(held, answered=False)
        await second
        assert limited.in_flight == 1

    played(play)


def test_one_that_is_cancelled_as_it_gets_its_slot_gives_it_back() -> None:
    async def play() -> None:
        limited, _ = limiter()
        limited.limit = 1.0
        (held,) = await started(limited, 1)
        waiting = asyncio.create_task(limited.start(1))
        await breathe()
        limited.end(held, answered=False)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert limited.in_flight == 0

    played(play)


def test_when_the_campaign_stops_nobody_waits_any_more() -> None:
    async def play() -> None:
        limiters = Limiters()
        limited = limiters.of(ModelSettings(model="hosted_vllm/x", api_base="http://127.0.0.1:1/v1", rpm=1.0))
        await limited.start(1)
        waiting = [asyncio.create_task(limited.start(1)) for _ in range(10)]
        await breathe()
        assert not any(task.done() for task in waiting)
        limiters.open()
        await asyncio.gather(*waiting)
        assert limited.in_flight == 11

    played(play)


def test_roles_share_the_limiter_of_an_endpoint_and_its_lowest_cap() -> None:
    limiters = Limiters()
    settings = ModelSettings(model="hosted_vllm/x", api_base="http://127.0.0.1:1/v1", rpm=90.0)
    one = limiters.of(settings)
    assert limiters.of(settings.model_copy(update={"rpm": 30.0, "temperature": 0.0})) is one
    assert limiters.of(settings.model_copy(update={"rpm": 60.0})) is one
    assert limiters.of(settings.model_copy(update={"api_base": "http://127.0.0.1:2/v1"})) is not one
    assert one.snapshot()["rpm"] == 30.0


def test_requests_that_are_never_answered_hold_no_place_for_long() -> None:
    async def play() -> None:
        limited, clock = limiter()
        (first,) = await started(limited, 1)
        clock.now += 0.2
        limited.end(first, answered=True)
        limited.limit = 3.0
        hung = await started(limited, 3)
        waiting = asyncio.create_task(limited.start(1))
        await breathe()
        assert not waiting.done()
        clock.now += STUCK_SECONDS + 0.1
        limited._let_in()
        slot = await waiting
        assert limited.in_flight == 4
        limited.end(slot, answered=True)
        for one in hung:
            limited.end(one, answered=False, too_much=True)
        assert limited.in_flight == 0

    played(play)


def test_where_all_answers_take_long_none_counts_as_stuck() -> None:
    async def play() -> None:
        limited, clock = limiter()
        (first,) = await started(limited, 1)
        clock.now += 60.0
        limited.end(first, answered=True)
        limited.limit = 1.0
        await started(limited, 1)
        clock.now += 100.0
        assert limited._seconds_to_wait(0) == pytest.approx(500.0)

    played(play)
