"""What holds for all tests: no network but this machine's own, nothing fetched, and `gpu` and `live` only when asked for."""

import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.disks import SmallDisk

# Before anything imports litellm, huggingface_hub or torch; child processes inherit it.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models train faster with one thread than with two
# Else each of the processes that tests start compiles all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

ASKED_FOR = ("gpu", "live")


class NetworkForbidden(RuntimeError):
    """Raised where a test would leave this machine; not an OSError, so that nobody retries it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for marker in ASKED_FOR:
        if marker in config.getoption("markexpr"):
            continue
        for item in items:
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"asked for with -m {marker}"))


def _stay_here(host: object) -> None:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost"):
        return
    try:
        if ipaddress.ip_address(str(host)).is_loopback or str(host) in ("0.0.0.0", "::"):
            return
    except ValueError:
        pass
    raise NetworkForbidden(f"a test asked for {host!r}: tests reach loopback addresses only, unless marked `live`")


def _guarded(connect: Callable[[socket.socket, Any], Any]) -> Callable[[socket.socket, Any], Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _stay_here(address[0])
        return connect(self, address)

    return guarded


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are not looked up and connections not made beyond loopback, in this process."""
    if request.node.get_closest_marker("live"):
        return
    look_up = socket.getaddrinfo

    def guarded_look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):  # reserved for names that nobody has: known without asking
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        _stay_here(host)
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", guarded_look_up)
    monkeypatch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A small disk, where this process may mount one."""
    disk = SmallDisk(tmp_path / "disk")
    disk.place.mkdir()
    try:
        disk.resize(3_000)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this process may not mount a disk")
    yield disk
    subprocess.run(["umount", "-l", disk.place], check=True)
