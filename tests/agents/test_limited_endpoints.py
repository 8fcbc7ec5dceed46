"""Endpoints that take only so much: the limiter finds out how much, and nobody is lost on the way."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from agents.ledger import Ledger, forget
from agents.limiter import Limiter
from configs.model_settings import ModelSettings
from tests.scripted import HELLO, language_model, site
from tests.servers import openai_completion

LATENCY_SECONDS = 0.01


@dataclass
class Endpoint:
    """Answers after a while, and refuses what is more than it takes at once."""

    takes: int
    retry_after: str | None = None
    at_once: int = 0
    answered: int = 0
    refused: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.arrived.append(time.monotonic())
        if self.at_once >= self.takes:
            self.refused.append(time.monotonic())
            headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers=headers)
        self.at_once += 1
        try:
            await asyncio.sleep(LATENCY_SECONDS)
            self.answered += 1
            return web.json_response(openai_completion("hi", body))
        finally:
            self.at_once -= 1


@asynccontextmanager
async def listening(endpoint: Endpoint) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", endpoint.chat)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


class Eager(Ledger):
    """Waits a thousandth of the time before a retry."""

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 1000)


def ask_all(endpoint: Endpoint, n: int, *, at_once: int, **settings: Any) -> tuple[Limiter, float]:
    """`n` calls, so many of them at once; the limiter in the end, and the seconds that it took."""

    async def run() -> tuple[Limiter, float]:
        ledger = Eager(forget)
        async with listening(endpoint) as address:
            asked = language_model("hosted_vllm/x", ledger=ledger, api_base=address, attempts=50, **settings)
            numbers = iter(range(n))

            async def worker() -> None:
                for number in numbers:
                    await asked.complete(HELLO, site(dialogue=f"dlg_{number}"))

            began = time.monotonic()
            await asyncio.gather(*(worker() for _ in range(at_once)))
            return ledger.limiters.of(asked.settings), time.monotonic() - began

    return asyncio.run(run())


def test_an_endpoint_that_takes_few_at_once_is_soon_sent_few() -> None:
    endpoint = Endpoint(takes=8)
    limited, _ = ask_all(endpoint, 400, at_once=64)
    assert endpoint.answered == 400
    assert limited.limit is not None
    assert 4 <= limited.limit <= 16
    early, late = endpoint.refused[: len(endpoint.refused) // 2], endpoint.arrived[len(endpoint.arrived) // 2 :]
    assert len(early) > 0
    assert sum(at >= late[0] for at in endpoint.refused) < 0.25 * len(late)


def test_an_endpoint_that_takes_all_is_never_held_back() -> None:
    endpoint = Endpoint(takes=1000)
    limited, _ = ask_all(endpoint, 200, at_once=64)
    assert (limited.limit, limited.times_limited, endpoint.answered) == (None, 0, 200)


def test_nobody_is_sent_before_the_endpoint_wants_it() -> None:
    endpoint = Endpoint(takes=4, retry_after="0.2")
    ask_all(endpoint, 12, at_once=6)
    assert endpoint.answered == 12
    first = endpoint.refused[0]
    assert not [at for at in endpoint.arrived if first + 0.05 < at < first + 0.19]


def test_so_many_a_minute_are_sent_and_no_more() -> None:
    endpoint = Endpoint(takes=1000)
    _, seconds = ask_all(endpoint, 10, at_once=10, rpm=1200.0)
    distances = [later - at for at, later in zip(endpoint.arrived, endpoint.arrived[1:], strict=False)]
    assert seconds >= 9 * 0.05
    assert sum(distances) / len(distances) == pytest.approx(0.05, abs=0.02)


def test_a_call_that_comes_to_its_place_while_the_campaign_is_held_gives_it_back() -> None:
    """Else those that wait at the door would keep the places of others that may be let in first."""

    async def play() -> None:
        ledger = Ledger(forget)
        endpoint = Endpoint(takes=1000)
        async with listening(endpoint) as address:
            asked = language_model("hosted_vllm/x", ledger=ledger, api_base=address)
            limiter = ledger.limiters.of(asked.settings)
            first = await limiter.start(1)
            limiter.end(await limiter.start(1), answered=False, too_much=True)
            limiter.limit = 1.0
            second = asyncio.create_task(asked.complete(HELLO, site()))
            await asyncio.sleep(2 * LATENCY_SECONDS)
            assert limiter.snapshot()["waiting"] == 1
            ledger.hold()
            limiter.end(first, answered=True)
            await asyncio.sleep(2 * LATENCY_SECONDS)
            assert (limiter.in_flight, endpoint.arrived) == (0, [])
            ledger.go_on()
            await second
            assert (limiter.in_flight, endpoint.answered) == (0, 1)

    asyncio.run(asyncio.wait_for(play(), 5.0))


def test_an_address_is_one_endpoint_however_it_is_written() -> None:
    ledger = Ledger(forget)
    ways = ("http://host/v1", "http://host/v1/", "http://HOST:80/v1", "HTTP://host/v1")
    models = [language_model("hosted_vllm/x", ledger=ledger, api_base=address) for address in ways]
    assert len({id(ledger.limiters.of(model.settings)) for model in models}) == 1
    others = ("http://host/v2", "https://host/v1", "http://host:8000/v1", "http://[::1]:80/v1", None)
    found = [ModelSettings(model="hosted_vllm/x", api_base=address) for address in (ways[0], *others)]
    assert len({id(ledger.limiters.of(settings)) for settings in found}) == len(found)
    assert ModelSettings(model="hosted_vllm/x", api_base="http://[::1]:80/v1/").endpoint[1] == "http://[::1]/v1"
