"""The nodes of a dialogue: plain async functions from state to an update that names where to go next.

A provider's failure ends the dialogue as data (`termination_reason`, `error`); only what is fatal for all
dialogues, and the campaign's own stop, leave a node as an exception. The user's half stands in `graphs.user_turn`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol

from langgraph.types import Command

from agents.failures import ProviderError
from agents.protocol import DialogueSoFar, Refused, Utterance
from configs.settings import PerturbationKind, PerturbSettings
from graphs.cast import Cast
from graphs.state import Alteration, DialogueState, Said, Tried, answers_given, caught_here, messages_of
from store.context import context_dependent
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
        script=tuple(state.get("script", ())),
        refused=tuple(Refused(catch.reason, catch.content) for catch in caught_here(state)),
    )


def first_speaker(perturb: PerturbSettings | None) -> Callable[[DialogueState], str]:
    """Who begins: the user after a seed that ends on an answer, else whoever treats the open user turn."""

    def route(state: DialogueState) -> Literal["user", "perturb", "assistant"]:
        messages = messages_of(state)
        if messages[-1].role != "user":
            return "user"
        return "perturb" if alters_next(state, messages, perturb) else "assistant"

    return route


def perturb_node(cast: Cast) -> Node:
    async def perturb(state: DialogueState) -> Command[Literal["assistant", "__end__"]]:
        """The perturbation agent alters the instruction that waits for an answer; neglect leaves it as it is."""
        dialogue, kind = dialogue_so_far(state), _kind(state)
        altered: str | None
        try:
            if kind == "music_contrast":
                altered = (await cast.perturbation.alter(dialogue, missed=_missed(state))).content
            else:
                altered = await cast.context_errors.alter(kind, dialogue, missed=_missed(state))
        except ProviderError as error:
            return failed(error, state, cast.judges[0].name)
        return Command(goto="assistant", update={"pending": _alteration(state, dialogue, altered)})

    return perturb


def assistant_node(cast: Cast, perturb: PerturbSettings | None) -> Node:
    async def assistant(state: DialogueState) -> Command[Literal["verify", "user", "__end__"]]:
        """The assistant answers the visible instruction, or the altered one that waits."""
        dialogue = dialogue_so_far(state)
        alteration, ordinal = state.get("pending"), len(state.get("tries", []))
        try:
            if alteration is not None:
                altered = alteration.altered_instruction
                if alteration.kind == "music_contrast":
                    utterance = await cast.assistant.answer(dialogue, altered_instruction=altered, ordinal=ordinal)
                else:
                    utterance = await cast.context_errors.answer(
                        alteration.kind, dialogue, altered_instruction=altered, ordinal=ordinal
                    )
            elif _contrasts_in_one_prompt(state, perturb):
                utterance = await cast.contrastive_assistant.contrast(dialogue, missed=_missed(state))
                alteration = _alteration(state, dialogue, utterance.altered_instruction or "")
            else:
                utterance = await cast.assistant.respond(dialogue)
        except ProviderError as error:
            return failed(error, state, cast.judges[0].name)
        said = said_by("assistant", utterance)
        if alteration is not None and perturb is not None and perturb.verify:
            tries = [*state.get("tries", []), Tried(alteration.altered_instruction, said)]
            return Command(goto="verify", update={"pending": alteration, "tries": tries})
        update: Update = {"said": [said]}
        if alteration is not None:
            update |= {"pending": None, "alterations": [alteration]}
        return _after_answer(state, update, answers_given(state) + 1)

    return assistant


def verify_node(cast: Cast, perturb: PerturbSettings) -> Node:
    async def verify(state: DialogueState) -> Command[Literal["perturb", "assistant", "user", "__end__"]]:
        """The first judge says whether the perturbed answer fails the visible instruction; a miss is tried again."""
        judge, (*before, last) = cast.judges[0], state["tries"]
        dialogue, answer, kind = dialogue_so_far(state), last.answer.message.content, _kind(state)
        try:
            if kind == "music_contrast":
                opinion = await judge.verify(dialogue, answer, attempt=len(before))
            else:
                opinion = await judge.verify_context(dialogue, answer, kind=kind, attempt=len(before))
        except ProviderError as error:
            if error.fatal:
                raise
            opinion = None  # the failed call is in the journal; the answer stays as it is, unchecked
        tries = [*before, last._replace(opinion=opinion)]
        if opinion is not None and opinion.verdict == "missed" and len(tries) <= perturb.retries:
            alters = alters_next(state, dialogue.messages, perturb)
            goto: Literal["perturb", "assistant"] = "perturb" if alters else "assistant"
            return Command(goto=goto, update={"pending": None, "tries": tries})
        return _after_answer(state, _settled(state, tries, judge.name), answers_given(state) + 1)

    return verify


def _settled(state: DialogueState, tries: Sequence[Tried], judge: str) -> Update:
    """The last try takes its place in the transcript, with what the judge said of each."""
    last = tries[-1]
    verdicts: dict[str, Verdict] = {"landed": "landed", "missed": "missed"}
    checked = _alteration(state, dialogue_so_far(state), last.altered_instruction)._replace(
        verdict="unchecked" if last.opinion is None else verdicts.get(last.opinion.verdict, "unchecked"),
        judge=judge,
        opinions=tuple(tried.opinion for tried in tries if tried.opinion is not None),
        attempts=len(tries),
    )
    return {"said": [last.answer], "alterations": [checked], "pending": None, "tries": []}


def _missed(state: DialogueState) -> list[str]:
    """The altered instructions that were tried for the answer that is due."""
    tried = (tried.altered_instruction for tried in state.get("tries", []))
    return [text for text in tried if text is not None]


def _after_answer(state: DialogueState, update: Update, answers: int) -> Command[Any]:
    if answers >= state["turns"]:
        return Command(goto="__end__", update=update | {"termination_reason": "max_turns"})
    return Command(goto="user", update=update)


def failed(error: ProviderError, state: DialogueState, judge: str = "") -> Command[Any]:
    """The end of a dialogue; a try that missed stands where the next one failed."""
    if error.fatal:
        raise error
    update = _settled(state, state["tries"], judge) if state.get("tries") else {"pending": None}
    return Command(goto="__end__", update=update | {"termination_reason": error.kind, "error": str(error)})


def said_by(agent: Literal["user", "assistant"], utterance: Utterance) -> Said:
    """As a turn; words that nobody was called for are the seed's, whenever they are spoken."""
    wrote = agent if utterance.call_id is not None else "seed"
    return Said(Message(role=agent, content=utterance.content), wrote, utterance.call_id, utterance.completion_tokens)


def _alteration(state: DialogueState, dialogue: DialogueSoFar, altered_instruction: str | None) -> Alteration:
    return Alteration(dialogue.depth, _kind(state), dialogue.instruction, altered_instruction)


def _kind(state: DialogueState) -> PerturbationKind:
    """Of the perturbation of the answer that is due."""
    return state["kinds"][answers_given(state)]


def is_perturbed(
    state: DialogueState, messages: Sequence[Message], answer: int, perturb: PerturbSettings | None
) -> bool:
    """Whether an answer (from 0) is one to perturb, after `messages`, the last of which is the user's.

    By the schedule, and where an error of context falls on it, only with a history that it can fail.
    """
    if perturb is None or answer not in state["perturbed_answers"]:
        return False
    if perturb.schedule == "context":
        return context_dependent(messages[:-1], messages[-1].content)
    return state["kinds"][answer] == "music_contrast" or any(message.role == "assistant" for message in messages)


def alters_next(state: DialogueState, messages: Sequence[Message], perturb: PerturbSettings | None) -> bool:
    by_agent = perturb is not None and perturb.altered_by == "perturbation"
    return by_agent and is_perturbed(state, messages, answers_given(state), perturb)


def _contrasts_in_one_prompt(state: DialogueState, perturb: PerturbSettings | None) -> bool:
    in_one = perturb is not None and perturb.altered_by == "assistant"
    return in_one and is_perturbed(state, messages_of(state), answers_given(state), perturb)
