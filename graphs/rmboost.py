"""RMBoost at one place of a dialogue (arXiv 2407.16008): the first answer, the label, then the answer that is to deserve it.

The label is drawn and noted in the journal before the second answer is asked for, from what the place is and not from when
it runs. The second answer has to pass rules and, where `verify` says so, judges; one that does not is asked for again with
what was wrong, and in the end the first answer is drawn anew under the same label. The paper tells of none of these checks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from agents.failures import ProviderError
from agents.protocol import Refused
from agents.second_answer import SecondAnswer
from configs.pairing_settings import BoostSettings, Direction, PairingSettings
from graphs.cast import Cast
from graphs.place import (
    Attempt,
    Drawn,
    Made,
    PlaceState,
    as_said,
    caught_at,
    dialogue_at,
    ended,
    faults,
    judges_of,
    label_of,
    no_answer,
    opened,
    preferences,
)
from store.identity import chance, label_id
from store.records import Label, Verdict

WHY = {
    "unparsable": "it was not one JSON object as asked for",
    "empty": "the answer is empty",
    "cut_off": "it was cut off before its end: be shorter",
    "near_identical": "it hardly differs from the first answer",
    "speaks_of_editing": "it speaks of another answer, or of having been changed",
    "speaks_of_aspects": "it speaks of the respects in which it differs",
    "too_long": "it is much longer than the first answer",
    "too_short": "it is much shorter than the first answer",
    "missed": "a reader found it to be the other way round",
    "tie": "a reader found it neither better nor worse",
    "invalid": "no reader could tell which one is better",
}
"""What the writer is told of an answer that could not be used."""


def build_rmboost_graph(cast: Cast, pairing: PairingSettings) -> Any:
    """A compiled graph over `PlaceState`."""
    nodes, verifies = _Nodes(cast, pairing), pairing.boost.verify
    graph = StateGraph(PlaceState)
    graph.add_edge(START, "first")
    graph.add_node("first", nodes.first, destinations=("label", "second", "first", END))
    graph.add_node("label", nodes.label, destinations=("second",))
    graph.add_node("second", nodes.second, destinations=("second", "first", *(("verify",) if verifies else ()), END))
    if verifies:
        graph.add_node("verify", nodes.verify, destinations=("second", "first", END))
    return graph.compile()


@dataclass(frozen=True)
class _Nodes:
    """What happens at a place."""

    cast: Cast
    pairing: PairingSettings

    async def first(self, state: PlaceState) -> Command[Literal["label", "second", "first", "__end__"]]:
        """The first answer: the conversation's own where it is given, else the assistant's."""
        draw = state.get("draw", 0)
        if (given := state.get("given")) is not None:
            said, cut_off = given, False
        else:
            try:
                utterance = await self.cast.assistant.answer(dialogue_at(state), altered_instruction=None, ordinal=draw)
            except ProviderError as error:
                return _without_first(state, error)
            said, cut_off = as_said(utterance), utterance.cut_off
        found = faults(state, self.pairing, [(said.message.content, cut_off)])
        update: dict[str, Any] = {"refused": []} | opened(state, said, well=not found)
        if found:
            attempt = Attempt(found[0][1], said.message.content, said.call_id or "")
            return _redraw(state, update, [attempt], self.pairing)
        return Command(goto="second" if state.get("labels") else "label", update=update | {"first": said})

    async def label(self, state: PlaceState) -> Command[Literal["second"]]:
        """Which way the second answer is to differ, noted before it is written."""
        depth = len(state["messages"])
        labels = labels_of(self.pairing, state["dialogue_id"], depth)
        for drawn in labels:
            identity = label_id(
                state["dialogue_id"], depth, drawn.direction if self.pairing.boost.labels == "both" else ""
            )
            noted = Label(
                label_id=identity,
                campaign_id=state["campaign_id"],
                dialogue_id=state["dialogue_id"],
                depth=depth,
                direction=drawn.direction,
                aspects=drawn.aspects,
                created_at=datetime.now(UTC),
            )
            await self.cast.note_once(identity, noted)
        return Command(goto="second", update={"labels": labels})

    async def second(self, state: PlaceState) -> Command[Literal["second", "first", "verify", "__end__"]]:
        """The second answer, for the label that stands: aspects and plan first, then the answer."""
        drawn, number = state["labels"][0], state.get("written", 0)
        offered = {name: self.pairing.meanings[name] for name in drawn.aspects or self.pairing.meanings}
        said_before = state["first"].message.content
        update: dict[str, Any] = {"written": number + 1}
        try:
            answer = await self.cast.second_answers.write(
                dialogue_at(state),
                said_before,
                drawn.direction,
                offered,
                most=self.pairing.boost.most_aspects if drawn.aspects is None else None,
                refused=state["refused"],
                longest=self.pairing.boost.longest,
                ordinal=number,
            )
        except ProviderError as error:
            if error.fatal:
                raise
            return _give_up(state, update, [no_answer(error)])
        reason = _fault(state, self.pairing, answer)
        if reason is not None:
            attempt = Attempt(reason, _text(answer), answer.call_id, "perturbation")
            return _refuse(state, update, attempt, self.pairing, answer.problem)
        assert answer.utterance is not None, "what cannot be read has a fault"
        made = _pair(state, drawn, answer, self.pairing.boost)
        if self.pairing.boost.verify:
            return Command(goto="verify", update=update | {"second": made})
        return _made(state, update, made)

    async def verify(self, state: PlaceState) -> Command[Literal["second", "first", "__end__"]]:
        """Every judge compares the two, in both orders, overall and in each chosen aspect."""
        made = state["second"]
        assert made is not None, "a pair waits for its verdict"
        comparisons = await preferences(
            self.cast,
            state,
            made.chosen.message.content,
            made.rejected.message.content,
            aspects={name: self.pairing.meanings[name] for name in made.aspects or ()},
            by_aspect=True,
            attempt=state["written"],
        )
        found = label_of(comparisons)
        verdict: Verdict = "landed" if found == "chosen" else "unchecked" if found == "invalid" else "missed"
        made = made._replace(
            comparisons=comparisons, judged_label=None if found == "invalid" else found, verdict=verdict
        )
        if verdict != "landed" and self.pairing.boost.require_agreement:
            written = made.chosen if made.second == "chosen" else made.rejected
            reason = "missed" if found == "rejected" else found
            attempt = Attempt(
                reason, written.message.content, written.call_id or "", "perturbation", judges_of(self.cast)
            )
            return _refuse(state, {"second": None}, attempt, self.pairing, None)
        return _made(state, {"second": None}, made)


def labels_of(pairing: PairingSettings, dialogue_id: str, depth: int) -> list[Drawn]:
    """The labels of a place, by chance that comes from the place alone."""
    boost, generator = pairing.boost, chance("rmboost label", dialogue_id, depth)
    directions: tuple[Direction, ...] = ("better", "worse")
    if boost.labels == "draw":
        directions = ("better",) if generator.random() < boost.better else ("worse",)
    found = []
    for direction in directions:
        aspects = None
        if boost.chosen_by == "chance":
            names = list(pairing.meanings)
            count = generator.randint(1, min(boost.most_aspects, len(names)))
            aspects = tuple(generator.sample(names, count))
        found.append(Drawn(direction, aspects))
    return found


def most_steps(pairing: PairingSettings) -> int:
    """Steps that a place can take at most, for LangGraph's limit."""
    return 2 * (pairing.redraws + 1) * (1 + 2 * (pairing.boost.repairs + 1)) + 8


def _fault(state: PlaceState, pairing: PairingSettings, answer: SecondAnswer) -> str | None:
    """Why a second answer cannot stand in a pair; null where it can."""
    if answer.utterance is None:
        return "cut_off" if answer.cut_off else "unparsable" if answer.raw.strip() else "empty"
    first, text = state["first"].message.content, answer.utterance.content
    found = faults(state, pairing, [(first, False), (text, answer.cut_off)], steered=True)
    of_second = [reason for place, reason in found if place == 1]
    if of_second or pairing.boost.longest is None:
        return next(iter(of_second), None)
    return _length_fault(len(first.split()), len(text.split()), pairing.boost.longest)


def _length_fault(first: int, second: int, longest: float) -> str | None:
    """Of so many words each."""
    if second > longest * first:
        return "too_long"
    return "too_short" if first > longest * second else None


def _pair(state: PlaceState, drawn: Drawn, answer: SecondAnswer, boost: BoostSettings) -> Made:
    assert answer.utterance is not None, "what cannot be read makes no pair"
    first, second = state["first"], as_said(answer.utterance, "perturbation")
    better = drawn.direction == "better"
    return Made(
        depth=len(state["messages"]),
        chosen=second if better else first,
        rejected=first if better else second,
        label_source="construction",
        key=drawn.direction if boost.labels == "both" else "",
        second="chosen" if better else "rejected",
        intended=True,
        drawn=drawn,
        aspects=answer.aspects,
        plan=answer.plan,
        attempts=len(state["refused"]) + 1,
    )


def _text(answer: SecondAnswer) -> str:
    return answer.raw if answer.utterance is None else answer.utterance.content


def _made(state: PlaceState, update: dict[str, Any], made: Made) -> Command[Any]:
    """The pair stands; the next label, if there is one, gets its own second answer to the same first one."""
    rest = state["labels"][1:]
    update = update | {"made": [made], "labels": rest, "refused": [], "draw": state.get("draw", 0)}
    return Command(goto="second" if rest else "__end__", update=update if rest else ended(update))


def _refuse(
    state: PlaceState, update: dict[str, Any], attempt: Attempt, pairing: PairingSettings, problem: str | None
) -> Command[Any]:
    """Ask again with what was wrong, as long as repairs are left; then draw a new first answer."""
    refused = [*state["refused"], Refused(problem or WHY.get(attempt.reason, attempt.reason), attempt.content)]
    if len(refused) <= pairing.boost.repairs:
        caught = caught_at(state, [attempt], "asked_again")
        return Command(goto="second", update=update | {"refused": refused, "caught": caught})
    return _redraw(state, update, [attempt], pairing)


def _redraw(
    state: PlaceState, update: dict[str, Any], attempts: Sequence[Attempt], pairing: PairingSettings
) -> Command[Any]:
    """A new first answer under the same label; a given one, or one too many, is given up."""
    draw = state.get("draw", 0)
    if draw < pairing.redraws and state.get("given") is None:
        caught = caught_at(state, attempts, "asked_again")
        return Command(goto="first", update=update | {"draw": draw + 1, "refused": [], "caught": caught})
    return _give_up(state, update, attempts)


def _give_up(state: PlaceState, update: dict[str, Any], attempts: Sequence[Attempt]) -> Command[Any]:
    """No pair for the label at work; the next one, if there is one, is tried with what redraws it leaves.

    It is tried on the last first answer that nothing is wrong with.
    """
    rest = state.get("labels", [])[1:] if "first" in state else []
    update = update | {"labels": rest, "refused": [], "caught": caught_at(state, attempts, "no_pair")}
    return Command(goto="second" if rest else "__end__", update=update if rest else ended(update))


def _without_first(state: PlaceState, error: ProviderError) -> Command[Any]:
    if error.fatal:
        raise error
    if state.get("opening") is None:
        return Command(goto="__end__", update={"error": (error.kind, str(error))})
    return _give_up(state, {}, [no_answer(error)])
