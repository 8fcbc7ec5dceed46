"""Small servers on free loopback ports that speak providers' protocols, by script. They remember what they were asked."""

import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send


class Asked(NamedTuple):
    """One request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


Reply = str | Response | Callable[[Asked], "str | Response"]
"""Text (wrapped into the server's protocol), or a response of any kind; a function is asked for one."""


@dataclass
class LocalServer:
    """Plays `script` one reply a request; its last reply is given again for ever."""

    url: str
    script: list[Reply]
    wrap: Callable[[str, dict[str, Any]], dict[str, Any]]
    path: str
    requests: list[Asked] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def answer(self, request: Request) -> Response:
        body = json.loads(await request.body() or b"null")
        asked = Asked(self.path, dict(request.headers), body)
        with self._lock:
            reply = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(asked)
        if callable(reply) and not isinstance(reply, Response):
            reply = reply(asked)
        return JSONResponse(self.wrap(reply, body)) if isinstance(reply, str) else reply


class CutOff(Response):
    """Promises more bytes than it sends, and hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        headers = [(b"content-type", b"application/json"), (b"content-length", b"9999")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id": "x"', "more_body": False})


def failure(status: int, message: str = "it failed", *, code: str | None = None, **headers: str) -> Response:
    """An error in OpenAI's shape; `retry_after="7"` becomes the header `Retry-After`."""
    body = {"error": {"message": message, "type": "error", "param": None, "code": code}}
    return JSONResponse(body, status, {name.replace("_", "-"): value for name, value in headers.items()})


def openai_completion(text: str, body: Mapping[str, Any], *, finish_reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", ""),
        "choices": [choice],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


def anthropic_message(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7},
    }


def ollama_chat(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": body["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text},
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 11,
        "eval_count": 7,
    }


def ollama_generate(text: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": body["model"],
        "created_at": "2026-01-01T00:00:00Z",
        "response": text,
        "done": True,
        "done_reason": "stop",
        "prompt_eval_count": 11,
        "eval_count": 7,
    }


PROTOCOLS: dict[str, tuple[str, Callable[[str, dict[str, Any]], dict[str, Any]]]] = {
    "/v1/chat/completions": ("/v1", openai_completion),
    "/v1/messages": ("", anthropic_message),
    "/api/chat": ("", ollama_chat),
    "/api/generate": ("", ollama_generate),
}
"""By path: what an `api_base` ends with, and how a text is wrapped."""


@contextmanager
def scripted_server(*script: Reply, path: str = "/v1/chat/completions") -> Iterator[LocalServer]:
    """A server that answers POST at `path`; all of them live behind one port, each below a number of its own."""
    suffix, wrap = PROTOCOLS[path]
    host = _host()
    number = next(_NUMBERS)
    server = LocalServer(f"{host}/{number}{suffix}", list(script), wrap, path)
    _SERVERS[number] = server
    try:
        yield server
    finally:
        del _SERVERS[number]


_SERVERS: dict[int, LocalServer] = {}
_NUMBERS = itertools.count(1)


async def _dispatch(request: Request) -> Response:
    server = _SERVERS.get(request.path_params["number"])
    if server is None or "/" + request.path_params["path"] != server.path:
        return failure(404, f"nothing at {request.url.path}")
    return await server.answer(request)


@cache
def _host() -> str:
    """The address of the one port, which stays open as long as this process: starting and stopping costs 0.2 s."""
    app = Starlette(routes=[Route("/{number:int}/{path:path}", _dispatch, methods=["POST"])])
    config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off", ws="none")
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    serve = threading.Thread(target=uvicorn.Server(config).run, kwargs={"sockets": [listening]}, daemon=True)
    serve.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}"
