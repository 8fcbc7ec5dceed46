"""The server that benchmarks call answers as OpenAI's protocol wants, when it is due, and counts what it saw."""

import asyncio
import time

import orjson

from benchmarks.latency_server import Clock, Connection, answers, split_request

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"


def request(body: bytes) -> bytes:
    return POST % (len(body), body)


def test_a_request_is_split_off_once_it_is_whole() -> None:
    whole = request(b'{"model":"x"}')
    assert split_request(whole[:40]) is None
    assert split_request(whole[:-1]) is None
    line, length, rest = split_request(whole + b"GET /st") or (b"", 0, b"")
    assert (line, length, rest) == (b"POST /v1/chat/completions HTTP/1.1", 13, b"GET /st")


def test_two_requests_in_pieces_are_answered_in_order_after_the_latency() -> None:
    async def ask() -> tuple[list[dict[str, object]], float, Clock]:
        clock = Clock(0.02, answers())
        server = await asyncio.get_running_loop().create_server(lambda: Connection(clock), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        both = request(b"a" * 400) + request(b"b" * 800)
        started = time.monotonic()
        writer.write(both[:50])
        await asyncio.sleep(0)
        writer.write(both[50:])
        found = []
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            found.append(orjson.loads(await reader.readexactly(int(head.split(b"content-length: ")[1]))))
        seconds = time.monotonic() - started
        writer.close()
        server.close()
        return found, seconds, clock

    found, seconds, clock = asyncio.run(ask())
    assert [answer["usage"]["prompt_tokens"] for answer in found] == [100, 200]  # type: ignore[index]
    texts = [answer["choices"][0]["message"]["content"] for answer in found]  # type: ignore[index]
    assert texts[0] != texts[1]
    assert all(50 <= len(text.split()) <= 70 for text in texts)
    assert 0.02 <= seconds < 2.0
    stats = clock.stats()
    assert (stats.requests, stats.in_flight, stats.peak_in_flight) == (2, 0, 2)
    assert 0.02 <= stats.seconds <= seconds
