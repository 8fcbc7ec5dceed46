"""One place of a dialogue where two answers are to become a pair: what flows through the graphs of all four methods.

A place is a history that ends on the user's turn. A method writes answers there until two of them make a pair, or until
its redraws are spent; what cannot stand in a pair is caught, with its reason. Knows nothing of the dialogue around it.
"""

import operator
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from agents.answer_rules import answer_fault
from agents.failures import ProviderError
from agents.protocol import DialogueSoFar, Refused, Utterance
from configs.pairing_settings import Direction, PairingSettings
from graphs.best_of_n import Candidate
from graphs.cast import Cast
from graphs.comparing import in_both_orders
from graphs.nodes import said_by
from graphs.outcome import judged_label
from graphs.state import Catch, Comparison, Said
from store.records import CatchOutcome, Message, Verdict


class Drawn(NamedTuple):
    """A label, drawn before its second answer."""

    direction: Direction
    aspects: tuple[str, ...] | None
    """Drawn with it; null where the model chooses."""


class Made(NamedTuple):
    """A pair that came about."""

    depth: int
    """The place in the conversation of its two answers."""
    chosen: Said
    rejected: Said
    label_source: str
    key: str = ""
    """Which of several pairs at this place."""
    second: Literal["chosen", "rejected"] | None = None
    """Which side was written for a label, after the other; null where neither was."""
    intended: bool = False
    """Whether the sides were meant to be better and worse."""
    drawn: Drawn | None = None
    aspects: tuple[str, ...] | None = None
    plan: str | None = None
    attempts: int = 1
    """Second answers that were written for the pair, this one included."""
    verdict: Verdict = "unchecked"
    comparisons: Sequence[Comparison] = ()
    judged_label: str | None = None
    candidates: tuple[Candidate, ...] = ()
    """All that were scored, the two sides among them."""
    margin: float | None = None


class Attempt(NamedTuple):
    """What was wrong with an answer that cannot stand in a pair."""

    reason: str
    content: str
    call_id: str
    agent: Literal["assistant", "perturbation"] = "assistant"
    source: str = "rule"


class PlaceState(TypedDict, total=False):
    """A place. The caller gives the first four keys."""

    campaign_id: str
    dialogue_id: str
    messages: tuple[Message, ...]
    given: Said | None
    """The conversation's own answer, where it is not to be written."""

    draw: int
    """How often the answers here were written anew."""
    opening: Said | None
    """The first answer that was written here and nothing is wrong with, else the very first: what the dialogue goes on from
    where there is no pair."""
    opens_well: bool
    """Whether nothing is wrong with it."""
    first: Said
    """The last first answer that nothing is wrong with; absent before there is one."""
    labels: list[Drawn]
    """Labels that still want a second answer, the one at work first."""
    refused: list[Refused]
    """Second answers to this first one that could not be used, and why."""
    written: int
    """Second answers so far."""
    second: Made | None
    """A pair whose second answer passed the rules and waits for its verdict."""
    samples: list[tuple[int, Said]]
    """The answers of this draw by ordinal."""
    made: Annotated[list[Made], operator.add]
    caught: Annotated[list[Catch], operator.add]
    error: tuple[str, str] | None
    """The kind of the failure that left the place without any answer, and what was said."""


def dialogue_at(state: PlaceState) -> DialogueSoFar:
    return DialogueSoFar(state["campaign_id"], state["dialogue_id"], state["messages"], 1)


def caught_at(state: PlaceState, attempts: Iterable[Attempt], outcome: CatchOutcome) -> list[Catch]:
    """As rows to be: what becomes of them is the same for all that were caught together."""
    before = len(state.get("caught", []))
    return [
        Catch(
            depth=len(state["messages"]),
            attempt=before + place,
            reason=attempt.reason,
            source=attempt.source,
            content=attempt.content,
            call_id=attempt.call_id,
            outcome=outcome,
            agent=attempt.agent,
        )
        for place, attempt in enumerate(attempts)
    ]


def faults(
    state: PlaceState, pairing: PairingSettings, utterances: Sequence[tuple[str, bool]], *, steered: bool = False
) -> list[tuple[int, str]]:
    """What keeps answers (text, and whether it was cut off) from standing in a pair: place among them and reason.

    Each is held against the ones before it. `steered`: they were asked to show aspects, of which they must not speak.
    """
    prompt = state["messages"][-1].content  # an older turn that asked for an edit would excuse talk about this one
    found: list[tuple[int, str]] = []
    for place, (text, cut_off) in enumerate(utterances):
        fault = answer_fault(
            text,
            first=utterances[0][0] if place else None,
            prompt=prompt,
            aspects=tuple(pairing.meanings) if steered else (),
            cut_off=cut_off,
            near_identical=pairing.near_identical,
        )
        if fault is not None:
            found.append((place, fault))
    return found


def opened(state: PlaceState, said: Said, *, well: bool) -> dict[str, Any]:
    """The opening after one more answer."""
    if state.get("opening") is None or (well and not state.get("opens_well")):
        return {"opening": said, "opens_well": well}
    return {}


def no_answer(error: ProviderError) -> Attempt:
    """A call without an answer, which is a reason for no pair like any other."""
    return Attempt(error.kind, str(error), "", source="provider")


def as_said(utterance: Utterance, agent: Literal["assistant", "perturbation"] = "assistant") -> Said:
    said = said_by("assistant", utterance)
    return said._replace(agent=agent) if said.call_id is not None else said


async def preferences(
    cast: Cast,
    state: PlaceState,
    chosen: str,
    rejected: str,
    *,
    aspects: dict[str, str],
    by_aspect: bool = False,
    attempt: int = 0,
) -> list[Comparison]:
    """What every judge says of two answers, in both orders."""
    return await in_both_orders(
        cast.judges,
        lambda judge, order: judge.prefer(
            dialogue_at(state), chosen, rejected, order, aspects=aspects, by_aspect=by_aspect, attempt=attempt
        ),
    )


def label_of(comparisons: Sequence[Comparison]) -> str:
    """The judges' majority: `chosen`, `rejected`, `tie`, or `invalid` where nobody could say."""
    return judged_label(comparisons) or "invalid"


def judges_of(cast: Cast) -> str:
    return ", ".join(judge.known_as for judge in cast.judges)


def turned_round(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same verdicts where the two answers change sides."""
    other = {"chosen": "rejected", "rejected": "chosen"}
    return [
        comparison._replace(
            presentation="rejected_first" if comparison.presentation == "chosen_first" else "chosen_first",
            opinion=comparison.opinion._replace(
                verdict=other.get(comparison.opinion.verdict, comparison.opinion.verdict),
                aspects=tuple((name, other.get(verdict, verdict)) for name, verdict in comparison.opinion.aspects),
            ),
        )
        for comparison in comparisons
    ]


def ended(update: dict[str, Any]) -> dict[str, Any]:
    """An update of a place that is over: what was at work is let go."""
    return {"samples": [], "refused": [], "second": None, **update}
