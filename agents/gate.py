"""The gate: whether what the user simulator wrote may stand in a dialogue. Rules first, then a model where one is asked for.

Knows the dialogue so far and one query; what becomes of a caught one, asked again or not, the graphs decide.
"""

from agents.failures import ProviderError
from agents.gate_rules import (
    Finding,
    inverts_role,
    is_garbled,
    is_repetitive,
    is_sensitive,
    is_short,
    leaks,
    patterns,
    said_again,
    spans_of,
    takes_leave,
)
from agents.judge import Judge
from agents.prompts import Prompts
from agents.protocol import DialogueSoFar, Utterance
from configs.settings import GateSettings

INSTRUCTIONS = ("ask", "ask_again")
"""The prompts that a user simulator could tell."""


class Gate:
    """Checks queries by its settings.

    Args:
        judge: who is asked where the rules find nothing; null where `settings.model` is false.
    """

    def __init__(self, settings: GateSettings, prompts: Prompts, judge: Judge | None = None) -> None:
        self.settings = settings
        self._instructions = spans_of(prompts.texts[name] for name in INSTRUCTIONS)
        self._patterns = () if settings.sensitive is False else patterns(settings.sensitive)
        self._judge = judge

    async def inspect(
        self, dialogue: DialogueSoFar, utterance: Utterance, *, answers: int, attempt: int = 0
    ) -> Finding | None:
        """Why the utterance must not be the user's next turn; null where it may.

        Args:
            answers: assistant answers since the seed.
            attempt: which query at this place of the dialogue, from 0.

        Raises:
            ProviderError: the judge's model failed in a way that is fatal for every dialogue. Other failures of it are
                in the journal, and the rules' word stands.
        """
        too_early = self._is_early(dialogue, answers)
        if utterance.ends_dialogue:
            return Finding("early_end") if too_early else None
        reason = self._by_rule(dialogue, utterance, too_early=too_early)
        if reason is not None:
            return Finding(reason)
        if self._judge is None:
            return None
        try:
            opinion = await self._judge.gate(dialogue, utterance.content, attempt=attempt)
        except ProviderError as error:
            if error.fatal:
                raise
            return None
        if opinion.verdict in ("none", "invalid") or (opinion.verdict == "early_end" and not too_early):
            return None
        return Finding(opinion.verdict, self._judge.known_as)

    def _is_early(self, dialogue: DialogueSoFar, answers: int) -> bool:
        fewest = self.settings.fewest_turns
        return dialogue.turns_left > 0 and (fewest is None or answers < fewest)

    def _by_rule(self, dialogue: DialogueSoFar, utterance: Utterance, *, too_early: bool) -> str | None:
        """The first rule that the query breaks: those of the role before the others, since they weigh more."""
        messages, settings, query = dialogue.messages, self.settings, utterance.content
        if settings.role and query:
            if leaks(messages, query, self._instructions):
                return "leak"
            if inverts_role(messages, query):
                return "role_inversion"
            if too_early and takes_leave(query):
                return "early_end"
            if again := said_again(messages, query):
                return again
        if is_sensitive(query, self._patterns):
            return "sensitive"
        if settings.garbled and is_garbled(query):
            return "garbled"
        if settings.garbled and utterance.cut_off:
            return "unfinished"
        if is_short(query, settings.min_words):
            return "short"
        if settings.repetitive is not None and is_repetitive(messages, query, settings.repetitive):
            return "repetitive"
        return None
