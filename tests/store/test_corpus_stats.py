"""Parrot's table: of a tiny campaign whose figures are worked out by hand, of the same conversations as a file, imported."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from configs.errors import DescantError
from store.commands import COMMANDS
from store.corpus_stats import stats_of_campaigns, stats_of_file
from store.database import StoreError, query
from store.importing import ImportReport, import_file
from store.measure import measure
from store.records import Dialogue, DialogueStats, Message
from store.status import status_of
from store.writer import Writer
from tests.scripted import said
from tests.store.store_samples import campaign

BY_NAME = {command.name: command for command in COMMANDS}

FIRST = [
    # 2 answers; words: 4 + 3 + 4 + 2 = 13
    said("user", "What is the colour?"),
    said("assistant", "It is red."),
    said("user", "And what about size?"),  # begins with `And`: depends
    said("assistant", "Quite big."),
]
# Self-ROUGE: `what is the colour` and `and what about size` have `what` in common: 2 * 1 / (4 + 4) = 0.25
SECOND = [
    # 2 answers; words: 2 + 1 + 1 + 2 + 3 = 9
    said("user", "Tell me."),  # no answer before it: never dependent
    said("assistant", "What?"),
    said("user", "Why?"),  # nothing of its own: depends
    said("assistant", "Because so."),
    said("user", "Why is that?"),  # depends, and has no answer
]
# pairs: (tell me, why) 0; (tell me, why is that) 0; (why, why is that) 2 * 1 / (1 + 3) = 0.5: the mean is 1/6
THIRD = [
    said("user", "Hello there, friend."),
    said("assistant", "Hello."),
]  # 1 answer, 4 words, one query: no Self-ROUGE
SESSIONS = [FIRST, SECOND, THIRD]
EXPECTED = {
    "sessions": 3,
    "turns": 1.67,  # (2 + 2 + 1) / 3
    "words": 8.7,  # (13 + 9 + 4) / 3
    "context_dependent_turns": 1.0,  # (1 + 2 + 0) / 3
    "self_rouge": 20.83,  # (25 + 16.67) / 2: the third has none
}


def sharegpt(path: Path, sessions: list[list[Message]] = SESSIONS, *extra: str) -> Path:
    names = {"user": "human", "assistant": "gpt"}
    lines = [
        json.dumps({"id": place, "conversations": [{"from": names[m.role], "value": m.content} for m in session]})
        for place, session in enumerate(sessions)
    ]
    path.write_text("\n".join([*lines, *extra]) + "\n")
    return path


def run(name: str, *arguments: str, obj: dict[str, object] | None = None) -> Result:
    return CliRunner().invoke(BY_NAME[name], arguments, obj=obj)


def test_a_session_is_measured_as_worked_out_by_hand() -> None:
    first, second = measure(FIRST), measure(SECOND)
    assert first[:3] == (2, 13, 1)
    assert first.self_rouge == pytest.approx(25.0)
    assert second[:3] == (2, 9, 2)
    assert second.self_rouge == pytest.approx(100 / 6)
    assert measure(THIRD) == (1, 4, 0, None)


def test_the_table_of_a_file_is_as_worked_out_by_hand(tmp_path: Path) -> None:
    found = stats_of_file(str(sharegpt(tmp_path / "chats.jsonl")))._asdict()
    assert {key: found[key] for key in EXPECTED} == EXPECTED
    assert (found["name"], found["source"], found["tokens"]) == ("chats.jsonl", "file", None)


def test_the_table_of_an_imported_set_is_that_of_its_file(db: Path, tmp_path: Path) -> None:
    import_file(str(sharegpt(tmp_path / "chats.jsonl")), db)
    (found,) = stats_of_campaigns(db)
    assert {key: found._asdict()[key] for key in EXPECTED} == EXPECTED
    assert (found.name, found.recipe, found.tokens) == ("chats", "import", None)


def test_tokens_are_those_of_the_counter_that_is_given(db: Path, tmp_path: Path) -> None:
    def count(messages: object) -> int:
        assert isinstance(messages, tuple)
        return 10 * len(messages)

    file = str(sharegpt(tmp_path / "chats.jsonl"))
    assert stats_of_file(file, count_tokens=count).tokens == 36.7  # (40 + 50 + 20) / 3
    import_file(file, db, count_tokens=count)
    (found,) = stats_of_campaigns(db)
    assert found.tokens == 36.7


def dialogue(number: int, branch: str, status: str = "done", n_turns: int = 2) -> Dialogue:
    return Dialogue.model_validate(
        {
            "dialogue_id": f"dlg_{number}",
            "campaign_id": "camp_a",
            "seed_id": "seed_a",
            "branch": branch,
            "trial": 0,
            "prompt_hashes": {},
            "turn_ids": (),
            "n_turns": n_turns,
            "status": status,
            "termination_reason": "max_turns",
        }
    )


def stats(number: int, tokens: int | None, dependent: int, self_rouge: float | None) -> DialogueStats:
    return DialogueStats(
        dialogue_id=f"dlg_{number}",
        n_words=10 * number,
        n_tokens=tokens,
        context_dependent_turns=dependent,
        self_rouge=self_rouge,
    )


def test_only_main_branches_that_are_done_are_sessions_where_there_are_any(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(
            campaign(recipe="capo"),
            *(dialogue(1, "main", n_turns=3), stats(1, 30, 2, 10.0)),
            *(dialogue(2, "main", n_turns=4), stats(2, 50, 3, None)),
            *(dialogue(3, "main", "failed"), stats(3, 99, 9, 99.0)),
            *(dialogue(4, "rejected"), stats(4, 99, 9, 99.0)),
            *(dialogue(5, "candidate"), stats(5, 99, 9, 99.0)),
        )
    (found,) = stats_of_campaigns(db)
    # dialogues 1 and 2: (3 + 4) / 2, (10 + 20) / 2, (30 + 50) / 2, (2 + 3) / 2, and the one Self-ROUGE there is
    assert found[4:] == (2, 3.5, 15.0, 40.0, 2.5, 10.0)
    (counted,) = query(db, "SELECT dialogues, failed, sessions FROM campaign_stats")
    assert counted == {"dialogues": 3, "failed": 1, "sessions": 2}


def test_both_branches_of_music_are_sessions_and_unknown_tokens_stay_unknown(db: Path) -> None:
    with Writer(db) as writer:
        writer.append(
            campaign(), dialogue(1, "chosen"), stats(1, 30, 1, 10.0), dialogue(2, "rejected"), stats(2, None, 2, 20.0)
        )
    (found,) = stats_of_campaigns(db)
    assert found[4:] == (2, 2.0, 15.0, None, 1.5, 15.0)


def test_an_import_keeps_whole_conversations_with_splits_and_metadata(db: Path, tmp_path: Path) -> None:
    report = import_file(str(sharegpt(tmp_path / "chats.jsonl")), db, name="mine")
    assert report == ImportReport(report.campaign_id, "mine", 3, 3, [])
    rows = query(
        db, "SELECT messages, split, status, termination_reason, branch FROM transcripts ORDER BY len(messages)"
    )
    assert [row["messages"] for row in rows] == [
        [message.model_dump() for message in session] for session in (THIRD, FIRST, SECOND)
    ]
    assert {(row["status"], row["termination_reason"], row["branch"]) for row in rows} == {("done", "imported", "main")}
    assert all(row["split"] in ("train", "validation", "test") for row in rows)
    assert query(db, "SELECT status, n_seeds FROM campaigns") == [{"status": "done", "n_seeds": 3}]
    assert query(db, "SELECT metadata->>'id' AS id FROM seeds ORDER BY 1") == [{"id": "0"}, {"id": "1"}, {"id": "2"}]
    assert not list(tmp_path.glob("*.lock"))


def test_importing_again_adds_nothing_and_a_longer_file_what_is_new(db: Path, tmp_path: Path) -> None:
    file = sharegpt(tmp_path / "chats.jsonl", [FIRST, FIRST, SECOND])
    assert import_file(str(file), db).new == 3  # the repeated one is one of its own
    before = query(db, "SELECT (SELECT count(*) FROM turns) AS turns, created_at FROM campaigns")
    assert import_file(str(file), db).new == 0
    assert query(db, "SELECT (SELECT count(*) FROM turns) AS turns, created_at FROM campaigns") == before
    longer = sharegpt(tmp_path / "more.jsonl", [FIRST, FIRST, SECOND, THIRD])
    assert import_file(str(longer), db, name="chats").new == 1
    other = sharegpt(tmp_path / "less.jsonl", [THIRD])
    assert import_file(str(other), db, name="chats").new == 0
    (row,) = query(db, "SELECT n_seeds, config->'source' AS sources FROM campaigns")
    assert (row["n_seeds"], json.loads(row["sources"])) == (4, ["chats.jsonl", "more.jsonl", "less.jsonl"])
    (told,) = status_of(db)["campaigns"]
    assert (told["seeds_done"], told["seeds_total"]) == (4, 4)


def test_a_file_that_is_not_there_is_called_one_of_conversations(db: Path) -> None:
    for ask in (lambda: import_file("none.jsonl", db), lambda: stats_of_file("none.jsonl")):
        with pytest.raises(StoreError, match=r"there is no file 'none\.jsonl' to read conversations from"):
            ask()


BAD = '{"conversations": [{"from": "human", "value": ""}]}'


def test_a_bad_row_stops_an_import_before_anything_is_written(db: Path, tmp_path: Path) -> None:
    file = sharegpt(tmp_path / "chats.jsonl", SESSIONS, BAD)
    with pytest.raises(StoreError, match=r"chats\.jsonl:4: turn 1 \(user\) is empty.*--skip-bad") as error:
        import_file(str(file), db)
    assert error.value.exit_code == 2
    assert not db.exists()
    report = import_file(str(file), db, skip_bad=True)
    assert (report.conversations, report.new, len(report.skipped)) == (3, 3, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "it is empty"),
        ('{"question_id": 1, "turns": ["One?", "Two?"]}\n', "questions without answers"),
        ('{"text": "no conversation"}\n', "tells a format"),
    ],
)
def test_a_file_without_conversations_is_refused(db: Path, tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "chats.jsonl"
    file.write_text(content)
    for ask in (lambda: import_file(str(file), db), lambda: stats_of_file(str(file))):
        with pytest.raises(StoreError, match=message):
            ask()
    assert not db.exists()


def test_the_table_fits_80_columns_and_names_what_the_paper_reports(db: Path, tmp_path: Path) -> None:
    name = "a-set-with-a-name-that-goes-on-and-on-and-on-without-an-end"
    import_file(str(sharegpt(tmp_path / "chats.jsonl")), db, name=name)
    shown = run("stats", "--db", str(db), "--beside-parrot")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert max(map(len, lines[:-3])) <= 80
    (parrot,) = [line for line in lines if line.startswith("Parrot-40K (paper)")]
    assert parrot.split()[2:] == ["40000", "8.71", "-", "-", "3.42", "12.5"]
    assert not any("(paper)" in line for line in run("stats", "--db", str(db)).output.splitlines())


def test_machines_get_json_of_files_and_campaigns(db: Path, tmp_path: Path) -> None:
    file = sharegpt(tmp_path / "chats.jsonl")
    imported = run("import", str(file), "--db", str(db), "--json")
    assert json.loads(imported.output)["new"] == 3
    shown = json.loads(run("stats", str(file), "--db", str(db), "--json").output)
    assert [(row["source"], row["self_rouge"]) for row in shown] == [("campaign", 20.83), ("file", 20.83)]


def test_tokens_need_what_the_command_line_brings(tmp_path: Path) -> None:
    def load(model: str) -> Callable[[object], int]:
        assert model == "some/model"
        return lambda _: 7

    file = str(sharegpt(tmp_path / "chats.jsonl"))
    shown = run("stats", file, "--tokenizer", "some/model", "--json", obj={"load_token_counter": load})
    assert json.loads(shown.output)[0]["tokens"] == 7.0


def test_an_unknown_campaign_is_an_error_of_one_line(db: Path, tmp_path: Path) -> None:
    import_file(str(sharegpt(tmp_path / "chats.jsonl")), db)
    shown = run("stats", "--db", str(db), "--campaign", "none")
    assert isinstance(shown.exception, DescantError)
    assert "there is no campaign 'none'" in str(shown.exception)
