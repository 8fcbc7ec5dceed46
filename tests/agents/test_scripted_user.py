"""The scripted user: the seed's own turns, without a call, and then the simulator or the end."""

import asyncio

from agents.protocol import DialogueSoFar, Utterance
from agents.user import ScriptedUser
from tests.scripted import said

SCRIPT = ("one?", "two?", "three?")


class Simulator:
    """Notes what it was asked, in place of a model."""

    def __init__(self) -> None:
        self.asked: list[DialogueSoFar] = []

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        self.asked.append(dialogue)
        return Utterance("and then?", "call_1")


def so_far(n_answers: int, script: tuple[str, ...] = SCRIPT) -> DialogueSoFar:
    turns = [said(role, f"{role} {turn}") for turn in range(n_answers) for role in ("user", "assistant")]
    return DialogueSoFar("camp_1", "dlg_1", tuple(turns), 9, script)


def test_a_scripted_user_speaks_the_seeds_next_turn_and_calls_nobody() -> None:
    simulator = Simulator()
    spoken = [asyncio.run(ScriptedUser(simulator).respond(so_far(n))) for n in (1, 2)]
    assert [(utterance.content, utterance.call_id) for utterance in spoken] == [("two?", None), ("three?", None)]
    assert not simulator.asked


def test_a_scripted_user_hands_over_to_the_simulator_after_the_last_turn() -> None:
    simulator = Simulator()
    assert asyncio.run(ScriptedUser(simulator).respond(so_far(3))).content == "and then?"
    assert simulator.asked == [so_far(3)]


def test_a_scripted_user_alone_ends_the_dialogue_after_the_last_turn() -> None:
    assert asyncio.run(ScriptedUser().respond(so_far(3))).ends_dialogue
    assert asyncio.run(ScriptedUser().respond(so_far(1, script=()))).ends_dialogue
