"""Commands as a reader would type them: shown, run, and what they printed; machine-bound paths and addresses left out."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HOME = Path(__file__).parent.parent


class Shown:
    """Runs `descant` and prints each command with its output.

    Args:
        hidden: what is replaced in all that is printed, such as a temporary folder by `.`.
    """

    def __init__(self, hidden: Mapping[str, str]) -> None:
        self._hidden = hidden

    def run(self, *words: str, sets: Sequence[str] = (), progress: bool = False) -> None:
        """One command; `progress`: it has some, which is left out. Exits where the command does not end well."""
        changes = [part for change in sets for part in ("--set", change)]
        print(
            f"$ descant {self._plain(' '.join([*map(quoted, words), *(f'--set {quoted(c)}' for c in sets)]))}",
            flush=True,
        )
        command = [sys.executable, "-m", "descant", *words, *changes, *(["--quiet"] if progress else [])]
        done = subprocess.run(command, cwd=HOME, stdout=subprocess.PIPE, text=True, check=False)
        print(self._plain(done.stdout), flush=True)
        if done.returncode:
            sys.exit(f"descant {words[0]} ended with {done.returncode}")

    def _plain(self, text: str) -> str:
        for place, shown in self._hidden.items():
            text = text.replace(place, shown)
        return text


def quoted(word: str) -> str:
    """For a shell."""
    return f"'{word}'" if set(word) & set(" {}[]()*?;&|<>") else word
