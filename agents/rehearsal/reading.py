"""How the rehearsal reads: sentences of the closed world, what a user has said so far, what an answer says.

The roles and the oracle read alike, so that the oracle can grade whatever the roles write. Text that is not of the
world is `outside`. Knows nothing of prompts, chance or mistakes.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from agents.rehearsal.world import (
    ATTRIBUTE_OF_NOUN,
    ATTRIBUTE_OF_VALUE,
    ENTITIES,
    OPENERS,
    PEOPLE,
    WHOLE,
    Answer,
)
from store.records import Message


class Ask(NamedTuple):
    """A question, for an attribute or for the `WHOLE`; None stands for what an ellipsis leaves to the context."""

    attribute: str | None
    thing: str | None


class Tell(NamedTuple):
    """Facts; `thing` None is `it`."""

    thing: str | None
    values: tuple[str, ...]


class Call(NamedTuple):
    """The standing instruction how to address the user."""

    name: str


class Begin(NamedTuple):
    """The standing instruction how to begin an answer."""

    opener: str


class Small(NamedTuple):
    """Small talk that asks and says nothing."""


class Outside(NamedTuple):
    """A sentence that is not of the world."""


Event = Ask | Tell | Call | Begin | Small | Outside


class Sentence(NamedTuple):
    """A sentence as it was written, and what it means."""

    text: str
    event: Event


def _any(words: Iterable[str]) -> str:
    return "(?:" + "|".join(word.lower() for word in words) + ")"


THING, NOUN, VALUE = _any(ENTITIES), _any(ATTRIBUTE_OF_NOUN), _any(ATTRIBUTE_OF_VALUE)
VALUES = rf"{VALUE}(?:, {VALUE})*(?: and {VALUE})?"
SENTENCE = re.compile(r"[^.?!]*[.?!]+\s*|[^.?!]+$")
QUESTION = re.compile(rf"(?:what is|tell me|what about|and) (?:the|its) ({NOUN})(?: of ({THING}))?")
WHICH = re.compile(rf"which ({NOUN}) has ({THING})")
DESCRIBE = re.compile(rf"(?:describe|tell me about) ({THING}|it)(?: again| now)?|what is ({THING}|it) like(?: now)?")
SAME_OF_OTHER = re.compile(rf"and ({THING})")
FACT = re.compile(rf"(?:no, )?({THING}|it) is (?:also )?({VALUES})(?: now)?")
NAME = re.compile(rf"(?:no, )?(?:please )?call me ({_any(PEOPLE)})(?: now)?")
BEGIN = re.compile(rf"begin with ({_any(OPENERS)})")
SMALL = re.compile(r"good|fine|i see|ok|thanks|thank you")
ANSWER = re.compile(
    rf"(?:({_any(OPENERS)}), )?(?:({_any(PEOPLE)}), )?(?:it is ({VALUES})|i do not know that|noted)(?:, ({_any(PEOPLE)}))?\."
)


@lru_cache(maxsize=65_536)
def read(content: str) -> tuple[Sentence, ...]:
    """A user's message, sentence by sentence; empty where nothing is written."""
    return tuple(
        Sentence(text.strip(), _event(text.strip().rstrip(".?!").lower()))
        for text in SENTENCE.findall(content)
        if text.strip()
    )


def _event(text: str) -> Event:
    if match := QUESTION.fullmatch(text):
        return Ask(ATTRIBUTE_OF_NOUN[match[1]], _name(match[2]))
    if match := FACT.fullmatch(text):
        thing = None if match[1] == "it" else _name(match[1])
        return Tell(thing, _values(match[2]))
    if match := NAME.fullmatch(text):
        return Call(match[1].capitalize())
    if match := BEGIN.fullmatch(text):
        return Begin(match[1].capitalize())
    if match := WHICH.fullmatch(text):
        return Ask(ATTRIBUTE_OF_NOUN[match[1]], _name(match[2]))
    if match := DESCRIBE.fullmatch(text):
        thing = match[1] or match[2]
        return Ask(WHOLE, None if thing == "it" else _name(thing))
    if match := SAME_OF_OTHER.fullmatch(text):
        return Ask(None, _name(match[1]))
    return Small() if SMALL.fullmatch(text) else Outside()


def _values(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.replace(" and ", ", ")))


def _name(text: str | None) -> str | None:
    return None if text is None else text.capitalize()


@lru_cache(maxsize=65_536)
def read_answer(content: str) -> Answer | None:
    """What an assistant's message says; None: it is not an answer of this world."""
    match = ANSWER.fullmatch(content.strip().lower())
    if match is None or (match[2] and match[4] and match[2] != match[4]):  # nobody here calls a person two names
        return None
    answer = Answer(None, _name(match[4] or match[2]), _name(match[1]))
    return answer.saying(_values(match[3])) if match[3] else answer._replace(is_noted="noted" in match[0])


def names_first(content: str) -> bool:
    """Whether an answer of this world calls the user by name before it says anything."""
    match = ANSWER.fullmatch(content.strip().lower())
    return match is not None and match[2] is not None


class Question(NamedTuple):
    """A question with its ellipses filled in; `attribute` may be the `WHOLE`."""

    attribute: str
    thing: str


class Memory:
    """What the user has said so far, as a listener would keep it."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, list[str]]] = {}  # thing, attribute -> values in the order they were stated
        self.name: str | None = None
        self.opener: str | None = None
        self.focus: str | None = None  # the thing that "it" means
        self.attribute: str | None = None  # the attribute that "And Belo?" means
        self.asked: list[Question] = []
        self.open: set[Question] = set()  # stated, and not asked since
        self.question: Question | None = None  # of the last message; None: it asked nothing of the world
        self.is_outside = False  # the last message asked nothing of the world and was not of the world

    def hear(self, content: str) -> None:
        """Take in a user's message."""
        self.question = None
        sentences = read(content)
        for _, event in sentences:
            match event:
                case Tell(thing, values):
                    self._take(thing or self.focus, values)
                case Ask(attribute, thing):
                    self._note_question(attribute or self.attribute, thing or self.focus)
                case Call(name):
                    self.name = name
                case Begin(opener):
                    self.opener = opener
        stray = any(
            isinstance(event, Outside | Ask) for _, event in sentences
        )  # an Ask here is one about nothing known
        self.is_outside = self.question is None and (stray or not sentences)

    def _take(self, thing: str | None, values: Sequence[str]) -> None:
        if thing is None:
            return
        self.focus = thing
        known = self.facts.setdefault(thing, {})
        for value in values:
            attribute = ATTRIBUTE_OF_VALUE[value]
            history = known.setdefault(attribute, [])
            if not history or history[-1] != value:
                history.append(value)
                self.open.add(Question(attribute, thing))

    def _note_question(self, attribute: str | None, thing: str | None) -> None:
        if attribute is None or thing is None:
            return
        self.focus, self.attribute = thing, attribute
        self.question = Question(attribute, thing)
        self.asked.append(self.question)
        if attribute == WHOLE:
            self.open = {question for question in self.open if question.thing != thing}
        self.open.discard(self.question)

    @property
    def describes(self) -> bool:
        """Whether the last message asks for a description."""
        return self.question is not None and self.question.attribute == WHOLE

    def value(self, question: Question) -> str | None:
        """The value that holds now; None where the user never stated one, or asks for more than one."""
        history = self.facts.get(question.thing, {}).get(question.attribute)
        return history[-1] if history else None

    def right_answer(self) -> Answer:
        """What a faithful assistant answers to the last message."""
        if self.question and self.question.attribute == WHOLE:
            known = self.facts.get(self.question.thing, {})
            return Answer(None, self.name, self.opener).saying([history[-1] for history in known.values()])
        value = self.value(self.question) if self.question else None
        return Answer(value, self.name, self.opener, is_noted=self.question is None)


def remember(messages: Sequence[Message]) -> Memory:
    """What the user's (and the system's) messages say, in order; the assistant's do not count as facts."""
    memory = Memory()
    for message in messages:
        if message.role != "assistant":
            memory.hear(message.content)
    return memory
