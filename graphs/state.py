"""What flows through the graphs: the state of one dialogue, and of the two branches of a MUSIC seed.

State is plain data that LangGraph Studio can show. Nothing here knows of models or files.
"""

import operator
from typing import Annotated, NamedTuple, TypedDict

from agents.judge import Opinion, Presentation
from agents.protocol import Utterance
from configs.settings import PerturbationKind
from store.records import CatchOutcome, Message, Verdict


class Said(NamedTuple):
    """One turn as it was spoken, before it has an id."""

    message: Message
    agent: str
    call_id: str | None
    completion_tokens: int | None = None


class Tried(NamedTuple):
    """One try of a contrast that is to be verified: it stands in no transcript yet."""

    altered_instruction: str | None
    """Null for context neglect, which alters nothing but the history."""
    answer: Said
    opinion: Opinion | None = None
    """Null before the judge has spoken, and when its model failed."""


class Alteration(NamedTuple):
    """An answer that was perturbed, and what became of it."""

    depth: int
    """Place in the conversation of the answer that followed it."""
    kind: PerturbationKind
    instruction: str
    altered_instruction: str | None
    """Null for context neglect, which alters nothing but the history."""
    verdict: Verdict = "unchecked"
    judge: str | None = None
    """The model that checked it."""
    opinions: tuple[Opinion, ...] = ()
    """What it said of each try, the last one's last."""
    attempts: int = 1
    """Tries in all; all but the last one missed."""


class Catch(NamedTuple):
    """A query that the gate did not let pass, or an answer that could not stand in a pair: it is in no transcript."""

    depth: int
    """The place in the conversation that it was to take."""
    attempt: int
    """Which one at this place, from 0."""
    reason: str
    source: str
    """`rule`, or the judge that found it."""
    content: str
    call_id: str
    outcome: CatchOutcome
    agent: str = "user"
    """Who wrote it."""


class Comparison(NamedTuple):
    """One judge's verdict on a pair of branches, in one order."""

    judge: str
    judge_index: int
    presentation: Presentation
    opinion: Opinion


class DialogueState(TypedDict, total=False):
    """One dialogue. The caller gives the first six keys; the nodes write the others."""

    campaign_id: str
    dialogue_id: str
    seed: list[Said]
    """The turns that the dialogue starts from."""
    turn_ids: list[str]
    """Of the turns that it starts from, where they are another dialogue's; absent where they are its seed's."""
    forked_from: str
    """That other dialogue."""
    turns: int
    """Assistant answers to come."""
    perturbed_answers: list[int]
    """Which of them (from 0) are perturbed; empty for a plain dialogue."""
    kinds: list[PerturbationKind]
    """The kind of perturbation of each answer, used where it is perturbed."""

    script: list[str]
    """The seed's user turns, the first included, where the campaign follows them; absent elsewhere."""

    said: Annotated[list[Said], operator.add]
    """Turns spoken after the seed."""
    asked: Utterance | None
    """What the user said and the gate has not seen yet."""
    caught: Annotated[list[Catch], operator.add]
    """What the gate did not let pass."""
    pending: Alteration | None
    """An alteration that is not answered, or not verified, yet."""
    tries: list[Tried]
    """Of the answer that is due, where perturbed answers are verified."""
    alterations: Annotated[list[Alteration], operator.add]
    termination_reason: str
    error: str | None
    """Set when the dialogue failed; `termination_reason` is then the error's kind, or why the gate let nothing pass."""


class BranchesState(TypedDict, total=False):
    """A MUSIC seed: two dialogues that live on, and the judges' comparisons of them."""

    chosen: DialogueState
    rejected: DialogueState
    comparisons: list[Comparison]


def is_open(state: DialogueState) -> bool:
    """Whether the campaign stopped before the dialogue's end."""
    return "termination_reason" not in state


def messages_of(state: DialogueState) -> tuple[Message, ...]:
    """The conversation so far, seed included."""
    return tuple(said.message for said in [*state["seed"], *state.get("said", [])])


def answers_given(state: DialogueState) -> int:
    """Assistant answers spoken after the seed."""
    return sum(said.message.role == "assistant" for said in state.get("said", []))


def caught_here(state: DialogueState) -> list[Catch]:
    """What the gate caught at the place that the next message takes."""
    depth = len(state["seed"]) + len(state.get("said", []))
    return [catch for catch in state.get("caught", []) if catch.depth == depth]
