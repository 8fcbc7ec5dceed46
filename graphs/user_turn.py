"""The user's half of a turn: the user speaks, and where a gate stands, what was said passes it or is asked for again.

A caught query is never a turn: it goes into the state's `caught`, and only what passes goes into `said`.
"""

from typing import Any, Literal

from langgraph.types import Command

from agents.failures import ProviderError
from agents.gate import Gate
from agents.gate_rules import ROLE_BREAKS, Finding
from agents.protocol import Utterance
from agents.user import END_MARK
from configs.settings import PerturbSettings
from graphs.cast import Cast
from graphs.nodes import Node, Update, alters_next, dialogue_so_far, failed, said_by
from graphs.state import Catch, DialogueState, answers_given, caught_here, messages_of
from store.records import CatchOutcome


def user_node(cast: Cast, perturb: PerturbSettings | None) -> Node:
    async def user(state: DialogueState) -> Command[Literal["gate", "perturb", "assistant", "__end__"]]:
        """The user speaks, or ends the dialogue; again, where a gate did not let it pass."""
        try:
            utterance = await cast.user.respond(dialogue_so_far(state))
        except ProviderError as error:
            return failed(error, state)
        if cast.gate is not None and utterance.call_id is not None:  # what the seed brings along is no simulator's
            return Command(goto="gate", update={"asked": utterance})
        return _let_pass(utterance, state, perturb, {})

    return user


def gate_node(cast: Cast, perturb: PerturbSettings | None) -> Node:
    gate = cast.gate
    assert gate is not None, "the node stands only where there is a gate"

    async def check(state: DialogueState) -> Command[Literal["user", "perturb", "assistant", "__end__"]]:
        """What the user said becomes a turn, or is asked for again; after the last retry the dialogue ends without it."""
        utterance = state["asked"]
        assert utterance is not None, "the user has spoken"
        assert utterance.call_id is not None, "what came with the seed passes no gate"
        earlier = caught_here(state)
        finding = await gate.inspect(
            dialogue_so_far(state), utterance, answers=answers_given(state), attempt=len(earlier)
        )
        if finding is None:
            return _let_pass(utterance, state, perturb, {"asked": None})
        outcome = _outcome(gate, finding, attempt=len(earlier))
        catch = Catch(
            depth=dialogue_so_far(state).depth,
            attempt=len(earlier),
            reason=finding.reason,
            source=finding.source,
            content=utterance.content or (END_MARK if utterance.ends_dialogue else ""),
            call_id=utterance.call_id,
            outcome=outcome,
        )
        update: Update = {"asked": None, "caught": [catch]}
        if outcome == "asked_again":
            return Command(goto="user", update=update)
        update["termination_reason"] = finding.reason
        if outcome == "failed":
            reasons = ", ".join(caught.reason for caught in [*earlier, catch])
            update["error"] = (
                f"the user simulator broke its role at turn {answers_given(state) + 1} and could not mend it "
                f"({reasons}): the query was not taken, and the dialogue ends here; `caught` holds what it wrote"
            )
        return Command(goto="__end__", update=update)

    return check


def _let_pass(
    utterance: Utterance, state: DialogueState, perturb: PerturbSettings | None, update: Update
) -> Command[Any]:
    if utterance.ends_dialogue:
        return Command(goto="__end__", update=update | {"termination_reason": "user_ended"})
    said = said_by("user", utterance)
    alters = alters_next(state, [*messages_of(state), said.message], perturb)
    return Command(goto="perturb" if alters else "assistant", update=update | {"said": [said]})


def _outcome(gate: Gate, finding: Finding, *, attempt: int) -> CatchOutcome:
    if attempt < gate.settings.retries:
        return "asked_again"
    return "failed" if finding.reason in ROLE_BREAKS else "ended"
