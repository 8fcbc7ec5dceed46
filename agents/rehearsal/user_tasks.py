"""The user as the rehearsal plays it: by a prompt, or after the assistant's turn of a bare conversation; and who checks it.

A user who behaves asks what is still open. By rates of its own it breaks the role (`misbehaviour`), which is drawn first.
"""

import re
from collections.abc import Sequence
from random import Random

from agents.rehearsal import outside
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.misbehaviour import END, KINDS, drawn, misbehave
from agents.rehearsal.prompt_text import as_json, caught_in, section, transcript_in
from agents.rehearsal.reading import Memory, Tell, read, read_answer, remember
from agents.rehearsal.world import (
    ACKNOWLEDGEMENTS,
    ATTRIBUTE_OF_NOUN,
    ATTRIBUTE_OF_VALUE,
    ATTRIBUTES,
    FOLLOW_UP_DESCRIPTION_FORMS,
    OPPOSITE,
    WHOLE,
    listed,
    question,
    write_answer,
)
from store.records import Message

CHANGE_RATE = 0.3  # of the user's turns that open with a change of a fact
NEWS_RATE = 0.1  # that open with a new fact
TWO_CHANGES_RATE = 0.3  # of the changes before a description is asked for again
FRESH_TRIES = 20


def ask(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """The user's next message."""
    messages = transcript_in(prompt)
    return _misbehaviour(messages, random, behaviour) or _next_query(messages, random)


def ask_again(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Another next message than those that were caught, and no end."""
    messages = transcript_in(prompt)
    return _misbehaviour(messages, random, behaviour) or _fresh_query(messages, random, caught_in(prompt))


def query(messages: Sequence[Message], random: Random, behaviour: Behaviour) -> str:
    """What a model that was trained to ask makes of a bare conversation; it has no mark to end it with."""
    return _misbehaviour(messages, random, behaviour) or _fresh_query(messages, random)


def _misbehaviour(messages: Sequence[Message], random: Random, behaviour: Behaviour) -> str | None:
    """Null for a user who behaves."""
    kind = drawn(random, behaviour.misbehaviour)
    if kind is None:
        return None
    return misbehave(
        kind,
        messages,
        random,
        answer=lambda: _right_answer(messages),
        question=lambda: _fresh_query(messages, random),
    )


def _right_answer(messages: Sequence[Message]) -> str:
    memory = remember(messages)
    if memory.is_outside:
        return outside.answer(next(m.content for m in reversed(messages) if m.role == "user"), memory.name)
    return write_answer(memory.right_answer())


def _fresh_query(messages: Sequence[Message], random: Random, caught: Sequence[str] = ()) -> str:
    """A next message that the user has not said before, and that is not among `caught`."""
    said = {_plain(text) for text in (*(m.content for m in messages if m.role == "user"), *caught)}
    for _ in range(FRESH_TRIES):
        text = _next_query(messages, random)
        if text != END and _plain(text) not in said:
            return text
    memory = remember(messages)  # nothing is open: a fact that changes opens it again
    changes = [f"It is {OPPOSITE[history[-1]]} now." for history in memory.facts.get(memory.focus or "", {}).values()]
    forms = [f"What is its {noun}?" for noun in ATTRIBUTE_OF_NOUN]
    if memory.attribute == WHOLE:
        forms = [form.format(entity=memory.focus) for form in FOLLOW_UP_DESCRIPTION_FORMS]
    texts = [f"{change} {form}" for change in changes for form in forms] or ["And what more?"]
    return random.choice([text for text in texts if _plain(text) not in said] or texts)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _next_query(messages: Sequence[Message], random: Random) -> str:
    """A question that is still open in this branch, often after a reaction to the last answer."""
    memory = remember(messages)
    if memory.focus is None:
        return outside.ask(messages, random)
    if memory.attribute == WHOLE:
        return _next_description(memory, random)
    opening = _opening(memory, messages, random)
    memory.hear(opening)
    if not memory.open:
        return END
    asked = _question(memory, opening, random)
    return f"{opening} {asked}" if opening else asked


def _next_description(memory: Memory, random: Random) -> str:
    """Something new about the thing, so that its description is another one."""
    known = memory.facts.get(memory.focus or "", {})
    unknown = [attribute for attribute in ATTRIBUTES if attribute not in known]
    again = random.choice(FOLLOW_UP_DESCRIPTION_FORMS).format(entity=memory.focus)
    if unknown and (not known or random.random() < NEWS_RATE):
        return f"It is also {random.choice(ATTRIBUTES[random.choice(unknown)].values)}. {again}"
    changed = random.sample(sorted(known), min(len(known), 1 + (random.random() < TWO_CHANGES_RATE)))
    values = [OPPOSITE[known[attribute][-1]] for attribute in changed]
    return f"{random.choice(('It', 'No, it'))} is {listed(values)} now. {again}"


def _opening(memory: Memory, messages: Sequence[Message], random: Random) -> str:
    """A change of what was just told, a new fact, an acknowledgement, or nothing."""
    dice = random.random()
    known = memory.facts.get(memory.focus or "", {})
    unknown = [attribute for attribute in ATTRIBUTES if attribute not in known]
    if unknown and (not memory.open or dice < NEWS_RATE):
        return f"It is also {random.choice(ATTRIBUTES[random.choice(unknown)].values)}."
    if known and dice < NEWS_RATE + CHANGE_RATE:
        answer = read_answer(messages[-1].content) if messages[-1].role == "assistant" else None
        told = ATTRIBUTE_OF_VALUE[answer.value] if answer and answer.value else None
        attribute = told if told in known else random.choice(sorted(known))
        return f"{random.choice(('It', 'No, it'))} is {OPPOSITE[known[attribute][-1]]} now."
    return random.choice(("", "", *ACKNOWLEDGEMENTS))


def _question(memory: Memory, opening: str, random: Random) -> str:
    just_told = {ATTRIBUTE_OF_VALUE[v] for s in read(opening) if isinstance(s.event, Tell) for v in s.event.values}
    waiting = sorted(memory.open)
    fresh = [q for q in waiting if q.thing != memory.focus or q.attribute not in just_told] or waiting
    wanted = random.choice(fresh)
    if wanted.thing != memory.focus and wanted.attribute == memory.attribute and not opening:
        return f"And {wanted.thing}?"
    return question(random, wanted.attribute, wanted.thing, in_focus=wanted.thing == memory.focus, follow_up=True)


def gate(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Whether a query keeps to the user's role, as JSON: no answer of this world, and nothing that was said before."""
    messages, heard = transcript_in(prompt), section(prompt, "query")
    said = [_plain(message.content) for message in messages if message.role == "user"]
    problem, rationale = "none", "A user could well say this here."
    if read_answer(heard) is not None or heard in [m.content for m in messages if m.role == "assistant"]:
        problem, rationale = "role_inversion", "This is what the assistant would say."
    elif heard.startswith("Task:") or "<think>" in heard:
        problem, rationale = "leak", "It speaks of what it was told."
    elif _plain(heard) in said:
        problem, rationale = ("restart" if said[0] == _plain(heard) else "repetition"), "This was said before."
    if random.random() < behaviour.judge_error_rate:
        problem = random.choice(KINDS) if problem == "none" else "none"
        rationale = "It is hard to say."
    return as_json(rationale=rationale, problem=problem)
