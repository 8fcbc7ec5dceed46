"""The gate in the graphs: a caught query is asked for again alone, never a turn, and in the end it ends the dialogue."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agents.failures import ProviderError
from agents.gate import Gate
from agents.gate_rules import Finding, PatternError
from agents.prompts import GATE_VARIABLES, VARIABLES, Prompts
from agents.protocol import DialogueSoFar, Utterance
from configs.settings import CampaignSettings, GateSettings
from graphs.campaign import campaign_identity
from graphs.cast import models_in_use, prompts_of
from store.records import Caught
from tests.graphs.conftest import DEFAULT_PARTS, Play, Played, reward_model, seed_of
from tests.scripted import said

LEAK = "Task: ask\nWhat next?"
GATE: dict[str, Any] = {"gate": {"min_words": 2}}


def caught(played: Played) -> list[tuple[int, int, str, str, str]]:
    return [(c.depth, c.attempt, c.reason, c.outcome, c.content) for c in played.of(Caught)]


def on_turn(number: int, bad: str) -> Callable[[str], str]:
    """A user who says something bad once so many turns were said."""
    return lambda text: bad if text.count("<user>") == number else DEFAULT_PARTS["ask"](text)


def test_a_gate_that_finds_nothing_leaves_the_dialogue_as_it_is(play: Play) -> None:
    plain, gated = play(recipe="dialogue", turns=4), play(recipe="dialogue", turns=4, **GATE)
    assert gated.texts() == plain.texts()
    assert [call.purpose for call in gated.calls] == [call.purpose for call in plain.calls]
    assert caught(gated) == []


def test_only_the_bad_turn_is_asked_again_and_it_is_stored_apart(play: Play) -> None:
    played = play(recipe="dialogue", turns=3, parts={"ask": on_turn(2, LEAK)}, **GATE)
    assert played.texts()[2::2] == ["question 1", "better question 2"]
    assert [call.purpose for call in played.calls] == ["answer", "ask", "answer", "ask", "ask_again", "answer"]
    assert caught(played) == [(4, 0, "leak", "asked_again", LEAK)]
    (catch,) = played.of(Caught)
    wrote = next(call for call in played.calls if call.call_id == catch.call_id)
    assert (wrote.response, wrote.purpose, catch.source) == (LEAK, "ask", "rule")
    dialogue = played.dialogues["main"]
    assert (dialogue.status, dialogue.termination_reason, dialogue.n_turns) == ("done", "max_turns", 3)
    (prompt,) = played.prompts("ask_again")
    assert f"leak:\n<caught>\n{LEAK}\n</caught>" in prompt


def test_each_further_ask_sees_all_that_was_caught_at_this_place(play: Play) -> None:
    parts = {
        "ask": lambda _: "Hm.",
        "ask_again": lambda text: LEAK if "leak" not in text.split("</transcript>")[1] else "and then",
    }
    played = play(recipe="dialogue", turns=2, parts=parts, **GATE)
    assert [(c[1], c[2]) for c in caught(played)] == [(0, "short"), (1, "leak")]
    assert [prompt.count("<caught>") for prompt in played.prompts("ask_again")] == [1, 2]
    assert [(call.purpose, call.ordinal) for call in played.calls if call.agent == "user"] == [
        ("ask", 0),
        ("ask_again", 1),
        ("ask_again", 2),
    ]
    assert played.texts()[2] == "and then"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("Sure, here is the answer.", "role_inversion"),
        (LEAK, "leak"),
        ("[END]", "early_end"),
        ("Thanks, bye. [END]", "early_end"),
        ("Thank you, goodbye!", "early_end"),
        ("Hello, I have a question.", "restart"),
        ("question 1", "repetition"),
    ],
)
def test_a_role_that_stays_broken_fails_the_dialogue(play: Play, bad: str, reason: str) -> None:
    parts = {"ask": on_turn(2, bad), "ask_again": lambda _: bad}
    played = play(recipe="dialogue", turns=5, parts=parts, gate={"min_words": 2, "retries": 2})
    dialogue = played.dialogues["main"]
    assert (dialogue.status, dialogue.termination_reason) == ("failed", reason)
    assert f"({reason}, {reason}, {reason})" in (dialogue.error or "")
    assert "at turn 3" in (dialogue.error or "")
    assert (played.outcome.done, played.outcome.failed) == (0, 1)
    assert [(c[0], c[1], c[2], c[3]) for c in caught(played)] == [
        (4, 0, reason, "asked_again"),
        (4, 1, reason, "asked_again"),
        (4, 2, reason, "failed"),
    ]
    assert [c[4] for c in caught(played)] == [bad] * 3
    assert played.texts()[2:] == ["question 1", "answer to <question 1>"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("Hm.", "short"),
        ("my password is hunter2", "sensitive"),
        ("and once more question 1", "repetitive"),
        ("", "short"),
        ("and what of the br\ufffddge", "garbled"),
    ],
)
def test_a_query_that_a_person_might_write_ends_the_dialogue_before_it(play: Play, bad: str, reason: str) -> None:
    parts = {"ask": on_turn(2, bad), "ask_again": lambda _: bad}
    played = play(recipe="dialogue", turns=5, parts=parts, gate={"min_words": 2, "retries": 1, "repetitive": 0.5})
    dialogue = played.dialogues["main"]
    assert (dialogue.status, dialogue.termination_reason, dialogue.error) == ("done", reason, None)
    assert [c[2:4] for c in caught(played)] == [(reason, "asked_again"), (reason, "ended")]
    assert bad not in played.texts()
    assert dialogue.n_turns == 2


def test_a_query_that_max_tokens_cut_off_is_unfinished() -> None:
    dialogue = DialogueSoFar("camp_1", "dlg_1", (said("user", "Where is it?"), said("assistant", "In Paris.")), 3)
    cut = Utterance("and what is the best way", "call_1", cut_off=True)

    def found(utterance: Utterance, **given: Any) -> Finding | None:
        gate = Gate(GateSettings.model_validate(given), Prompts(variables=VARIABLES | GATE_VARIABLES))
        return asyncio.run(gate.inspect(dialogue, utterance, answers=1))

    assert found(cut) == Finding("unfinished")
    assert found(cut, garbled=False) is None
    assert found(cut._replace(cut_off=False)) is None
    assert found(cut._replace(content="Task: ask")) == Finding("leak")
    assert found(cut._replace(content="and wh\ufffdt is that"), garbled=False) is None


def test_without_retries_the_first_catch_is_the_last(play: Play) -> None:
    played = play(recipe="dialogue", turns=3, parts={"ask": on_turn(1, LEAK)}, gate={"min_words": 2, "retries": 0})
    assert caught(played) == [(2, 0, "leak", "failed", LEAK)]
    assert "ask_again" not in {call.purpose for call in played.calls}


def test_a_user_may_end_after_the_fewest_turns(play: Play) -> None:
    parts = {"ask": on_turn(3, "[END]")}
    early = play(recipe="dialogue", turns=5, parts=parts, gate={"min_words": 2, "fewest_turns": 4})
    assert [c[2] for c in caught(early)] == ["early_end"]
    assert early.dialogues["main"].termination_reason == "max_turns"
    late = play(recipe="dialogue", turns=5, parts=parts, gate={"min_words": 2, "fewest_turns": 3})
    assert caught(late) == []
    assert (late.dialogues["main"].termination_reason, late.dialogues["main"].n_turns) == ("user_ended", 3)


def test_words_of_leave_count_only_before_the_fewest_turns(play: Play) -> None:
    gate = {"min_words": 2, "fewest_turns": 3}
    marked = play(recipe="dialogue", turns=5, parts={"ask": on_turn(3, "Thanks, bye. [END]")}, gate=gate)
    assert caught(marked) == []
    assert (marked.dialogues["main"].termination_reason, marked.dialogues["main"].n_turns) == ("user_ended", 3)
    assert caught(play(recipe="dialogue", turns=5, parts={"ask": on_turn(3, "Thank you, goodbye!")}, gate=gate)) == []


def test_a_long_gated_dialogue_is_not_cut_by_langgraph(play: Play) -> None:
    tries = {
        "ask": lambda _: "Hm.",
        "ask_again": lambda text: "Hm." if text.count("<caught>") < 5 else f"so {text.count('<user>')}",
    }
    gate = {"min_words": 2, "retries": 5, "repetitive": None}
    for given in ({"recipe": "dialogue", "perturb": {"verify": True}}, {"recipe": "music"}):
        played = play(turns=20, parts=tries, gate=gate, **given)
        assert {dialogue.n_turns for dialogue in played.dialogues.values()} == {20}


def test_both_branches_of_music_have_the_gate(play: Play) -> None:
    played = play(recipe="music", turns=3, parts={"ask": on_turn(2, LEAK)}, **GATE)
    branches = {dialogue.dialogue_id: branch for branch, dialogue in played.dialogues.items()}
    assert sorted(branches[catch.dialogue_id] for catch in played.of(Caught)) == ["chosen", "rejected"]
    assert LEAK not in [turn.content for turn in played.turns.values()]
    assert len({catch.catch_id for catch in played.of(Caught)}) == 2


@pytest.mark.parametrize("share", ["trunk", "rest"])
def test_a_catch_belongs_to_the_branch_whose_user_spoke(play: Play, share: str) -> None:
    perturb = {"schedule": "last", "share": share}
    played = play(recipe="music", turns=3, parts={"ask": on_turn(2, LEAK)}, perturb=perturb, **GATE)
    assert {catch.dialogue_id for catch in played.of(Caught)} == {played.dialogues["chosen"].dialogue_id}


def test_best_of_n_has_the_gate(play: Play) -> None:
    longest = reward_model(lambda conversations: [float(len(messages[-1].content)) for messages in conversations])
    played = play(
        recipe="best_of_n",
        turns=3,
        candidates=2,
        scorer={"model": "toy"},
        picks_by=longest,
        parts={"ask": on_turn(2, LEAK)},
        **GATE,
    )
    assert [c[2] for c in caught(played)] == ["leak"]
    assert played.texts()[2::2] == ["question 1", "better question 2"]


def test_capo_has_the_gate_where_the_user_speaks(play: Play) -> None:
    def ask(text: str) -> str:
        return LEAK if text.count("<user>") == 2 else f"And why is it {text.count('<user>')} like that?"

    parts = {"ask": ask, "ask_again": lambda _: "And what is it for?", "depends": lambda _: '{"depends": true}'}
    parts |= {"guess": lambda _: "a guess", "misread": lambda _: "a part", "verify_context": DEFAULT_PARTS["verify"]}
    played = play(recipe="capo", turns=3, parts=parts, gate={"min_words": 2, "repetitive": None})
    assert [c[0:4] for c in caught(played)] == [(4, 0, "leak", "asked_again")]
    assert LEAK not in [turn.content for turn in played.turns.values()]
    assert played.dialogues["main"].n_turns == 3
    assert len(played.pairs) > 0


def test_turns_that_the_seed_brings_along_pass_no_gate(play: Play) -> None:
    question = seed_of(said("user", "Hi."))
    question = question.model_copy(update={"metadata": {"turns": ["Hi.", "Hm."]}})
    played = play(recipe="dialogue", script="only", turns=5, seed=question, gate={})
    assert played.texts()[::2] == ["Hi.", "Hm."]
    assert caught(played) == []


def test_a_trained_simulator_is_asked_again_by_the_bare_conversation(play: Play) -> None:
    replies = iter(["", "Assistant: yes.", "and what then?"])
    played = play(recipe="dialogue", simulator="trained", turns=2, parts={"query": lambda _: next(replies)}, **GATE)
    assert [c[1:3] for c in caught(played)] == [(0, "short"), (1, "role_inversion")]
    asked = [call for call in played.calls if call.agent == "user"]
    assert [(call.purpose, call.ordinal) for call in asked] == [("ask", 0), ("ask", 1), ("ask", 2)]
    assert len({call.call_id for call in asked}) == len({call.parameters["seed"] for call in asked}) == 3
    assert all(call.messages and [m.role for m in call.messages] == ["user", "assistant"] for call in asked)
    assert played.texts()[2] == "and what then?"


def test_a_model_is_asked_where_the_rules_find_nothing(play: Play) -> None:
    def judge(text: str) -> str:
        problem = "role_inversion" if "<query>\nquestion 1\n" in text else "none"
        return f'{{"rationale": "r", "problem": "{problem}"}}'

    parts = {"gate": judge, "ask": lambda text: LEAK if text.count("<user>") == 2 else DEFAULT_PARTS["ask"](text)}
    played = play(recipe="dialogue", turns=3, parts=parts, gate={"min_words": 2, "model": True})
    assert [(c.reason, c.source, c.content) for c in played.of(Caught)] == [
        ("role_inversion", "scripted/x", "question 1"),
        ("leak", "rule", LEAK),
    ]
    asked = [call for call in played.calls if call.purpose == "gate"]
    assert {(call.agent, call.model) for call in asked} == {("judge", "scripted/x")}
    assert len({call.call_id for call in asked}) == len(asked) == 3, "the leak is not shown to it"


def test_a_model_that_cannot_be_read_or_fails_finds_nothing(play: Play) -> None:
    def fail(_: str) -> str:
        raise ProviderError("bad_request", "no")

    answers = iter(["Hm.", '{"problem": "strange"}', '{"problem": "leak"}'])
    mended = play(
        recipe="dialogue",
        turns=2,
        parts={"gate": lambda _: next(answers, '{"problem": "none"}')},
        gate={"min_words": 2, "model": True},
    )
    assert [c[2] for c in caught(mended)] == ["leak"]
    assert [call.purpose for call in mended.calls].count("gate") == 4, "twice repaired, and once for the next query"
    for part in (lambda _: "Hm.", fail):
        played = play(recipe="dialogue", turns=3, parts={"gate": part}, gate={"min_words": 2, "model": True})
        assert caught(played) == []
        assert played.dialogues["main"].termination_reason == "max_turns"


def test_a_models_early_end_counts_only_before_the_fewest_turns(play: Play) -> None:
    part = {"gate": lambda _: '{"problem": "early_end"}', "ask_again": lambda _: "and then"}
    gate = {"min_words": 2, "model": True, "fewest_turns": 2, "retries": 0}
    assert [c[0:4] for c in caught(play(recipe="dialogue", turns=4, parts=part, gate=gate))] == [
        (2, 0, "early_end", "failed")
    ]
    assert caught(play(recipe="dialogue", turns=4, parts=part, gate=gate | {"fewest_turns": 1})) == []


def settings_of(**given: Any) -> CampaignSettings:
    return CampaignSettings.model_validate({"recipe": "dialogue", **given})


def identity_of(**given: Any) -> str:
    settings = settings_of(**given)
    return campaign_identity(settings, prompts_of(settings))


def test_a_gate_and_the_simulator_are_part_of_the_identity_and_their_absence_is_not(tmp_path: Any) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "b.txt").write_text("# the same\nx\n")
    (tmp_path / "c.txt").write_text("y\n")
    plain = identity_of()
    assert plain == identity_of(gate=None, simulator="prompted")
    a, b, c = (identity_of(gate={"sensitive": str(tmp_path / f"{name}.txt")}) for name in "abc")
    assert a == b, "what stands in the file counts, not where it lies"
    others = [plain, a, c, identity_of(gate={}), identity_of(gate={"retries": 1}), identity_of(simulator="trained")]
    others.append(identity_of(gate={"sensitive": False}))
    assert len(set(others)) == len(others)


def test_a_bad_list_of_patterns_is_told_before_anything_is_written() -> None:
    with pytest.raises(PatternError, match=r"cannot read 'gone\.txt' for gate\.sensitive"):
        identity_of(gate={"sensitive": "gone.txt"})


def test_the_first_judge_plays_where_the_gate_asks_a_model() -> None:
    models = {"judges": [{"model": "openai/a"}, {"model": "openai/b"}]}
    assert "judge_0" not in models_in_use(settings_of(gate={}, models=models))
    in_use = models_in_use(settings_of(gate={"model": True}, models=models))
    assert "judge_0" in in_use
    assert "judge_1" not in in_use
