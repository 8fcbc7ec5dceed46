"""The rehearsal's errors of context: a query guessed at without its conversation, and one misread with it."""

import re
from random import Random

from agents.rehearsal import outside
from agents.rehearsal.alterations import altered_message
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.prompt_text import missed_in, section, transcript_in
from agents.rehearsal.reading import Ask, read
from agents.rehearsal.world import ATTRIBUTES, ENTITIES, WHOLE, state

GUESSED_FACTS = 3  # of a thing that is to be described
TRIES = 20  # at a guess that was not made before
PARTS_OF_A_CONVERSATION = ("attribute", "entity", "stale", "value")
"""What a query can be misread to mean: all but the standing instructions, which it does not speak of."""


def guess(prompt: str, random: Random, behaviour: Behaviour) -> str:  # noqa: ARG001  (all tasks are called alike)
    """The query anew, about a thing of our own invention; inside the world with a fact about it, so that it can be answered."""
    query, missed = section(prompt, "query"), missed_in(prompt)
    texts = [_guessed(query, random) for _ in range(TRIES if missed else 1)]
    return next((text for text in texts if text not in missed), texts[0])


def _guessed(query: str, random: Random) -> str:
    """Of the world: `Kira is blue. What is its colour?` For `And Belo?` the attribute is what has to be invented."""
    asked = [event for _, event in read(query) if isinstance(event, Ask)]
    if not asked:
        return _about_another(query, random)
    attribute = asked[-1].attribute or random.choice(tuple(ATTRIBUTES))
    thing = asked[-1].thing or random.choice(ENTITIES)
    if attribute == WHOLE:
        told = random.sample(tuple(ATTRIBUTES), GUESSED_FACTS)
        return f"{state(thing, [random.choice(ATTRIBUTES[a].values) for a in told])} {query}"
    fact = f"{thing} is {random.choice(ATTRIBUTES[attribute].values)}."
    if asked[-1].attribute is None:
        return f"{fact} And the {random.choice(ATTRIBUTES[attribute].nouns)} of {thing}?"
    return f"{fact} {query}"


def _about_another(query: str, random: Random) -> str:
    """From outside the world: one telling word gives way to a made-up name."""
    name, words = random.choice(ENTITIES), outside.keywords(query)[: outside.N_QUOTED]
    if not words:
        return f"{query} I mean {name}."
    return re.sub(rf"\b{re.escape(random.choice(words))}\b", name, query, flags=re.IGNORECASE)


def misread(prompt: str, random: Random, behaviour: Behaviour) -> str:  # noqa: ARG001
    """The query anew, as if it meant another part of the conversation: another attribute or thing, or what held before."""
    return altered_message(
        transcript_in(prompt), section(prompt, "query"), random, missed_in(prompt), PARTS_OF_A_CONVERSATION
    )
