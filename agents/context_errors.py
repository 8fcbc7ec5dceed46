"""Answers that fail their context on purpose: ignored, invented or misread (Parrot, arXiv 2310.07301, section 3.3).

The perturbation agent writes what is answered in place of the query, where the kind asks for it; the assistant's model
answers, and nothing tells it that anything was altered. Who is shown what of the conversation is the point of this file:
without its history a query stands alone, system text and all left out.
"""

from collections.abc import Sequence

from agents.failures import ProviderError
from agents.llm import LanguageModel
from agents.prompts import Prompts, defused, transcript
from agents.protocol import DialogueSoFar, Utterance
from configs.settings import ContextKind
from store.records import Message

PURPOSES: dict[ContextKind, str] = {
    "context_neglect": "answer_neglect",
    "context_hallucination": "answer_guess",
    "context_misunderstanding": "answer_misread",
}
"""Of the assistant's call, by kind."""


class ContextErrors:
    """The three negatives of CaPO.

    Args:
        writer: the perturbation agent's model.
        answerer: the assistant's.
    """

    def __init__(self, writer: LanguageModel, answerer: LanguageModel, prompts: Prompts) -> None:
        self._writer = writer
        self._answerer = answerer
        self._prompts = prompts

    async def alter(self, kind: ContextKind, dialogue: DialogueSoFar, *, missed: Sequence[str] = ()) -> str | None:
        """What is answered in place of the query; null for neglect, which leaves the query as it is.

        `missed`: what was written before at this place, in vain.
        """
        shown = {"query": defused(dialogue.instruction), "missed": [defused(text) for text in missed]}
        if kind == "context_neglect":
            return None
        if kind == "context_hallucination":
            return await self._write("guess", dialogue, len(missed), **shown)
        before = transcript(dialogue.messages[:-1])
        return await self._write("misread", dialogue, len(missed), transcript=before, **shown)

    async def answer(
        self, kind: ContextKind, dialogue: DialogueSoFar, *, altered_instruction: str | None, ordinal: int = 0
    ) -> Utterance:
        """The assistant's answer to the altered instruction, or to the query itself; after the history only where it is misread.

        `ordinal`: which try at this place; each is a call of its own, with a seed of its own.
        """
        query = Message(
            role="user", content=dialogue.instruction if altered_instruction is None else altered_instruction
        )
        history = dialogue.messages[:-1] if kind == "context_misunderstanding" else ()
        reply = await self._answerer.complete([*history, query], dialogue.site("assistant", PURPOSES[kind], ordinal))
        return Utterance(
            reply.text.strip(),
            reply.call_id,
            completion_tokens=reply.completion_tokens,
            altered_instruction=altered_instruction,
        )

    async def _write(self, prompt: str, dialogue: DialogueSoFar, ordinal: int, **shown: object) -> str:
        messages = [Message(role="user", content=self._prompts.render(prompt, **shown))]
        reply = await self._writer.complete(messages, dialogue.site("perturbation", prompt, ordinal))
        text = reply.text.strip()
        if not text:
            raise ProviderError("empty_alteration", f"the perturbation agent {self._writer.name!r} wrote nothing")
        return text
