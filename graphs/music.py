"""The `music` graph: one seed, two branches that live on, and the judges' comparison (MUSIC, arXiv 2512.24693).

Each branch is a dialogue with its own live user, so the user turns diverge too after the first differing
answer. Only the rejected branch is perturbed; neither branch's user sees the altered instruction.

Ours, not the paper's: with `perturb.share` the rejected branch is played after the chosen one and takes over its turns,
up to the first perturbed answer (`trunk`) or all but the perturbed answers (`rest`).
"""

from typing import Any

from langgraph.graph import END, START, StateGraph

from agents.ledger import CampaignStopping
from configs.settings import GateSettings, PerturbSettings
from graphs.cast import Cast
from graphs.comparing import in_both_orders
from graphs.dialogue import build_dialogue_graph, recursion_limit
from graphs.nodes import dialogue_so_far, is_perturbed
from graphs.playing import played
from graphs.schedule import within
from graphs.state import BranchesState, DialogueState, answers_given, is_open, messages_of


def build_music_graph(cast: Cast, perturb: PerturbSettings, *, judge_pairs: bool = False) -> Any:
    """A compiled graph over `BranchesState`."""
    plain = build_dialogue_graph(cast)
    perturbed = build_dialogue_graph(cast, perturb)
    gate = cast.gate.settings if cast.gate is not None else None

    async def chosen(state: BranchesState) -> BranchesState:
        """The branch that answers what was asked."""
        return {"chosen": await _branch(plain, state["chosen"], gate)}

    async def rejected(state: BranchesState) -> BranchesState:
        """The branch whose answers are contrasted by schedule."""
        start = state["rejected"]
        if perturb.share == "nothing":
            return {"rejected": await _branch(perturbed, start, gate, perturb)}
        if is_open(state["chosen"]):
            return {"rejected": start}
        if state["chosen"].get("error"):
            return {"rejected": _without_a_trunk(start, state["chosen"])}
        after = _sharing_the_trunk if perturb.share == "trunk" else _sharing_the_rest
        return {"rejected": await after(perturbed, perturb, gate, start, state["chosen"])}

    async def judge(state: BranchesState) -> BranchesState:
        """Every judge compares the two conversations, in both orders."""
        if any(is_open(branch) or branch.get("error") for branch in (state["chosen"], state["rejected"])):
            return {"comparisons": []}
        dialogue = dialogue_so_far(state["chosen"])
        other = messages_of(state["rejected"])
        found = await in_both_orders(cast.judges, lambda judge, order: judge.compare(dialogue, other, order))
        return {"comparisons": found}

    graph = StateGraph(BranchesState)
    graph.add_node("chosen", chosen)
    graph.add_node("rejected", rejected)
    graph.add_edge(START, "chosen")
    ends = ["rejected"]
    if perturb.share == "nothing":
        graph.add_edge(START, "rejected")
        ends = ["chosen", "rejected"]
    else:
        graph.add_edge("chosen", "rejected")
    if judge_pairs:
        graph.add_node("judge", judge)
        graph.add_edge(ends, "judge")
        ends = ["judge"]
    for end in ends:
        graph.add_edge(end, END)
    return graph.compile()


async def _branch(
    graph: Any, start: DialogueState, gate: GateSettings | None, perturb: PerturbSettings | None = None
) -> DialogueState:
    """A branch at its end, or as it started when the campaign stops: an exception would cancel the other branch's call."""
    limits = {"recursion_limit": recursion_limit(start["turns"], perturb, gate)}
    try:
        ended: DialogueState = await played(graph, start, limits)
    except CampaignStopping:
        return start
    return ended


async def _sharing_the_trunk(
    graph: Any, perturb: PerturbSettings, gate: GateSettings | None, start: DialogueState, chosen: DialogueState
) -> DialogueState:
    """The chosen branch up to the first perturbed answer, then a life of its own."""
    hits = _hits(start, chosen, perturb)
    if not hits:
        return _as_it_is(start, chosen)
    trunk = chosen["said"][: _places_of_answers(chosen)[hits[0]]]
    due = start["perturbed_answers"] if perturb.schedule == "context" else hits  # by queries that are yet to come
    return await _branch(graph, start | {"said": trunk, "perturbed_answers": due}, gate, perturb)


async def _sharing_the_rest(
    graph: Any, perturb: PerturbSettings, gate: GateSettings | None, start: DialogueState, chosen: DialogueState
) -> DialogueState:
    """The chosen branch with its perturbed answers alone written anew, each after the chosen branch's history.

    Each is a dialogue of one answer, whose seed is that history.
    """
    state = _as_it_is(start, chosen)
    said, alterations, places = list(state["said"]), [], _places_of_answers(chosen)
    for hit in _hits(start, chosen, perturb):
        place = places[hit]
        history = [*start["seed"], *chosen["said"][:place]]
        one = start | {"seed": history, "turns": 1, "perturbed_answers": [0], "kinds": [start["kinds"][hit]]}
        ended = await _branch(graph, one, gate, perturb)
        if is_open(ended):
            return start
        said[place : place + 1] = ended.get("said", [])
        alterations += ended.get("alterations", [])
        if ended.get("error"):
            state |= {"termination_reason": ended["termination_reason"], "error": ended["error"]}
            said = said[: place + len(ended.get("said", []))]
            break
    return state | {"said": said, "alterations": alterations}


def _hits(start: DialogueState, chosen: DialogueState, perturb: PerturbSettings) -> list[int]:
    """The answers of the chosen branch that are to be perturbed, each by the history that it has there."""
    places, messages, n_seed = _places_of_answers(chosen), messages_of(chosen), len(start["seed"])
    due = within(start["perturbed_answers"], answers_given(chosen))
    drawn = start | {"perturbed_answers": due}
    return [hit for hit in due if is_perturbed(drawn, messages[: n_seed + places[hit]], hit, perturb)]


def _as_it_is(start: DialogueState, chosen: DialogueState) -> DialogueState:
    """The turns and the end of the chosen branch."""
    ending: DialogueState = {"said": chosen.get("said", []), "termination_reason": chosen["termination_reason"]}
    return start | ending


def _without_a_trunk(start: DialogueState, chosen: DialogueState) -> DialogueState:
    """A branch that never began, since the one whose turns it would share failed."""
    why = f"the chosen branch, whose turns it shares, failed: {chosen['error']}"
    ending: DialogueState = {"termination_reason": "chosen_failed", "error": why}
    return start | ending


def _places_of_answers(state: DialogueState) -> list[int]:
    """Where among the turns spoken after the seed the answers stand."""
    return [place for place, said in enumerate(state.get("said", [])) if said.message.role == "assistant"]
