"""The assistant: the system whose answers are studied, and its contrastive twin."""

from collections.abc import Sequence

from agents.llm import LanguageModel
from agents.prompts import Prompts, defused, transcript
from agents.protocol import DialogueSoFar, Utterance
from agents.structured import read_json
from store.records import Message


class Assistant:
    """Plain chat: it sees the conversation and nothing else."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        return await self.answer(dialogue, altered_instruction=None)

    async def answer(self, dialogue: DialogueSoFar, *, altered_instruction: str | None, ordinal: int = 0) -> Utterance:
        """Answer the visible instruction, or an altered one in its place (MUSIC's contrast).

        `ordinal` tells apart several answers to one history: each is a call of its own, with a seed of its own.

        Nothing tells the model that the instruction was altered: it gets the history of its branch and the
        altered user turn, and answers as well as it can. The transcript keeps the visible turn.
        """
        messages = list(dialogue.messages)
        if altered_instruction is not None:
            messages[-1] = Message(role="user", content=altered_instruction)
        purpose = "answer" if altered_instruction is None else "answer_altered"
        site = dialogue.site("assistant", purpose, ordinal)
        reply = await self._model.complete(messages, site)
        return Utterance(
            reply.text.strip(),
            reply.call_id,
            completion_tokens=reply.completion_tokens,
            altered_instruction=altered_instruction,
            cut_off=reply.finish_reason == "length",
        )


class ContrastiveAssistant:
    """Alters the last instruction and answers the altered one in a single prompt, as the MUSIC paper does."""

    def __init__(self, model: LanguageModel, prompts: Prompts) -> None:
        self._model = model
        self._prompts = prompts

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        return await self.contrast(dialogue)

    async def contrast(self, dialogue: DialogueSoFar, *, missed: Sequence[str] = ()) -> Utterance:
        """Another instruction and the answer to it. `missed`: what was altered to before, in vain, at this place."""
        prompt = self._prompts.render(
            "contrast", transcript=transcript(dialogue.messages), missed=[defused(text) for text in missed]
        )
        site = dialogue.site("assistant", "contrast", len(missed))
        reply = await self._model.complete([Message(role="user", content=prompt)], site)
        fields = read_json(reply.text, altered_instruction=str, answer=str)
        return Utterance(
            fields["answer"],
            reply.call_id,
            completion_tokens=reply.completion_tokens,
            altered_instruction=fields["altered_instruction"],
        )
