"""The judge: does an answer fail its instruction, and which of two conversations is better."""

from typing import Literal, NamedTuple

from agents.ledger import CallSite
from agents.llm import LanguageModel
from agents.prompts import Prompts, defused, transcript
from agents.protocol import DialogueSoFar
from agents.providers import ProviderError
from agents.structured import read_json
from store.records import Message

Presentation = Literal["chosen_first", "rejected_first"]


class Opinion(NamedTuple):
    """One answer of a judge, with its raw text. `verdict` is `invalid` when the text could not be read."""

    verdict: str
    rationale: str | None
    raw: str
    call_id: str


class Judge:
    """A model that judges. `index` is its place among the config's judges."""

    def __init__(self, model: LanguageModel, prompts: Prompts, index: int = 0) -> None:
        self._model = model
        self._prompts = prompts
        self.index = index

    @property
    def name(self) -> str:
        return self._model.name

    async def verify(self, dialogue: DialogueSoFar, answer: str) -> Opinion:
        """Whether `answer` fails the dialogue's visible instruction: `landed` if it does, else `missed`."""
        prompt = self._prompts.render("verify", transcript=transcript(dialogue.messages), answer=defused(answer))
        site = CallSite(dialogue.campaign_id, dialogue.dialogue_id, dialogue.depth, "judge", "verify", self.index)
        reply = await self._model.complete([Message(role="user", content=prompt)], site)
        try:
            fields = read_json(reply.text, fails=bool)
        except ProviderError:
            return Opinion("invalid", None, reply.text, reply.call_id)
        return Opinion("landed" if fields["fails"] else "missed", _rationale(fields), reply.text, reply.call_id)

    async def compare(
        self, dialogue: DialogueSoFar, rejected: tuple[Message, ...], presentation: Presentation
    ) -> Opinion:
        """Which conversation is better: `dialogue` (the chosen one) or `rejected`; or `tie`."""
        sides = (transcript(dialogue.messages), transcript(rejected))
        first, second = sides if presentation == "chosen_first" else sides[::-1]
        prompt = self._prompts.render("compare", conversation_a=first, conversation_b=second)
        ordinal = 2 * self.index + (presentation == "rejected_first")
        site = CallSite(dialogue.campaign_id, dialogue.dialogue_id, dialogue.depth, "judge", "compare", ordinal)
        reply = await self._model.complete([Message(role="user", content=prompt)], site)
        try:
            fields = read_json(reply.text, better=str)
        except ProviderError:
            return Opinion("invalid", None, reply.text, reply.call_id)
        names = ("chosen", "rejected") if presentation == "chosen_first" else ("rejected", "chosen")
        verdicts = {"A": names[0], "B": names[1], "tie": "tie"}
        verdict = verdicts.get(fields["better"].strip(), "invalid")
        return Opinion(verdict, _rationale(fields), reply.text, reply.call_id)


def settled(first: str, second: str) -> str:
    """One label from the verdicts in both orders: a verdict that flips with the order is a tie."""
    if first == second:
        return first
    return "invalid" if "invalid" in (first, second) else "tie"


def _rationale(fields: dict[str, object]) -> str | None:
    rationale = fields.get("rationale")
    return rationale if isinstance(rationale, str) else None
