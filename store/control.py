"""Asking the campaign that runs on a database: a Unix socket beside it, one JSON line asked, one answered.

Knows no campaign; `graphs.control` listens and answers. Only who may write the socket's file (mode 0600) can ask.
"""

import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.database import StoreError, database_path
from store.lock import Lock

SOCKET_SUFFIX = ".sock"
LONGEST_NAME = 60
"""Of a socket's file, in bytes; a longer one is a hash."""
LONGEST_ADDRESS = 107
"""Bytes that the kernel takes as the path of a socket."""
LONGEST_ANSWER = 16 << 20
PATIENCE_SECONDS = 1.0
"""How long a campaign may take to answer; `descant status` has two seconds in all."""


class NobodyListensError(StoreError):
    """Raised when a running campaign is asked for something, and none runs on the database."""


class NoAnswerError(StoreError):
    """Raised when the campaign did not answer in time, or not in our words."""

    exit_code = 1


class RefusedError(StoreError):
    """Raised with what the campaign said against what it was asked."""


def socket_path(database: Path) -> Path:
    """Where a campaign on this database listens."""
    name = database.name + SOCKET_SUFFIX
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(database.name)).hexdigest()[:16] + SOCKET_SUFFIX
    return database.with_name(name)


@contextmanager
def address(path: Path) -> Iterator[str]:
    """The path as the kernel takes it: by way of the open folder where it is too long.

    Raises:
        OSError: the folder cannot be opened, or there is no such way on this system.
    """
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def ask(
    database: str | os.PathLike[str], request: Mapping[str, Any], *, timeout_seconds: float = PATIENCE_SECONDS
) -> dict[str, Any] | None:
    """What the campaign that runs on a database answers; null when nobody listens there.

    Raises:
        NoAnswerError: somebody listens and did not answer in time.
        RefusedError: the answer is what is wrong with the request.
    """
    path = socket_path(database_path(database))
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(timeout_seconds)
        try:
            with address(path) as where:
                link.connect(where)
        except TimeoutError as error:
            raise _no_answer(timeout_seconds) from error
        except BlockingIOError as error:  # its queue is full: nobody takes calls off it
            raise _no_answer(timeout_seconds) from error
        except OSError:  # no file, nobody behind it, or not for us
            return None
        try:
            link.sendall(json.dumps(dict(request)).encode() + b"\n")
            said = _line(link)
        except TimeoutError as error:
            raise _no_answer(timeout_seconds) from error
        except OSError:  # it ended meanwhile
            return None
    if not said.endswith(b"\n"):
        return None
    try:
        answer = json.loads(said)
    except ValueError as error:
        raise NoAnswerError("the campaign's answer cannot be read: is it another version of Descant?") from error
    if not isinstance(answer, dict):
        raise NoAnswerError("the campaign's answer cannot be read: is it another version of Descant?")
    if "error" in answer:
        raise RefusedError(str(answer["error"]))
    return answer


def _line(link: socket.socket) -> bytes:
    said = b""
    while not said.endswith(b"\n") and len(said) < LONGEST_ANSWER and (part := link.recv(1 << 16)):
        said += part
    return said


def _no_answer(seconds: float) -> NoAnswerError:
    return NoAnswerError(f"the campaign did not answer within {seconds:g} s: it is busy; try again")


def tell(database: str | os.PathLike[str], request: Mapping[str, Any], *, instead: str) -> dict[str, Any]:
    """As `ask`, where a campaign must run.

    Args:
        instead: what to do when none does.

    Raises:
        NobodyListensError: none does.
    """
    answer = ask(database, request, timeout_seconds=5 * PATIENCE_SECONDS)
    if answer is not None:
        return answer
    file = database_path(database)
    if not file.exists():
        raise StoreError(f"there is no database at {str(file)!r}: run a campaign first, or name another with --db")
    writer = Lock(file).alive_holder()
    if writer is not None:
        raise NobodyListensError(
            f"process {writer} writes {str(file)!r} and does not listen: it begins, ends or is no campaign; try again in a "
            "moment"
        )
    raise NobodyListensError(f"no campaign is running on {str(file)!r}: {instead}")
