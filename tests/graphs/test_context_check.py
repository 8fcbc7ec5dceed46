"""Rules, and rules with a model, against labels: on a tiny file by hand, and on MT-Bench-101 where it is there."""

import json
from pathlib import Path

import pytest

from configs.errors import DescantError
from configs.judge_settings import JudgeSettings
from configs.load import load
from graphs.context_check import LabelsError, check_context, context_lines
from tests.scripted import scripted_model

ROOT = Path(__file__).resolve().parents[2]
LABELS = ROOT / "tests" / "labels" / "mtbench101_context.jsonl"
REAL = ROOT.parent / "shared" / "data" / "mtbench101.jsonl"

TURNS = [
    "Tell me about Paris.",
    "Why is that?",
    "And Rome?",
    "What is the capital of Spain?",
    "Name its two rivers there.",
]


def conversation(path: Path) -> str:
    path.write_text(
        json.dumps({"task": "X", "id": 1, "history": [{"user": turn, "bot": "Paris is old."} for turn in TURNS]})
    )
    return str(path)


def labelled(path: Path, *labels: tuple[int, bool, bool]) -> str:
    rows = [
        {"task": "X", "id": 1, "turn": turn, "depends": depends, "unsure": unsure} for turn, depends, unsure in labels
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_what_the_rules_find_is_counted_by_sign(tmp_path: Path) -> None:
    report = check_context(conversation(tmp_path / "a.jsonl"), None, None)
    assert (report.dialogues, report.user_turns, report.later_turns, report.found) == (1, 5, 4, 3)
    assert {sign for sign, count in report.by_sign.items() if count} == {
        *("demonstrative", "bare", "continuation", "fragment", "pronoun")
    }
    assert (report.labels, report.ways) == (0, ())


def test_precision_and_recall_are_those_worked_out_by_hand(tmp_path: Path) -> None:
    file = conversation(tmp_path / "a.jsonl")
    # The rules find turns 2, 3 and 5. Labelled dependent: 2, 3 and 4. So 2 of 3 are right, and 2 of 3 are found.
    labels = labelled(tmp_path / "b.jsonl", (2, True, False), (3, True, False), (4, True, True), (5, False, False))
    settings = load("single", JudgeSettings, overrides=["models.default.model=scripted/x"], folder="judge")

    def speak(messages: list[dict[str, str]]) -> str:
        """The model says yes to `Why is that?` and to the capital of Spain."""
        query = messages[-1]["content"].split("<query>\n")[1]
        return json.dumps({"rationale": "so", "depends": query.startswith(("Why", "What"))})

    with scripted_model(speak):
        report = check_context(file, labels, settings)
    rules, model, both = report.ways
    assert (rules.found, rules.right, rules.dependent) == (3, 2, 3)
    assert (model.found, model.right) == (2, 2)
    assert (both.found, both.right, both.dependent) == (1, 1, 3)
    # Wilson's interval of 2 of 3 at 95 % (z = 1.96): (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    # = (0.6667 + 0.6402 -+ 1.96 * sqrt(0.0741 + 0.1067)) / 2.2805 = (1.3069 -+ 0.8334) / 2.2805 = 0.208, 0.939
    assert rules.precision == pytest.approx((2 / 3, 0.208, 0.939), abs=1e-3)
    assert both.recall is not None
    assert both.recall[0] == pytest.approx(1 / 3)
    assert (report.unsure, report.ways_sure[0].found, report.ways_sure[0].dependent) == (1, 3, 2)
    lines = context_lines(report)
    assert "  rules and model      1      1   1.00 [0.21, 1.00]  0.33 [0.06, 0.79]" in lines
    assert max(map(len, lines)) <= 80


def test_answers_that_cannot_be_read_are_counted_and_find_nothing(tmp_path: Path) -> None:
    labels = labelled(tmp_path / "b.jsonl", (2, True, False))
    settings = load("single", JudgeSettings, overrides=["models.default.model=scripted/x"], folder="judge")
    with scripted_model(lambda _: "I cannot say."):
        report = check_context(conversation(tmp_path / "a.jsonl"), labels, settings)
    assert (report.invalid, report.ways[1].found, report.ways[1].precision) == (1, 0, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no labels"),
        ('{"task": "X", "id": 1, "turn": 9, "depends": true}\n', "lacks turn 9 of"),
        ('{"task": "X", "id": 1, "turn": 2, "depends": "yes"}\n', r"b\.jsonl:1: .*true or false"),
        ('{"turn": 2, "depends": true}\n', "names its conversation"),
        ("nonsense\n", r"b\.jsonl:1: not valid JSON"),
    ],
)
def test_labels_that_do_not_fit_are_an_error_of_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "b.jsonl").write_text(content)
    with pytest.raises(LabelsError, match=message) as error:
        check_context(conversation(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), None)
    assert isinstance(error.value, DescantError)
    assert error.value.exit_code == 2


def test_the_labels_are_200_ids_and_no_text() -> None:
    rows = [json.loads(line) for line in LABELS.read_text().splitlines()]
    assert len({(row["task"], row["id"], row["turn"]) for row in rows}) == len(rows) == 200
    assert all(row.keys() == {"task", "id", "turn", "depends", "unsure"} and row["turn"] > 1 for row in rows)
    assert len({row["task"] for row in rows}) == 13


@pytest.mark.skipif(not REAL.exists(), reason="MT-Bench-101 is not beside the checkout")
def test_on_mtbench101_the_rules_are_as_right_as_their_page_says() -> None:
    report = check_context(str(REAL), str(LABELS), None)
    assert (report.dialogues, report.later_turns, report.labels) == (1388, 2820, 200)
    (rules,) = report.ways
    assert rules.precision is not None
    assert rules.recall is not None
    assert rules.precision[0] > 0.9
    assert rules.recall[0] > 0.8
    page = (ROOT / "benchmarks" / "results" / "context_dependence.md").read_text()
    assert all(line in page for line in context_lines(report)[:4])
    assert next(line for line in context_lines(report) if line.startswith("  rules ")) in page
