"""The `music` graph: one seed, two branches that live on, and the judges' comparison (MUSIC, arXiv 2512.24693).

Each branch is a dialogue with its own live user, so the user turns diverge too after the first differing
answer. Only the rejected branch is perturbed; neither branch's user sees the altered instruction.
"""

import asyncio
from typing import Any

from langgraph.graph import END, START, StateGraph

from agents.judge import Presentation
from agents.ledger import CampaignStopping
from agents.providers import ProviderError
from configs.settings import PerturbSettings
from graphs.cast import Cast
from graphs.dialogue import build_dialogue_graph, recursion_limit
from graphs.nodes import dialogue_so_far
from graphs.state import BranchesState, Comparison, DialogueState, is_open, messages_of

ORDERS: tuple[Presentation, ...] = ("chosen_first", "rejected_first")


def build_music_graph(cast: Cast, perturb: PerturbSettings, *, judge_pairs: bool = False) -> Any:
    """A compiled graph over `BranchesState`."""
    plain = build_dialogue_graph(cast)
    perturbed = build_dialogue_graph(cast, perturb)

    async def chosen(state: BranchesState) -> BranchesState:
        """The branch that answers what was asked."""
        return {"chosen": await _branch(plain, state["chosen"])}

    async def rejected(state: BranchesState) -> BranchesState:
        """The branch whose answers are contrasted by schedule."""
        return {"rejected": await _branch(perturbed, state["rejected"])}

    async def judge(state: BranchesState) -> BranchesState:
        """Every judge compares the two conversations, in both orders."""
        if any(is_open(branch) or branch.get("error") for branch in (state["chosen"], state["rejected"])):
            return {"comparisons": []}
        dialogue = dialogue_so_far(state["chosen"])
        other = messages_of(state["rejected"])

        async def compare(index: int, presentation: Presentation) -> Comparison | None:
            try:
                opinion = await cast.judges[index].compare(dialogue, other, presentation)
            except ProviderError as error:
                if error.fatal:
                    raise
                return None  # the failed call is in the journal; the pair goes without this verdict
            return Comparison(cast.judges[index].name, index, presentation, opinion)

        asked = (compare(index, order) for index in range(len(cast.judges)) for order in ORDERS)
        opinions = await asyncio.gather(
            *asked, return_exceptions=True
        )  # all come back, and are noted, before one raises
        for opinion in opinions:
            if isinstance(opinion, BaseException):
                raise opinion
        return {"comparisons": [opinion for opinion in opinions if isinstance(opinion, Comparison)]}

    graph = StateGraph(BranchesState)
    graph.add_node("chosen", chosen)
    graph.add_node("rejected", rejected)
    graph.add_edge(START, "chosen")
    graph.add_edge(START, "rejected")
    if judge_pairs:
        graph.add_node("judge", judge)
        graph.add_edge(["chosen", "rejected"], "judge")
        graph.add_edge("judge", END)
    else:
        graph.add_edge("chosen", END)
        graph.add_edge("rejected", END)
    return graph.compile()


async def _branch(graph: Any, start: DialogueState) -> DialogueState:
    """A branch at its end, or as it started when the campaign stops: an exception would cancel the other branch's call."""
    limits = {"recursion_limit": recursion_limit(start["turns"])}
    try:
        ended: DialogueState = await graph.ainvoke(start, limits)
    except CampaignStopping:
        return start
    return ended
