"""MT-Bench-101's dialogues as turns that are judged after gold history."""

import json
from collections import Counter
from pathlib import Path

import pytest

from store.database import StoreError
from store.mtbench101 import FIRST_TURN_SKIPPED, TASKS, gold_turns

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "mtbench101.jsonl"


def row(task: str, *turns: tuple[str, str], identity: int = 1) -> str:
    return json.dumps({"task": task, "id": identity, "history": [{"user": user, "bot": bot} for user, bot in turns]})


def file_of(folder: Path, *rows: str) -> str:
    path = folder / "dialogues.jsonl"
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def test_each_turn_starts_from_the_gold_turns_before_it(tmp_path: Path) -> None:
    turns = gold_turns(file_of(tmp_path, row("GR", ("a?", "A"), ("b?", "B"), ("c?", "C"))))
    assert [[m.content for m in turn.seed.messages] for turn in turns] == [
        ["a?"],
        ["a?", "A", "b?"],
        ["a?", "A", "b?", "B", "c?"],
    ]
    assert [(turn.turn, turn.gold) for turn in turns] == [(1, "A"), (2, "B"), (3, "C")]
    assert turns[1].seed.metadata == {"task": "GR", "id": 1, "turn": 2}
    assert {turn.seed.split for turn in turns} == {turns[0].seed.split}, "a dialogue stands on one side of a split"


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_first_turn_is_skipped_for_the_tasks_that_say_so(tmp_path: Path, task: str) -> None:
    turns = gold_turns(file_of(tmp_path, row(task, ("a?", "A"), ("b?", "B"))))
    assert [turn.turn for turn in turns] == ([2] if task in {"FR", "CR", "AR", "SA", "SC", "CM"} else [1, 2])


def test_equal_prefixes_of_two_dialogues_are_two_seeds(tmp_path: Path) -> None:
    path = file_of(tmp_path, row("SI", ("a?", "A")), row("SI", ("a?", "B"), identity=2))
    one, other = gold_turns(path)
    assert (one.dialogue, other.dialogue) == (0, 1)
    assert one.seed.seed_id != other.seed.seed_id
    assert gold_turns(path, limit=1) == [one]


def test_a_row_of_another_kind_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"dialogues\.jsonl:2: the task 'XX' is none of CM, AR"):
        gold_turns(file_of(tmp_path, row("SI", ("a?", "A")), row("XX", ("a?", "A"))))
    with pytest.raises(StoreError, match="holds no turn to judge"):
        gold_turns(file_of(tmp_path, row("CM", ("a?", "A"))))


@pytest.mark.skipif(not REAL.exists(), reason="mtbench101.jsonl is not beside the checkout")
def test_the_real_file_has_3615_judged_turns() -> None:
    turns = gold_turns(str(REAL))
    assert (len({turn.dialogue for turn in turns}), len(turns)) == (1388, 3615)
    assert len({turn.seed.seed_id for turn in turns}) == 3615
    by_task = Counter(turn.task for turn in turns)
    assert (set(by_task), by_task["CM"], by_task["IC"]) == (set(TASKS), 319 - 80, 426)
    assert not any(turn.turn == 1 for turn in turns if turn.task in FIRST_TURN_SKIPPED)
