"""The roles that the rehearsal plays, each from the text of the request alone.

A prompt whose first line is `Task: NAME` is played as that task; everything else is chat, which is answered as the
assistant. All chance comes from a generator that the caller derives from the request.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Annotated

import orjson
from pydantic import Field

from agents.rehearsal import outside
from agents.rehearsal.oracle import faults
from agents.rehearsal.reading import (
    Ask,
    Begin,
    Call,
    Memory,
    Outside,
    Question,
    Sentence,
    Tell,
    read,
    read_answer,
    remember,
)
from agents.rehearsal.world import (
    ACKNOWLEDGEMENTS,
    ATTRIBUTE_OF_VALUE,
    ATTRIBUTES,
    OPENERS,
    OPPOSITE,
    PEOPLE,
    Answer,
    question,
    write_answer,
)
from configs.base import Settings
from store.records import Message

END = "[END]"
CHANGE_RATE = 0.3  # of the user's turns that open with a change of a fact
NEWS_RATE = 0.1  # that open with a new fact
ALTERATION_WEIGHTS = {"attribute": 4, "entity": 4, "name": 3, "opener": 3, "stale": 4}


class Behaviour(Settings):
    """How faulty the rehearsal is: request parameters of its own."""

    mistake_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.03
    """Natural mistakes of the assistant, a turn (the prototype's noise)."""
    judge_error_rate: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Verdicts of `verify` and the comparisons that are turned round, and scores that are drawn blindly."""
    position_bias: Annotated[float, Field(ge=0.0, le=1.0)] = 0.02
    """Comparisons that go to A whatever is said."""
    length_bias: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Comparisons that go to the side whose assistant wrote more characters, whatever is said."""


Play = Callable[[str, Random, Behaviour], str]

TASK = re.compile(r"\s*Task: (\w+)[ \t]*\n")
MISSED = re.compile(r"^<missed>\n(.*?)\n</missed>$", re.DOTALL | re.MULTILINE)
TURN = re.compile(r"^<(user|assistant|system)>\n(.*?)\n?^</\1>$", re.DOTALL | re.MULTILINE)


def play(messages: Sequence[Message], random: Random, behaviour: Behaviour) -> str:
    """The next message of a conversation, or what the task in it asks for."""
    if messages and messages[-1].role == "user" and not any(m.role == "assistant" for m in messages):
        prompt = "\n".join(m.content for m in messages)
        match = TASK.match(prompt)
        if match and match[1] in TASKS and "</" in prompt:
            return TASKS[match[1]](prompt, random, behaviour)
    return chat(messages, random, behaviour)


# the assistant


def chat(messages: Sequence[Message], random: Random, behaviour: Behaviour) -> str:
    """Answer the last user turn by what the user said, in the way the user asked for; now and then by mistake."""
    memory = remember(messages)
    if memory.is_outside or not messages:
        heard = messages[-1].content if messages else ""
        slips = random.random() < behaviour.mistake_rate
        return outside.answer(outside.alter(heard, random) if slips else heard, memory.name)
    answer = memory.right_answer()
    name_first = random.random() < 0.5
    if random.random() < behaviour.mistake_rate:
        answer = random.choice(_mistakes(memory, answer) or [answer])
    return write_answer(answer, name_first=name_first)


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


# the user


def ask(prompt: str, random: Random, behaviour: Behaviour) -> str:  # noqa: ARG001  (all tasks are called alike)
    """The user's next message: a question that is still open in this branch, often after a reaction to the last answer."""
    messages = _transcript(prompt)
    memory = remember(messages)
    if memory.focus is None:
        return outside.ask(messages, random)
    opening = _opening(memory, messages, random)
    memory.hear(opening)
    if not memory.open:
        return END
    asked = _question(memory, opening, random)
    return f"{opening} {asked}" if opening else asked


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


# the perturbation


def alter(prompt: str, random: Random, behaviour: Behaviour) -> str:  # noqa: ARG001
    """The last message rewritten so that the answer to it is wrong for the original."""
    messages = _transcript(prompt)
    return _altered(messages, _section(prompt, "instruction") or messages[-1].content, random, _missed(prompt))


def contrast(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """An altered instruction and the assistant's answer to it, as JSON."""
    messages = _transcript(prompt)
    altered = _altered(messages, messages[-1].content, random, _missed(prompt))
    answer = chat([*messages[:-1], Message(role="user", content=altered)], random, behaviour)
    return _json(altered_instruction=altered, answer=answer)


def _altered(messages: Sequence[Message], instruction: str, random: Random, missed: Sequence[str]) -> str:
    """`missed`: what was tried before. It is not tried again, as long as the world has anything else to ask for."""
    history = messages[:-1] if messages and messages[-1].role == "user" else messages
    memory = remember(history)
    memory.hear(instruction)
    options = _alterations(memory, read(instruction), random)
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


# the judge


def verify(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Whether an answer fails the user, as JSON."""
    messages, content = _transcript(prompt), _section(prompt, "answer")
    memory = remember(messages)
    answer = read_answer(content)
    if memory.is_outside or not messages:
        share = outside.match(messages[-1].content if messages else "", content)
        fails = share < 1.0
        rationale = f"Outside what I know: the answer takes up {share:.0%} of what was asked, more I cannot tell."
    elif answer is None:
        fails, rationale = True, "The answer does not say what was asked for."
    else:
        found = faults(memory, answer)
        fails = bool(found)
        rationale = (
            f"The answer fails: {', '.join(found)}." if found else "The answer is right and keeps the conditions."
        )
    if random.random() < behaviour.judge_error_rate:
        fails, rationale = not fails, f"On the whole the answer {'keeps to' if fails else 'misses'} what was asked."
    return _json(rationale=rationale, fails=fails)


def compare(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Which of two conversations went better, as JSON: the one with the larger share of right answers."""
    references = _turns(_section(prompt, "reference"))
    sides = [_turns(_section(prompt, f"conversation_{side}")) for side in "ab"]
    a, b = (_share_right(side, references) for side in sides)
    better = "tie" if abs(a - b) < 1e-9 else "A" if a > b else "B"
    rationale = f"A answers {a:.0%} as asked, B {b:.0%}."
    if random.random() < behaviour.judge_error_rate:
        better = {"A": "B", "B": "A"}.get(better) or random.choice("AB")
        rationale = f"On the whole {better} does better."
    if random.random() < behaviour.position_bias:
        better, rationale = "A", "A is the more convincing."
    length_a, length_b = (sum(len(m.content) for m in side if m.role == "assistant") for side in sides)
    if length_a != length_b and random.random() < behaviour.length_bias:
        better, rationale = ("A" if length_a > length_b else "B"), "It is the more thorough one."
    return _json(rationale=rationale, better=better)


def score(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """A grade from 1 to 10, as JSON: by the share of right answers, of those in the prompt or of the last one alone."""
    messages, references = _transcript(prompt), _turns(_section(prompt, "reference"))
    if "<answer>" in prompt:
        share = _share_right_last(messages, _section(prompt, "answer"), references)
    else:
        share = _share_right(messages, references)
    grade, rationale = 1 + round(9 * share), f"{share:.0%} is answered as asked."
    if random.random() < behaviour.judge_error_rate:
        grade, rationale = random.randint(1, 10), "It is hard to say."
    return _json(rationale=rationale, score=grade)


def realism(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """A grade from 1 to 10 of the user, as JSON: by the share of its later turns that go on from what was said.

    Such a turn says nothing again that the user said before, and leaves out what is clear (`its`, an ellipsis); outside the
    world it takes up a word of the last answer.
    """
    messages = _transcript(prompt)
    queries = [place for place, message in enumerate(messages) if message.role == "user"]
    later = [_goes_on(messages[:place], messages[place].content) for place in queries[1:]]
    share = sum(later) / len(later) if later else 0.5
    grade, rationale = 1 + round(9 * share), f"{share:.0%} of the later turns go on from what was said."
    if random.random() < behaviour.judge_error_rate:
        grade, rationale = random.randint(1, 10), "It is hard to say."
    return _json(rationale=rationale, score=grade)


def _goes_on(before: Sequence[Message], query: str) -> bool:
    said = {message.content.strip().lower() for message in before if message.role == "user"}
    if query.strip().lower() in said:
        return False
    events = [event for _, event in read(query)]
    if all(isinstance(event, Outside) for event in events):
        return bool(set(outside.keywords(query)) & set(outside.keywords(before[-1].content)))
    return any(
        isinstance(event, Ask | Tell) and None in (event.thing, getattr(event, "attribute", "")) for event in events
    )


def _share_right_last(messages: Sequence[Message], content: str, references: Sequence[Message]) -> float:
    memory = remember(messages)
    heard = messages[-1].content if messages else ""
    return _rightness(memory, heard, content, references[0].content if references else None)


def _share_right(messages: Sequence[Message], references: Sequence[Message] = ()) -> float:
    """The share of answers that are right: by their references, and by the conversation where there are no more of them."""
    memory, heard = Memory(), ""
    scores: list[float] = []
    for message in messages:
        if message.role != "assistant":
            memory.hear(message.content)
            heard = message.content
        else:
            reference = references[len(scores)].content if len(scores) < len(references) else None
            scores.append(_rightness(memory, heard, message.content, reference))
    return sum(scores) / len(scores) if scores else 0.0


def _rightness(memory: Memory, heard: str, content: str, reference: str | None) -> float:
    """1 for a right answer and 0 for a wrong one; from outside the world, how much of the question, or of the reference, it takes up."""
    answer = read_answer(content)
    if reference is not None:
        right = read_answer(reference)
        return outside.match(reference, content) if right is None else float(answer == right)
    if memory.is_outside:
        return outside.match(heard, content)
    return 0.0 if answer is None or faults(memory, answer) else 1.0


# the text of a prompt


def _section(prompt: str, tag: str) -> str:
    start, end = prompt.find(f"<{tag}>\n"), prompt.rfind(f"\n</{tag}>")
    return prompt[start + len(tag) + 3 : end] if 0 <= start < end else ""


def _missed(prompt: str) -> list[str]:
    """The alterations that were tried in vain; they stand behind the transcript."""
    return MISSED.findall(prompt[prompt.rfind("\n</transcript>") :])


def _transcript(prompt: str) -> list[Message]:
    return _turns(_section(prompt, "transcript"))


def _turns(text: str) -> list[Message]:
    # a prompt comes from outside: its roles are those of TURN, so that validation would only cost time
    return [Message.model_construct(role=role, content=content) for role, content in TURN.findall(text)]


def _json(**values: object) -> str:
    return orjson.dumps(values).decode()


TASKS: dict[str, Play] = {
    "ask": ask,
    "alter": alter,
    "contrast": contrast,
    "verify": verify,
    "compare": compare,
    "reference_compare": compare,
    "score": score,
    "score_turn": score,
    "reference": score,
    "reference_turn": score,
    "realism": realism,
}
