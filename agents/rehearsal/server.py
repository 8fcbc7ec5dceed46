"""The rehearsal over HTTP, as an OpenAI-compatible server with latency and faults on demand.

The same request gets the same text as in process. Which request meets which fault depends on the fault seed and on
how many requests came before, so that a retry passes. Knows nothing of campaigns; needs Starlette and uvicorn.
"""

import asyncio
import contextlib
import hmac
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal, get_args

import orjson
import uvicorn
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from agents.rehearsal.backend import MODELS, TOKEN, Completion, RehearsalError, UnknownModelError, complete
from configs.base import Settings
from configs.errors import DescantError
from store.identity import chance, content_hash

Fault = Literal["rate_limit", "server_error", "bad_gateway", "reset", "slow", "truncated"]


class ServerError(DescantError):
    """Raised here: the server cannot start as it was asked to."""


class ServerSettings(Settings):
    """How the server behaves beside answering."""

    latency_ms: Annotated[float, Field(ge=0.0)] = 0.0
    """Waited before each answer."""
    fault_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of completions that meet a fault."""
    faults: Annotated[tuple[Fault, ...], Field(min_length=1)] = get_args(Fault)
    """Kinds to draw from."""
    slow_ms: Annotated[float, Field(ge=0.0)] = 2000.0
    """Added by the fault `slow`."""
    random_seed: int = 0
    """Of the faults; answers do not depend on it."""
    log: str | None = None
    """A JSONL file that gets one line a completion request: its body, its fault, its answer; never its headers."""


class Server:
    """The ASGI application and what it counts."""

    def __init__(self, settings: ServerSettings, *, api_key: str | None = None) -> None:
        self.settings = settings
        self.api_key = api_key
        self.n_requests = 0
        self.log: IO[bytes] | None = None
        if settings.log is not None:
            try:
                self.log = Path(settings.log).open("ab", buffering=0)  # noqa: SIM115  (open as long as the server)
            except OSError as error:
                raise ServerError(f"cannot write {settings.log!r}: {error.strerror}; name another file") from error
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/health", self.health),
        ]
        self.app = Starlette(routes=routes)

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        return _json({"status": "ok", "requests": self.n_requests})

    async def models(self, request: Request) -> Response:
        if not self._admits(request):
            return _error(401, "the key is missing or wrong", "invalid_api_key")
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "rehearsal"} for name in MODELS]
        return _json({"object": "list", "data": rows})

    async def chat(self, request: Request) -> Response:
        raw = await request.body()  # before anything else: every arrival counts
        self.n_requests += 1
        if not self._admits(request):
            return _error(401, "the key is missing or wrong", "invalid_api_key")
        fault = self._fault(self.n_requests)
        delay_ms = self.settings.latency_ms + (self.settings.slow_ms if fault == "slow" else 0.0)
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000.0)
        try:
            body = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            return self._logged(
                None, fault, None, _error(400, f"the body is not JSON: {error}", "invalid_request_error")
            )
        if not isinstance(body, dict) or not isinstance(body.get("model"), str) or not _is_list(body.get("messages")):
            refused = _error(
                400, "the body needs `model` (text) and `messages` (a list of objects)", "invalid_request_error"
            )
            return self._logged(body, fault, None, refused)
        try:
            done = complete(body["model"], body["messages"], body)
        except UnknownModelError as error:
            return self._logged(body, fault, None, _error(404, str(error), "model_not_found"))
        except RehearsalError as error:
            return self._logged(body, fault, None, _error(400, str(error), "invalid_request_error"))
        return self._logged(body, fault, done, self._respond(request, body, done, fault))

    def _respond(self, request: Request, body: Mapping[str, Any], done: Completion, fault: Fault | None) -> Response:
        match fault:
            case "rate_limit":
                return _error(429, "a rehearsed rate limit", "rate_limit_exceeded", {"Retry-After": "1"})
            case "server_error":
                return _error(500, "a rehearsed failure", "server_error")
            case "bad_gateway":
                return Response("<html><body>502 Bad Gateway</body></html>", 502, media_type="text/html")
            case "reset":
                _reset(request)
                return Response(status_code=500)  # nobody is there to read it
        identity = "chatcmpl-" + content_hash(body)
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            return StreamingResponse(_events(done, identity, include_usage), media_type="text/event-stream")
        whole = orjson.dumps(
            {
                "id": identity,
                "object": "chat.completion",
                "created": int(time.time()),
                "model": done.model,
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": done.content},
                        "finish_reason": done.finish_reason,
                    }
                ],
                "usage": _usage(done),
            }
        )
        return Response(whole[: len(whole) // 2] if fault == "truncated" else whole, media_type="application/json")

    def _admits(self, request: Request) -> bool:
        if self.api_key is None:
            return True
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self.api_key.encode())

    def _fault(self, number: int) -> Fault | None:
        if self.settings.fault_rate == 0.0:
            return None
        random = chance("rehearsal fault", self.settings.random_seed, number)
        return random.choice(self.settings.faults) if random.random() < self.settings.fault_rate else None

    def _logged(self, body: Any, fault: Fault | None, done: Completion | None, response: Response) -> Response:
        if self.log is not None:
            row = {
                "number": self.n_requests,
                "fault": fault,
                "status": response.status_code,
                "request": body,
                "content": done.content if done else None,
            }
            self.log.write(orjson.dumps(row) + b"\n")
        return response


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": {"message": message, "type": code, "param": None, "code": code}}, status, headers)


def _usage(done: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
    }


async def _events(done: Completion, identity: str, include_usage: bool) -> AsyncIterator[bytes]:
    """The answer as server-sent events, one a word."""

    def event(delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _event({"id": identity, "model": done.model, "choices": [choice]})

    yield event({"role": "assistant", "content": ""}, None)
    for word in TOKEN.findall(done.content):
        yield event({"content": word}, None)
    yield event({}, done.finish_reason)
    if include_usage:
        yield _event({"id": identity, "model": done.model, "choices": [], "usage": _usage(done)})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps({"object": "chat.completion.chunk", "created": int(time.time()), **value}) + b"\n\n"


class _Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # uvicorn picks the class at import
    """uvicorn's connection, whose transport the application may see in order to cut it."""

    app_state: dict[str, Any]

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _reset(request: Request) -> None:
    """Cut the connection with a TCP reset."""
    transport = request.state.transport
    linger = struct.pack("ii", 1, 0)  # on, 0 seconds: closing drops what is unsent
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _listen(host: str, port: int) -> socket.socket:
    try:
        listening = socket.create_server((host, port), backlog=2048)
    except socket.gaierror as error:
        raise ServerError(f"unknown host {host!r}: choose another --host") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise ServerError(f"cannot listen on {host}:{port} ({reason}): choose another --port or --host") from error
    # asyncio leaves Nagle's algorithm on for a socket made this way, and each answer would wait 40 ms; connections inherit
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _uvicorn(server: Server) -> uvicorn.Server:
    config = uvicorn.Config(
        server.app, http=_Connection, log_level="warning", access_log=False, lifespan="off", ws="none"
    )
    return uvicorn.Server(config)


def serve(host: str, port: int, settings: ServerSettings, *, api_key: str | None = None) -> None:
    """Serve until interrupted. Says on stderr when it is ready and which settings to paste."""
    server = Server(settings, api_key=api_key)
    with _listen(host, port) as listening:
        address = f"http://{host}:{listening.getsockname()[1]}/v1"
        print(f"rehearsal ready on {address}", file=sys.stderr)
        pasted = f'model: hosted_vllm/default, api_base: "{address}"'
        print(f"models: {{default: {{{pasted}}}}}", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            _uvicorn(server).run(sockets=[listening])


@contextlib.contextmanager
def serving(settings: ServerSettings | None = None, *, api_key: str | None = None) -> Iterator[str]:
    """A server in a thread on a free loopback port; yields its `api_base`."""
    server = _uvicorn(Server(settings or ServerSettings(), api_key=api_key))
    with _listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            thread.join()


def key_from(name: str | None) -> str | None:
    """The key that `env:NAME` names."""
    if name is None:
        return None
    variable = name.removeprefix("env:")
    if variable == name:
        raise ServerError("a key is never written on the command line: export it and write `env:NAME`")
    if not os.environ.get(variable):
        raise ServerError(f"environment variable {variable!r} is empty: export it, or leave out --api-key")
    return os.environ[variable]
