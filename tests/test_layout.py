"""The floors: who may import whom, what is imported late, and that the packages lie side by side."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

BENEATH: dict[str, set[str]] = {
    "configs": set(),
    "store": {"configs"},
    "agents": {"configs", "store"},
    "train": {"configs", "store"},
    "graphs": {"configs", "store", "agents"},
    "lab": {"configs", "store", "agents", "train", "graphs"},
}
"""What each floor may import, itself apart. `agents` and `train` lie side by side and meet in `lab` alone."""

OTHERS_OF_OURS = {"descant", "tests", "benchmarks"}
"""What no floor may import."""

HEAVY = {"duckdb", "langgraph", "litellm", "sklearn", "torch", "transformers", "vllm"}
"""What `descant --help` cannot wait for."""

FILES = [file for floor in BENEATH for file in sorted((ROOT / floor).rglob("*.py"))]
LOADED_BY_HELP = [ROOT / "descant.py", *ROOT.glob("*/commands.py"), *(ROOT / "configs").glob("*.py")]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports_of(node: ast.AST, *, with_functions: bool) -> Iterator[str]:
    """The top package of every import below `node`; `with_functions=False` leaves out what loads only when called."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.module is not None, "imports name their package: no `from . import`"
            yield child.module.partition(".")[0]
        elif with_functions or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imports_of(child, with_functions=with_functions)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_floor_imports_only_the_floors_beneath_it(file: Path) -> None:
    floor = file.relative_to(ROOT).parts[0]
    imported = set(imports_of(ast.parse(file.read_text(encoding="utf-8")), with_functions=True))
    assert imported & (BENEATH.keys() | OTHERS_OF_OURS) <= BENEATH[floor] | {floor}


@pytest.mark.parametrize("file", LOADED_BY_HELP, ids=name_of)
def test_what_help_loads_imports_nothing_heavy_at_its_top(file: Path) -> None:
    imported = set(imports_of(ast.parse(file.read_text(encoding="utf-8")), with_functions=False))
    assert not imported & HEAVY


def test_help_loads_nothing_heavy_on_the_way() -> None:
    code = f"import sys, descant; descant.build(); print(sorted({HEAVY} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == "[]"


def test_the_packages_share_a_parent_with_the_command_line() -> None:
    specs = [importlib.util.find_spec(name) for name in (*BENEATH, "descant")]
    origins = [Path(spec.origin) for spec in specs if spec and spec.origin]
    assert len(origins) == len(specs), "a package is not found"
    *packages, command_line = origins
    assert {package.parent.parent for package in packages} == {command_line.parent}
