"""The command line: quick help, and for each mistake one line, exit code 2 and nothing left behind.

Mistakes that are found without a model are tried as people make them, in another process and folder. Those that need
LiteLLM, which takes seconds to import, go through the same `main()` in this process.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

import descant as command_line
from store.database import query
from store.writer import Writer
from tests.processes import ROOT, Ended, descant
from tests.servers import scripted_server

HEAVY = ("torch", "transformers", "litellm", "langgraph", "duckdb", "vllm", "pydantic", "pyarrow", "rich")
SEED = '{"messages": [{"role": "user", "content": "hello"}]}\n'

Run = Callable[..., Ended]


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """`descant ...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["descant", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        out, err = capfd.readouterr()
        return Ended(arguments, int(ended.value.code or 0), out, err)

    return run


def assert_one_clear_line(ended: Ended, expected: str) -> None:
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if " starts: " not in line]  # which a slow start says before
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    assert expected in ended.stderr


def test_help_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        ended = descant("--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - began)
        assert ended.returncode == 0
    assert min(seconds) < 0.5
    assert "run " in ended.stdout
    assert ended.stderr == ""
    probe = f"import sys; sys.argv = ['descant', '--help']; sys.path.insert(0, {str(ROOT)!r})\n"
    probe += "import descant\ntry: descant.main()\nexcept SystemExit: pass\n"
    probe += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


def test_without_a_verb_the_help_is_shown(run_here: Run) -> None:
    for verbs in ([], ["serve"]):
        ended = run_here(*verbs)
        assert ended.returncode == 2
        assert ended.stderr.startswith("Usage: descant")
        assert len(ended.stderr.splitlines()) > 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("nonsense", "No such command 'nonsense'"),
        ("run", "Missing argument 'CONFIG'"),
        ("run music --nonsense", "No such option"),
        ("run music --limit 0", "--limit"),
        ("run no.yaml", "cannot read config 'no.yaml': No such file or directory"),
        ("run reharsal", "did you mean 'rehearsal'"),
        ("run rehearsal --set turn=3", "turn: unknown key; did you mean 'turns'?"),
        ("run rehearsal --set turns=many", "turns: input should be a valid integer"),
        ("run music", "no seeds: pass --seeds FILE"),
        ("run music --seeds no.jsonl", "no file 'no.jsonl' to read seeds from"),
        ("run music --seeds .", "cannot be read"),
        ("run rehearsal --set prompts.ask=no.md", "cannot read 'no.md' for prompt 'ask'"),
        ("run rehearsal --set prompts.aks=no.md", "unknown prompt 'aks'"),
        ("status --db no.duckdb", "there is no database"),
        ("serve rehearsal --api-key abc", "write `env:NAME`"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(run_here: Run, tmp_path: Path, arguments: str, expected: str) -> None:
    assert_one_clear_line(run_here(*arguments.split()), expected)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_one_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "text.duckdb").write_text("no database")
    ended = descant("status", "--db", "text.duckdb", cwd=tmp_path)
    assert_one_clear_line(ended, "cannot be opened as a database")
    assert (tmp_path / "text.duckdb").read_text() == "no database"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=nobody/x"], "unknown model provider in 'nobody/x'"),
        (["model=openai/gpt-4o"], "export OPENAI_API_KEY"),
        (["model=openai/x", "api_key=env:NOT_SET_ANYWHERE"], "export NOT_SET_ANYWHERE="),
        (["model=openai/x", "api_base=http://127.0.0.1:9/v1"], "nobody answers at 'http://127.0.0.1:9/v1'"),
        (["model=openai/x", "api_base=http://u:p@127.0.0.1/v1"], "an api_base with a user"),
        (["model=rehearsal/perfekt"], "the models are rehearsal/default"),
    ],
)
def test_a_model_that_cannot_work_is_one_line_and_leaves_nothing(
    run_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], expected: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = [part for override in overrides for part in ("--set", f"models.default.{override}")]
    assert_one_clear_line(run_here("run", "rehearsal", *settings), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "holds no seeds: it is empty"),
        ("\n\n", "holds no seeds: it is empty"),
        (SEED + "{broken\n" + SEED, "seeds.jsonl:2: not valid JSON"),
        (SEED + '{"messages": []}\n', "seeds.jsonl:2: "),
    ],
)
def test_a_broken_seed_file_is_one_line_and_leaves_nothing(
    run_here: Run, tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / "seeds.jsonl").write_text(text)
    assert_one_clear_line(run_here("run", "music", "--seeds", "seeds.jsonl"), expected)
    assert [path.name for path in tmp_path.iterdir()] == ["seeds.jsonl"]


def test_broken_seeds_can_be_skipped_and_are_counted(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(SEED + "{broken\n" + SEED)
    model = "models.default.model=rehearsal/default"
    ended = run_here(
        "run",
        "dialogue",
        "--seeds",
        "seeds.jsonl",
        "--skip-bad",
        "--set",
        "turns=1",
        "--set",
        model,
        "--quiet",
        "--json",
    )
    assert ended.returncode == 0, ended.stderr
    report = json.loads(ended.stdout)
    assert (report["seeds"], report["skipped_seeds"], report["done"]) == (2, 1, 2)
    assert "skipped seeds.jsonl:2: not valid JSON" in ended.stderr


def test_real_seeds_want_a_model_that_somebody_named(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "seeds.jsonl").write_text(SEED)
    assert_one_clear_line(run_here("run", "dialogue", "--seeds", "seeds.jsonl"), "no model for user, assistant")
    assert [path.name for path in tmp_path.iterdir()] == ["seeds.jsonl"]


REHEARSAL = ("run", "rehearsal", "--limit", "1")


def test_a_database_that_is_not_ours_is_refused_and_left_alone(run_here: Run, tmp_path: Path) -> None:
    other, text = tmp_path / "other.duckdb", tmp_path / "text.duckdb"
    with duckdb.connect(other) as connection:
        connection.execute("CREATE TABLE things (a INTEGER)")
    text.write_text("this is no database at all, but a text of some length\n" * 300)
    before = {path: path.read_bytes() for path in (other, text)}
    assert_one_clear_line(run_here(*REHEARSAL, "--db", "other.duckdb"), "not one of Descant's")
    assert_one_clear_line(run_here(*REHEARSAL, "--db", "text.duckdb"), "cannot be opened as a database")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_newer_schema_is_refused_and_left_alone(run_here: Run, tmp_path: Path) -> None:
    database = tmp_path / "newer.duckdb"
    with Writer(database):
        pass
    with duckdb.connect(database) as connection:
        connection.execute(
            "INSERT INTO descant_migrations SELECT * REPLACE (999 AS number) FROM descant_migrations LIMIT 1"
        )
    before = database.read_bytes()
    assert_one_clear_line(run_here(*REHEARSAL, "--db", "newer.duckdb"), "has schema version 999")
    assert database.read_bytes() == before
    assert list(tmp_path.iterdir()) == [database]


def test_a_place_that_cannot_be_written_is_refused(run_here: Run, tmp_path: Path) -> None:
    """Root may write anywhere, but not below a file, into /proc, or over a folder."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.duckdb").mkdir()
    for place in ("file/corpus.duckdb", "no/such/folder/corpus.duckdb", "/proc/corpus.duckdb", "folder.duckdb"):
        assert_one_clear_line(run_here(*REHEARSAL, "--db", place), "--db")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder.duckdb"]


def test_a_second_campaign_on_the_same_database_is_refused(run_here: Run, tmp_path: Path) -> None:
    with Writer(tmp_path / "corpus.duckdb"):
        assert_one_clear_line(run_here(*REHEARSAL), "is being written by process")
    assert query(tmp_path / "corpus.duckdb", "FROM campaigns") == []


def test_a_spent_budget_exits_with_1_and_says_why(run_here: Run) -> None:
    ended = run_here(*REHEARSAL, "--set", "budget.calls=3", "--quiet")
    assert ended.returncode == 1
    assert "stopped    the budget of 3 calls is spent" in ended.stdout
    assert ended.stderr == ""
    ended = run_here(*REHEARSAL, "--quiet")
    assert ended.returncode == 0
    assert "3 taken from the journal" in ended.stdout


def test_what_is_fatal_exits_with_1_and_one_line(run_here: Run) -> None:
    with scripted_server("not json") as server:
        address = server.url.replace("/v1", "/wrong")
        model = ("--set", "models.default.model=hosted_vllm/x", "--set", f"models.default.api_base={address}")
        ended = run_here(*REHEARSAL, *model, "--quiet")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "does not know 'hosted_vllm/x'" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_ctrl_c_exits_with_1_and_says_what_the_same_command_does(
    run_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("store.status.status_of", press)
    ended = run_here("status")
    assert ended.returncode == 1
    assert ended.stderr.lstrip() == "error: interrupted: the same command goes on or begins again\n"


def test_a_package_of_ours_that_is_hidden_is_told(tmp_path: Path) -> None:
    """As where `descant.py` lies in site-packages beside another package called `agents`."""
    home, other = tmp_path / "home", tmp_path / "other"
    for floor in command_line.FLOORS:
        folder = home / floor
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
    shutil.copy(ROOT / "descant.py", home / "descant.py")
    (other / "agents").mkdir(parents=True)
    (other / "agents" / "__init__.py").write_text("")
    probe = (
        f"import sys; sys.path[:0] = [{str(other)!r}, {str(home)!r}]\nimport descant\nprint(descant.check_packages())"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert f"the package 'agents' of Descant is hidden by another one at {other}" in found.stdout
    assert command_line.check_packages() is None
