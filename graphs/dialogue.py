"""The `dialogue` graph: user and assistant in turn, with a gate, a perturbation and its check where a campaign asks for them."""

from typing import Any

from langgraph.graph import END, START, StateGraph

from configs.settings import GateSettings, PerturbSettings
from graphs.cast import Cast
from graphs.nodes import assistant_node, first_speaker, perturb_node, verify_node
from graphs.state import DialogueState
from graphs.user_turn import gate_node, user_node


def build_dialogue_graph(cast: Cast, perturb: PerturbSettings | None = None) -> Any:
    """A compiled graph over `DialogueState`. Nodes stand in it only where `perturb`, or the cast's gate, asks for them."""
    # Nodes say where they go by their `Command`; `destinations` lets LangGraph draw and check it.
    alters = perturb is not None and perturb.altered_by == "perturbation"
    verifies = perturb is not None and perturb.verify
    answering = ("perturb", "assistant") if alters else ("assistant",)
    after_answer = ("verify", "user", END) if verifies else ("user", END)

    graph = StateGraph(DialogueState)
    graph.add_conditional_edges(START, first_speaker(perturb), ["user", *answering])
    add_user(graph, cast, perturb, answering)
    if alters:
        graph.add_node("perturb", perturb_node(cast), destinations=("assistant", END))
    graph.add_node("assistant", assistant_node(cast, perturb), destinations=after_answer)
    if verifies:
        assert perturb is not None
        again = "perturb" if alters else "assistant"
        graph.add_node("verify", verify_node(cast, perturb), destinations=(again, "user", END))
    return graph.compile()


def add_user(graph: Any, cast: Cast, perturb: PerturbSettings | None, answering: tuple[str, ...]) -> None:
    """The user's half: one node, or two where a gate stands behind it."""
    if cast.gate is None:
        graph.add_node("user", user_node(cast, perturb), destinations=(*answering, END))
        return
    graph.add_node("user", user_node(cast, perturb), destinations=("gate", END))
    graph.add_node("gate", gate_node(cast, perturb), destinations=("user", *answering, END))


def recursion_limit(turns: int, perturb: PerturbSettings | None = None, gate: GateSettings | None = None) -> int:
    """Steps that a dialogue of so many answers can take at most; LangGraph's own limit is 25.

    A turn is at most five nodes: user, gate, perturb, assistant, verify; a query that is asked for again is the first two of
    them, a retried perturbation the last three. A few steps more are for start and end.
    """
    retries = perturb.retries if perturb is not None and perturb.verify else 0
    asked_again = gate.retries if gate is not None else 0
    return (5 + 2 * asked_again + 3 * retries) * turns + 8
