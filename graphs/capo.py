"""The `capo` graph: a conversation, its context-dependent queries, and for each the answers that fail the context (CaPO:
Parrot, arXiv 2310.07301, section 3.3).

The dialogue is played first, or taken from the seed with its answers. Its queries are found by rules and then by a model,
as in Parrot. The negatives of all of them are made side by side; each is a dialogue of one answer, whose seed is the
history, perturbed and verified as any other. Knows nothing of ids in the store: `graphs.negatives` makes the records.

Ours, not the paper's: a query that the judge cannot settle is left out; a negative that is found to miss is tried again.
"""

import operator
from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from agents.failures import ProviderError
from agents.judge import Opinion
from agents.ledger import CampaignStopping
from agents.protocol import DialogueSoFar
from configs.errors import DescantError
from configs.settings import CapoSettings, PerturbationKind, PerturbSettings
from graphs.cast import Cast
from graphs.dialogue import build_dialogue_graph, recursion_limit
from graphs.playing import played
from graphs.side_by_side import side_by_side
from graphs.state import DialogueState, messages_of
from store.context import context_dependent
from store.identity import chance, dialogue_id

GIVEN = "as_given"
"""Why a dialogue ended that was not played: it is the seed's own conversation."""


class Found(NamedTuple):
    """A query that the rules found."""

    depth: int
    """Place in the conversation of the answer to it."""
    opinion: Opinion | None = None
    """Whether it depends on its context; null when nobody was asked, and when the judge's model failed."""
    judge: str | None = None
    """The model that was asked."""


class CapoState(TypedDict, total=False):
    """A seed of CaPO. The caller gives the first three keys."""

    main: DialogueState
    seed_id: str
    trial: int
    found: list[Found]
    """In the order of the conversation."""
    negatives: Annotated[list[DialogueState], operator.add]
    """Ended ones, each with the history that it shares with the main dialogue for its seed."""
    stopped: Annotated[list[DescantError], operator.add]
    """What kept negatives from their end: the campaign's stop, or what is fatal for all of it."""


def build_capo_graph(cast: Cast, capo: CapoSettings, perturb: PerturbSettings) -> Any:
    """A compiled graph over `CapoState`."""
    plain = build_dialogue_graph(cast)
    gate = cast.gate.settings if cast.gate is not None else None
    perturbed = build_dialogue_graph(cast, perturb)

    async def dialogue(state: CapoState) -> CapoState:
        """The conversation, answered with its context."""
        start = state["main"]
        if not capo.play:
            given: DialogueState = {"said": [], "termination_reason": GIVEN, "error": None}
            return {"main": start | given}
        limits = {"recursion_limit": recursion_limit(start["turns"], gate=gate)}
        ended: DialogueState = await played(plain, start, limits)
        return {"main": ended}

    async def find(state: CapoState) -> Command[Literal["negative", "__end__"]]:
        """The queries that depend on their context, each with its negatives to come."""
        main = state["main"]
        if main.get("error"):
            return Command(goto="__end__", update={"found": []})
        first = len(main["seed"]) if capo.play else 0
        found = [Found(depth) for depth in dependent_answers(main) if depth >= first]
        if capo.check:
            found = await _checked(cast, main, found)
        confirmed = [query for query in found if not capo.check or _depends(query)]
        if capo.queries is not None and len(confirmed) > capo.queries:
            drawn = chance("capo queries", main["dialogue_id"])
            confirmed = drawn.sample(confirmed, capo.queries)
        starts = [_negative(state, query.depth, kind) for query in confirmed for kind in dict.fromkeys(perturb.kinds)]
        goto: Any = [Send("negative", start) for start in starts] or "__end__"
        return Command(goto=goto, update={"found": found})

    async def negative(state: DialogueState) -> CapoState:
        """One answer that fails its context. It never raises, since that would cancel the calls of those beside it."""
        try:
            ended: DialogueState = await played(perturbed, state, {"recursion_limit": recursion_limit(1, perturb)})
        except DescantError as error:
            return {"stopped": [error]}
        return {"negatives": [ended]}

    async def together(state: CapoState) -> CapoState:
        """All negatives have come back: now what stopped one of them may stop the seed."""
        stopped = state.get("stopped", [])
        for error in sorted(stopped, key=lambda error: isinstance(error, CampaignStopping)):  # what is fatal first
            raise error
        return {}

    graph = StateGraph(CapoState)
    graph.add_node("dialogue", dialogue)
    graph.add_node("find", find, destinations=("negative", END))
    graph.add_node("negative", negative)
    graph.add_node("together", together)
    graph.add_edge(START, "dialogue")
    graph.add_edge("dialogue", "find")
    graph.add_edge("negative", "together")
    graph.add_edge("together", END)
    return graph.compile()


def dependent_answers(main: DialogueState) -> list[int]:
    """Places in the conversation of the answers whose query depends on its context, by the rules."""
    messages = messages_of(main)
    return [
        depth
        for depth in range(1, len(messages))
        if messages[depth].role == "assistant"
        and messages[depth - 1].role == "user"
        and context_dependent(messages[: depth - 1], messages[depth - 1].content)
    ]


async def _checked(cast: Cast, main: DialogueState, found: Sequence[Found]) -> list[Found]:
    """What the first judge says of each query, side by side; its failed calls are in the journal."""
    judge, messages = cast.judges[0], messages_of(main)

    def check(query: Found) -> Awaitable[Opinion]:
        before, asked = messages[: query.depth - 1], messages[query.depth - 1].content
        return judge.depends(DialogueSoFar(main["campaign_id"], main["dialogue_id"], before, 0), asked)

    opinions = await side_by_side([check(query) for query in found])
    return [
        query if isinstance(opinion, ProviderError) else query._replace(opinion=opinion, judge=judge.name)
        for query, opinion in zip(found, opinions, strict=True)
    ]


def _depends(query: Found) -> bool:
    return query.opinion is not None and query.opinion.verdict == "depends"


def _negative(state: CapoState, depth: int, kind: PerturbationKind) -> DialogueState:
    """A dialogue of one answer after the history that the query stands in, with calls of its own."""
    main = state["main"]
    branch = f"rejected {depth} {kind}"
    return {
        "campaign_id": main["campaign_id"],
        "dialogue_id": dialogue_id(main["campaign_id"], state["seed_id"], branch, state["trial"]),
        "seed": [*main["seed"], *main.get("said", [])][:depth],
        "turns": 1,
        "perturbed_answers": [0],
        "kinds": [kind],
    }
