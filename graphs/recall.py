"""What stands in for the world while recorded dialogues are played anew: models' names, and a reward model's scores.

Nothing here asks anybody: a checkpoint that nobody serves has the name that it was served by, and a reward model gives the
rewards that the corpus keeps.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agents.answer_rules import hardly_differ
from agents.judge import RETRY_STRIDE
from configs.errors import DescantError
from configs.model_settings import Endpoint
from configs.settings import CampaignSettings
from graphs.best_of_n import UNSCORABLE, RewardModel
from graphs.cast import roles_in_use
from graphs.checkpoints import checkpoints_of
from store.played import Kept
from store.records import Caught, Dialogue, Fit, Message, Score, Turn

NOWHERE = "http://replay.invalid/v1"
"""Where a recalled checkpoint answers: a name that nobody has."""
IN_BOTH_ORDERS = ("compare", "prefer")
"""What a judge is asked twice: its place is half the ordinal."""


WITHOUT_REWARD: Mapping[str, float | None] = {"too_long_to_score": None, "reward_not_finite": float("nan")}
"""What a reward model said of an answer that has no score, by its fate."""


class RewardMissingError(DescantError):
    """Raised here: a replay asks for a reward that the corpus does not keep."""


def with_recorded_models(settings: CampaignSettings, calls: Sequence[Mapping[str, Any]]) -> CampaignSettings:
    """The settings with every checkpoint under the name that it was served by, which its calls tell.

    Args:
        calls: agent, purpose, ordinal and model.
    """
    used = checkpoints_of(settings.models, roles_in_use(settings))
    if not used:
        return settings
    models = {(call["agent"], _place_of(call)): call["model"] for call in calls}
    endpoints = {
        folder: Endpoint(NOWHERE, models[role].partition("/")[2])
        for role, folder in used.items()
        if role in models  # one that made no call makes none now
    }
    return settings.model_copy(update={"models": settings.models.served(endpoints)})


def _place_of(call: Mapping[str, Any]) -> int:
    """Which judge made a call; 0 for other agents."""
    if call["agent"] != "judge":
        return 0
    place = int(call["ordinal"]) % RETRY_STRIDE
    return place // 2 if call["purpose"] in IN_BOTH_ORDERS else place


class Rewards:
    """The rewards of one playing at a time, by conversation.

    Equal conversations may have rewards of their own; they are given in the order of their answers' ordinals, in which
    they were asked for. Of a draw that made no pair (`west_of_n`) the corpus keeps no rewards, but what was caught and
    why: rewards that lead to that stand in for them.

    Args:
        near_identical: the campaign's threshold, for two answers that hardly differ.
    """

    def __init__(self, fit: Fit, *, near_identical: float = 1.0) -> None:
        self.fit = fit
        self.model = RewardModel(fit, self._of)
        self._near_identical = near_identical
        self._known: dict[tuple[Message, ...], list[float | None]] = {}
        self._caught: list[Caught] = []

    def load(self, kept: Kept) -> None:
        """Take in what a playing's answers were given, in place of what was there before."""
        turns = {turn.turn_id: turn for turn in [*kept.borrowed, *kept.records] if isinstance(turn, Turn)}
        ordinals = {call.call_id: call.ordinal for call in kept.calls}
        scores = [record for record in kept.records if isinstance(record, Score) and record.fit_id == self.fit.fit_id]
        found: list[tuple[int, tuple[Message, ...], float | None]] = []
        for dialogue in (record for record in kept.records if isinstance(record, Dialogue)):
            path = [turns[identity] for identity in dialogue.turn_ids]
            rewards: dict[str, float | None] = {}
            if dialogue.termination_reason in WITHOUT_REWARD:
                rewards[path[-1].turn_id] = WITHOUT_REWARD[dialogue.termination_reason]
            for score in sorted(scores, key=lambda score: score.turn_id):  # that of a whole dialogue first
                if score.dialogue_id == dialogue.dialogue_id:
                    rewards[score.turn_id or path[-1].turn_id] = score.reward
            for place, turn in enumerate(path, start=1):
                if turn.turn_id in rewards:
                    conversation = tuple(Message(role=one.role, content=one.content) for one in path[:place])
                    found.append((ordinals.get(turn.call_id or "", 0), conversation, rewards[turn.turn_id]))
        self._known = {}
        for _, conversation, reward in sorted(found, key=lambda item: item[0]):
            self._known.setdefault(conversation, []).append(reward)
        drawn_anew = (record for record in kept.records if isinstance(record, Caught) and record.agent == "assistant")
        self._caught = sorted(drawn_anew, key=lambda caught: (caught.depth, caught.attempt))

    def _of(self, conversations: Sequence[Sequence[Message]]) -> list[float | None]:
        met: Counter[tuple[Message, ...]] = Counter()
        found = []
        for conversation in map(tuple, conversations):
            rewards = self._known.get(conversation, [])
            if met[conversation] >= len(rewards):
                return self._that_were_caught(conversations)
            found.append(rewards[met[conversation]])
            met[conversation] += 1
        return found

    def _that_were_caught(self, conversations: Sequence[Sequence[Message]]) -> list[float | None]:
        """Rewards by which a draw comes to what was caught of it; each catch serves once."""
        depth, texts = len(conversations[0]) - 1, [messages[-1].content for messages in conversations]
        for caught in self._caught:
            if caught.depth != depth or caught.content not in texts:
                continue
            place = texts.index(caught.content)
            rewards: list[float | None] = [0.0] * len(texts)
            if caught.reason == "tie":  # the first of equal ones; those before it had none
                rewards[:place] = [None] * place
            elif caught.reason == "unscorable":  # the first without one
                fate = next((fate for fate, why in UNSCORABLE.items() if why == caught.source), "too_long_to_score")
                rewards[place:] = [WITHOUT_REWARD[fate]] * (len(texts) - place)
            elif caught.reason == "near_identical":  # the worst; the best is one that it hardly differs from
                likes = (
                    other
                    for other, text in enumerate(texts)
                    if other != place and hardly_differ(text, caught.content, self._near_identical)
                )
                rewards = [1.0] * len(texts)
                rewards[place] = 0.0
                rewards[next(likes, place - 1)] = 2.0
            else:
                continue
            self._caught.remove(caught)
            return rewards
        raise RewardMissingError(
            f"the reward of an answer at turn {depth} is not among the scores of {self.fit.name}: its dialogue cannot be rebuilt"
        )
