"""The user simulator: reads the dialogue, writes what the person would say next."""

from agents.ledger import CallSite
from agents.llm import LanguageModel
from agents.prompts import Prompts, transcript
from agents.protocol import Agent, DialogueSoFar, Utterance
from agents.providers import ProviderError
from store.records import Message

END_MARK = "[END]"


class UserSimulator:
    """A model in the user's role.

    It gets ONE user message that holds its instructions and the transcript, since Gemma's chat template
    refuses a system role and a history that starts with the assistant.
    """

    def __init__(self, model: LanguageModel, prompts: Prompts) -> None:
        self._model = model
        self._prompts = prompts

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        prompt = self._prompts.render("ask", transcript=transcript(dialogue.messages), turns_left=dialogue.turns_left)
        site = CallSite(dialogue.campaign_id, dialogue.dialogue_id, dialogue.depth, "user", "ask")
        reply = await self._model.complete([Message(role="user", content=prompt)], site)
        text = reply.text.strip()
        if text.startswith(END_MARK):
            return Utterance("", reply.call_id, ends_dialogue=True)
        text = text.replace(END_MARK, "").strip()
        if not text:
            raise ProviderError("empty_query", f"the user simulator {self._model.name!r} wrote nothing")
        return Utterance(text, reply.call_id, completion_tokens=reply.completion_tokens)


class ScriptedUser:
    """Speaks the further turns that the seed brings along, as they are and without a call.

    Args:
        then: who goes on after the last of them; null ends the dialogue there.
    """

    def __init__(self, then: Agent | None = None) -> None:
        self._then = then

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        spoken = sum(message.role == "user" for message in dialogue.messages)
        if spoken < len(dialogue.script):
            return Utterance(dialogue.script[spoken], None)
        if self._then is None:
            return Utterance("", None, ends_dialogue=True)
        return await self._then.respond(dialogue)
