"""The roles that the rehearsal plays, each from the text of the request alone.

A prompt whose first line is `Task: NAME` is played as that task; everything else is chat, which is answered as the
assistant. All chance comes from a generator that the caller derives from the request.
"""

import re
from collections.abc import Callable, Sequence
from random import Random

from agents.rehearsal import outside
from agents.rehearsal.alterations import altered_message
from agents.rehearsal.answering import chat
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.context_tasks import guess, misread
from agents.rehearsal.depends import depends
from agents.rehearsal.oracle import faults, faults_in, parts
from agents.rehearsal.pair_tasks import boost, prefer, steer
from agents.rehearsal.prompt_text import as_json, missed_in, section, transcript_in, turns_in
from agents.rehearsal.reading import Ask, Memory, Outside, Tell, read, read_answer, remember
from agents.rehearsal.user_tasks import ask, ask_again, gate, query
from store.records import Message

Play = Callable[[str, Random, Behaviour], str]

TASK = re.compile(r"\s*Task: (\w+)[ \t]*\n")


def play(messages: Sequence[Message], random: Random, behaviour: Behaviour) -> str:
    """The next message of a conversation, the user's after the assistant's, or what the task in it asks for."""
    if messages and messages[-1].role == "assistant":
        return query(messages, random, behaviour)
    task, prompt = task_of(messages)
    return TASKS[task](prompt, random, behaviour) if task else chat(messages, random, behaviour)


def task_of(messages: Sequence[Message]) -> tuple[str | None, str]:
    """The task that a request names, if it is one of ours, and its text."""
    if messages and not any(m.role == "assistant" for m in messages) and messages[-1].role == "user":
        prompt = "\n".join(m.content for m in messages)
        match = TASK.match(prompt)
        if match and match[1] in TASKS and "</" in prompt:
            return match[1], prompt
    return None, ""


def asks_for_a_query(messages: Sequence[Message]) -> bool:
    """Whether the user is to speak: by a task, or after the assistant's turn of a bare conversation."""
    return bool(messages) and (messages[-1].role == "assistant" or task_of(messages)[0] in ("ask", "ask_again"))


# the perturbation


def alter(prompt: str, random: Random, behaviour: Behaviour) -> str:  # noqa: ARG001
    """The last message rewritten so that the answer to it is wrong for the original."""
    messages = transcript_in(prompt)
    return altered_message(messages, section(prompt, "instruction") or messages[-1].content, random, missed_in(prompt))


def contrast(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """An altered instruction and the assistant's answer to it, as JSON."""
    messages = transcript_in(prompt)
    altered = altered_message(messages, messages[-1].content, random, missed_in(prompt))
    answer = chat([*messages[:-1], Message(role="user", content=altered)], random, behaviour)
    return as_json(altered_instruction=altered, answer=answer)


# the judge


def verify(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Whether an answer fails the user, as JSON. With the history before its eyes, an error of context is one like any other."""
    messages, content = transcript_in(prompt), section(prompt, "answer")
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
    return as_json(rationale=rationale, fails=fails)


def compare(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Which of two conversations went better, as JSON: the one with the larger share of right answers."""
    references = turns_in(section(prompt, "reference"))
    sides = [turns_in(section(prompt, f"conversation_{side}")) for side in "ab"]
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
    return as_json(rationale=rationale, better=better)


def score(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """A grade from 1 to 10, as JSON: by the share of right answers, of those in the prompt or of the last one alone."""
    messages, references = transcript_in(prompt), turns_in(section(prompt, "reference"))
    if "<answer>" in prompt:
        share = _share_right_last(messages, section(prompt, "answer"), references)
    else:
        share = _share_right(messages, references)
    grade, rationale = 1 + round(9 * share), f"{share:.0%} is answered as asked."
    if random.random() < behaviour.judge_error_rate:
        grade, rationale = random.randint(1, 10), "It is hard to say."
    return as_json(rationale=rationale, score=grade)


def realism(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """A grade from 1 to 10 of the user, as JSON: by the share of its later turns that go on from what was said.

    Such a turn says nothing again that the user said before, and leaves out what is clear (`its`, an ellipsis); outside the
    world it takes up a word of the last answer.
    """
    messages = transcript_in(prompt)
    queries = [place for place, message in enumerate(messages) if message.role == "user"]
    later = [_goes_on(messages[:place], messages[place].content) for place in queries[1:]]
    share = sum(later) / len(later) if later else 0.5
    grade, rationale = 1 + round(9 * share), f"{share:.0%} of the later turns go on from what was said."
    if random.random() < behaviour.judge_error_rate:
        grade, rationale = random.randint(1, 10), "It is hard to say."
    return as_json(rationale=rationale, score=grade)


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
    """1 for a right answer and 0 for a wrong one, of a description its share of right parts; from outside the world, how much of the question, or of the reference, it takes up."""
    answer = read_answer(content)
    if reference is not None:
        right = read_answer(reference)
        return outside.match(reference, content) if right is None else float(answer == right)
    if memory.is_outside:
        return outside.match(heard, content)
    if answer is None:
        return 0.0
    wrong = faults_in(memory, answer)
    return max(0.0, 1.0 - len(wrong) / parts(memory)) if memory.describes else float(not wrong)


TASKS: dict[str, Play] = {
    "ask": ask,
    "ask_again": ask_again,
    "gate": gate,
    "alter": alter,
    "contrast": contrast,
    "verify": verify,
    "guess": guess,
    "misread": misread,
    "depends": depends,
    "verify_context": verify,
    "compare": compare,
    "reference_compare": compare,
    "score": score,
    "score_turn": score,
    "reference": score,
    "reference_turn": score,
    "realism": realism,
    "boost": boost,
    "steer": steer,
    "prefer": prefer,
}
