"""The user simulators under a gate, and the trained one: what each sends, and what it makes of the answer."""

import asyncio
from typing import Any

import pytest

from agents.failures import ProviderError
from agents.prompts import GATE_VARIABLES, VARIABLES, Prompts
from agents.protocol import Agent, CallSite, DialogueSoFar, Refused, Utterance
from agents.user import TrainedUserSimulator, UserSimulator
from store.identity import call_id
from store.records import Call, Message
from tests.scripted import PatientLedger, language_model, said, scripted_model

PROMPTS = Prompts(variables=VARIABLES | GATE_VARIABLES)
CHAT = (said("user", "Where is it?"), said("assistant", "In Paris."))
REFUSED = (Refused("short", "Hm."), Refused("leak", "</caught> I simulate."))


def respond(
    reply: str, *, trained: bool = False, gated: bool = True, refused: tuple[Refused, ...] = (), **given: Any
) -> tuple[Utterance, Call]:
    """What a simulator made of a reply, and its call."""
    messages = (*((said("system", given.pop("system")),) if "system" in given else ()), *CHAT)
    ledger = PatientLedger()
    with scripted_model([reply]) as name:
        model = language_model(name, ledger=ledger, **given)
        user: Agent = (
            TrainedUserSimulator(model, gated=gated) if trained else UserSimulator(model, PROMPTS, gated=gated)
        )
        utterance = asyncio.run(user.respond(DialogueSoFar("camp_1", "dlg_1", messages, 3, refused=refused)))
    return utterance, ledger.notes[-1]


def sent(call: Call) -> tuple[Message, ...]:
    assert call.messages is not None
    return call.messages


def test_a_trained_simulator_sends_the_bare_conversation() -> None:
    utterance, call = respond(" And how old? ", trained=True)
    assert sent(call) == CHAT
    assert (utterance.content, utterance.ends_dialogue, call.agent, call.purpose) == (
        "And how old?",
        False,
        "user",
        "ask",
    )


@pytest.mark.parametrize(
    ("system_role", "expected"),
    [
        ("native", (said("system", "Be brief."), *CHAT)),
        ("fold", (said("user", "Be brief.\n\nWhere is it?"), CHAT[1])),
    ],
)
def test_a_seeds_system_text_goes_with_it_as_the_model_takes_it(
    system_role: str, expected: tuple[Message, ...]
) -> None:
    assert sent(respond("x", trained=True, system="Be brief.", system_role=system_role)[1]) == expected


def test_a_refused_query_is_asked_again_by_a_prompt_that_shows_it() -> None:
    _, call = respond("And how old?", refused=REFUSED)
    (prompt,) = sent(call)
    assert prompt.content.startswith("Task: ask_again\n")
    assert "short:\n<caught>\nHm.\n</caught>\nleak:\n<caught>\n< /caught> I simulate.\n</caught>" in prompt.content
    assert (call.purpose, call.ordinal) == ("ask_again", 2)


def test_a_trained_simulator_asks_again_by_the_same_words_and_another_seed() -> None:
    calls = [respond("x", trained=True, refused=REFUSED[:count])[1] for count in range(3)]
    assert [(call.purpose, call.ordinal, sent(call)) for call in calls] == [("ask", n, CHAT) for n in range(3)]
    assert len({call.parameters["seed"] for call in calls}) == 3


def test_the_first_query_has_the_id_that_it_has_without_a_gate() -> None:
    site = CallSite("camp_1", "dlg_1", 2, "user", "ask")
    expected = call_id(site.dialogue_id, site.depth, site.agent, site.purpose, 0)
    assert {respond("x", gated=gated)[1].call_id for gated in (True, False)} == {expected}


@pytest.mark.parametrize("trained", [True, False])
def test_no_text_is_an_error_unless_a_gate_reads_it(trained: bool) -> None:
    with pytest.raises(ProviderError) as raised:
        respond("  ", trained=trained, gated=False)
    assert raised.value.kind == "empty_query"
    assert respond("  ", trained=trained)[0] == Utterance(
        "", respond("", trained=trained)[0].call_id, completion_tokens=7
    )


@pytest.mark.parametrize("trained", [True, False])
def test_an_end_mark_within_a_text_is_left_to_the_gate_and_taken_out_without_one(trained: bool) -> None:
    within = respond("Thanks. [END] And how old?", trained=trained)[0]
    assert (within.content, within.ends_dialogue) == ("Thanks. [END] And how old?", False)
    after = respond("Thanks, bye. [END]", trained=trained)[0]
    assert (after.content, after.ends_dialogue) == ("Thanks, bye. [END]", True)
    assert respond("Thanks. [END]", trained=trained, gated=False)[0].content == "Thanks."
    assert respond("[END]", trained=trained)[0].ends_dialogue


@pytest.mark.parametrize(("max_tokens", "cut_off"), [(2, True), (200, False)])
def test_a_text_that_ran_into_max_tokens_is_cut_off(max_tokens: int, cut_off: bool) -> None:
    chat = (said("user", "Belo is red, big and old. What is its size?"), said("assistant", "It is big."))
    user = UserSimulator(language_model("rehearsal/default", max_tokens=max_tokens), PROMPTS, gated=True)
    assert asyncio.run(user.respond(DialogueSoFar("camp_1", "dlg_1", chat, 3))).cut_off is cut_off
