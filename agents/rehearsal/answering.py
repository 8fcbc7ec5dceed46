"""The assistant as the rehearsal plays it: what a faithful one would say, now and then by mistake.

A mistake in the answer to a question for one value is drawn once an answer; a description errs in each of its parts by
itself, so that two samples differ by degrees.
"""

from collections.abc import Sequence
from random import Random

from agents.rehearsal import outside
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.reading import Ask, Memory, Outside, read, remember
from agents.rehearsal.world import OPENERS, OPPOSITE, PEOPLE, Answer, write_answer
from store.records import Message

SWAPPED = 2 / 3
"""Of a description's wrong values, how many are the opposite; the others are left out."""


def chat(messages: Sequence[Message], random: Random, behaviour: Behaviour) -> str:
    """Answer the last user turn by what the user said, in the way the user asked for; now and then by mistake."""
    memory = remember(messages)
    if memory.is_outside or not messages:
        heard = messages[-1].content if messages else ""
        if _asks_of_nothing(heard):
            return write_answer(Answer(None, memory.name, memory.opener), name_first=random.random() < 0.5)
        slips = random.random() < behaviour.mistake_rate
        asked = outside.alter(heard, random) if slips else heard
        return outside.answer(asked, memory.name, random, behaviour.omission_rate)
    answer = memory.right_answer()
    name_first = random.random() < 0.5
    if memory.describes:
        return write_answer(described(answer, random, behaviour.mistake_rate), name_first=name_first)
    if random.random() < behaviour.mistake_rate:
        answer = random.choice(_mistakes(memory, answer) or [answer])
    return write_answer(answer, name_first=name_first)


def described(right: Answer, random: Random, mistake_rate: float) -> Answer:
    """A description with mistakes in each part by itself: a value is its opposite or, half as often, left out; the name is another."""
    values = []
    for value in right.said:
        dice = random.random()
        if dice >= mistake_rate:
            values.append(value)
        elif dice < mistake_rate * SWAPPED:
            values.append(OPPOSITE[value])
    answer = right.saying(values)
    if right.name and random.random() < mistake_rate:
        answer = answer._replace(name=another(PEOPLE, right.name, random))
    if right.opener and random.random() < mistake_rate:
        answer = answer._replace(opener=another(OPENERS, right.opener, random))
    return answer


def another(words: Sequence[str], word: str, random: Random) -> str:
    """One of the other words."""
    return random.choice([other for other in words if other != word])


def _asks_of_nothing(heard: str) -> bool:
    """Whether a message is of the world, and asks for something that nobody told of, as "What is its colour?" alone does."""
    events = [event for _, event in read(heard)]
    return any(isinstance(event, Ask) for event in events) and not any(isinstance(event, Outside) for event in events)


def _mistakes(memory: Memory, answer: Answer) -> list[Answer]:
    """Wrong answers of each kind that the conversation offers."""
    slips: list[Answer] = []
    if memory.question and answer.value:
        known = memory.facts[memory.question.thing]
        others = [history[-1] for attribute, history in known.items() if attribute != memory.question.attribute]
        slips += [answer._replace(value=value) for value in (*others[:1], *others[-1:], OPPOSITE[answer.value])]
    if answer.name:
        slips.append(answer._replace(name=_other(PEOPLE, answer.name)))
    if answer.opener:
        slips.append(answer._replace(opener=_other(OPENERS, answer.opener)))
    return slips


def _other(words: Sequence[str], word: str) -> str:
    return words[(words.index(word) + 1) % len(words)]
