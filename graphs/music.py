"""The `music` graph: one seed, two branches that live on, and the judges' comparison (MUSIC, arXiv 2512.24693).

Each branch is a dialogue with its own live user, so the user turns diverge too after the first differing
answer. Only the rejected branch is perturbed; neither branch's user sees the altered instruction.
"""

import asyncio
from typing import Any

from langgraph.graph import END, START, StateGraph

from agents.judge import Presentation
from agents.llm import ProviderError
from configs.settings import PerturbSettings
from graphs.cast import Cast
from graphs.dialogue import build_dialogue_graph, recursion_limit
from graphs.nodes import dialogue_so_far
from graphs.state import BranchesState, Comparison, messages_of

ORDERS: tuple[Presentation, ...] = ("chosen_first", "rejected_first")


def build_music_graph(cast: Cast, perturb: PerturbSettings, *, judge_pairs: bool = False) -> Any:
    """A compiled graph over `BranchesState`."""
    plain = build_dialogue_graph(cast)
    perturbed = build_dialogue_graph(cast, perturb)

    async def chosen(state: BranchesState) -> BranchesState:
        """The branch that answers what was asked."""
        return {"chosen": await plain.ainvoke(state["chosen"], _limits(state["chosen"]["turns"]))}

    async def rejected(state: BranchesState) -> BranchesState:
        """The branch whose answers are contrasted by schedule."""
        return {"rejected": await perturbed.ainvoke(state["rejected"], _limits(state["rejected"]["turns"]))}

    async def judge(state: BranchesState) -> BranchesState:
        """Every judge compares the two conversations, in both orders."""
        if state["chosen"].get("error") or state["rejected"].get("error"):
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

        opinions = await asyncio.gather(*(compare(index, o) for index in range(len(cast.judges)) for o in ORDERS))
        return {"comparisons": [opinion for opinion in opinions if opinion is not None]}

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


def _limits(turns: int) -> Any:
    return {"recursion_limit": recursion_limit(turns)}
