"""The server's log: each request as it arrives, and beside it what became of it.

`LOG` gets a line a request before anything is done about it, so that a budget or a double payment can be checked against
it; `LOG.ends` gets a line when the request is over. Headers, which may hold keys, stand in neither.
"""

import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import orjson

from agents.rehearsal.faults import Fault
from configs.errors import DescantError
from store.identity import content_hash

ENDS_SUFFIX = ".ends"
End = Literal["answered", "fault", "error", "left"]
"""`answered`: a whole answer was handed out. `fault`: the drawn fault was. `error`: the request was wrong. `left`: nobody waited for it any more."""


class LogError(DescantError):
    """Raised here: the log cannot be written where it should be."""


class Arrival(NamedTuple):
    """One request as the log holds it."""

    server: str
    """Which of the servers that wrote this log, one after the other."""
    number: int
    at: float
    """When it arrived, in seconds since 1970."""
    call: str | None
    """Which call it belongs to (`call_key`); null for a body that asks nothing."""
    fault: Fault | None
    """That was drawn for it; a wrong request gets its own error all the same."""
    request: Any
    end: End | None
    """Null while it is not over."""
    status: int | None
    ended_at: float | None
    content: str | None
    """The answer, where one was made."""


class RequestLog:
    """Appends to a log; every line is one write."""

    def __init__(self, path: Path) -> None:
        self._server = secrets.token_hex(4)
        self._arrivals = _open(path)
        self._ends = _open(ends_of(path))

    def arrived(self, number: int, call: str | None, fault: Fault | None, request: Any) -> None:
        row = {"number": number, "at": time.time(), "call": call, "fault": fault, "request": request}
        self._write(self._arrivals, row)

    def ended(self, number: int, end: End, status: int, content: str | None) -> None:
        self._write(self._ends, {"number": number, "at": time.time(), "end": end, "status": status, "content": content})

    def _write(self, file: IO[bytes], row: dict[str, Any]) -> None:
        file.write(orjson.dumps({"server": self._server, **row}) + b"\n")


def call_key(messages: Sequence[Mapping[str, Any]], seed: Any) -> str:
    """Which call a request belongs to: its retries have the same messages and the same `seed`, another call has not."""
    return content_hash([(message.get("role"), message.get("content")) for message in messages], seed)


def read_log(path: Path) -> list[Arrival]:
    """The requests in the order of their arrival; a line that is being written is left out."""
    ends = {(row["server"], row["number"]): row for row in _rows(ends_of(path))}
    found = []
    for row in _rows(path):
        end = ends.get((row["server"], row["number"]), {})
        over = {"end": end.get("end"), "status": end.get("status"), "ended_at": end.get("at")}
        found.append(Arrival(**{**row, **over, "content": end.get("content")}))
    return found


def ends_of(path: Path) -> Path:
    return path.with_name(path.name + ENDS_SUFFIX)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [orjson.loads(line) for line in whole.splitlines()]


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("ab", buffering=0)
    except OSError as error:
        raise LogError(f"cannot write {str(path)!r}: {error.strerror}; name another file") from error
