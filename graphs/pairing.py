"""The graph of the recipes that pair two answers to one prompt: a dialogue, some of whose answers are such places.

At a place the method's own graph writes the answers (`graphs.rmboost`, `graphs.rivals`); the dialogue goes on from one of
them. With `play: false` the conversation is given, and only what its places need is written. Knows nothing of ids
in the store: `graphs.pair_records` makes the records.
"""

import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from agents.failures import ProviderError
from configs.pairing_settings import PairingSettings
from configs.settings import CampaignSettings
from graphs.best_of_n import RewardModel
from graphs.capo import GIVEN
from graphs.cast import Cast
from graphs.dialogue import add_user
from graphs.nodes import dialogue_so_far, failed, first_speaker, said_by
from graphs.place import Attempt, Made, PlaceState, caught_at
from graphs.playing import played
from graphs.rivals import build_rlaif_graph, build_rlcd_graph, build_west_of_n_graph
from graphs.rmboost import build_rmboost_graph, most_steps
from graphs.state import Catch, DialogueState, Said, answers_given, messages_of


class PairingState(DialogueState, total=False):
    """A dialogue with places where answers become pairs. The caller gives `places` too."""

    places: list[int]
    """Which answers (from 0) are such places: of those to come, or with `play: false` of those that the seed has."""
    made: Annotated[list[Made], operator.add]
    """The pairs, in the order of the conversation."""


def build_place_graph(settings: CampaignSettings, cast: Cast, scorer: RewardModel | None) -> Any:
    """The method at one place."""
    pairing = settings.pairing
    assert pairing is not None, "validated settings of such a recipe have its own"
    if settings.recipe == "rmboost":
        return build_rmboost_graph(cast, pairing)
    if settings.recipe == "rlaif":
        return build_rlaif_graph(cast, pairing)
    if settings.recipe == "rlcd":
        return build_rlcd_graph(cast, pairing)
    assert scorer is not None, "a campaign of `west_of_n` is started with its scorer"
    return build_west_of_n_graph(cast, pairing, settings.candidates, scorer)


def build_pairing_graph(cast: Cast, pairing: PairingSettings, place: Any) -> Any:
    """A compiled graph over `PairingState`; `place` is the method's own."""
    limits = {"recursion_limit": most_steps(pairing)}

    async def assistant(state: PairingState) -> Command[Literal["user", "__end__"]]:
        """An answer: a plain one, or where a pair is to be made, what its method lets the dialogue go on from."""
        answer = answers_given(state)
        update: dict[str, Any]
        if answer not in state["places"]:
            try:
                update = {"said": [said_by("assistant", await cast.assistant.respond(dialogue_so_far(state)))]}
            except ProviderError as error:
                return failed(error, state)
        else:
            ended: PlaceState = await played(place, _start(state, messages_of(state), None), limits)
            found = {"made": ended.get("made", []), "caught": ended.get("caught", [])}
            if (problem := ended.get("error")) is not None:
                return Command(goto="__end__", update=found | {"termination_reason": problem[0], "error": problem[1]})
            update = found | {"said": [went_on_from(ended, pairing)]}
        if answer + 1 >= state["turns"]:
            return Command(goto="__end__", update=update | {"termination_reason": "max_turns"})
        return Command(goto="user", update=update)

    graph = StateGraph(PairingState)
    graph.add_conditional_edges(START, first_speaker(None), ["user", "assistant"])
    add_user(graph, cast, None, ("assistant",))
    graph.add_node("assistant", assistant, destinations=("user", END))
    return graph.compile()


def build_given_graph(pairing: PairingSettings, place: Any) -> Any:
    """The same for conversations that are given: a compiled graph over `PairingState` that plays nothing."""
    limits = {"recursion_limit": most_steps(pairing)}

    async def places(state: PairingState) -> PairingState:
        """The method at each place, one after the other, so that a campaign's stop leaves what is done in the journal."""
        messages, said = messages_of(state), state["seed"]
        made: list[Made] = []
        caught: list[Catch] = []
        answers = [depth for depth, message in enumerate(messages) if message.role == "assistant"]
        for answer in state["places"]:
            depth = answers[answer]
            ended: PlaceState = await played(place, _start(state, messages[:depth], said[depth]), limits)
            made += ended.get("made", [])
            caught += ended.get("caught", [])
            if (problem := ended.get("error")) is not None:
                why = Attempt(problem[0], problem[1], "", source="provider")
                caught += caught_at({**ended, "caught": []}, [why], "no_pair")
        return {"made": made, "caught": caught, "said": [], "termination_reason": GIVEN, "error": None}

    graph = StateGraph(PairingState)
    graph.add_node("places", places)
    graph.add_edge(START, "places")
    graph.add_edge("places", END)
    return graph.compile()


def went_on_from(ended: PlaceState, pairing: PairingSettings) -> Said:
    """The answer that the dialogue goes on from: the first one where there is no pair, or where the settings say so."""
    opening, made = ended.get("opening"), ended.get("made", [])
    assert opening is not None, "a place without an error has an answer"
    if not made or pairing.go_on_from == "first":
        return opening
    return made[0].chosen if pairing.go_on_from == "chosen" else made[0].rejected


def _start(state: PairingState, messages: Sequence[Any], given: Said | None) -> PlaceState:
    return {
        "campaign_id": state["campaign_id"],
        "dialogue_id": state["dialogue_id"],
        "messages": tuple(messages),
        "given": given,
    }
