"""Replay: what a campaign left behind comes out of its journal again, without a call, and what was tampered with is found."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from click.testing import CliRunner

from agents.ledger import Ledger
from configs.comparison import load_campaigns
from configs.load import presets
from configs.model_settings import Endpoint
from configs.settings import CampaignSettings
from graphs.again_commands import replay as replay_command
from graphs.best_of_n import RewardModel
from graphs.campaign import CampaignReport, run_campaign
from graphs.replay import ReplayError, replay, report_lines
from graphs.seeds import load_seeds
from store.database import StoreError, query
from store.importing import import_file
from store.records import Judgement, Message, Score
from store.tables import TABLES
from store.writer import Writer
from tests.graphs.conftest import reward_model
from tests.servers import failure, scripted_server


def by_letters() -> RewardModel:
    """A reward that differs from answer to answer, in all its digits."""
    return reward_model(lambda conversations: [_letters(messages[-1].content) / 7 for messages in conversations])


def _letters(text: str) -> float:
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(text)) / 1000


def rehearsed(**given: Any) -> CampaignSettings:
    """A campaign of a few seeds on the rehearsal; a preset's name takes its settings."""
    data: dict[str, Any] = {"name": "played", "turns": 2, "seeds": {"format": "rehearsal", "limit": 3}}
    return CampaignSettings.model_validate({**data, **given})


def run(settings: CampaignSettings, database: Path, scorer: RewardModel | None = None) -> CampaignReport:
    picks = scorer if settings.recipe in ("best_of_n", "west_of_n") else None
    return run_campaign(settings, load_seeds(settings).seeds, database, scorer=picks)


def tables(database: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, in a fixed order."""
    return {
        table.name: query(database, f"SELECT * FROM {table.name} ORDER BY ALL")
        for table in TABLES
        if table.name != "ingested"
    }


def tampered(database: Path, sql: str) -> Path:
    """A copy of a corpus in which somebody changed something."""
    copy = database.with_name("tampered.duckdb")
    shutil.copy(database, copy)
    with duckdb.connect(copy) as connection:
        connection.execute(sql)
    return copy


@pytest.fixture(autouse=True)
def _nothing_is_sent_by_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is reserved before it is sent: while a ledger replays, that is an error."""
    reserve = Ledger.reserve

    async def guarded(self: Ledger, *arguments: Any) -> None:
        assert not self.replaying, "a replay was about to send a request"
        await reserve(self, *arguments)

    monkeypatch.setattr(Ledger, "reserve", guarded)


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of all that a rehearsed recipe has: two branches, contrasts, verdicts."""
    database = tmp_path_factory.mktemp("music") / "corpus.duckdb"
    run(rehearsed(perturb={"verify": True}, judge_pairs=True, trials=2), database)
    return database


@pytest.mark.chain
@pytest.mark.parametrize("preset", presets())
def test_a_campaign_of_every_preset_comes_out_equal(preset: str, tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    here = ["seeds={format: rehearsal, limit: 2}", "models={}", "concurrency=4"]
    for settings in load_campaigns(preset, overrides=here):
        done = run(settings, database, by_letters())
        report = replay(database, done.campaign_id)
        assert report.equal, report_lines(report)
        assert report.rows["dialogues"] >= done.dialogues == done.done
        assert report.rows["turns"] == len(
            query(database, "SELECT 1 FROM turns WHERE campaign_id = ?", [done.campaign_id])
        )
        assert (report.calls, report.sent) == (done.calls_sent, 0)


@pytest.mark.parametrize(
    "given",
    [
        {"recipe": "music", "perturb": {"share": "trunk", "verify": True}, "judge_pairs": True, "turns": 3},
        {"recipe": "west_of_n"},
        *(
            pytest.param(given, marks=pytest.mark.chain)
            for given in (
                {"recipe": "rmboost", "pairing": {"boost": {"verify": True, "labels": "both"}}, "turns": 2},
                {"recipe": "music", "perturb": {"share": "rest", "schedule": {"bernoulli": 0.5}}, "turns": 3},
                {"recipe": "music", "perturb": {"altered_by": "assistant"}, "turns": {"weights": {1: 1, 3: 2}}},
                {"recipe": "dialogue", "gate": {"model": True}, "models": {"user": {"params": {"leak_rate": 0.5}}}},
                {"recipe": "dialogue", "perturb": {"kinds": ["context_neglect"], "verify": True}},
                {"recipe": "capo", "turns": 4, "trials": 2},
                {"recipe": "best_of_n", "candidates": 3},
                {"recipe": "rlaif", "models": {"judges": [{}, {"model": "rehearsal/careless"}]}},
                {"recipe": "rlcd"},
            )
        ),
    ],
    ids=lambda given: " ".join(map(str, [given["recipe"], *list(given)[1:3]])),
)
def test_a_rebuilt_corpus_is_the_old_one_row_for_row(given: dict[str, Any], tmp_path: Path) -> None:
    database, out = tmp_path / "corpus.duckdb", tmp_path / "again.duckdb"
    run(rehearsed(**given), database, by_letters())
    assert replay(database, "played", out=out).equal
    old, new = tables(database), tables(out)
    for table, rows in old.items():
        assert new[table] == rows, table
    assert {name for name, rows in old.items() if rows} >= {"turns", "dialogues", "calls", "seeds", "campaigns"}
    assert replay(out, "played").equal, "and it replays in its turn"


def test_a_dialogue_is_rebuilt_and_shown(music: Path) -> None:
    (row,) = query(music, "SELECT dialogue_id FROM dialogues WHERE branch = 'rejected' ORDER BY 1 LIMIT 1")
    result = CliRunner().invoke(replay_command, [row["dialogue_id"][:12], "--db", str(music)])
    assert result.exit_code == 0, result.output
    assert "PERTURBED: music_contrast" in result.output
    assert "equal: 2 dialogues" in result.output.splitlines()[-1]


def test_the_command_tells_machines_that_a_campaign_is_equal(music: Path) -> None:
    found = json.loads(CliRunner().invoke(replay_command, ["played", "--db", str(music), "--json"]).output)
    assert (found["equal"], found["sent"], found["differences"]) == (True, 0, [])
    assert found["rows"]["dialogues"] == 12


def test_a_response_that_was_altered_is_found(music: Path) -> None:
    changed = tampered(
        music,
        "UPDATE calls SET response = response || ' And more.' WHERE call_id = (SELECT call_id FROM turns JOIN dialogues "
        "ON turn_id = turn_ids[-1] WHERE branch = 'chosen' AND trial = 0 ORDER BY turn_id LIMIT 1)",
    )
    report = replay(changed, "played")
    assert not report.equal
    assert {difference.table for difference in report.differences} >= {"turns", "dialogue_stats", "pairs"} or (
        report.not_rebuilt
    ), "the judges read another conversation than the recorded one"
    result = CliRunner().invoke(replay_command, ["played", "--db", str(changed)])
    assert result.exit_code == 1
    assert "not equal: " in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("table", "change", "field"),
    [
        ("turns", "content = content || ' '", "content"),
        ("dialogues", "n_turns = n_turns + 1", "n_turns"),
        ("pairs", "similarity = similarity + 1e-16", "similarity"),
        ("pairs", "margin = 1.5", "margin"),
        ("perturbations", "attempts = 9", "attempts"),
        ("judgements", "rationale = 'because'", "rationale"),
        ("dialogue_stats", "n_words = 0", "n_words"),
    ],
)
def test_a_stored_row_that_was_altered_is_found_with_its_field(
    music: Path, table: str, change: str, field: str
) -> None:
    report = replay(tampered(music, f"UPDATE {table} SET {change}"), "played")
    assert {(difference.table, difference.field) for difference in report.differences} == {(table, field)}


@pytest.mark.parametrize("table", ["turns", "dialogue_stats", "perturbations", "judgements", "pairs"])
def test_a_row_that_is_gone_is_named(music: Path, table: str) -> None:
    key = next(one.columns[0].name for one in TABLES if one.name == table)
    gone = tampered(music, f"DELETE FROM {table} WHERE {key} = (SELECT min({key}) FROM {table})")
    found = replay(gone, "played").differences
    assert [(one.table, one.field, one.stored) for one in found if one.table == table] == [(table, None, None)]
    assert f"{table} {found[0].key}: it is not stored" in found[0].line


def test_a_call_that_is_missing_is_named_and_the_other_dialogues_are_compared(music: Path) -> None:
    gone = tampered(music, "DELETE FROM calls WHERE call_id = (SELECT min(call_id) FROM calls WHERE purpose = 'ask')")
    (call,) = query(
        music,
        "SELECT call_id, dialogue_id FROM calls WHERE call_id = (SELECT min(call_id) FROM calls WHERE purpose = 'ask')",
    )
    report = replay(gone, "played")
    assert call["dialogue_id"] in report.not_rebuilt
    assert call["call_id"] in report.not_rebuilt[call["dialogue_id"]]
    assert (report.rows["dialogues"], report.differences) == (10, [])


def test_what_is_not_equal_leaves_no_new_corpus(music: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.duckdb"
    assert not replay(tampered(music, "UPDATE turns SET content = 'x'"), "played", out=out).equal
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_that_is_there_is_not_written_over(music: Path) -> None:
    with pytest.raises(ReplayError, match="is there already"):
        replay(music, "played", out=music)


def failing(requests_that_pass: int) -> Any:
    """A server that answers so many requests, and refuses all others for what they ask."""
    return scripted_server(*["a plain answer"] * requests_that_pass, failure(400, "no"))


def test_a_failed_dialogue_fails_again_with_the_same_words(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    with failing(3) as server:
        settings = rehearsed(
            recipe="dialogue",
            turns=4,
            seeds={"format": "rehearsal", "limit": 1},
            models={"default": {"model": "hosted_vllm/x", "api_base": server.url, "attempts": 1}},
        )
        assert run(settings, database).failed == 1
    (dialogue,) = query(database, "SELECT status, error, n_turns FROM dialogues")
    assert (dialogue["status"], dialogue["n_turns"]) == ("failed", 2)
    assert dialogue["error"]
    report = replay(database, "played", out=tmp_path / "again.duckdb")
    assert report.equal, report_lines(report)
    assert tables(tmp_path / "again.duckdb") == tables(database)


def test_a_dialogue_that_has_not_ended_says_so_and_the_others_are_replayed(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    run(rehearsed(recipe="dialogue", concurrency=1, budget={"calls": 5}), database)
    report = replay(database, "played")
    assert report.equal
    assert (report.rows["dialogues"], report.unfinished) == (1, 2)
    assert "2 dialogues have not ended and are left out" in report_lines(report)
    (begun,) = query(
        database, "SELECT DISTINCT dialogue_id FROM calls WHERE dialogue_id NOT IN (SELECT dialogue_id FROM dialogues)"
    )
    with pytest.raises(StoreError, match="has not ended"):
        replay(database, begun["dialogue_id"])


def test_superseded_calls_are_left_out_and_kept(music: Path, tmp_path: Path) -> None:
    older = tampered(
        music,
        "INSERT INTO calls SELECT * REPLACE ('aa' AS request_hash, 'superseded' AS status, 'other' AS response) FROM calls "
        "WHERE purpose = 'ask'",
    )
    assert replay(older, "played", out=tmp_path / "again.duckdb").equal
    assert tables(tmp_path / "again.duckdb") == tables(older)


def test_labels_of_later_judges_and_later_scores_are_no_differences(music: Path) -> None:
    copy = tampered(music, "UPDATE pairs SET judged_label = 'tie'")
    assert not replay(copy, "played").equal
    (pair,) = query(copy, "SELECT pair_id, chosen_id FROM pairs ORDER BY 1 LIMIT 1")
    pairs = query(copy, "SELECT pair_id FROM pairs")
    verdicts = [
        Judgement(
            judgement_id=f"judg_{row['pair_id']}",
            label_set="mine",
            pair_id=row["pair_id"],
            judge_model="m",
            rubric="compare",
            presentation="chosen_first",
            verdict="tie",
        )
        for row in pairs
    ]
    with Writer(copy) as writer:
        writer.append(*verdicts, Score(fit_id="fit_x", dialogue_id=pair["chosen_id"], reward=1.0))
    report = replay(copy, "played")
    assert report.equal, report_lines(report)
    assert report.relabelled > 0


def test_a_prompt_that_changed_since_is_named(tmp_path: Path) -> None:
    prompt, database = tmp_path / "ask.md", tmp_path / "corpus.duckdb"
    text = "{# transcript, turns_left #}\nTask: ask\n{{ transcript }}\n"
    prompt.write_text(text)
    run(rehearsed(recipe="dialogue", prompts={"ask": str(prompt)}), database)
    assert replay(database, "played").equal
    prompt.write_text(text + "Be brief.\n")
    with pytest.raises(ReplayError, match=r"the prompt ask \(.*ask\.md\) changed since 'played' was played"):
        replay(database, "played")


def test_a_prompt_that_changed_and_was_never_used_changes_nothing(tmp_path: Path) -> None:
    prompt, database = tmp_path / "compare.md", tmp_path / "corpus.duckdb"
    text = "{# conversation_a, conversation_b #}\nTask: compare\n{{ conversation_a }}{{ conversation_b }}\n"
    prompt.write_text(text)
    run(rehearsed(recipe="dialogue", prompts={"compare": str(prompt)}), database)
    prompt.write_text(text + "Be brief.\n")
    assert replay(database, "played").equal


def test_a_reward_that_is_not_kept_is_missed_in_one_line(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    run(rehearsed(recipe="west_of_n"), database, by_letters())
    gone = tampered(database, "DELETE FROM scores WHERE dialogue_id = (SELECT min(dialogue_id) FROM scores)")
    (why,) = replay(gone, "played").not_rebuilt.values()
    assert "is not among the scores of toy" in why
    with pytest.raises(ReplayError, match="which reward model picked in 'played'"):
        replay(tampered(database, "DELETE FROM scores; DELETE FROM fits"), "played")


def test_answers_without_a_reward_are_recalled_as_such(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"

    def some(conversations: Any) -> list[float | None]:
        first = [None, float("nan"), 0.25, 0.125]
        return first[: len(conversations)]

    run(rehearsed(recipe="best_of_n"), database, reward_model(some))
    fates = query(database, "SELECT DISTINCT termination_reason AS fate FROM dialogues WHERE branch = 'candidate'")
    assert {row["fate"] for row in fates} == {"too_long_to_score", "reward_not_finite", "not_picked"}
    assert replay(database, "played").equal


def test_equal_answers_with_rewards_of_their_own_get_each_its_own(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"

    def by_place(conversations: Any) -> list[float | None]:
        return [1.0 / (place + 3) for place in range(len(conversations))]

    run(rehearsed(recipe="best_of_n", candidates=4), database, reward_model(by_place))
    texts = query(
        database, "SELECT count(DISTINCT content) AS n FROM turns WHERE role = 'assistant' GROUP BY parent_id"
    )
    assert min(row["n"] for row in texts) < 4, "the rehearsal says the same more than once"
    report = replay(database, "played", out=tmp_path / "again.duckdb")
    assert report.equal, report_lines(report)


@contextmanager
def imported(tmp_path: Path) -> Iterator[Path]:
    file, database = tmp_path / "chats.jsonl", tmp_path / "corpus.duckdb"
    messages = [Message(role="user", content="hello"), Message(role="assistant", content="hi")]
    file.write_text(json.dumps({"messages": [message.model_dump() for message in messages]}) + "\n")
    import_file(str(file), database)
    yield database


def test_what_was_imported_or_judged_is_refused_in_one_line(tmp_path: Path) -> None:
    with (
        imported(tmp_path) as database,
        pytest.raises(ReplayError, match="was imported: its conversations have no calls"),
    ):
        replay(database, "chats")
    judged = tampered(database, "UPDATE campaigns SET recipe = 'judge'")
    with pytest.raises(ReplayError, match=r"is a set of verdicts \(recipe judge\)"):
        replay(judged, "chats")


@pytest.mark.parametrize(("name", "message"), [("nobody", "nothing has the id"), ("turn_", "several ids|is a turn")])
def test_what_is_neither_a_dialogue_nor_a_campaign_is_refused(music: Path, name: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        replay(music, name)


def test_two_campaigns_of_one_name_are_told_apart_by_id(music: Path) -> None:
    twice = tampered(music, "INSERT INTO campaigns SELECT * REPLACE ('camp_z' AS campaign_id) FROM campaigns")
    with pytest.raises(StoreError, match="several campaigns are called 'played'"):
        replay(twice, "played")


def test_a_checkpoint_has_the_name_that_it_was_served_by(tmp_path: Path) -> None:
    database = tmp_path / "corpus.duckdb"
    with scripted_server("one", "two", "three", "four") as server:
        models = {
            "user": {"checkpoint": "fits/ask"},
            "assistant": {"checkpoint": "fits/answer"},
            "judges": [{"checkpoint": "fits/one"}, {"model": "rehearsal/default"}],
        }
        settings = rehearsed(recipe="dialogue", models=models, seeds={"format": "rehearsal", "limit": 1})
        served = settings.models.served(
            {folder: Endpoint(server.url, f"{folder[5:]}-1a2b") for folder in ("fits/ask", "fits/answer", "fits/one")}
        )
        run(settings.model_copy(update={"models": served}), database)
    assert {row["model"] for row in query(database, "SELECT DISTINCT model FROM calls")} == {
        "hosted_vllm/ask-1a2b",
        "hosted_vllm/answer-1a2b",
    }
    assert replay(database, "played").equal


def test_no_key_is_asked_for(music: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed = tampered(
        music,
        """UPDATE campaigns SET config = json_merge_patch(config, '{"models": {"default": {"api_key": "env:NOT_THERE"}}}')""",
    )
    monkeypatch.delenv("NOT_THERE", raising=False)
    assert replay(keyed, "played").equal
