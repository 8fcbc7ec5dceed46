"""What a running campaign answers to other processes: how it stands, and wishes for a pause, more workers, another try.

It listens on a Unix socket beside the database (`store.control` asks) as long as its crew works. Whoever asks nonsense,
says nothing or says too much gets an error or nothing, and the campaign goes on.
"""

import asyncio
import errno
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from configs.errors import DescantError
from graphs.crew import Crew
from store.control import address, socket_path
from store.records import Campaign, CampaignStatus
from store.retry import ToRetry, failed_trials
from store.writer import Writer

LONGEST_REQUEST = 1 << 16
PATIENCE_SECONDS = 5.0
"""How long who has connected may take to ask, and to take the answer."""
LOOK_SECONDS = 0.25
MOST_AT_ONCE = 32
"""Connections; further ones are closed."""


class RequestError(DescantError):
    """Raised here: a request that nobody can understand or fulfil. It is the answer."""


class Control:
    """The reins of one campaign.

    Args:
        writer: of the campaign's database.
        row: the campaign's own row, with a status.
        take_back: the things to be done again for trials that are open once more; null where there are none.
    """

    def __init__(
        self,
        writer: Writer,
        row: Callable[[CampaignStatus], Campaign],
        *,
        take_back: Callable[[ToRetry], Awaitable[Sequence[Any]]] | None = None,
    ) -> None:
        self._writer = writer
        self._row = row
        self._take_back = take_back
        self._retrying = asyncio.Lock()
        self._talks: set[asyncio.Task[None]] = set()
        self._crew: Crew[Any]

    @asynccontextmanager
    async def over(self, crew: Crew[Any]) -> AsyncIterator[None]:
        """Listen as long as the crew works; where no socket can be made, say so and do without."""
        self._crew = crew
        teller = asyncio.create_task(self._tell_trouble())
        try:
            async with self._listening():
                yield
        finally:
            teller.cancel()

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        crew, path = self._crew, socket_path(self._writer.path)
        try:
            listening = _socket_at(path)
        except OSError as error:
            crew.progress.say(
                f"no socket at {str(path)!r} ({error.strerror or error}): this campaign cannot be asked to pause, resume, or "
                "change; `descant status` shows what is stored"
            )
            yield
            return
        server = await asyncio.start_unix_server(self._welcome, sock=listening, limit=LONGEST_REQUEST)
        try:
            yield
        finally:
            server.close()
            for talk in self._talks:
                talk.cancel()
            await asyncio.gather(*self._talks, return_exceptions=True)
            path.unlink(missing_ok=True)

    async def _tell_trouble(self) -> None:
        """On the running side, what the campaign waits for, once when it begins and once when it is over."""
        told: str | None = None
        while True:
            trouble = self._writer.trouble
            if trouble != told:
                self._crew.progress.say(trouble or "there is room again: the campaign goes on")
                told = trouble
            await asyncio.sleep(LOOK_SECONDS)

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._talks) >= MOST_AT_ONCE:
            writer.close()
            return
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One line asked, one answered."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                try:
                    line = await reader.readline()
                except ValueError:
                    answer = {"error": f"a request is one line of at most {LONGEST_REQUEST:,} bytes"}
                else:
                    if not line.endswith(b"\n"):
                        return
                    answer = {}
            answer = answer or await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await writer.drain()
        except (OSError, TimeoutError):  # it went away, or says nothing, or does not listen
            pass
        finally:
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "a request is a JSON object"}
        if not isinstance(request, dict):
            return {"error": "a request is a JSON object"}
        wishes = {
            "status": self._status,
            "pause": self._pause,
            "resume": self._resume,
            "concurrency": self._concurrency,
            "retry_failed": self._retry_failed,
        }
        asked = request.get("ask")
        wish = wishes.get(asked) if isinstance(asked, str) else None
        if wish is None:
            return {"error": f"this campaign can be asked for {', '.join(wishes)}"}
        try:
            return await wish(request)
        except DescantError as error:
            return {"error": str(error)}

    async def _status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        crew, ledger, counters = self._crew, self._crew.ledger, self._crew.counters
        row = self._row("running")
        return {
            "campaign_id": row.campaign_id,
            "name": row.name,
            "recipe": row.recipe,
            "pid": os.getpid(),
            "state": self._state(),
            "held": ledger.is_held,
            "stop_reason": ledger.stop_reason,
            "trouble": self._writer.trouble,
            "unit": counters.unit,
            "total": counters.total,
            "done": counters.done,
            "failed": counters.failed,
            "open": counters.in_flight,
            "concurrency": crew.wanted * crew.per_thing,
            "calls_in_flight": ledger.budget.in_flight,
            "calls_sent": ledger.sent,
            "calls_reused": ledger.reused,
            "calls_a_second": round(crew.calls_a_second, 2),
            "budget": ledger.budget.snapshot(),
            "limiters": ledger.limiters.snapshot(),
        }

    def _state(self) -> str:
        ledger = self._crew.ledger
        if ledger.stop_reason is not None:
            return "stopping"
        if self._writer.trouble is not None:
            return "waiting"
        return "held" if ledger.is_held else "running"

    async def _pause(self, _: Mapping[str, Any]) -> dict[str, Any]:
        ledger = self._crew.ledger
        self._refuse_when_stopping()
        if not ledger.is_held:
            ledger.hold()
            self._crew.progress.say("held by `descant pause`: calls in flight come back, `descant resume` goes on")
            self._writer.leave(self._row("paused"))  # on a full disk it is held as well, and says so at once
        return await self._status({})

    async def _resume(self, _: Mapping[str, Any]) -> dict[str, Any]:
        ledger = self._crew.ledger
        self._refuse_when_stopping()
        if ledger.is_held:
            self._writer.leave(self._row("running"))
            ledger.go_on()
            self._crew.progress.say("resumed by `descant resume`")
        return await self._status({})

    async def _concurrency(self, request: Mapping[str, Any]) -> dict[str, Any]:
        wanted, crew = request.get("n"), self._crew
        if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
            raise RequestError(f"concurrency is a whole number of at least 1, not {wanted!r}")
        self._refuse_when_stopping()
        before = crew.wanted * crew.per_thing
        crew.resize(max(1, wanted // crew.per_thing))
        now = crew.wanted * crew.per_thing
        if now != before:
            crew.progress.say(f"{before} -> {now} {crew.counters.unit} at once, by `descant concurrency`")
        return await self._status({}) | {"before": before, "side_by_side": crew.per_thing}

    async def _retry_failed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        campaign, reasons = request.get("campaign"), request.get("reasons", [])
        if not (campaign is None or isinstance(campaign, str)):
            raise RequestError(f"a campaign is named by its id or name, not {campaign!r}")
        if not (isinstance(reasons, list) and all(isinstance(reason, str) for reason in reasons)):
            raise RequestError(f"reasons are a list of words, not {reasons!r}")
        self._refuse_when_stopping()
        taken: Sequence[Any] = []
        async with self._retrying:
            with self._crew.expecting():
                found = await asyncio.to_thread(self._find, campaign, reasons)
                if found.dialogues:
                    own = self._row("running").campaign_id
                    await self._writer.note(*found.opened, *found.paused(but=own))
                    # What they had left is gone from the database before anything of the new playing gets there.
                    await asyncio.to_thread(self._writer.flush)
                    taken = await self._take_back(found) if self._take_back is not None else []
                    self._crew.add(taken)
        if taken:
            own = self._row("running").campaign_id
            again = sum(row.campaign_id == own for row in found.dialogues)
            self._crew.progress.say(
                f"{again} dialogue{'s are' if again > 1 else ' is'} played again, by `descant retry-failed`"
            )
        return found.to_json() | {"taken_back": len(taken)}

    def _find(self, campaign: str | None, reasons: Sequence[str]) -> ToRetry:
        self._writer.flush()
        return failed_trials(self._writer.path, campaign=campaign, reasons=reasons)

    def _refuse_when_stopping(self) -> None:
        if self._crew.ledger.stop_reason is not None:
            raise RequestError(f"the campaign is stopping ({self._crew.ledger.stop_reason})")


def _socket_at(path: Path) -> socket.socket:
    """A socket at the path, for this user alone; one that a killed process left is replaced.

    Raises:
        OSError: there can be none.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file of that name")
        path.unlink()
    made = socket.socket(socket.AF_UNIX)
    try:
        with suppress(OSError):  # where a system has it: before there is a file, so that nobody gets in between
            os.fchmod(made.fileno(), 0o600)
        with address(path) as where:
            made.bind(where)
        path.chmod(0o600)
        made.listen(MOST_AT_ONCE)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
