"""Real database files in the test's own folder, and Python processes beside ours."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.records import Record
from store.writer import Writer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "corpus.duckdb"


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder in which nobody can make a file, not even root."""
    if os.geteuid() == 0:
        return Path("/proc/sys/fs")
    tmp_path.chmod(0o500)
    return tmp_path


@pytest.fixture
def file_limit() -> Iterator[Callable[[int | None], None]]:
    """Sets how large a file this process may make, which fails as a full disk does: a short write, then an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before if size is None else (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def fill(db: Path) -> Callable[..., Path]:
    """Writes records to the database."""

    def write(*records: Record) -> Path:
        with Writer(db) as writer:
            writer.append(*records)
        return db

    return write


@pytest.fixture
def beside() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `python -c CODE ARGS...` with our packages; what still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
