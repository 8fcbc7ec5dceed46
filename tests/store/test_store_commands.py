"""status, show, schema, sql and export, as people call them."""

import csv
import gc
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from ruamel.yaml import YAML

from configs.errors import DescantError
from store.commands import COMMANDS
from store.journal import Journal
from store.queries import preference_pairs
from store.segments import journal_folder
from store.sql import print_table, table_of, write_answer
from store.transcript import neutral, show
from store.writer import Writer
from tests.store.store_samples import NASTY, call, campaign, corpus, one_of_each, turn

BY_NAME = {command.name: command for command in COMMANDS}


def call_command(name: str, *arguments: str, db: Path) -> Result:
    return CliRunner().invoke(BY_NAME[name], [*arguments, "--db", str(db)])


def error_of(result: Result) -> str:
    assert isinstance(result.exception, DescantError), result.output
    return str(result.exception)


def test_importing_the_commands_loads_nothing_heavy() -> None:
    code = "import sys, store.commands; print({'duckdb', 'pyarrow', 'rich', 'pydantic', 'orjson'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_a_pair_is_shown_with_its_trunk_once_and_its_perturbation_marked(fill: Callable[..., Path]) -> None:
    db = fill(*corpus(1))
    (pair,) = preference_pairs(db)
    shown = call_command("show", pair.pair_id, db=db).output
    assert shown.count("Tell me about river 0.") == 1
    assert shown.index("shared") < shown.index("chosen answer one") < shown.index("rejected answer one")
    marked = "assistant  [PERTURBED: music_contrast, it landed (by rehearsal/judge)]\n  answered instead: And before?\n"
    assert marked + "  rejected answer two" in shown
    assert shown.count("PERTURBED") == 1
    assert "\x1b" not in shown


def test_a_dialogue_is_shown_with_what_its_gate_caught(fill: Callable[..., Path]) -> None:
    shown = call_command("show", "dlg_a", db=fill(*one_of_each())).output
    assert "caught     leak (asked_again), for turn 2: quotes" in shown


def test_every_kind_of_thing_is_shown(fill: Callable[..., Path]) -> None:
    db = fill(*one_of_each())
    for identity in (
        "dlg_a",
        "dlg_b",
        "camp_a",
        "seed_a",
        "call_a",
        "pert_a",
        "catch_a",
        "judg_a",
        "fit_a",
        "turn_00000002",
        "pair_a",
    ):
        result = call_command("show", identity, db=db)
        assert result.exit_code == 0, identity
        assert identity in result.output
        assert "\x00" not in result.output


def test_a_campaign_is_shown_by_its_name_with_its_config_as_a_config_file_has_it(fill: Callable[..., Path]) -> None:
    config = {
        "recipe": "music",
        "turns": 5,
        "models": {"default": {"model": "openai/x", "params": {}}},
        "kinds": ["a", "b"],
    }
    db = fill(campaign(config=config), campaign("camp_b", name="twice"), campaign("camp_c", name="twice"))
    shown = call_command("show", "first", db=db).output
    assert shown == call_command("show", "camp_a", db=db).output
    page = shown.partition("config:\n")[2].splitlines()
    assert all(line.startswith("  ") for line in page)
    assert YAML(typ="safe").load("\n".join(page)) == config
    assert [line.strip() for line in page][:2] == ["recipe: music", "turns: 5"]
    assert "several campaigns are called 'twice' (camp_b, camp_c)" in error_of(call_command("show", "twice", db=db))


def test_an_answer_of_more_columns_than_a_terminal_holds_is_shown_row_by_row(fill: Callable[..., Path]) -> None:
    said = "the endpoint said " + "no " * 40
    db = fill(campaign(), call("call_00000001", status="failed", error=said, finish_reason="server_error"))
    file = io.StringIO()
    print_table(table_of(db, "FROM errors"), Console(file=file, force_terminal=True, color_system=None, width=80))
    lines = file.getvalue().splitlines()
    assert lines[0] == "row 1"
    assert max(map(len, lines)) <= 80
    assert ["reason", "server_error"] in [line.split() for line in lines]
    assert said.replace(" ", "") in "".join(line[12:] for line in lines).replace(" ", "")
    narrow = io.StringIO()
    print_table(table_of(db, "SELECT id, reason FROM errors"), Console(file=narrow, force_terminal=True, width=80))
    assert "row 1" not in narrow.getvalue()
    pipe = io.StringIO()
    print_table(table_of(db, "FROM errors"), Console(file=pipe, width=80))
    assert "row 1" not in pipe.getvalue()


def test_a_terminal_gets_colours_and_a_pipe_gets_none(fill: Callable[..., Path]) -> None:
    db = fill(*one_of_each())
    screen, pipe = io.StringIO(), io.StringIO()
    show(db, "dlg_a", Console(file=screen, force_terminal=True, color_system="standard", width=60, highlight=False))
    show(db, "dlg_a", Console(file=pipe, highlight=False))
    assert "\x1b[" in screen.getvalue()
    assert "\x1b" not in pipe.getvalue()


def test_control_characters_of_a_model_drive_no_terminal(fill: Callable[..., Path]) -> None:
    evil = "red \x1b[31m bell \x07 title \x1b]0;x\x07 back \x08 c1 \x9b2J carriage \r flip \u202e [bold]x[/bold]\r\nend"
    shown = call_command("show", "seed_", db=fill(*corpus(1), turn(5, content=evil))).output
    assert shown
    text = call_command("show", "turn_00000005", db=fill(turn(5, content=evil))).output
    assert not set("\x1b\x07\x08\x9b\r\u202e") & set(text)
    assert r"red \x1b[31m bell \x07" in text
    assert "[bold]x[/bold]\n  end" in text
    assert neutral("tab\tand\nline") == "tab\tand\nline"


def test_status_counts_seeds_dialogues_calls_and_cost(fill: Callable[..., Path]) -> None:
    db = fill(
        *corpus(3), campaign(n_seeds=5, status="done"), call("call_1"), call("call_2", agent="judge", cost_usd=None)
    )
    found = orjson.loads(call_command("status", "--json", db=db).output)
    (row,) = found["campaigns"]
    assert (row["seeds_done"], row["seeds_failed"], row["seeds_total"]) == (3, 0, 5)
    assert (row["dialogues_done"], row["pairs"], row["status"]) == (6, 3, "done")
    assert {usage["agent"]: usage["cost_usd"] for usage in row["usage"]} == {"user": 0.25, "judge": None}
    assert (found["pending_rows"], found["writer_pid"]) == (0, None)
    text = call_command("status", db=db).output
    assert "seeds: 3 done, 0 failed, 5 in all" in text
    assert "unknown" in text


def test_status_says_what_waits_in_the_journal_and_that_a_run_was_cut_off(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(campaign(status="running"))
        writer.flush()
        assert orjson.loads(call_command("status", "--json", db=db).output)["campaigns"][0]["status"] == "running"
    with Journal(journal_folder(db)) as journal:
        journal.append(turn(1), turn(2))
    assert "2 rows wait in the journal (the next run takes them in)" in call_command("status", db=db).output
    assert orjson.loads(call_command("status", "--json", db=db).output)["campaigns"][0]["status"] == "interrupted"


def test_status_of_an_empty_corpus_says_how_to_begin(fill: Callable[..., Path]) -> None:
    assert "descant run" in call_command("status", db=fill()).output


def test_schema_explains_every_table_or_the_one_that_is_named(fill: Callable[..., Path]) -> None:
    db = fill()
    everything = call_command("schema", db=db).output
    assert "preference_pairs  (view)  One row a preference pair" in everything
    assert "turn_ids  VARCHAR[]  The path, from the first turn to the last." in everything
    one = orjson.loads(call_command("schema", "pairs", "--json", db=db).output)
    assert [relation["name"] for relation in one] == ["pairs"]
    assert "there is no table or view 'nope'" in error_of(call_command("schema", "nope", db=db))


ASKED = "SELECT turn_id, role, content, perturbation_id FROM turns ORDER BY 1"


def test_sql_answers_as_json_csv_and_parquet(fill: Callable[..., Path], tmp_path: Path) -> None:
    db = fill(*one_of_each())
    expected = [("turn_00000001", "user", "turn number 1", None), ("turn_00000002", "assistant", NASTY, "pert_a")]
    as_json = orjson.loads(call_command("sql", ASKED, "--format", "json", db=db).output)
    assert [tuple(row.values()) for row in as_json] == expected
    out = tmp_path / "answer.csv"
    call_command("sql", ASKED, "--format", "csv", "--out", str(out), db=db)
    with out.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["turn_id", "role", "content", "perturbation_id"],
        *([value or "" for value in row] for row in expected),
    ]
    parquet = call_command("sql", ASKED, "--format", "parquet", db=db).stdout_bytes
    assert [tuple(row.values()) for row in pq.read_table(io.BytesIO(parquet)).to_pylist()] == expected


def test_sql_json_keeps_nested_values_nested(fill: Callable[..., Path]) -> None:
    db = fill(*one_of_each())
    query = "SELECT config, messages, 170141183460469231731687303715884105727 AS big FROM campaigns, seeds WHERE campaign_id = 'camp_a' AND seed_id = 'seed_b'"
    (row,) = orjson.loads(
        call_command("sql", query, "--format", "json", db=db).output.replace(
            "170141183460469231731687303715884105727", "0"
        )
    )
    assert row["config"]["models"]["default"]["model"] == "rehearsal/default"
    assert row["messages"] == [{"role": "user", "content": NASTY}]


def test_a_table_is_one_line_a_row_and_says_when_there_are_more(fill: Callable[..., Path]) -> None:
    db = fill(*(turn(number, content=NASTY) for number in range(300)))
    result = call_command("sql", ASKED, db=db)
    assert sum(line.lstrip().startswith("turn_0") for line in result.stdout.splitlines()) == 200
    assert "the first 200 rows" in result.stderr


GUARDED = {
    "DELETE FROM turns": "not DELETE",
    "CREATE TEMP TABLE x AS SELECT 1": "not CREATE",
    "ATTACH ':memory:' AS x": "not ATTACH",
    "COPY turns TO 'out.csv'": "not COPY",
    "SET enable_external_access = true": "not SET",
    "INSTALL httpfs": "not LOAD",
    "CALL pragma_version()": "not CALL",
    "SELECT 1; DROP TABLE turns": "2 statements",
    "": "0 statements",
    "SELECT * FROM read_text('/etc/passwd')": "Permission Error",
    "SELECT * FROM '/etc/passwd.csv'": "Permission Error",
    "SELECT * FROM glob('/etc/*')": "Permission Error",
    "SELEC 1": "Parser Error",
    "SELECT * FROM trns": 'Did you mean "turns"',
    "SELECT 'a'::INTEGER": "Conversion Error",
}


@pytest.mark.parametrize("sql", list(GUARDED))
@pytest.mark.parametrize("format", ["table", "json"])
def test_sql_only_reads_and_says_what_is_wrong_in_one_line(format: str, sql: str, fill: Callable[..., Path]) -> None:
    db = fill(turn(1))
    before = db.read_bytes()
    message = error_of(call_command("sql", sql, "--format", format, db=db))
    assert GUARDED[sql] in message
    assert "\n" not in message
    assert db.read_bytes() == before


def test_a_failing_query_leaves_no_file(fill: Callable[..., Path], tmp_path: Path) -> None:
    db = fill(turn(1))
    error_of(
        call_command(
            "sql", "SELECT content::INTEGER FROM turns", "--format", "csv", "--out", str(tmp_path / "x.csv"), db=db
        )
    )
    assert [path.name for path in tmp_path.iterdir()] == [db.name]


def test_a_csv_whose_reader_went_away_leaves_the_sink_open(fill: Callable[..., Path]) -> None:
    """As with `| head`: it may be stdout, which is still used after that."""

    class Gone(io.BytesIO):
        def write(self, _: object) -> int:
            raise BrokenPipeError

    sink = Gone()
    with pytest.raises(BrokenPipeError):
        write_answer(str(fill(turn(1))), "SELECT content FROM turns", "csv", None, sink)
    gc.collect()
    assert not sink.closed


def test_export_writes_pairs_and_says_how_many(fill: Callable[..., Path], tmp_path: Path) -> None:
    db = fill(*corpus(2))
    result = call_command("export", str(tmp_path / "pairs.jsonl"), "--format", "skywork", db=db)
    assert "2 pairs written" in result.stderr
    assert len((tmp_path / "pairs.jsonl").read_bytes().splitlines()) == 2


def test_a_missing_database_is_one_line(tmp_path: Path) -> None:
    for name, arguments in {"status": (), "show": ("dlg",), "schema": (), "sql": ("SELECT 1",)}.items():
        assert "there is no database" in error_of(call_command(name, *arguments, db=tmp_path / "none.duckdb"))
    assert list(tmp_path.iterdir()) == []


def test_a_table_in_a_pipe_has_no_blanks_to_trim(fill: Callable[..., Path]) -> None:
    lines = call_command("sql", ASKED, db=fill(turn(1), turn(2, content="more"))).stdout.split("\n")
    assert lines[0].split() == ["turn_id", "role", "content", "perturbation_id"]
    assert lines[-2:] == ["turn_00000002   user   more", ""]
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.parquet", "a.txt", "A.CSV"])
def test_a_files_suffix_says_how_an_answer_is_written(name: str, fill: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / name
    result = call_command("sql", ASKED, "--out", str(out), db=fill(turn(1)))
    assert result.exit_code == 0, result.exception
    starts = {".csv": b"turn_id,role", ".json": b"[", ".parquet": b"PAR1", ".txt": b"turn_id    "}
    assert out.read_bytes().startswith(starts[out.suffix.lower()])


def test_a_suffix_that_says_nothing_or_something_else_is_refused(fill: Callable[..., Path], tmp_path: Path) -> None:
    db = fill(turn(1))
    assert ".csv, .json, .parquet, .txt" in error_of(
        call_command("sql", ASKED, "--out", str(tmp_path / "a.tsv"), db=db)
    )
    asked = ("--out", str(tmp_path / "a.csv"), "--format", "parquet")
    assert "ends like csv, and --format is parquet" in error_of(call_command("sql", ASKED, *asked, db=db))
    assert [path.name for path in tmp_path.iterdir()] == [db.name]
    assert call_command("sql", ASKED, "--out", str(tmp_path / "a.tsv"), "--format", "csv", db=db).exit_code == 0


def test_a_folder_names_the_corpus_in_it(fill: Callable[..., Path], tmp_path: Path) -> None:
    fill(turn(1))
    message = error_of(call_command("status", db=tmp_path))
    assert f"is a folder: did you mean --db {tmp_path / 'corpus.duckdb'}?" in message
    (tmp_path / "empty").mkdir()
    assert "is a folder: name a file in it" in error_of(call_command("status", db=tmp_path / "empty"))


@pytest.mark.parametrize("name", ["seeds.jsonl", "a.csv", "a.parquet", "a.duckdb"])
def test_a_file_that_is_no_database_is_said_to_be_none(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text('{"messages": []}\n')
    assert f"{name}' cannot be opened as a database: it is no DuckDB database" in error_of(
        call_command("status", db=tmp_path / name)
    )
