"""A key appears nowhere: not in the journal, the database, on a screen, or in an error, though a server echoes it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

import descant as command_line
from agents.secrets import KeyMissingError, Redactor, read_key
from store.database import query
from store.records import RECORDS
from store.writer import Writer
from tests.processes import start_descant, wait_until
from tests.servers import Asked, LocalServer, failure, scripted_server

KEY = "planted key with spaces/and=signs"
HEADER = "planted-header-value"
ENVIRONMENT = {"OUR_KEY": KEY, "OUR_HEADER": HEADER}


class Never(Response):
    """Does not answer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        await asyncio.sleep(60)


def echo(asked: Asked) -> str | Response:
    """By turns: the keys in a text, in an error that passes, in one that fails the dialogue; then silence."""
    told = f"you sent {asked.headers['authorization']} and {asked.headers['x-team']}"
    step = asked.body["seed"] % 4
    if step == 0:
        return failure(400, told)
    return failure(500, told) if step == 1 else told


def campaign(folder: Path, server: LocalServer) -> list[str]:
    config = {
        "recipe": "dialogue",
        "turns": 3,
        "concurrency": 2,
        "seeds": {"format": "rehearsal", "limit": 30},
        "models": {
            "default": {
                "model": "hosted_vllm/x",
                "api_base": server.url,
                "api_key": "env:OUR_KEY",
                "headers": {"X-Team": "env:OUR_HEADER"},
                "attempts": 1,
            }
        },
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    return ["run", "config.yaml"]


def everything_in(database: Path) -> str:
    return "\n".join(str(row) for table in RECORDS for row in query(database, f"SELECT * FROM {table}"))


def test_keys_that_a_server_echoes_are_kept_nowhere(tmp_path: Path) -> None:
    with scripted_server(*[echo] * 40, lambda _: Never()) as server:
        process = start_descant(*campaign(tmp_path, server), cwd=tmp_path, environment=ENVIRONMENT)
        wait_until(lambda: len(server.requests) > 41)
        process.send_signal(signal.SIGKILL)  # so that the journal stays
        out, err = process.communicate()
    asked = server.requests[0].headers
    assert (asked["authorization"], asked["x-team"]) == (f"Bearer {KEY}", HEADER)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("journal" in str(path) for path in files)
    kept = b"".join(path.read_bytes() for path in files) + out.encode() + err.encode()
    with Writer(tmp_path / "corpus.duckdb"):
        pass
    rows = everything_in(tmp_path / "corpus.duckdb")
    for secret in (KEY, HEADER):
        assert secret.encode() not in kept
        assert secret not in rows
    assert "you sent Bearer [redacted] and [redacted]" in rows
    assert {row["status"] for row in query(tmp_path / "corpus.duckdb", "SELECT status FROM calls")} >= {
        "done",
        "failed",
    }
    assert "env:OUR_KEY" in rows  # the name may be known


def test_a_key_in_a_fatal_error_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    with scripted_server(lambda asked: failure(401, f"wrong: {asked.headers['authorization']}")) as server:
        monkeypatch.setattr(sys, "argv", ["descant", *campaign(tmp_path, server), "--quiet"])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
    out, err = capfd.readouterr()
    assert ended.value.code == 1
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "wrong: Bearer [redacted]" in err
    assert KEY not in out + err + everything_in(tmp_path / "corpus.duckdb")


def test_what_looks_like_a_key_is_hidden_and_ordinary_words_are_not() -> None:
    redact = Redactor(["env:SHORT"], {"SHORT": "x-1", "MY_API_KEY": "a-long-enough-value", "PASSWORD": "test"})
    assert redact("x-1, a-long-enough-value, test") == "[redacted], [redacted], test"
    for key in ("sk-proj-Ab12Cd34Ef56Gh78", "hf_AbCdEfGh1234567890", "AIzaSyA1234567890abcdefg"):
        assert redact(f"key {key}.") == "key [redacted]."
    assert redact("Authorization: Bearer eyJhbGciOi.J9") == "Authorization: Bearer [redacted]"
    for words in ("hf_hub_download_file", "pk_customer_orders", "sk-learn-is-a-library", "Bearer certificates"):
        assert redact(words) == words


@pytest.mark.parametrize(
    "prefix",
    ["sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "gsk-", "gsk_", "hf-", "hf_", "xai-", "xai_", "AIza", "Bearer "],
)
def test_every_kind_of_key_is_hidden_where_nothing_else_looks_like_one(prefix: str) -> None:
    shown = f"{prefix}0123456789abcdef"
    hidden = Redactor([], {})(f"your {shown}, sir")
    assert hidden in ("your [redacted], sir", "your Bearer [redacted], sir")


def test_a_key_that_is_missing_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "EMPTY_KEY", "")
    with pytest.raises(KeyMissingError, match="EMPTY_KEY is not set or empty"):
        read_key("env:EMPTY_KEY")
    monkeypatch.setitem(os.environ, "FILE_KEY", "abc\n")
    with pytest.raises(KeyMissingError, match="FILE_KEY holds a line break"):
        read_key("env:FILE_KEY")
