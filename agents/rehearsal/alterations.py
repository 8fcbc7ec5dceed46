"""A message of the rehearsal's world rewritten, so that the answer to it is wrong for the original."""

import re
from collections.abc import Collection, Sequence
from random import Random

from agents.rehearsal import outside
from agents.rehearsal.reading import Ask, Begin, Call, Memory, Question, Sentence, Tell, read, remember
from agents.rehearsal.world import ATTRIBUTES, OPENERS, OPPOSITE, PEOPLE
from store.records import Message

ALTERATION_WEIGHTS = {"attribute": 4, "entity": 4, "name": 3, "opener": 3, "stale": 4, "value": 4}


def altered_message(
    messages: Sequence[Message],
    instruction: str,
    random: Random,
    missed: Sequence[str],
    kinds: Collection[str] = ALTERATION_WEIGHTS,
) -> str:
    """The instruction, which the messages end on or which comes after them, rewritten by an error of one of the kinds.

    `missed`: what was tried before. It is not tried again, as long as the world has anything else to ask for.
    """
    history = messages[:-1] if messages and messages[-1].role == "user" else messages
    memory = remember(history)
    memory.hear(instruction)
    options = {kind: text for kind, text in _alterations(memory, read(instruction), random).items() if kind in kinds}
    while options and not memory.is_outside:
        kind = random.choices(list(options), [ALTERATION_WEIGHTS[kind] for kind in options])[0]
        rewritten = options.pop(kind)
        other = remember(history)
        other.hear(rewritten)
        if other.right_answer() != memory.right_answer() and rewritten not in missed:
            return rewritten
    texts = [outside.alter(instruction, random) for _ in range(1 + 4 * len(missed))]
    return next((text for text in texts if text not in missed), texts[0])


def _alterations(memory: Memory, sentences: Sequence[Sentence], random: Random) -> dict[str, str]:
    """For each kind of error, the message rewritten. Where there are several things, what was asked before is preferred."""
    options: dict[str, str] = {}
    if memory.name:
        name = random.choice([person for person in PEOPLE if person != memory.name])
        options["name"] = _with(sentences, Call, memory.name, name, f"Call me {name}.")
    if memory.opener:
        opener = random.choice([word for word in OPENERS if word != memory.opener])
        options["opener"] = _with(sentences, Begin, memory.opener, opener, f"Begin with {opener}.")
    if memory.question and memory.describes:
        told = memory.facts.get(memory.question.thing, {})
        if told:
            now = random.choice([history[-1] for history in told.values()])
            fact = f"{memory.question.thing} is {OPPOSITE[now]} now."
            options["value"] = _with(sentences, Tell, now, OPPOSITE[now], fact)
    if memory.question is None or memory.value(memory.question) is None:
        return options
    attribute, thing = memory.question
    value, before = memory.value(memory.question), memory.asked[:-1]
    attributes = [Question(a, thing) for a in memory.facts[thing] if a != attribute]
    things = [
        Question(attribute, t) for t, k in memory.facts.items() if t != thing and k.get(attribute, [value])[-1] != value
    ]
    for kind, candidates in (("attribute", attributes), ("entity", things)):
        if len(memory.facts) > 1:
            candidates = [q for q in candidates if q in before] or candidates
        if candidates:
            options[kind] = _asking_for(random.choice(candidates), memory.question, sentences)
    history = memory.facts[thing][attribute]
    if len(history) > 1:
        subject = "It" if any(isinstance(event, Ask) and event.thing is None for _, event in sentences) else thing
        options["stale"] = _with(sentences, Tell, history[-1], history[-2], f"{subject} is {history[-2]} now.")
    return options


def _with(sentences: Sequence[Sentence], kind: type, old: str, new: str, otherwise: str) -> str:
    """The message with a word exchanged in its last sentence of a kind that has it, or with a sentence put in front."""
    texts = [text for text, _ in sentences]
    for place in reversed(range(len(texts))):
        if isinstance(sentences[place].event, kind) and re.search(rf"\b{old}\b", texts[place], re.IGNORECASE):
            texts[place] = re.sub(rf"\b{old}\b", new, texts[place], flags=re.IGNORECASE)
            return " ".join(texts)
    return " ".join([otherwise, *texts])


def _asking_for(wanted: Question, asked: Question, sentences: Sequence[Sentence]) -> str:
    """The message with its last question put for another attribute or thing, in the same form where it can be."""
    texts = [text for text, _ in sentences]
    place = max(i for i, sentence in enumerate(sentences) if isinstance(sentence.event, Ask))
    event = sentences[place].event
    assert isinstance(event, Ask)
    nouns = ATTRIBUTES[asked.attribute].nouns
    noun = next((n for n in nouns if re.search(rf"\b{n}\b", texts[place], re.IGNORECASE)), nouns[0])
    other_noun = ATTRIBUTES[wanted.attribute].nouns[nouns.index(noun)]
    if wanted.thing != asked.thing and event.thing is not None:
        texts[place] = re.sub(rf"\b{asked.thing}\b", wanted.thing, texts[place], flags=re.IGNORECASE)
    elif wanted.thing == asked.thing and event.attribute is not None:
        texts[place] = re.sub(rf"\b{noun}\b", other_noun, texts[place], flags=re.IGNORECASE)
    else:
        texts[place] = f"What is the {other_noun} of {wanted.thing}?"
    return " ".join(texts)
