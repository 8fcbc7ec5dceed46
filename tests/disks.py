"""Disks of their own for tests that fill one."""

import subprocess
from pathlib import Path


class SmallDisk:
    """A disk of its own in memory, that can be made larger."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def resize(self, kilobytes: int) -> None:
        options = f"{'remount,' if self.place.is_mount() else ''}size={kilobytes}k"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.place], check=True, capture_output=True)
