"""Whether a query depends on its conversation, as the rehearsal judges it.

Inside its world it knows. Outside it weighs telling words alone, which knows nothing of pronouns or ellipsis: so that it is a
second opinion on the rules of `store.context`, and no echo of them. It is a stand-in; what it says there is worth little.
"""

from random import Random

from agents.rehearsal import outside
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.prompt_text import as_json, section, transcript_in
from agents.rehearsal.reading import Ask, Outside, Small, Tell, read
from store.records import Message

OWN_SUBJECT = 8
"""So many telling words that the conversation lacks make a query's own subject."""


def depends(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Whether the message alone leaves open what it asks, as JSON."""
    verdict, rationale = _judged(transcript_in(prompt), section(prompt, "query"))
    if random.random() < behaviour.judge_error_rate:
        verdict, rationale = (
            not verdict,
            f"On the whole the message {'stands alone' if verdict else 'leaves much open'}.",
        )
    return as_json(rationale=rationale, depends=verdict)


def _judged(messages: list[Message], query: str) -> tuple[bool, str]:
    events = [event for _, event in read(query)]
    if events and not any(isinstance(event, Outside) for event in events):
        told: str | None = None
        for event in events:
            if isinstance(event, Tell):
                told = event.thing or told
                if told is None:
                    return True, "The message does not say what `it` is."
            elif isinstance(event, Ask) and (event.attribute is None or (event.thing or told) is None):
                return True, "The message leaves out what it asks about."
        if all(isinstance(event, Small) for event in events):
            return True, "The message only reacts to what was said."
        return False, "The message names the thing and what it asks of it."
    return _weighed(messages, query)


def _weighed(messages: list[Message], query: str) -> tuple[bool, str]:
    """From outside the world: a query that names a subject, spoken of before or new, is held to stand alone."""
    words = outside.keywords(query)
    spoken = {word for message in messages if message.role == "user" for word in outside.keywords(message.content)}
    shared = sum(word in spoken for word in words)
    own = len(words) - shared
    if shared == 0 and own < OWN_SUBJECT:
        return True, "Outside what I know: the message brings too few telling words to say what it is about."
    return False, f"Outside what I know: the message has {len(words)} telling words, {shared} of them spoken of before."
