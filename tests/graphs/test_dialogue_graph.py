"""The dialogue graph: who speaks when, how a dialogue ends, and what a failure leaves."""

from collections.abc import Callable

import pytest

from agents.failures import ProviderError
from store.records import DialogueStats
from tests.graphs.conftest import Play, seed_of
from tests.scripted import said


def test_user_and_assistant_speak_in_turn(play: Play) -> None:
    played = play(recipe="dialogue", turns=3)
    assert played.texts() == [
        "the first instruction",
        "answer to <the first instruction>",
        "question 1",
        "answer to <question 1>",
        "question 2",
        "answer to <question 2>",
    ]
    assert [call.purpose for call in played.calls] == ["answer", "ask", "answer", "ask", "answer"]
    dialogue = played.dialogues["main"]
    assert (dialogue.status, dialogue.termination_reason, dialogue.n_turns) == ("done", "max_turns", 3)
    assert (played.outcome.done, played.outcome.failed, played.pairs) == (1, 0, [])
    assert [stats.n_words for stats in played.of(DialogueStats)] == [sum(len(t.split()) for t in played.texts())]


def test_turns_form_a_chain_and_name_their_calls(play: Play) -> None:
    played = play(recipe="dialogue", turns=2)
    turns = [played.turns[identity] for identity in played.dialogues["main"].turn_ids]
    assert [turn.parent_id for turn in turns] == [None, *(turn.turn_id for turn in turns[:-1])]
    assert [turn.depth for turn in turns] == [0, 1, 2, 3]
    assert [turn.agent for turn in turns] == ["seed", "assistant", "user", "assistant"]
    assert [turn.call_id for turn in turns] == [None, *(call.call_id for call in played.calls)]


def test_a_long_dialogue_is_not_cut_by_langgraph(play: Play) -> None:
    perturb = {"schedule": "every", "verify": True}
    assert play(recipe="dialogue", turns=40, perturb=perturb).dialogues["main"].n_turns == 40


def test_the_user_ends_the_dialogue(play: Play) -> None:
    parts = {"ask": lambda text: "[END]" if text.count("<user>") == 2 else "more"}
    played = play(recipe="dialogue", turns=9, parts=parts)
    assert played.dialogues["main"].termination_reason == "user_ended"
    assert played.dialogues["main"].status == "done"
    assert len(played.texts()) == 4


def test_a_seed_that_ends_on_an_answer_starts_with_the_user(play: Play) -> None:
    seed = seed_of(said("user", "hello"), said("assistant", "hi"))
    played = play(recipe="dialogue", turns=2, seed=seed)
    assert [call.purpose for call in played.calls] == ["ask", "answer", "ask", "answer"]
    assert played.dialogues["main"].n_turns == 3


def test_a_system_message_of_a_seed_stays_in_front(play: Play) -> None:
    seed = seed_of(said("system", "Be brief."), said("user", "hello"))
    played = play(recipe="dialogue", turns=2, seed=seed)
    assert played.texts()[0] == "Be brief."
    assert all(call.messages and call.messages[0].role == "user" for call in played.calls)


def _fail(kind: str, *, fatal: bool = False) -> Callable[[str], str]:
    """LiteLLM wraps what a provider raises; what it is called stays in the text."""

    def act(_: str) -> str:
        from litellm import AuthenticationError, BadRequestError

        if fatal:
            raise AuthenticationError(kind, "scripted", "x")
        raise BadRequestError(kind, "x", "scripted")

    return act


@pytest.mark.parametrize(("part", "said_before_it", "n_turns"), [("chat", 1, 0), ("ask", 2, 1), ("alter", 1, 0)])
def test_a_failure_is_data_with_its_reason(play: Play, part: str, said_before_it: int, n_turns: int) -> None:
    parts = {part: _fail("maximum context length is 8")}
    played = play(recipe="dialogue", turns=3, parts=parts, perturb={"verify": True})
    dialogue = played.dialogues["main"]
    assert (dialogue.status, dialogue.termination_reason) == ("failed", "context_overflow")
    assert "maximum context length" in (dialogue.error or "")
    assert len(played.texts()) == said_before_it
    assert dialogue.n_turns == n_turns
    assert (played.outcome.done, played.outcome.failed) == (0, 1)


def test_a_check_that_fails_leaves_the_perturbation_unchecked_and_the_dialogue_alive(play: Play) -> None:
    played = play(recipe="dialogue", turns=2, parts={"verify": _fail("no")}, perturb={"verify": True})
    assert (played.dialogues["main"].status, played.dialogues["main"].n_turns) == ("done", 2)
    assert [(p.verdict, p.verdict_source, p.attempts) for p in played.perturbations] == [("unchecked", None, 1)] * 2
    assert [played.turns[p.turn_id].perturbation_id for p in played.perturbations] == [
        p.perturbation_id for p in played.perturbations
    ]
    assert played.judgements == []
    assert [call.status for call in played.calls if call.purpose == "verify"] == ["failed"] * 2


def test_what_is_fatal_for_every_dialogue_is_raised(play: Play) -> None:
    with pytest.raises(ProviderError) as raised:
        play(recipe="dialogue", turns=3, parts={"chat": _fail("wrong key", fatal=True)})
    assert raised.value.kind == "bad_key"
    with pytest.raises(ProviderError):
        play(recipe="dialogue", turns=1, parts={"verify": _fail("wrong key", fatal=True)}, perturb={"verify": True})


def test_scheduled_answers_are_perturbed_and_verified(play: Play) -> None:
    played = play(recipe="dialogue", turns=3, perturb={"schedule": "every", "verify": True})
    assert [call.purpose for call in played.calls] == [
        *("alter", "answer_altered", "verify"),
        *("ask", "alter", "answer_altered", "verify"),
        *("ask", "alter", "answer_altered", "verify"),
    ]
    assert [p.verdict for p in played.perturbations] == ["landed"] * 3
    assert [p.instruction for p in played.perturbations] == ["the first instruction", "question 1", "question 2"]
    assert {p.altered_instruction for p in played.perturbations} == {"something else"}
    assert {p.verdict_source for p in played.perturbations} == {"scripted/x"}
    assert [j.verdict for j in played.judgements] == ["landed"] * 3


def test_one_scheduled_answer_leaves_the_others_plain(play: Play) -> None:
    played = play(recipe="dialogue", turns=4, perturb={"schedule": "one"})
    (perturbation,) = played.perturbations
    assert perturbation.verdict == "unchecked"
    assert perturbation.verdict_source is None
    assert [turn.content for turn in played.turns.values() if turn.perturbation_id] == ["answer to <something else>"]
    assert [call.purpose for call in played.calls].count("answer") == 3


def test_a_judge_that_cannot_be_read_leaves_the_verdict_open(play: Play) -> None:
    played = play(recipe="dialogue", turns=1, parts={"verify": lambda _: "Hm."}, perturb={"verify": True})
    (perturbation,) = played.perturbations
    assert (perturbation.verdict, perturbation.verdict_source) == ("unchecked", None)
    assert [(j.verdict, j.raw) for j in played.judgements] == [("invalid", "Hm.")]


def test_the_assistant_can_alter_and_answer_in_one_prompt(play: Play) -> None:
    played = play(recipe="dialogue", turns=2, perturb={"altered_by": "assistant", "verify": True})
    assert [call.purpose for call in played.calls] == ["contrast", "verify", "ask", "contrast", "verify"]
    assert played.texts() == ["the first instruction", "beside the point", "question 1", "beside the point"]
    assert {p.altered_instruction for p in played.perturbations} == {"something else"}


def test_the_verifier_sees_the_answer_apart_from_the_conversation(play: Play) -> None:
    played = play(recipe="dialogue", turns=1, perturb={"verify": True})
    (check,) = [call for call in played.calls if call.purpose == "verify"]
    assert check.messages is not None
    conversation = check.messages[0].content.split("<transcript>")[1].split("</transcript>")[0]
    assert "the first instruction" in conversation
    assert "<assistant>" not in conversation


def test_the_tokens_of_a_dialogue_are_those_of_its_turns(play: Play) -> None:
    played = play(recipe="dialogue", turns=2)
    (stats,) = played.of(DialogueStats)
    assert stats.n_tokens == sum(call.completion_tokens or 0 for call in played.calls) > 0
