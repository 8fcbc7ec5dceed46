"""The rehearsal over HTTP, as an OpenAI-compatible server with latency and faults on demand.

The same request gets the same text as in process. Which request meets which fault depends on the fault seed and, for a
fault that passes, on how many requests came before, so that a retry passes; for one that lasts (a refusal, a filter, an
overflow), on what is asked, so that a retry meets it again (`agents.rehearsal.faults`). A request that is wrong gets its
own error whatever was drawn, and a stream meets only those faults that come before its first byte. Knows nothing of
campaigns; needs Starlette and uvicorn.
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
from typing import Annotated, Any

import orjson
import uvicorn
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from agents.rehearsal.backend import MODELS, TOKEN, Completion, RehearsalError, UnknownModelError, complete
from agents.rehearsal.faults import FAULTS, Fault, Substitute, drawn, substitute
from agents.rehearsal.request_log import End, RequestLog, call_key
from configs.base import Settings
from configs.errors import DescantError
from store.identity import chance, content_hash

HELD_POLL_SECONDS = 0.02
"""How often it is looked whether a client that is kept waiting has gone."""


class ServerError(DescantError):
    """Raised here: the server cannot start as it was asked to."""


class ServerSettings(Settings):
    """How the server behaves beside answering."""

    latency_ms: Annotated[float, Field(ge=0.0)] = 0.0
    """Waited before each answer."""
    fault_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Share of completions that meet a fault."""
    faults: Annotated[tuple[Fault, ...], Field(min_length=1)] = FAULTS
    """Kinds to draw from."""
    lasting_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Of the faults, the share that lasts, where `faults` names both sorts; each of those costs a dialogue."""
    slow_ms: Annotated[float, Field(ge=0.0)] = 2000.0
    """Added by the fault `slow`."""
    drip_ms: Annotated[float, Field(gt=0.0)] = 100.0
    """Between two bytes of the fault `slow_drip`."""
    retry_after_seconds: Annotated[float, Field(ge=0.0)] = 1.0
    """What the fault `rate_limit` asks clients to wait."""
    random_seed: int = 0
    """Of the faults; answers do not depend on it."""
    log: str | None = None
    """A JSONL file that gets one line a completion request as it arrives: its body and its fault, never its headers. What became of it goes to the same name with `.ends`."""


class Server:
    """The ASGI application and what it counts."""

    def __init__(self, settings: ServerSettings, *, api_key: str | None = None) -> None:
        self.settings = settings
        self.api_key = api_key
        self.n_requests = 0
        self.is_closing = False
        self.log = RequestLog(Path(settings.log)) if settings.log is not None else None
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
        number, body = self.n_requests, _parsed(raw)
        call = call_key(body["messages"], body.get("seed")) if _is_request(body) else None
        fault = self._fault(number, call)
        if self.log is not None:
            self.log.arrived(number, call, fault, body)
        response, end, content = await self._answer(request, raw, body, fault, number)
        if self.log is not None:
            self.log.ended(number, end, response.status_code, content)
        return response

    async def _answer(
        self, request: Request, raw: bytes, body: Any, fault: Fault | None, number: int
    ) -> tuple[Response, End, str | None]:
        """What is sent, what it counts as, and the answer's text where there is one."""
        if not self._admits(request):
            return _error(401, "the key is missing or wrong", "invalid_api_key"), "error", None
        delay_ms = self.settings.latency_ms + (self.settings.slow_ms if fault == "slow" else 0.0)
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000.0)
        if _is_gone(request):
            return Response(status_code=503), "left", None
        if not _is_request(body):
            return _error(400, _what_is_wrong(raw), "invalid_request_error"), "error", None
        try:
            done = complete(body["model"], body["messages"], body)
        except UnknownModelError as error:
            return _error(404, str(error), "model_not_found"), "error", None
        except RehearsalError as error:
            return _error(400, str(error), "invalid_request_error"), "error", None
        identity = "chatcmpl-" + content_hash(body)
        whole = _whole(done, identity)
        broken = await self._break(request, body, whole, done, fault, number) if fault is not None else None
        if broken is not None:
            return broken, "fault", None
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            events = _events(done, identity, include_usage)
            return StreamingResponse(events, media_type="text/event-stream"), "answered", done.content
        return _json(whole), "answered", done.content

    async def _break(
        self,
        request: Request,
        body: Mapping[str, Any],
        whole: Mapping[str, Any],
        done: Completion,
        fault: Fault,
        number: int,
    ) -> Response | None:
        """What a fault sends, or null where the answer goes out all the same."""
        match fault:
            case "timeout":
                await self._hold(request)
                return Response(status_code=503)  # nobody is there to read it, unless the server stops
            case "slow_drip":
                return StreamingResponse(self._drip(request), media_type="application/json")
            case "reset" | "hang_up":
                _cut(request, reset=fault == "reset")
                return Response(status_code=500)  # nobody is there to read it
        random = chance("wording of a fault", self.settings.random_seed, number)
        pause = self.settings.retry_after_seconds
        given = substitute(fault, whole, body, random, prompt_tokens=done.prompt_tokens, retry_after_seconds=pause)
        if given is None or (body.get("stream") and given.status == 200):
            return None
        return _response(given)

    async def _hold(self, request: Request) -> None:
        """Until the client gives up."""
        while not (_is_gone(request) or self.is_closing):  # noqa: ASYNC110 - transports tell no event
            await asyncio.sleep(HELD_POLL_SECONDS)

    async def _drip(self, request: Request) -> AsyncIterator[bytes]:
        """White space without end, which a JSON document may begin with, and by which proxies keep connections open."""
        while not (_is_gone(request) or self.is_closing):
            yield b" "
            await asyncio.sleep(self.settings.drip_ms / 1000.0)

    def _admits(self, request: Request) -> bool:
        if self.api_key is None:
            return True
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), self.api_key.encode())

    def _fault(self, number: int, call: str | None) -> Fault | None:
        settings = self.settings
        if settings.fault_rate == 0.0:
            return None
        return drawn(
            settings.faults,
            settings.fault_rate,
            settings.lasting_share,
            of_request=chance("lasting fault", settings.random_seed, call),
            of_arrival=chance("rehearsal fault", settings.random_seed, number),
        )


def _parsed(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _is_request(body: Any) -> bool:
    return isinstance(body, dict) and isinstance(body.get("model"), str) and _is_list(body.get("messages"))


def _what_is_wrong(raw: bytes) -> str:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        return f"the body is not JSON: {error}"
    return "the body needs `model` (text) and `messages` (a list of objects)"


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")


def _error(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": {"message": message, "type": code, "param": None, "code": code}}, status, headers)


def _response(given: Substitute) -> Response:
    return Response(given.body, given.status, dict(given.headers), media_type=given.media_type)


def _whole(done: Completion, identity: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": done.content}
    return {
        "id": identity,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": done.model,
        "choices": [{"index": 0, "message": message, "finish_reason": done.finish_reason}],
        "usage": _usage(done),
    }


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


def _cut(request: Request, *, reset: bool) -> None:
    """Close the connection without a byte, with a TCP reset or in good order."""
    transport = request.state.transport
    if reset:
        linger = struct.pack("ii", 1, 0)  # on, 0 seconds: closing drops what is unsent
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _is_gone(request: Request) -> bool:
    """Whether the client has closed its connection."""
    return bool(request.state.transport.is_closing())


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


class _Uvicorn(uvicorn.Server):
    """Lets go of those who are kept waiting before it waits for them."""

    def __init__(self, server: Server, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._server = server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._server.is_closing = True
        await super().shutdown(sockets)


def _uvicorn(server: Server) -> uvicorn.Server:
    config = uvicorn.Config(
        server.app, http=_Connection, log_level="warning", access_log=False, lifespan="off", ws="none"
    )
    return _Uvicorn(server, config)


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
