"""Asking a campaign over its socket: where it lies, who answers, and what is said where nobody does."""

import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from store.control import (
    LONGEST_ADDRESS,
    NoAnswerError,
    NobodyListensError,
    RefusedError,
    address,
    ask,
    socket_path,
    tell,
)
from store.database import StoreError
from store.records import Record
from store.status import print_status, status_of
from store.writer import LockedError, Writer
from tests.store.store_samples import campaign

Answer = Callable[[bytes], bytes]


@contextmanager
def listening(database: Path, answer: Answer) -> Iterator[list[bytes]]:
    """Somebody who takes one connection, reads one line, and sends what `answer` makes of it."""
    heard: list[bytes] = []
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        with address(socket_path(database)) as where:
            listener.bind(where)
        listener.listen()

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                heard.append(link.recv(1 << 16))
                link.sendall(answer(heard[0]))
                if not answer(heard[0]):
                    done.wait(10)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield heard
        done.set()
        thread.join(10)


def test_one_line_is_asked_and_one_answered(db: Path) -> None:
    with listening(db, lambda _: b'{"state": "running"}\n') as heard:
        assert ask(db, {"ask": "status"}) == {"state": "running"}
    assert json.loads(heard[0]) == {"ask": "status"}
    assert heard[0].endswith(b"\n")


def test_nobody_listens_where_there_is_no_socket_or_only_one_that_was_left_behind(db: Path) -> None:
    assert ask(db, {"ask": "status"}) is None
    with listening(db, lambda _: b"{}\n"):
        ask(db, {"ask": "status"})
    assert socket_path(db).exists()
    assert ask(db, {"ask": "status"}) is None
    socket_path(db).unlink()
    socket_path(db).write_text("no socket at all")
    assert ask(db, {"ask": "status"}) is None


def test_a_database_in_a_deep_folder_can_be_asked(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    database = deep / "corpus.duckdb"
    assert len(str(socket_path(database))) > LONGEST_ADDRESS + 90
    with listening(database, lambda _: b'{"deep": true}\n'):
        assert ask(database, {}) == {"deep": True}


@pytest.mark.parametrize("folder", ["", "d" * 150])
def test_a_database_of_a_long_name_can_be_asked(tmp_path: Path, folder: str) -> None:
    database = tmp_path / folder / ("n" * 200 + ".duckdb")
    database.parent.mkdir(exist_ok=True)
    with listening(database, lambda _: b'{"long": true}\n'):
        assert ask(database, {}) == {"long": True}
    assert socket_path(database) != socket_path(database.with_name("m" * 200 + ".duckdb"))


def test_a_link_to_a_database_asks_the_same_campaign(db: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.duckdb"
    link.symlink_to(db)
    with listening(db, lambda _: b'{"same": 1}\n'):
        assert ask(link, {}) == {"same": 1}


def test_a_campaign_that_says_nothing_is_not_waited_for(db: Path) -> None:
    with listening(db, lambda _: b""), pytest.raises(NoAnswerError, match=r"did not answer within 0\.1 s"):
        ask(db, {}, timeout_seconds=0.1)


def test_status_shows_what_is_stored_where_a_campaign_is_too_busy_to_answer(
    fill: Callable[[Record], Path], db: Path
) -> None:
    fill(campaign())
    started = time.monotonic()
    with listening(db, lambda _: b""):
        found = status_of(db)
    assert time.monotonic() - started < 2.0
    assert (found["live"], [row["name"] for row in found["campaigns"]]) == (None, ["first"])
    page = io.StringIO()
    print_status(found, Console(file=page, width=80))
    assert "now: the campaign did not answer within 1 s: it is busy; try again" in page.getvalue()


def test_status_shows_the_budget_and_each_endpoints_limiter(fill: Callable[[Record], Path], db: Path) -> None:
    fill(campaign(status="paused"))
    limiter: dict[str, Any] = {
        "model": "openai/big",
        "api_base": None,
        "limit": 17,
        "in_flight": 16,
        "most_in_flight": 40,
        "waiting": 9,
    }
    limiter |= {"times_limited": 3, "held_seconds": 1.5, "rpm": 600.0, "tpm": None}
    spent: dict[str, Any] = {
        "calls": 1234,
        "calls_cap": 5000,
        "tokens": 9,
        "tokens_cap": None,
        "usd": 0.5,
        "usd_cap": 2.0,
    }
    budget = [spent | {"role": None}, spent | {"role": "judge", "usd_cap": None, "calls_cap": None, "tokens_cap": 10}]
    live: dict[str, Any] = {
        "campaign_id": "camp_a",
        "name": "first",
        "state": "waiting",
        "trouble": "the disk is full",
        "unit": "dialogues",
        "total": 2400,
        "done": 1234,
        "failed": 56,
        "open": 16,
        "concurrency": 32,
    }
    live |= {"calls_in_flight": 16, "calls_a_second": 7.25, "budget": budget, "limiters": [limiter]}
    with listening(db, lambda _: json.dumps(live).encode() + b"\n"):
        found = status_of(db, campaign="first")
    assert found["live"] == live
    page = io.StringIO()
    print_status(found, Console(file=page, width=80))
    lines = page.getvalue().splitlines()
    assert lines[0] == "now: first is waiting (the disk is full)"
    assert "  dialogues: 1,234 of 2,400 done, 56 failed, 16 open, at most 32 at once" in lines
    assert "  calls: 16 in flight, 7.2/s" in lines
    assert "  budget: $0.5000 of $2 · 1,234 of 5,000 calls" in lines
    assert "  budget of the judge: 9 of 10 tokens" in lines
    (row,) = [line.split() for line in lines if line.startswith("openai/big")]
    assert row == ["openai/big", "16", "17", "9", "3", "1.5", "600", "calls"]
    assert max(map(len, lines)) <= 80


def test_who_asks_for_another_campaign_is_not_told_of_the_one_that_runs(fill: Callable[..., Path], db: Path) -> None:
    fill(campaign(), campaign("camp_b", name="second"))
    with listening(db, lambda _: b'{"campaign_id": "camp_a", "name": "first"}\n'):
        found = status_of(db, campaign="camp_b")
    assert (found["live"], [row["name"] for row in found["campaigns"]]) == (None, ["second"])
    with pytest.raises(StoreError, match="there is no campaign 'third'"):
        status_of(db, campaign="third")


def test_a_writer_that_meets_a_running_campaign_says_at_once_how_to_steer_it(db: Path) -> None:
    with Writer(db), listening(db, lambda _: b'{"name": "first"}\n'):
        started = time.monotonic()
        with pytest.raises(LockedError, match=r"runs the campaign 'first'; `descant status` .*`descant concurrency N`"):
            Writer(db, patience_seconds=30.0)
    assert time.monotonic() - started < 5.0


def test_a_writer_waits_for_another_one_that_is_soon_done(db: Path) -> None:
    first = Writer(db)
    closing = threading.Timer(0.3, first.close)
    closing.start()
    with Writer(db, patience_seconds=30.0):
        assert closing.finished.is_set()
    closing.join()


def test_a_writer_that_has_waited_in_vain_says_who_writes(db: Path) -> None:
    with Writer(db), pytest.raises(LockedError, match=f"by process {os.getpid()}: wait for it to end"):
        Writer(db, patience_seconds=0.1)


def test_a_campaign_that_ends_in_the_middle_listens_no_more(db: Path) -> None:
    with listening(db, lambda _: b'{"half":'):
        assert ask(db, {}) is None


@pytest.mark.parametrize("said", [b"not JSON\n", b"[1]\n", b"\xff\xfe\n"])
def test_an_answer_in_other_words_is_told(db: Path, said: bytes) -> None:
    with listening(db, lambda _: said), pytest.raises(NoAnswerError, match="cannot be read"):
        ask(db, {})


def test_a_refusal_is_raised_with_its_reason(db: Path) -> None:
    with listening(db, lambda _: b'{"error": "it is stopping"}\n'), pytest.raises(RefusedError, match="it is stopping"):
        ask(db, {})


def test_where_no_campaign_runs_one_is_told_what_to_do(fill: Callable[[Record], Path], db: Path) -> None:
    with pytest.raises(StoreError, match="there is no database"):
        tell(db, {}, instead="begin one")
    fill(campaign())
    with pytest.raises(NobodyListensError, match=r"no campaign is running on .*: begin one") as raised:
        tell(db, {}, instead="begin one")
    assert raised.value.exit_code == 2
    with Writer(db), pytest.raises(NobodyListensError, match="does not listen"):
        tell(db, {}, instead="begin one")
