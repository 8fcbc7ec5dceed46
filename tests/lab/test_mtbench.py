"""The benchmarks as people run them: in miniature, over HTTP, killed in the middle, and with a judge that babbles."""

import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import descant
from agents.ledger import CampaignStopping
from agents.rehearsal.server import ServerSettings, serving
from configs.benchmark_settings import BenchmarkSettings
from configs.errors import DescantError
from configs.model_settings import Endpoint
from graphs.checkpoints import Serving
from lab.mtbench import BenchmarkError, evaluate_benchmark, read_paper, what_is_left_out
from lab.mtbench_scores import BenchmarkResult
from store.database import StoreError, query
from tests.graphs.conftest import task_of
from tests.processes import start_descant, wait_until
from tests.scripted import scripted_model

pytestmark = pytest.mark.chain

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = [
    {"question_id": 1, "category": "writing", "turns": ["Write a poem on tea.", "Now without the letter e."]},
    {"question_id": 2, "category": "math", "turns": ["What is two and two?", "And three more?"]},
    {"question_id": 3, "category": "math", "turns": ["What is one and one?", "And one more?"]},
    {"question_id": 4, "category": "stem", "turns": ["What is light?", "How fast?"], "reference": ["waves", "fast"]},
]
REFERENCES = [{"question_id": 2, "choices": [{"turns": ["four, says the key", "seven, says the key"]}]}]
GOLD = [
    {"task": "CM", "id": 1, "history": [{"user": f"q{n}?", "bot": f"gold {n}"} for n in (1, 2, 3)]},
    {"task": "GR", "id": 2, "history": [{"user": f"r{n}?", "bot": f"right {n}"} for n in (1, 2)]},
]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    return {
        "questions": write(tmp_path / "questions.jsonl", QUESTIONS),
        "references": write(tmp_path / "references.jsonl", REFERENCES),
        "gold": write(tmp_path / "gold.jsonl", GOLD),
    }


class Model:
    """Every role: it answers `answer N` to the N-th user turn, asks, and grades by what it reads."""

    def __init__(
        self, *, grade: str = '{"rationale": "r", "score": 6}', by_key: int = 3, ask: str = "why {n}?"
    ) -> None:
        self.grade = grade
        self.by_key = by_key
        self.ask = ask
        self.heard: list[tuple[str, list[dict[str, str]]]] = []

    def __call__(self, messages: list[dict[str, str]]) -> str:
        task, text = task_of(messages)
        self.heard.append((task, messages))
        if task == "chat":
            return f"answer {sum(message['role'] == 'user' for message in messages)}"
        if task == "ask":
            return self.ask.format(n=text.count("<user>"))
        return self.grade if task == "score_turn" else json.dumps({"rationale": "r", "score": self.by_key})

    def of(self, task: str) -> list[list[dict[str, str]]]:
        return [messages for heard, messages in self.heard if heard == task]


def evaluate(
    database: Path, model: Model, limit: int | None = None, save: Path | None = None, **given: Any
) -> BenchmarkResult:
    with scripted_model(model) as name:
        settings = BenchmarkSettings.model_validate({"models": {"default": {"model": name}}, **given})
        return evaluate_benchmark(settings, read_paper(settings, limit=limit), database, save_questions=save)


def test_mtbench_speaks_both_turns_and_grades_math_by_its_reference(tmp_path: Path, files: dict[str, str]) -> None:
    model = Model()
    found = evaluate(tmp_path / "c.duckdb", model, questions=files["questions"], references=files["references"])
    assert found.what == "MT-Bench: 4 questions of 2 turns, from questions.jsonl"
    assert (len(model.of("chat")), len(model.of("score_turn")), len(model.of("reference_turn"))) == (8, 6, 2)
    assert not model.of("ask"), "the user is scripted"
    second = next(m for m in model.of("chat") if m[-1]["content"] == "And three more?")
    assert [message["content"] for message in second] == ["What is two and two?", "answer 1", "And three more?"]
    by_key = " ".join(messages[-1]["content"] for messages in model.of("reference_turn"))
    assert "four, says the key" in by_key
    assert "seven, says the key" in by_key
    assert (found.of("overall").value, found.of("overall").n) == ((6 * 6 + 2 * 3) / 8, 8)
    assert found.of("category=math").value == (2 * 3 + 2 * 6) / 4, "one math question has no reference"
    assert (found.counts.by_reference, found.counts.invalid, found.calls_sent) == (2, 0, 16)
    rows = query(tmp_path / "c.duckdb", "SELECT rubric, count(*) AS n FROM judgements GROUP BY ALL ORDER BY ALL")
    assert [tuple(row.values()) for row in rows] == [("reference", 2), ("score", 6)]


def test_without_a_file_the_references_are_the_questions_own_and_of_their_categories(
    tmp_path: Path, files: dict[str, str]
) -> None:
    found = evaluate(tmp_path / "c.duckdb", Model(), questions=files["questions"])
    assert found.counts.by_reference == 0, "the question on light brings a reference, but stem is graded without"


def test_the_same_command_pays_nothing_again_and_another_judge_only_verdicts(
    tmp_path: Path, files: dict[str, str]
) -> None:
    database = tmp_path / "c.duckdb"
    given: dict[str, Any] = {"questions": files["questions"]}
    part = evaluate(database, Model(), limit=2, **given)
    assert (part.calls_sent, part.counts.questions) == (8, 2)
    whole = evaluate(database, Model(), **given)
    assert (whole.calls_sent, whole.counts.questions, whole.label_set) == (8, 4, part.label_set)
    assert evaluate(database, Model(), **given).calls_sent == 0
    first = evaluate(database, Model(), limit=2, **given)
    assert (first.calls_sent, first.of("overall").n) == (0, 4), "a limit counts its own questions alone"
    with_key = evaluate(database, Model(), references=files["references"], **given)
    assert (with_key.calls_sent, with_key.campaign_id) == (8, whole.campaign_id), "answers stay, verdicts are new"
    assert with_key.label_set != whole.label_set


def test_a_judge_that_babbles_is_counted_and_is_no_grade(tmp_path: Path, files: dict[str, str]) -> None:
    model = Model(grade="I would say seven")
    found = evaluate(
        tmp_path / "c.duckdb", model, questions=files["questions"], references=files["references"], repairs=0
    )
    assert (found.counts.verdicts, found.counts.invalid, found.of("overall").n) == (8, 6, 2)
    assert found.of("overall").value == 3.0
    assert found.of("category=writing").value is None


def test_the_budget_is_one_for_answers_and_verdicts(tmp_path: Path, files: dict[str, str]) -> None:
    given: dict[str, Any] = {"questions": files["questions"]}
    for budget, sent in ((3, 3), (11, 8)):
        model = Model()
        with pytest.raises(CampaignStopping, match=f"budget of {budget} calls"):
            evaluate(tmp_path / "c.duckdb", model, budget={"calls": budget}, **given)
        assert len(model.heard) == sent
    assert evaluate(tmp_path / "c.duckdb", Model(), budget={"calls": 16}, **given).calls_sent == 5


def test_the_extension_goes_on_after_the_script_and_is_called_what_it_is(tmp_path: Path, files: dict[str, str]) -> None:
    model, saved = Model(), tmp_path / "eight.jsonl"
    given: dict[str, Any] = {"benchmark": "mtbench++", "references": files["references"]}
    found = evaluate(tmp_path / "c.duckdb", model, save=saved, questions=files["questions"], **given)
    assert json.loads(found.to_json())["benchmark"] == "mtbench-extended"
    assert found.what.startswith(
        "MT-Bench extended to 8 turns by the simulator scripted/x (ours; the paper's MT-Bench++"
    )
    assert "is not public" in found.to_table().replace("\n", " ")
    assert (len(model.of("chat")), len(model.of("ask")), len(model.of("reference_turn"))) == (32, 24, 2)
    assert [row.part for row in found.turns] == [f"turn={turn}" for turn in range(1, 9)]
    rows = [json.loads(line) for line in saved.read_text().splitlines()]
    assert rows[1]["turns"] == ["What is two and two?", "And three more?", *(f"why {n}?" for n in range(2, 8))]
    assert (rows[1]["question_id"], rows[1]["extended_by"]) == (2, "scripted/x (prompted)")

    other = Model()
    again = evaluate(tmp_path / "c.duckdb", other, questions=str(saved), **given)
    assert again.what.startswith("8 turns from eight.jsonl, written by the simulator scripted/x (prompted) (ours")
    assert json.loads(again.to_json())["benchmark"] == "mtbench-extended"
    assert (len(other.of("ask")), len(other.of("chat")), again.of("overall").n) == (0, 32, 32)
    with pytest.raises(BenchmarkError, match="nothing is extended here"):
        evaluate(tmp_path / "c.duckdb", other, save=saved, questions=str(saved), **given)


def test_more_turns_that_people_wrote_are_called_by_their_file(tmp_path: Path) -> None:
    by_hand = write(tmp_path / "by_hand.jsonl", [{"turns": ["one?", "two?", "three?"]}])
    found = evaluate(tmp_path / "c.duckdb", Model(), benchmark="mtbench++", turns=3, questions=by_hand)
    assert json.loads(found.to_json())["benchmark"] == "3 turns from by_hand.jsonl"


def test_a_part_of_the_benchmark_is_said_under_its_figure(tmp_path: Path, files: dict[str, str]) -> None:
    given: dict[str, Any] = {"benchmark": "mtbench101", "questions": files["gold"]}
    part = evaluate(tmp_path / "c.duckdb", Model(), limit=1, **given)
    assert part.left_out == "Of the first 1 of 2 dialogues alone."
    whole_file = evaluate(tmp_path / "c.duckdb", Model(), questions=files["questions"])
    said = "Of 4 questions, all that the file has: MT-Bench has 80."
    assert said in whole_file.to_table().partition("By turn")[0]
    assert json.loads(whole_file.to_json())["left_out"] == said
    whole = write(tmp_path / "whole.jsonl", [QUESTIONS[0] | {"question_id": n} for n in range(80)])
    settings = BenchmarkSettings.model_validate({"questions": whole})
    assert what_is_left_out(settings, read_paper(settings)) is None
    assert what_is_left_out(settings, read_paper(settings, limit=6)) == "Of the first 6 of 80 questions alone."


def test_a_user_who_ends_early_shortens_the_curve_and_is_counted(tmp_path: Path, files: dict[str, str]) -> None:
    found = evaluate(tmp_path / "c.duckdb", Model(ask="[END]"), benchmark="mtbench++", questions=files["questions"])
    assert (found.counts.short, found.of("overall").n, len(found.turns)) == (4, 8, 2)
    assert "4 dialogues ended early" in found.to_table()


def test_mtbench101_answers_after_gold_history_and_takes_the_lowest(tmp_path: Path, files: dict[str, str]) -> None:
    model = Model()
    found = evaluate(tmp_path / "c.duckdb", model, benchmark="mtbench101", questions=files["gold"])
    asked = [[message["content"] for message in messages] for messages in model.of("chat")]
    assert sorted(asked) == [
        ["q1?", "gold 1", "q2?"],
        ["q1?", "gold 1", "q2?", "gold 2", "q3?"],
        ["r1?"],
        ["r1?", "right 1", "r2?"],
    ]
    by_key = sorted(
        re.findall(r"right \d(?=\n</assistant>\n</reference>)", m[-1]["content"]) for m in model.of("reference_turn")
    )
    assert by_key == [["right 1"], ["right 2"]], "reasoning is graded by the gold answer of its own turn"
    assert (len(model.of("score_turn")), found.calls_sent) == (2, 8)
    shown = {row.part: (row.share.value, row.share.n) for row in (*found.headline, *found.categories, *found.turns)}
    assert shown == {
        "overall": (4.5, 2),
        "mean of dialogues": (4.5, 2),
        "task=CM": (6.0, 1),
        "task=GR": (3.0, 1),
        "turn=1": (3.0, 1),
        "turn=2": (4.5, 2),
        "turn=3": (6.0, 1),
    }


def test_a_dialogue_whose_verdict_cannot_be_read_has_no_lowest_grade(tmp_path: Path, files: dict[str, str]) -> None:
    given: dict[str, Any] = {"benchmark": "mtbench101", "questions": files["gold"], "repairs": 0}
    found = evaluate(tmp_path / "c.duckdb", Model(grade="eh"), **given)
    assert (found.counts.incomplete, found.of("overall").value, found.of("overall").n) == (1, 3.0, 1)
    assert "1 dialogues lack a grade" in found.to_table()


def test_questions_that_are_none_are_refused_before_anything_is_paid(tmp_path: Path, files: dict[str, str]) -> None:
    model, short = Model(), write(tmp_path / "short.jsonl", [{"turns": ["one?"]}])
    strangers = write(tmp_path / "strangers.jsonl", [{"question_id": 99, "reference": "x"}])
    gold = {"benchmark": "mtbench101"}
    refused: list[tuple[type[DescantError], str, dict[str, Any]]] = [
        (BenchmarkError, "no questions: pass --questions", {}),
        (BenchmarkError, "has 1 turns: MT-Bench's have 2", {"questions": short}),
        (StoreError, "there is no file", {"questions": str(tmp_path / "none.jsonl")}),
        (StoreError, "cannot be read", {"questions": files["questions"], "references": str(tmp_path / "none")}),
        (BenchmarkError, "has no right answer to any", {"questions": files["questions"], "references": strangers}),
        (StoreError, "the key 'history' is missing", {"questions": strangers, "benchmark": "mtbench101"}),
        (BenchmarkError, "short.jsonl' is MT-Bench's file: use the preset mtbench", {"questions": short, **gold}),
        (BenchmarkError, "is MT-Bench-101's file: use the preset mtbench101", {"questions": files["gold"]}),
    ]
    for error, said, given in refused:
        with pytest.raises(error, match=said):
            evaluate(tmp_path / "c.duckdb", model, **given)
    assert not model.heard
    assert not (tmp_path / "c.duckdb").exists()


def test_a_judge_without_a_name_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    settings = BenchmarkSettings.model_validate(
        {"questions": files["questions"], "models": {"assistant": {"model": "rehearsal/default"}}}
    )
    with pytest.raises(DescantError, match="no model for a judge"):
        evaluate_benchmark(settings, read_paper(settings), tmp_path / "c.duckdb")


def test_a_limit_takes_from_the_front_and_changes_no_id(files: dict[str, str]) -> None:
    settings = BenchmarkSettings.model_validate({"questions": files["questions"], "references": files["references"]})
    whole, part = read_paper(settings), read_paper(settings, limit=2)
    assert part.questions == whole.questions[:2]
    assert part.source == whole.source, "the set of verdicts stays the same"


def test_killed_over_http_the_same_command_goes_on(tmp_path: Path, files: dict[str, str]) -> None:
    log = tmp_path / "log.jsonl"
    with serving(ServerSettings(log=str(log), latency_ms=20)) as api_base:
        config = {"models": {"default": {"model": "hosted_vllm/default", "api_base": api_base}}, "concurrency": 2}
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        arguments = ["evaluate", "mtbench", "config.yaml", "--questions", files["questions"], "--quiet"]

        def served() -> int:
            return len(log.read_text().splitlines()) if log.exists() else 0

        for at_least in (3, 10):  # among the answers, and among the verdicts
            process = start_descant(*arguments, cwd=tmp_path)
            wait_until(lambda wanted=at_least: served() >= wanted)  # type: ignore[misc]
            process.send_signal(signal.SIGKILL)
            process.communicate()
        before = served()
        done = command(*arguments, "--json", "--db", str(tmp_path / "corpus.duckdb"), folder=tmp_path)
        printed = json.loads(done.stdout)
        lost = before + printed["calls_sent"] - 16
        assert served() == before + printed["calls_sent"]
        assert 0 <= lost <= 4, "two calls in flight at each kill are all that is paid twice"
        assert (printed["counts"]["verdicts"], printed["headline"][0]["n"]) == (8, 8)
        rows = query(tmp_path / "corpus.duckdb", "SELECT count(*) AS n FROM turns")
        assert rows == [{"n": 16}]


def command(*arguments: str, folder: Path) -> Result:
    given = [str(folder / "config.yaml") if argument == "config.yaml" else argument for argument in arguments]
    result = CliRunner().invoke(descant.build(), given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_sql_of_the_docs_gives_the_figures_of_the_table(tmp_path: Path, files: dict[str, str]) -> None:
    database = tmp_path / "c.duckdb"
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    by_part, by_task = re.findall(r"```sql\n(.*?)```", page, flags=re.DOTALL)
    given: dict[str, Any] = {"questions": files["questions"], "references": files["references"]}
    found = evaluate(database, Model(), **given)
    rows = query(database, by_part.replace("LABEL_SET", found.label_set))
    shown = {(row["category"], row["turn"]): row["grade"] for row in rows}
    assert shown[None, None] == round(found.of("overall").value or 0.0, 2)
    assert shown["math", None] == round(found.of("category=math").value or 0.0, 2)
    assert shown[None, 2] == round(found.of("turn=2").value or 0.0, 2)
    gold = evaluate(database, Model(), benchmark="mtbench101", questions=files["gold"], name="gold")
    rows = query(database, by_task.replace("LABEL_SET", gold.label_set))
    assert {row["task"]: row["score"] for row in rows} == {"CM": 6.0, "GR": 3.0}


def test_the_command_draws_and_warns_that_it_was_rehearsed(tmp_path: Path, files: dict[str, str]) -> None:
    arguments = [
        "evaluate",
        "mtbench",
        "mtbench-extended",
        "--questions",
        files["questions"],
        "--db",
        str(tmp_path / "c"),
    ]
    arguments += ["--set", "variant=rehearsal", "--set", "turns=3", "--plot", str(tmp_path / "a.png"), "--limit", "3"]
    done = command(*arguments, folder=tmp_path)
    assert "9 answers, 3 queries of the simulator, 9 verdicts: 21 calls" in done.stderr
    assert "the figures say nothing about real models" in " ".join(done.stdout.split())
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_a_checkpoint_answers_or_judges_while_it_is_served(tmp_path: Path, files: dict[str, str]) -> None:
    served: list[list[str]] = []

    @contextmanager
    def serve(folders: Sequence[str], *, say: Callable[[str], None]) -> Iterator[Mapping[str, Endpoint]]:
        del say
        served.append(list(folders))
        with serving() as api_base:
            yield {folder: Endpoint(api_base, folder) for folder in folders}

    (tmp_path / "config.yaml").write_text(
        json.dumps({"models": {"assistant": {"checkpoint": "default"}, "judges": [{"checkpoint": "perfect"}]}})
    )
    arguments = ["evaluate", "mtbench", str(tmp_path / "config.yaml"), "--questions", files["questions"], "--json"]
    arguments += ["--db", str(tmp_path / "c.duckdb"), "--quiet"]
    ours = {"serving": lambda: Serving(lambda _: None, serve)}
    result = CliRunner().invoke(descant.build(), arguments, obj=ours, catch_exceptions=False)
    printed = json.loads(result.stdout)
    assert served == [["default", "perfect"]]
    assert (printed["assistant"], printed["judges"]) == ("hosted_vllm/default", ["hosted_vllm/perfect"])
    assert (printed["counts"]["verdicts"], printed["calls_sent"]) == (8, 16)
