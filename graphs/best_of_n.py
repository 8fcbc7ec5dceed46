"""The `best_of_n` graph: for each answer N candidates, of which a reward model picks one (MUSIC, arXiv 2512.24693, evaluation).

The candidates are N calls of one assistant, side by side, told apart by their ordinal, from which the request's seed
comes. The reward model scores the conversation up to each candidate; the highest reward is picked, the first of equal
ones, and the user goes on from there. The candidates of one history are scored in one call: their rewards depend on
nothing that runs beside them, so that a campaign that goes on picks the same. Knows nothing of how rewards are computed.
"""

import asyncio
import math
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple

from langgraph.graph import END, START, StateGraph
from langgraph.types import Command

from agents.failures import ProviderError
from agents.protocol import DialogueSoFar
from configs.settings import ScorerSettings
from graphs.cast import Cast
from graphs.dialogue import add_user
from graphs.nodes import dialogue_so_far, first_speaker
from graphs.side_by_side import side_by_side
from graphs.state import DialogueState, Said, answers_given
from store.records import Fit, Message

Rewards = Callable[[Sequence[Sequence[Message]]], Sequence[float | None]]
"""From conversations to their rewards, in their order; null for one that is longer than the model can read."""
Fate = Literal["picked", "not_picked", "too_long_to_score", "reward_not_finite"]
UNSCORABLE: dict[Fate, str] = {
    "too_long_to_score": "longer than the reward model's limit",
    "reward_not_finite": "given a reward that is no finite number",
}


@dataclass(frozen=True)
class RewardModel:
    """A reward model as the graphs see it: where it comes from, and a function."""

    fit: Fit
    """The row that its scores name."""
    rewards: Rewards
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "descant-scorer"))

    async def score(self, conversations: Sequence[Sequence[Message]]) -> Sequence[float | None]:
        """The rewards, computed beside the event loop, one call at a time: a model on one device gains nothing by more."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.rewards, conversations)


LoadRewardModel = Callable[[ScorerSettings], RewardModel]
"""What `descant.py` hands to the commands of this floor, which must not import `train`."""


class Candidate(NamedTuple):
    """One answer of several to the same history, and what became of it."""

    depth: int
    """Its place in the conversation."""
    ordinal: int
    said: Said
    reward: float | None
    """Of the conversation up to it; null when it has none."""
    fate: Fate


class BestOfNState(DialogueState, total=False):
    """A dialogue whose answers are picked."""

    waiting: list[tuple[int, Said]]
    """The candidates for the next answer, by ordinal."""
    candidates: Annotated[list[Candidate], operator.add]
    """All that were scored."""


def build_best_of_n_graph(cast: Cast, candidates: int, scorer: RewardModel) -> Any:
    """A compiled graph over `BestOfNState`."""

    async def assistant(state: BestOfNState) -> Command[Literal["pick", "__end__"]]:
        """N candidates side by side; one that fails is left out, and its failed call is in the journal."""
        dialogue = dialogue_so_far(state)
        replies = await side_by_side([_candidate(cast, dialogue, ordinal) for ordinal in range(candidates)])
        failures = [reply for reply in replies if isinstance(reply, ProviderError)]
        if len(failures) == candidates:
            error = failures[0]
            return Command(goto="__end__", update={"termination_reason": error.kind, "error": str(error)})
        waiting = [(ordinal, reply) for ordinal, reply in enumerate(replies) if isinstance(reply, Said)]
        return Command(goto="pick", update={"waiting": waiting})

    async def pick(state: BestOfNState) -> Command[Literal["user", "__end__"]]:
        """The reward model picks; where it can score none, the dialogue ends and says why."""
        dialogue = dialogue_so_far(state)
        waiting = state["waiting"]
        rewards = await scorer.score([(*dialogue.messages, said.message) for _, said in waiting])
        scored = judged_by_reward(waiting, rewards, depth=dialogue.depth)
        picked = next((candidate for candidate in scored if candidate.fate == "picked"), None)
        update: dict[str, Any] = {"candidates": scored, "waiting": []}
        if picked is None:
            fate = scored[0].fate
            why = f"no candidate for answer {answers_given(state) + 1} can be scored: the first is {UNSCORABLE[fate]}"
            return Command(goto="__end__", update=update | {"termination_reason": fate, "error": why})
        update["said"] = [picked.said]
        if answers_given(state) + 1 >= state["turns"]:
            return Command(goto="__end__", update=update | {"termination_reason": "max_turns"})
        return Command(goto="user", update=update)

    graph = StateGraph(BestOfNState)
    graph.add_conditional_edges(START, first_speaker(None), ["user", "assistant"])
    add_user(graph, cast, None, ("assistant",))
    graph.add_node("assistant", assistant, destinations=("pick", END))
    graph.add_node("pick", pick, destinations=("user", END))
    return graph.compile()


async def _candidate(cast: Cast, dialogue: DialogueSoFar, ordinal: int) -> Said:
    utterance = await cast.assistant.answer(dialogue, altered_instruction=None, ordinal=ordinal)
    message = Message(role="assistant", content=utterance.content)
    return Said(message, "assistant", utterance.call_id, utterance.completion_tokens)


def judged_by_reward(
    waiting: Sequence[tuple[int, Said]], rewards: Sequence[float | None], *, depth: int
) -> list[Candidate]:
    """The candidates with their rewards and fates: the highest finite reward is picked, the first of equal ones."""
    finite = [reward for reward in rewards if reward is not None and math.isfinite(reward)]
    best = rewards.index(max(finite)) if finite else None
    candidates = []
    for place, ((ordinal, said), reward) in enumerate(zip(waiting, rewards, strict=True)):
        fate: Fate = "picked" if place == best else "not_picked"
        if reward is None:
            fate = "too_long_to_score"
        elif not math.isfinite(reward):
            fate, reward = "reward_not_finite", None
        candidates.append(Candidate(depth, ordinal, said, reward, fate))
    return candidates
