"""The nodes of a dialogue: plain async functions from state to an update that names where to go next.

A provider's failure ends the dialogue as data (`termination_reason`, `error`); only what is fatal for all
dialogues, and the campaign's own stop, leave a node as an exception.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

from langgraph.types import Command

from agents.protocol import DialogueSoFar, Utterance
from agents.providers import ProviderError
from configs.settings import PerturbSettings
from graphs.cast import Cast
from graphs.state import Alteration, DialogueState, Said, answers_given, messages_of
from store.records import Message, Verdict

Update = dict[str, Any]


class Node(Protocol):
    def __call__(self, state: DialogueState) -> Awaitable[Command[Any]]: ...


def dialogue_so_far(state: DialogueState) -> DialogueSoFar:
    return DialogueSoFar(
        campaign_id=state["campaign_id"],
        dialogue_id=state["dialogue_id"],
        messages=messages_of(state),
        turns_left=state["turns"] - answers_given(state),
    )


def first_speaker(perturb: PerturbSettings | None) -> Callable[[DialogueState], str]:
    """Who begins: the user after a seed that ends on an answer, else whoever treats the open user turn."""

    def route(state: DialogueState) -> Literal["user", "perturb", "assistant"]:
        if messages_of(state)[-1].role != "user":
            return "user"
        return "perturb" if _alters_next(state, perturb) else "assistant"

    return route


def user_node(cast: Cast, perturb: PerturbSettings | None) -> Node:
    async def user(state: DialogueState) -> Command[Literal["perturb", "assistant", "__end__"]]:
        """The user speaks, or ends the dialogue."""
        try:
            utterance = await cast.user.respond(dialogue_so_far(state))
        except ProviderError as error:
            return _failed(error)
        if utterance.ends_dialogue:
            return Command(goto="__end__", update={"termination_reason": "user_ended"})
        goto: Literal["perturb", "assistant"] = "perturb" if _alters_next(state, perturb) else "assistant"
        return Command(goto=goto, update={"said": [_said("user", utterance)]})

    return user


def perturb_node(cast: Cast) -> Node:
    async def perturb(state: DialogueState) -> Command[Literal["assistant", "__end__"]]:
        """The perturbation agent alters the instruction that waits for an answer."""
        dialogue = dialogue_so_far(state)
        try:
            altered = await cast.perturbation.respond(dialogue)
        except ProviderError as error:
            return _failed(error)
        return Command(goto="assistant", update={"pending": _alteration(state, dialogue, altered.content)})

    return perturb


def assistant_node(cast: Cast, perturb: PerturbSettings | None) -> Node:
    async def assistant(state: DialogueState) -> Command[Literal["verify", "user", "__end__"]]:
        """The assistant answers the visible instruction, or the altered one that waits."""
        dialogue = dialogue_so_far(state)
        alteration = state.get("pending")
        try:
            if alteration is not None:
                utterance = await cast.assistant.answer(dialogue, altered_instruction=alteration.altered_instruction)
            elif _contrasts_in_one_prompt(state, perturb):
                utterance = await cast.contrastive_assistant.respond(dialogue)
                alteration = _alteration(state, dialogue, utterance.altered_instruction or "")
            else:
                utterance = await cast.assistant.respond(dialogue)
        except ProviderError as error:
            return _failed(error)
        update: Update = {"said": [_said("assistant", utterance)]}
        if alteration is not None and perturb is not None and perturb.verify:
            return Command(goto="verify", update=update | {"pending": alteration})
        if alteration is not None:
            update |= {"pending": None, "alterations": [alteration]}
        return _after_answer(state, update, answers_given(state) + 1)

    return assistant


def verify_node(cast: Cast) -> Node:
    async def verify(state: DialogueState) -> Command[Literal["user", "__end__"]]:
        """The first judge says whether the perturbed answer fails the visible instruction."""
        judge = cast.judges[0]
        alteration = state["pending"]
        assert alteration is not None, "verify follows a perturbed answer"
        so_far = dialogue_so_far(state)
        before = so_far._replace(messages=so_far.messages[:-1])
        try:
            opinion = await judge.verify(before, so_far.messages[-1].content)
        except ProviderError as error:
            return _failed(error, alterations=[alteration])
        verdicts: dict[str, Verdict] = {"landed": "landed", "missed": "missed"}
        verdict = verdicts.get(opinion.verdict, "unchecked")
        checked = alteration._replace(verdict=verdict, judge=judge.name, opinion=opinion)
        return _after_answer(state, {"pending": None, "alterations": [checked]}, answers_given(state))

    return verify


def _after_answer(state: DialogueState, update: Update, answers: int) -> Command[Any]:
    if answers >= state["turns"]:
        return Command(goto="__end__", update=update | {"termination_reason": "max_turns"})
    return Command(goto="user", update=update)


def _failed(error: ProviderError, **update: Any) -> Command[Any]:
    if error.fatal:
        raise error
    failed = {"termination_reason": error.kind, "error": str(error), "pending": None}
    return Command(goto="__end__", update=update | failed)


def _said(agent: Literal["user", "assistant"], utterance: Utterance) -> Said:
    return Said(Message(role=agent, content=utterance.content), agent, utterance.call_id, utterance.completion_tokens)


def _alteration(state: DialogueState, dialogue: DialogueSoFar, altered_instruction: str) -> Alteration:
    kind = state["kinds"][answers_given(state)]
    return Alteration(dialogue.depth, kind, dialogue.instruction, altered_instruction)


def _is_perturbed(state: DialogueState) -> bool:
    return answers_given(state) in state["perturbed_answers"]


def _alters_next(state: DialogueState, perturb: PerturbSettings | None) -> bool:
    return perturb is not None and perturb.altered_by == "perturbation" and _is_perturbed(state)


def _contrasts_in_one_prompt(state: DialogueState, perturb: PerturbSettings | None) -> bool:
    return perturb is not None and perturb.altered_by == "assistant" and _is_perturbed(state)
