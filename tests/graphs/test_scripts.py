"""Campaigns that follow the seeds' own further turns."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.settings import CampaignSettings
from graphs.cast import models_in_use
from graphs.seeds import SeedsMissingError, load_seeds
from store.records import DialogueStats
from tests.graphs.conftest import FIRST, Play

QUESTION = FIRST.model_copy(update={"metadata": {"turns": [FIRST.messages[0].content, "the second"]}})


def test_the_seeds_own_turns_are_spoken_as_the_seeds_and_then_the_dialogue_ends(play: Play) -> None:
    played = play(recipe="dialogue", script="only", turns=5, seed=QUESTION)
    assert played.texts()[::2] == ["the first instruction", "the second"]
    assert {call.agent for call in played.calls} == {"assistant"}
    dialogue = played.dialogues["main"]
    assert (dialogue.n_turns, dialogue.status, dialogue.termination_reason) == (2, "done", "user_ended")
    second = played.turns[dialogue.turn_ids[2]]
    assert (second.role, second.agent, second.call_id) == ("user", "seed", None)
    (stats,) = played.of(DialogueStats)
    assert stats.n_tokens == 14, "turns that no model spoke have no tokens to report"


def test_the_simulator_goes_on_after_the_script_up_to_the_number_of_turns(play: Play) -> None:
    played = play(recipe="dialogue", script="first", turns=4, seed=QUESTION)
    assert played.texts()[::2] == ["the first instruction", "the second", "question 2", "question 3"]
    agents = [played.turns[turn].agent for turn in played.dialogues["main"].turn_ids]
    assert agents == ["seed", "assistant", "seed", "assistant", "user", "assistant", "user", "assistant"]


def test_a_gate_reads_the_simulators_queries_and_not_the_seeds_own(play: Play) -> None:
    short = FIRST.model_copy(update={"metadata": {"turns": [FIRST.messages[0].content, "Why?"]}})
    parts = {"ask": lambda _: "So what?", "ask_again": lambda _: "and what follows from it?"}
    played = play(recipe="dialogue", script="first", turns=3, seed=short, gate={}, parts=parts)
    assert played.texts()[::2] == ["the first instruction", "Why?", "and what follows from it?"]


def test_turns_below_the_scripts_length_cut_it(play: Play) -> None:
    assert len(play(recipe="dialogue", script="first", turns=1, seed=QUESTION).texts()) == 2


def test_no_user_model_is_wanted_where_the_script_is_all() -> None:
    models = {"models": {"assistant": {"model": "openai/x"}}, "recipe": "dialogue"}
    assert "user" not in models_in_use(CampaignSettings.model_validate({**models, "script": "only"}))
    assert "user" in models_in_use(CampaignSettings.model_validate({**models, "script": "first"}))


def seeds_of(tmp_path: Path, *rows: Mapping[str, object], **given: object) -> list[str]:
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = CampaignSettings.model_validate({"recipe": "dialogue", "seeds": {"path": str(file)}, **given})
    return [seed.seed_id for seed in load_seeds(settings).seeds]


def test_questions_that_only_begin_alike_are_different_seeds(tmp_path: Path) -> None:
    one, other = {"turns": ["a", "b"]}, {"turns": ["a", "c"]}
    plain = seeds_of(tmp_path, one), seeds_of(tmp_path, other)
    assert plain[0] == plain[1], "without a script the first turn is all that there is"
    assert seeds_of(tmp_path, one, script="only") != seeds_of(tmp_path, other, script="only")
    twice = seeds_of(tmp_path, one, one, script="only")
    assert len(set(twice)) == 2


def test_a_script_wants_seeds_that_bring_one(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "hello"}]}
    with pytest.raises(SeedsMissingError, match="brings no `turns`"):
        seeds_of(tmp_path, row, script="first")
