"""An OpenAI-compatible chat server that answers after a fixed latency and costs next to no CPU: what benchmarks call.

    .venv/bin/python -m benchmarks.latency_server --latency 200

It shares the machine's cores with the client that is measured, so it parses HTTP/1.1 by hand and its answers (50 to 70
words, with usage) are made beforehand, one after the other, whatever is asked. `GET /stats` tells how many requests came,
how many were in flight at most, when the first came and the last was answered, and what they cost; `GET /reset` begins
anew. It knows no chunked bodies, no streaming and no faults: those are `descant serve rehearsal`'s.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from configs.model_settings import Endpoint

MODEL = "latency"
ANSWERS = 64
FEWEST_WORDS, MOST_WORDS = 50, 70
SYLLABLES = ("ba", "den", "fir", "gol", "ha", "jun", "ke", "lor", "mi", "nat", "o", "pel", "qua", "ri", "so", "tum")
CHARACTERS_A_TOKEN = 4


class Stats(NamedTuple):
    """What a server saw since it was started or reset."""

    requests: int
    """Chat completions."""
    in_flight: int
    peak_in_flight: int
    seconds: float
    """From the first request to the last answer."""
    cpu_seconds: float
    """Of the server, all in."""
    megabytes_in: float

    @property
    def calls_per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def cpu_us_a_request(self) -> float:
        return 1e6 * self.cpu_seconds / self.requests if self.requests else 0.0


@dataclass
class Clock:
    """Requests that wait for their answer, and what was counted.

    All wait equally long, so that they form one queue, of which one timer at a time serves the head.
    """

    latency_seconds: float
    answers: list[tuple[bytes, bytes, bytes]]
    requests: int = 0
    in_flight: int = 0
    peak: int = 0
    first: float = 0.0
    last: float = 0.0
    bytes_in: int = 0
    cpu_before: float = field(default_factory=time.process_time)
    _queue: deque[tuple[float, "Connection", bytes]] = field(default_factory=deque)

    def take(self, connection: "Connection", length: int) -> None:
        """One more request of so many bytes."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        head, middle, tail = self.answers[self.requests % len(self.answers)]
        usage = b'%b%d,"total_tokens":%d}}' % (middle, length // CHARACTERS_A_TOKEN, length // CHARACTERS_A_TOKEN + 80)
        answer = b"%b%d\r\n\r\n%b%b" % (head, len(tail) + len(usage), tail, usage)
        self.first = self.first or now
        self.requests += 1
        self.bytes_in += length
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self._queue.append((now + self.latency_seconds, connection, answer))
        if len(self._queue) == 1:
            loop.call_at(now + self.latency_seconds, self._answer_due)

    def _answer_due(self) -> None:
        loop = asyncio.get_running_loop()
        now, queue = loop.time(), self._queue
        while queue and queue[0][0] <= now:
            _, connection, answer = queue.popleft()
            self.in_flight -= 1
            connection.send(answer)
        self.last = now
        if queue:
            loop.call_at(queue[0][0], self._answer_due)

    def stats(self) -> Stats:
        cpu = time.process_time() - self.cpu_before
        seconds = max(0.0, self.last - self.first)
        return Stats(self.requests, self.in_flight, self.peak, seconds, cpu, self.bytes_in / 1e6)

    def reset(self) -> None:
        self.requests = self.bytes_in = 0
        self.first = self.last = 0.0
        self.peak = self.in_flight
        self.cpu_before = time.process_time()


class Connection(asyncio.Protocol):
    """One connection that is kept alive, whatever the client asks for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while (request := split_request(self._buffer)) is not None:
            line, length, self._buffer = request
            if line.startswith(b"POST "):
                self._clock.take(self, length)
            else:
                self._tell(line)

    def _tell(self, line: bytes) -> None:
        path = line.split(b" ")[1]
        if path == b"/reset":
            self._clock.reset()
        known = {b"/stats": self._clock.stats()._asdict(), b"/reset": {}, b"/v1/models": {"data": [{"id": MODEL}]}}
        body = orjson.dumps(known.get(path, {"error": {"message": "no such page"}}))
        status = b"200 OK" if path in known else b"404 Not Found"
        self.send(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))

    def send(self, answer: bytes) -> None:
        if self._transport is not None:  # a client that gave up is answered no more
            self._transport.write(answer)


def split_request(buffer: bytes) -> tuple[bytes, int, bytes] | None:
    """The first whole request in a buffer: its first line, the length of its body, and what follows; null before it is whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end]
    at = head.lower().find(b"\r\ncontent-length:")
    length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    stop = end + 4 + length
    if len(buffer) < stop:
        return None
    return head[: head.find(b"\r\n")] if b"\r\n" in head else head, length, buffer[stop:]


def answers(random_seed: int = 0) -> list[tuple[bytes, bytes, bytes]]:
    """Answers as bytes: the head up to its length, the usage up to the prompt's tokens, and the body before it."""
    drawn = random.Random(random_seed)
    made = []
    for number in range(ANSWERS):
        words = ["".join(drawn.choices(SYLLABLES, k=3)) for _ in range(drawn.randint(FEWEST_WORDS, MOST_WORDS))]
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": " ".join(words).capitalize() + "."},
            "finish_reason": "stop",
        }
        shown = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": MODEL}
        body = orjson.dumps({**shown, "choices": [choice]})[:-1]
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
        made.append((head, b',"usage":{"completion_tokens":80,"prompt_tokens":', body))
    return made


async def listen(latency_ms: float, port: int = 0) -> asyncio.Server:
    """A server on 127.0.0.1, which serves until it is closed."""
    clock = Clock(latency_ms / 1000.0, answers())
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: Connection(clock), "127.0.0.1", port, backlog=4096)


class LatencyServer(NamedTuple):
    """A server in a process of its own."""

    endpoint: Endpoint

    @property
    def api_base(self) -> str:
        return self.endpoint.api_base

    def stats(self) -> Stats:
        return Stats(**self._get("/stats"))

    def reset(self) -> None:
        self._get("/reset")

    def _get(self, path: str) -> dict[str, Any]:
        with urllib.request.urlopen(self.api_base.removesuffix("/v1") + path) as response:
            found: dict[str, Any] = json.load(response)
        return found


@contextmanager
def serve(latency_ms: float) -> Iterator[LatencyServer]:
    """A server in a process of its own for as long as the block runs."""
    command = [sys.executable, "-m", "benchmarks.latency_server", "--latency", str(latency_ms)]
    home = Path(__file__).parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=home) as process:
        try:
            assert process.stdout is not None
            yield LatencyServer(Endpoint(process.stdout.readline().strip(), MODEL))
        finally:
            process.terminate()


async def _serve_forever(latency_ms: float, port: int) -> None:
    server = await listen(latency_ms, port)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=200.0, help="Milliseconds before each answer.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one.")
    arguments = parser.parse_args()
    asyncio.run(_serve_forever(arguments.latency, arguments.port))


if __name__ == "__main__":
    main()
