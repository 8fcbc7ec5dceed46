"""The user simulators: they read the dialogue and write what the person would say next."""

from agents.failures import ProviderError
from agents.llm import LanguageModel, Reply
from agents.prompts import Prompts, defused, transcript
from agents.protocol import Agent, DialogueSoFar, Utterance
from store.records import Message

END_MARK = "[END]"


class UserSimulator:
    """A model in the user's role, by a prompt.

    It gets ONE user message that holds its instructions and the transcript, since Gemma's chat template
    refuses a system role and a history that starts with the assistant.

    Args:
        gated: a gate reads what it writes: an end mark in the midst of a text is left to be caught, and so is no text;
            one at its end ends the dialogue.
    """

    def __init__(self, model: LanguageModel, prompts: Prompts, *, gated: bool = False) -> None:
        self._model = model
        self._prompts = prompts
        self._gated = gated

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        shown: dict[str, object] = {"transcript": transcript(dialogue.messages), "turns_left": dialogue.turns_left}
        purpose = "ask"
        if dialogue.refused:
            purpose, shown["caught"] = "ask_again", [(reason, defused(text)) for reason, text in dialogue.refused]
        prompt = self._prompts.render(purpose, **shown)
        site = dialogue.site("user", purpose, len(dialogue.refused))
        reply = await self._model.complete([Message(role="user", content=prompt)], site)
        return _utterance(reply, self._model.name, gated=self._gated)


class TrainedUserSimulator:
    """A model that was trained to ask (`descant fit ask`): it gets the bare conversation, and its completion is the query.

    The conversation ends on the assistant's turn, and the chat template that such a checkpoint carries opens the user's.
    So the endpoint must take messages that end on an assistant's: vLLM does (`hosted_vllm/...`), others may refuse them.
    A query that was refused is asked for by the same conversation, under an ordinal of its own, from which the request's
    seed comes: at temperature 0 it would come out the same.
    """

    def __init__(self, model: LanguageModel, *, gated: bool = False) -> None:
        self._model = model
        self._gated = gated

    async def respond(self, dialogue: DialogueSoFar) -> Utterance:
        site = dialogue.site("user", "ask", len(dialogue.refused))
        reply = await self._model.complete(dialogue.messages, site)
        return _utterance(reply, self._model.name, gated=self._gated)


def _utterance(reply: Reply, model: str, *, gated: bool) -> Utterance:
    text = reply.text.strip()
    if text.startswith(END_MARK):
        return Utterance("", reply.call_id, ends_dialogue=True)
    if not gated:
        text = text.replace(END_MARK, "").strip()
        if not text:
            raise ProviderError("empty_query", f"the user simulator {model!r} wrote nothing")
    elif text.endswith(END_MARK):
        return Utterance(text, reply.call_id, ends_dialogue=True)
    cut_off = reply.finish_reason == "length"
    return Utterance(text, reply.call_id, completion_tokens=reply.completion_tokens, cut_off=cut_off)


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
