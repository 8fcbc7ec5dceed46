"""The perturbation agent: writes the instruction that a rejected answer will follow instead of the visible one."""

from collections.abc import Sequence

from agents.failures import ProviderError
from agents.llm import LanguageModel
from agents.prompts import Prompts, defused, transcript
from agents.protocol import DialogueSoFar, Utterance
from store.records import Message


class PerturbationAgent:
    """MUSIC's instruction contrast: a related but different instruction.

    It writes the instruction only, so that what was altered is recorded and can be checked; the assistant
    answers it. (The paper's one prompt that does both is `agents.assistant.ContrastiveAssistant`.)
    """

    def __init__(self, model: LanguageModel, prompts: Prompts) -> None:
        self._model = model
        self._prompts = prompts

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        return await self.alter(dialogue)

    async def alter(self, dialogue: DialogueSoFar, *, missed: Sequence[str] = ()) -> Utterance:
        """The instruction altered.

        `missed`: what was tried before at this place, and was answered rightly for the original all the same. The
        prompt shows it, so that a model without chance of its own writes something else too.
        """
        prompt = self._prompts.render(
            "alter",
            transcript=transcript(dialogue.messages),
            instruction=defused(dialogue.instruction),
            missed=[defused(text) for text in missed],
        )
        site = dialogue.site("perturbation", "alter", len(missed))
        reply = await self._model.complete([Message(role="user", content=prompt)], site)
        text = reply.text.strip()
        if not text:
            raise ProviderError("empty_alteration", f"the perturbation agent {self._model.name!r} wrote nothing")
        return Utterance(text, reply.call_id, completion_tokens=reply.completion_tokens)
