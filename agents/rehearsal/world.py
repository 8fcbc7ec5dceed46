"""The closed world: its words, its sizes, its sentences, and the first user turns that open a dialogue.

Things with made-up names have eight attributes of two values each; the user states the facts, so that whoever
reads the conversation can judge it. A standing instruction ("Call me Ilse.") is broken by its mirror image (another
name, never a missing one). Every sentence is short and every word is as likely in a right answer as in a wrong
one, so that only a reader who relates the turns can tell them apart. In the world `lists` every question asks for all that
is known of a thing, so that one answer can be better than another by degrees. Knows how to write; `reading` reads.
"""

from collections.abc import Sequence
from random import Random
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from configs.base import Settings
from store.identity import chance
from store.records import Message


class Attribute(NamedTuple):
    """What can be asked of a thing: two nouns that mean the same, and two values that exclude each other."""

    nouns: tuple[str, str]
    values: tuple[str, str]


ATTRIBUTES = {
    attribute.nouns[0]: attribute
    for attribute in (
        Attribute(("colour", "paint"), ("red", "blue")),
        Attribute(("size", "scale"), ("big", "small")),
        Attribute(("age", "date"), ("old", "new")),
        Attribute(("weight", "mass"), ("heavy", "light")),
        Attribute(("price", "cost"), ("cheap", "dear")),
        Attribute(("shape", "form"), ("round", "square")),
        Attribute(("feel", "touch"), ("soft", "rough")),
        Attribute(("sound", "noise"), ("loud", "quiet")),
    )
}
ATTRIBUTE_OF_NOUN = {noun: name for name, attribute in ATTRIBUTES.items() for noun in attribute.nouns}
ATTRIBUTE_OF_VALUE = {value: name for name, attribute in ATTRIBUTES.items() for value in attribute.values}
OPPOSITE = {a: b for attribute in ATTRIBUTES.values() for a, b in (attribute.values, attribute.values[::-1])}
PEOPLE = ("Ilse", "Omar", "Nina", "Paul", "Vera", "Hugo", "Lena", "Karl")
OPENERS = ("Well", "So", "Sure", "Right")
ENTITIES = tuple(
    first + second
    for first in ("Be", "Ki", "Ta", "Mo", "Ru", "Sa", "Ne", "Do")
    for second in ("lo", "ra", "min", "dor", "vek", "shi", "nu", "pas")
)
ACKNOWLEDGEMENTS = ("Good.", "Fine.", "I see.")
NAMED_FORMS = ("What is the {noun} of {entity}?", "Tell me the {noun} of {entity}.", "Which {noun} has {entity}?")
ANAPHORIC_FORMS = ("What is its {noun}?", "Tell me its {noun}.")
ELLIPTIC_FORMS = ("And the {noun}?", "What about its {noun}?")
WHOLE = "whole"
"""Stands where an attribute would, in a question for all that is known of a thing."""
DESCRIPTION_FORMS = ("Describe {entity}.", "What is {entity} like?", "Tell me about {entity}.")
FOLLOW_UP_DESCRIPTION_FORMS = (
    "Describe it again.",
    "Describe it now.",
    "What is it like now?",
    "Tell me about it again.",
    "Describe {entity} again.",
)


class World(Settings):
    """The sizes of a world; the roles read them off the conversation."""

    entities: Annotated[int, Field(ge=1, le=4)]
    """Things that the first turn describes."""
    facts: Annotated[int, Field(ge=2, le=len(ATTRIBUTES))]
    """Attributes of each thing that the first turn states."""
    openers: bool
    """Whether a second standing instruction says how answers begin."""
    describes: bool = False
    """Whether every question asks for a description of the thing: all its values, in the order in which they were first stated."""


EASY = World(entities=1, facts=4, openers=False)
HARD = World(entities=2, facts=4, openers=True)
LISTS = World(entities=1, facts=5, openers=False, describes=True)
WORLDS: dict[Literal["easy", "hard", "lists"], World] = {"easy": EASY, "hard": HARD, "lists": LISTS}


def generate_seeds(count: int, random_seed: int, world: World = EASY) -> list[tuple[Message, ...]]:
    """First user turns; a longer list begins with the shorter one."""
    known_as = world.model_dump(exclude_defaults=True)  # what a world does not use leaves the chance of its seeds alone
    return [(_first_turn(chance("rehearsal seed", random_seed, index, known_as), world),) for index in range(count)]


def _first_turn(random: Random, world: World) -> Message:
    things = random.sample(ENTITIES, world.entities)
    attributes = random.sample(tuple(ATTRIBUTES), world.facts)
    values = [random.choice(ATTRIBUTES[attribute].values) for attribute in attributes]
    sentences = [f"Call me {random.choice(PEOPLE)}."]
    if world.openers:
        sentences.append(f"Begin with {random.choice(OPENERS)}.")
    for place, thing in enumerate(things):
        sentences.append(state(thing, values if place == 0 else _differing(values, random)))
    attribute, thing = random.choice(attributes), random.choice(things)
    if world.describes:
        sentences.append(random.choice(DESCRIPTION_FORMS).format(entity=thing))
        return Message(role="user", content=" ".join(sentences))
    sentences.append(question(random, attribute, thing, in_focus=thing == things[-1]))
    return Message(role="user", content=" ".join(sentences))


def _differing(values: Sequence[str], random: Random) -> list[str]:
    """The next thing's values, about half of them opposite and at least one."""
    flips = [random.random() < 0.5 for _ in values]
    if not any(flips):
        flips[random.randrange(len(flips))] = True
    return [OPPOSITE[value] if flip else value for value, flip in zip(values, flips, strict=True)]


def state(thing: str, values: Sequence[str]) -> str:
    """`Belo is red, big and old.`"""
    return f"{thing} is {listed(values)}."


def listed(values: Sequence[str]) -> str:
    """`red, big and old`"""
    return " and ".join(filter(None, (", ".join(values[:-1]), values[-1])))


def question(random: Random, attribute: str, thing: str, *, in_focus: bool, follow_up: bool = False) -> str:
    """A question for a thing's attribute; only a thing in focus is spoken of as `its`, only a follow-up is elliptic."""
    forms: tuple[str, ...] = NAMED_FORMS
    if in_focus:
        forms = ANAPHORIC_FORMS + ELLIPTIC_FORMS + NAMED_FORMS[:1] if follow_up else NAMED_FORMS + ANAPHORIC_FORMS
    return random.choice(forms).format(noun=random.choice(ATTRIBUTES[attribute].nouns), entity=thing)


class Answer(NamedTuple):
    """What an answer says: no value is `I do not know that`; names and openers are None where none is said."""

    value: str | None
    name: str | None
    opener: str | None
    is_noted: bool = False
    """`Noted`: the answer to a message that asks nothing."""
    values: tuple[str, ...] = ()
    """Of a description, where it has two or more; one alone is `value`."""

    @property
    def said(self) -> tuple[str, ...]:
        """All its values."""
        return self.values or (() if self.value is None else (self.value,))

    def saying(self, values: Sequence[str]) -> "Answer":
        """The answer with these values in place of its own."""
        one, several = (values[0] if len(values) == 1 else None), (tuple(values) if len(values) > 1 else ())
        return self._replace(value=one, values=several, is_noted=False)


def write_answer(answer: Answer, *, name_first: bool = False) -> str:
    """An answer as text; all that give a value in one dialogue have the same number of words."""
    said = "noted" if answer.is_noted else f"it is {listed(answer.said)}" if answer.said else "I do not know that"
    parts = [said] if answer.name is None else [answer.name, said] if name_first else [said, answer.name]
    text = ", ".join(parts if answer.opener is None else [answer.opener, *parts])
    return f"{text[0].upper()}{text[1:]}."
