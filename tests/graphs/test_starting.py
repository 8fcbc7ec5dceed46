"""A slow start says so, a quick one does not."""

import time

import click
import pytest
from click.testing import CliRunner

from graphs import starting as module
from graphs.starting import sayer, starting
from tests.processes import wait_until


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)


def said(seconds: float, *, quiet: bool = False) -> str:
    @click.command()
    def command() -> None:
        started = starting("my.yaml", quiet=quiet)
        time.sleep(seconds)
        sayer(quiet, started)("it goes on")

    return CliRunner().invoke(command).stderr


def test_a_slow_start_is_told_once_and_before_all_else() -> None:
    lines = said(0.3).splitlines()
    assert lines == ["my.yaml starts: seeds, models and the corpus are looked at", "it goes on"]


def test_a_quick_start_and_a_quiet_one_are_not() -> None:
    assert said(0.0) == "it goes on\n"
    assert said(0.2, quiet=True) == ""


def test_a_terminal_s_line_is_taken_back(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    line = module.Starting("it starts")
    shown = ""

    def appears() -> bool:
        nonlocal shown
        shown += capsys.readouterr().err
        return shown == "it starts"

    wait_until(appears)
    line.over()
    line.over()
    assert capsys.readouterr().err == module.ERASED
