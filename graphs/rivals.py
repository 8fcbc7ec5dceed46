"""RMBoost's rivals at one place of a dialogue: RLAIF, RLCD and West-of-N, each as RMBoost (arXiv 2407.16008) describes it.

RLAIF: two samples of the assistant, and judges say which is better, in both orders. RLCD: a good answer and a poor one, asked
for apart, labelled by what was asked. West-of-N: N samples, of which a reward model takes the best and the worst. Ours: what
cannot stand in a pair (empty, cut off, near-identical, a tie) is caught and counted, and the answers are drawn anew.
"""

from collections.abc import Sequence
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from agents.failures import ProviderError
from agents.protocol import Utterance
from configs.pairing_settings import Direction, PairingSettings
from graphs.best_of_n import UNSCORABLE, Candidate, RewardModel, judged_by_reward
from graphs.cast import Cast
from graphs.place import (
    Attempt,
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
    turned_round,
)
from graphs.side_by_side import side_by_side
from graphs.state import Said


def build_rlaif_graph(cast: Cast, pairing: PairingSettings) -> Any:
    """A compiled graph over `PlaceState`."""

    async def samples(state: PlaceState) -> Command[Literal["samples", "judge", "__end__"]]:
        """Two answers of the assistant to one history, side by side."""
        return await _sampled(cast, pairing, state, 2, goto="judge")

    async def judge(state: PlaceState) -> Command[Literal["samples", "__end__"]]:
        """Every judge compares the two, in both orders; a tie makes no pair."""
        (_, one), (_, other) = state["samples"]
        comparisons = await preferences(
            cast,
            state,
            one.message.content,
            other.message.content,
            aspects=pairing.meanings,
            attempt=state.get("draw", 0),
        )
        found = label_of(comparisons)
        if found in ("tie", "invalid"):
            attempt = Attempt(found, other.message.content, other.call_id or "", source=judges_of(cast))
            return _again(state, {}, [attempt], pairing)
        if found == "rejected":
            one, other, comparisons = other, one, turned_round(comparisons)
        made = Made(
            depth=len(state["messages"]),
            chosen=one,
            rejected=other,
            label_source=judges_of(cast),
            comparisons=comparisons,
            judged_label="chosen",
        )
        return Command(goto="__end__", update=ended({"made": [made]}))

    graph = StateGraph(PlaceState)
    graph.add_edge(START, "samples")
    graph.add_node("samples", samples, destinations=("samples", "judge", END))
    graph.add_node("judge", judge, destinations=("samples", END))
    return graph.compile()


def build_rlcd_graph(cast: Cast, pairing: PairingSettings) -> Any:
    """A compiled graph over `PlaceState`."""

    async def contrast(state: PlaceState) -> Command[Literal["contrast", "__end__"]]:
        """A good answer and a poor one, side by side; neither writer sees the other's."""
        draw = state.get("draw", 0)
        directions: tuple[Direction, ...] = ("better", "worse")
        replies = await side_by_side(
            [
                cast.steered_assistant.answer(dialogue_at(state), direction, pairing.meanings, ordinal=draw)
                for direction in directions
            ]
        )
        written, update, attempts = _heard(state, replies)
        if update.get("error"):
            return Command(goto="__end__", update=update)
        usable, refused = _usable(state, pairing, written, steered=True)
        attempts += refused
        if len(usable) == 2:
            attempts += _alike(state, pairing, usable[0][1], usable[1][1])
        good_ones = [
            (place, said) for place, said in usable if place == 0
        ]  # the dialogue never goes on from a poor one
        update |= _opened(state, written, good_ones)
        if attempts:
            return _again(state, update, attempts, pairing, goto="contrast")
        (_, good), (_, poor) = usable
        made = Made(
            depth=len(state["messages"]), chosen=good, rejected=poor, label_source="construction", intended=True
        )
        return Command(goto="__end__", update=ended(update | {"made": [made]}))

    graph = StateGraph(PlaceState)
    graph.add_edge(START, "contrast")
    graph.add_node("contrast", contrast, destinations=("contrast", END))
    return graph.compile()


def build_west_of_n_graph(cast: Cast, pairing: PairingSettings, candidates: int, scorer: RewardModel) -> Any:
    """A compiled graph over `PlaceState`."""

    async def samples(state: PlaceState) -> Command[Literal["samples", "score", "__end__"]]:
        """N answers of the assistant to one history, side by side."""
        return await _sampled(cast, pairing, state, candidates, goto="score")

    async def score(state: PlaceState) -> Command[Literal["samples", "__end__"]]:
        """The reward model's best and worst; where it cannot tell two apart, there is no pair."""
        waiting, messages = state["samples"], state["messages"]
        rewards = await scorer.score([(*messages, said.message) for _, said in waiting])
        scored = judged_by_reward(waiting, rewards, depth=len(messages))
        if attempts := _indistinct(state, pairing, scored):
            return _again(state, {}, attempts, pairing)
        best, worst = best_and_worst(scored)
        assert best.reward is not None, "the best and the worst have rewards"
        assert worst.reward is not None, "the best and the worst have rewards"
        made = Made(
            depth=len(messages),
            chosen=best.said,
            rejected=worst.said,
            label_source=scorer.fit.name,
            candidates=tuple(scored),
            margin=best.reward - worst.reward,
        )
        return Command(goto="__end__", update=ended({"made": [made]}))

    graph = StateGraph(PlaceState)
    graph.add_edge(START, "samples")
    graph.add_node("samples", samples, destinations=("samples", "score", END))
    graph.add_node("score", score, destinations=("samples", END))
    return graph.compile()


def best_and_worst(scored: Sequence[Candidate]) -> tuple[Candidate, Candidate]:
    """The highest and the lowest reward, the first of equal ones; only of candidates that have one."""
    finite = [(candidate.reward, candidate) for candidate in scored if candidate.reward is not None]
    return max(finite, key=lambda of: of[0])[1], min(finite, key=lambda of: of[0])[1]


async def _sampled(
    cast: Cast, pairing: PairingSettings, state: PlaceState, count: int, *, goto: Literal["judge", "score"]
) -> Command[Any]:
    """So many answers side by side; those that cannot stand in a pair are caught, and two at least have to be left."""
    draw = state.get("draw", 0)
    replies = await side_by_side(
        [
            cast.assistant.answer(dialogue_at(state), altered_instruction=None, ordinal=draw * count + place)
            for place in range(count)
        ]
    )
    written, update, attempts = _heard(state, replies)
    if update.get("error"):
        return Command(goto="__end__", update=update)
    usable, refused = _usable(state, pairing, written)
    attempts += refused
    update |= _opened(state, written, usable)
    left = [(draw * count + place, said) for place, said in usable]
    if goto == "judge" and len(left) == 2:
        attempts += _alike(state, pairing, left[0][1], left[1][1])
    if len(left) < 2 or (goto == "judge" and attempts):
        return _again(state, update, attempts, pairing)
    return Command(goto=goto, update=update | {"samples": left, "caught": caught_at(state, attempts, "left_out")})


def _heard(
    state: PlaceState, replies: Sequence[Utterance | ProviderError]
) -> tuple[list[tuple[int, Utterance]], dict[str, Any], list[Attempt]]:
    """The answers by place, and the calls that failed; where there never was an answer, that is an error in the update."""
    written = [(place, reply) for place, reply in enumerate(replies) if isinstance(reply, Utterance)]
    failed = [reply for reply in replies if isinstance(reply, ProviderError)]
    if not written and state.get("opening") is None:
        return [], {"error": (failed[0].kind, str(failed[0]))}, []
    return written, {}, [no_answer(error) for error in failed]


def _usable(
    state: PlaceState, pairing: PairingSettings, written: Sequence[tuple[int, Utterance]], *, steered: bool = False
) -> tuple[list[tuple[int, Said]], list[Attempt]]:
    """The answers that nothing is wrong with, each by itself, and what is wrong with the others."""
    usable: list[tuple[int, Said]] = []
    refused: list[Attempt] = []
    for place, utterance in written:
        found = faults(state, pairing, [(utterance.content, utterance.cut_off)], steered=steered)
        if found:
            refused.append(Attempt(found[0][1], utterance.content, utterance.call_id or ""))
        else:
            usable.append((place, as_said(utterance)))
    return usable, refused


def _opened(
    state: PlaceState, written: Sequence[tuple[int, Utterance]], usable: Sequence[tuple[int, Said]]
) -> dict[str, Any]:
    """The opening after one more draw: the first usable answer, else the first one."""
    if usable:
        return opened(state, usable[0][1], well=True)
    return opened(state, as_said(written[0][1]), well=False) if written else {}


def _alike(state: PlaceState, pairing: PairingSettings, one: Said, other: Said) -> list[Attempt]:
    """Two answers that hardly differ, as what is wrong with the second."""
    found = faults(state, pairing, [(one.message.content, False), (other.message.content, False)])
    return [Attempt(reason, other.message.content, other.call_id or "") for place, reason in found if place == 1]


def _indistinct(state: PlaceState, pairing: PairingSettings, scored: Sequence[Candidate]) -> list[Attempt]:
    """Why the rewards tell no two answers apart: fewer than two have one, they are equal, or the answers hardly differ."""
    with_reward = [candidate for candidate in scored if candidate.reward is not None]
    if len(with_reward) < 2:
        without = next(candidate for candidate in scored if candidate.reward is None)
        said = without.said
        return [Attempt("unscorable", said.message.content, said.call_id or "", source=UNSCORABLE[without.fate])]
    best, worst = best_and_worst(scored)
    if best.reward == worst.reward:
        return [Attempt("tie", worst.said.message.content, worst.said.call_id or "", source="reward model")]
    return _alike(state, pairing, best.said, worst.said)


def _again(
    state: PlaceState,
    update: dict[str, Any],
    attempts: Sequence[Attempt],
    pairing: PairingSettings,
    *,
    goto: Literal["samples", "contrast"] = "samples",
) -> Command[Any]:
    """All answers anew, as long as redraws are left."""
    draw = state.get("draw", 0)
    again = draw < pairing.redraws
    caught = caught_at(state, attempts, "asked_again" if again else "no_pair")
    if again:
        return Command(goto=goto, update=update | {"draw": draw + 1, "caught": caught})
    return Command(goto="__end__", update=ended(update | {"caught": caught}))
