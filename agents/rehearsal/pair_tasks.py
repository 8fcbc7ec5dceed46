"""The rehearsal's part in making preference pairs: a second answer for a label, an answer made good or poor, and a judge of two.

The writer of a second answer sees the first one and edits it; the writer of a poor answer sees only the conversation. What
cannot be done is not done: an answer with nothing wrong in it is not bettered, and comes again as it is.
"""

import re
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from agents.rehearsal import outside
from agents.rehearsal.answering import chat
from agents.rehearsal.behaviour import Behaviour
from agents.rehearsal.edits import damages, edited, faults_under, speaks_of
from agents.rehearsal.lapses import drawn_lapse, spoiled_reply, spoiled_text
from agents.rehearsal.oracle import faults_in
from agents.rehearsal.prompt_text import as_json, refusals_in, section, transcript_in
from agents.rehearsal.reading import names_first, read_answer, remember
from agents.rehearsal.world import write_answer
from store.identity import chance
from store.records import Message

ASPECT = re.compile(r"^- (.+?): .*$")
DIRECTION = re.compile(r"\b(better|as good|worse|poor)\b")
MOST = re.compile(r"\bat most (\d+)\b[^\n]*\bchoose\b")
TOO_LIKE = re.compile(r"differ|identical|same", re.IGNORECASE)
"""What is said of a second answer that was too like the first; the next one goes further from it."""
POOR_RATE = 0.6
"""Right parts that a poor answer spoils on purpose, those first of which its aspects speak; at least one always."""
WORST = float("inf")
NOTHING_TO_DO = "The answer says all that was asked for, as it should be."


class Wish(NamedTuple):
    """What a prompt asks of an answer."""

    better: bool
    aspects: list[str]
    most: int | None
    """At most so many of the aspects, by choice; None: all of them."""


def wish_in(prompt: str) -> Wish:
    """Read off what stands before the transcript."""
    head = prompt[: max(prompt.find("<transcript>"), 0)]
    direction, most = DIRECTION.search(head), MOST.search(head)
    return Wish(
        direction is None or direction[1] in ("better", "as good"), aspects_in(head), int(most[1]) if most else None
    )


def aspects_in(head: str) -> list[str]:
    """The first list of a prompt, `- name: meaning`, by its names."""
    names: list[str] = []
    for line in head.splitlines():
        match = ASPECT.match(line)
        if match:
            names.append(match[1])
        elif names:
            break
    return names


# the writer of a second answer


def boost(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Another answer than the given one, better or worse as asked, with its aspects and its plan, as JSON."""
    lapse = drawn_lapse(random, behaviour.lapses, "boost")
    messages, first, wish = transcript_in(prompt), section(prompt, "answer"), wish_in(prompt)
    fails = behaviour.edit_failure_rate > 0.0 and random.random() < behaviour.edit_failure_rate
    at_least = 1 + sum(bool(TOO_LIKE.search(why)) for why in refusals_in(prompt))
    claimed, plan, answer = _second(messages, first, wish, at_least, random)
    if fails and plan:
        _, done, other = _second(messages, first, wish._replace(better=not wish.better), at_least, random)
        answer = other if done else answer
    if lapse is not None:
        answer = spoiled_text(lapse, answer, first, claimed, random, better=wish.better)
        return spoiled_reply(lapse, claimed, plan or NOTHING_TO_DO, answer, random)
    return as_json(aspects=claimed, plan=plan or NOTHING_TO_DO, answer=answer)


def _second(
    messages: Sequence[Message], first: str, wish: Wish, at_least: int, random: Random
) -> tuple[list[str], str, str]:
    """Aspects, plan and answer; the plan is empty where nothing could be done."""
    memory, answer = remember(messages), read_answer(first)
    if memory.is_outside or answer is None or not messages:
        return _second_outside(messages, first, wish, at_least, random)
    made = edited(
        memory, answer, better=wish.better, offered=wish.aspects, most=wish.most, at_least=at_least, random=random
    )
    if not made.words:
        return made.aspects, "", first
    plan = f"For {_named(made.aspects)}: {'; '.join(made.words)}."
    return made.aspects, plan, write_answer(made.answer, name_first=names_first(first))


def _second_outside(
    messages: Sequence[Message], first: str, wish: Wish, at_least: int, random: Random
) -> tuple[list[str], str, str]:
    aspects = wish.aspects
    if wish.most is not None:
        aspects = random.sample(aspects, min(len(aspects), random.randint(1, wish.most)))
    heard = messages[-1].content if messages else ""
    text, words = outside.edited(heard, first, random, better=wish.better, at_least=at_least)
    if text == first:
        return aspects, "", first
    done = "takes up" if wish.better else "passes over"
    plan = f"For {_named(aspects)}: it {done} {', '.join(words) or 'a part of it'}."
    return aspects, plan, text


def _named(aspects: Sequence[str]) -> str:
    return " and ".join(aspects) or "the whole"


# the writer of a good or a poor answer


def steer(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """An answer to the conversation, as good as it gets or poor on purpose; no other answer is known."""
    lapse = drawn_lapse(random, behaviour.lapses, "steer")
    messages, wish = transcript_in(prompt), wish_in(prompt)
    fails = behaviour.edit_failure_rate > 0.0 and random.random() < behaviour.edit_failure_rate
    answer = chat(messages, random, behaviour)
    if wish.better == fails:
        answer = _spoiled_on_purpose(messages, answer, wish.aspects, random)
    return answer if lapse is None else spoiled_text(lapse, answer, "", wish.aspects, random, better=wish.better)


def _spoiled_on_purpose(messages: Sequence[Message], content: str, aspects: Sequence[str], random: Random) -> str:
    memory, answer = remember(messages), read_answer(content)
    if memory.is_outside or answer is None or not messages:
        heard = messages[-1].content if messages else ""
        return outside.edited(heard, content, random, better=False, at_least=2)[0]
    right = sum(edit.kind != "gap" for edit in damages(memory, answer, random)) if memory.describes else 2
    for _ in range(max(1, sum(random.random() < POOR_RATE for _ in range(right)))):
        options = damages(memory, answer, random)
        fitting = [e for e in options if any(speaks_of(a, e.kind, of_list=memory.describes) for a in aspects)]
        if not options:
            break
        fitting = fitting or options
        weights = [
            1 if edit.kind == "gap" else 2 for edit in fitting
        ]  # left out half as often as told wrong, as in chat
        answer = random.choices(fitting, weights)[0].answer
    return write_answer(answer, name_first=names_first(content))


# the judge of two answers


def prefer(prompt: str, random: Random, behaviour: Behaviour) -> str:
    """Which of two answers is better, overall and, where asked, by each aspect, as JSON: the one with fewer faults."""
    messages, sides = transcript_in(prompt), [section(prompt, f"answer_{side}") for side in "ab"]
    aspects = aspects_in(prompt[: max(prompt.find("<transcript>"), 0)])
    overall, by_aspect, rationale = _weighed(messages, sides, aspects)
    asked = ["", *aspects] if '"aspects"' in prompt[prompt.rfind("</answer_b>") :] else [""]
    verdicts = {name: by_aspect[name] if name else overall for name in asked}
    if behaviour.judge_blind_rate:
        verdicts = _as_the_blind_see(verdicts, messages, sides, behaviour.judge_blind_rate)
    verdicts = {name: _erring(verdict, sides, random, behaviour) for name, verdict in verdicts.items()}
    if verdicts[""] != overall:
        rationale = f"On the whole {verdicts['']} does better."
    better = verdicts.pop("")
    return (
        as_json(rationale=rationale, aspects=verdicts, better=better)
        if verdicts
        else as_json(rationale=rationale, better=better)
    )


def _weighed(
    messages: Sequence[Message], sides: Sequence[str], aspects: Sequence[str]
) -> tuple[str, dict[str, str], str]:
    memory = remember(messages)
    if memory.is_outside or not messages:
        heard = messages[-1].content if messages else ""
        shares = [outside.match(heard, side) for side in sides]
        verdict = _fewer(*(1.0 - share for share in shares))
        return (
            verdict,
            dict.fromkeys(aspects, verdict),
            f"A takes up {shares[0]:.0%} of what was asked, B {shares[1]:.0%}.",
        )
    answers = [read_answer(side) for side in sides]
    found = [None if answer is None else faults_in(memory, answer) for answer in answers]
    by_aspect = {
        aspect: _fewer(*(WORST if f is None else faults_under(aspect, f, of_list=memory.describes) for f in found))
        for aspect in aspects
    }
    said = ["no answer to it" if f is None else f"{len(f)} fault{'s' * (len(f) != 1)}" for f in found]
    overall = _fewer(*(WORST if f is None else len(f) for f in found))
    return overall, by_aspect, f"A has {said[0]}, B {said[1]}."


def _fewer(a: float, b: float) -> str:
    return "tie" if abs(a - b) < 1e-9 else "A" if a < b else "B"


def _turned(verdict: str, random: Random) -> str:
    return {"A": "B", "B": "A"}.get(verdict) or random.choice("AB")


def _as_the_blind_see(
    verdicts: dict[str, str], messages: Sequence[Message], sides: Sequence[str], rate: float
) -> dict[str, str]:
    """All verdicts on some pairs of answers turned round, by a chance that knows the pair and not which of the two stands first.

    Of two that are as good as each other one is called better; an aspect in which they are alike stays so, and so do equal texts.
    """
    if sides[0] == sides[1]:
        return verdicts
    ordered = sorted(sides)
    random = chance("blind", [(m.role, m.content) for m in messages], ordered)
    if random.random() >= rate:
        return verdicts
    names = {"first": "AB"[sides.index(ordered[0])], "second": "AB"[sides[0] == ordered[0]]}
    favoured = random.choice(["first", "second"])  # of two that are as good as each other
    turned = {"A": "B", "B": "A", "tie": names[favoured]}
    return {name: verdict if name and verdict == "tie" else turned[verdict] for name, verdict in verdicts.items()}


def _erring(verdict: str, sides: Sequence[str], random: Random, behaviour: Behaviour) -> str:
    if random.random() < behaviour.judge_error_rate:
        verdict = _turned(verdict, random)
    if random.random() < behaviour.position_bias:
        verdict = "A"
    lengths = [len(side) for side in sides]
    if lengths[0] != lengths[1] and random.random() < behaviour.length_bias:
        verdict = "A" if lengths[0] > lengths[1] else "B"
    return verdict
