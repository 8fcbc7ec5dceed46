"""How an answer of the rehearsal's world is made better or worse on purpose, part by part, and which aspects a part belongs to.

Knows nothing of prompts. What an edit does is true by the oracle: a damage adds one fault, and a mend takes one away.
"""

from collections.abc import Collection, Sequence
from random import Random
from typing import Literal, NamedTuple

from agents.rehearsal.answering import another
from agents.rehearsal.oracle import Fault, faults_in
from agents.rehearsal.reading import Memory
from agents.rehearsal.world import ATTRIBUTE_OF_VALUE, ATTRIBUTES, OPENERS, OPPOSITE, PEOPLE, Answer

Kind = Literal["untruth", "gap", "manner"]
"""What a fault is: something said that does not hold, something left out, a standing instruction broken."""
KINDS_OF_ASPECT: dict[str, tuple[Kind, ...]] = {
    **dict.fromkeys(("truthfulness", "honesty", "factuality", "relevance", "accuracy", "harmlessness"), ("untruth",)),
    **dict.fromkeys(("helpfulness", "completeness", "coverage", "care"), ("gap",)),
    **dict.fromkeys(("instruction following", "coherence", "respect"), ("manner",)),
}
"""The faults that an aspect speaks of; one that is not here, such as a user's own, speaks of all."""


class Edit(NamedTuple):
    """One part of an answer changed."""

    kind: Kind
    answer: Answer
    """The whole answer, after it."""
    words: str
    """What is done, as a plan would say it."""


def kind_of(fault: Fault) -> Kind:
    if fault.reason == "standing instruction broken":
        return "manner"
    return "gap" if fault.reason in ("missing value", "no answer") else "untruth"


def speaks_of(aspect: str, kind: Kind, *, of_list: bool) -> bool:
    """Whether a fault of this kind is one of the aspect; where an answer has only one value, to leave it out and to get it wrong are one."""
    kinds = KINDS_OF_ASPECT.get(aspect.strip().lower())
    if kinds is None or kind in kinds:
        return True
    return not of_list and kind != "manner" and "manner" not in kinds


def faults_under(aspect: str, faults: Collection[Fault], *, of_list: bool) -> int:
    return sum(speaks_of(aspect, kind_of(fault), of_list=of_list) for fault in faults)


def damages(memory: Memory, answer: Answer, random: Random) -> list[Edit]:
    """Every way to make one right part wrong; an invented fact where nothing is right any more."""
    right = memory.right_answer()
    edits = _value_damages(memory, answer, right)
    if answer.name and answer.name == right.name:
        name = another(PEOPLE, answer.name, random)
        edits.append(Edit("manner", answer._replace(name=name), f"it says {name} in place of {answer.name}"))
    if answer.opener and answer.opener == right.opener:
        opener = another(OPENERS, answer.opener, random)
        edits.append(Edit("manner", answer._replace(opener=opener), f"it begins with {opener}"))
    if not edits and memory.describes:
        known = {ATTRIBUTE_OF_VALUE[value] for value in (*answer.said, *right.said)}
        new = [ATTRIBUTES[attribute].values for attribute in ATTRIBUTES if attribute not in known]
        values = [random.choice(pair) for pair in new]
        edits = [Edit("untruth", answer.saying([*answer.said, value]), f"it adds {value}") for value in values]
    return edits


def _value_damages(memory: Memory, answer: Answer, right: Answer) -> list[Edit]:
    if memory.describes:
        return _damages_of_list(answer, right)
    if memory.question is None or answer.said != right.said:
        return []
    if not right.said:  # nobody told, and it says so
        pair = ATTRIBUTES[memory.question.attribute].values
        return [Edit("untruth", answer.saying([value]), f"it claims {value}") for value in pair]
    known = memory.facts[memory.question.thing]
    others = [history[-1] for attribute, history in known.items() if attribute != memory.question.attribute]
    wrong = [OPPOSITE[answer.said[0]], *others]
    return [Edit("untruth", answer.saying([v]), f"it says {v} in place of {answer.said[0]}") for v in wrong]


def _damages_of_list(answer: Answer, right: Answer) -> list[Edit]:
    edits = []
    for place, value in enumerate(answer.said):
        if value in right.said and OPPOSITE[value] not in answer.said:
            rest = [*answer.said[:place], *answer.said[place + 1 :]]
            swapped = [*rest[:place], OPPOSITE[value], *rest[place:]]
            edits.append(Edit("untruth", answer.saying(swapped), f"it says {OPPOSITE[value]} in place of {value}"))
            if rest:
                edits.append(Edit("gap", answer.saying(rest), f"it leaves out {value}"))
    return edits


def mends(memory: Memory, answer: Answer) -> list[Edit]:
    """One for every fault: the part as it should be."""
    right = memory.right_answer()
    return [_mended(fault, answer, right, of_list=memory.describes) for fault in faults_in(memory, answer)]


def _mended(fault: Fault, answer: Answer, right: Answer, *, of_list: bool) -> Edit:
    kind = kind_of(fault)
    if fault.part == "name":
        return Edit(kind, answer._replace(name=right.name), f"it speaks to {right.name or 'nobody by name'}")
    if fault.part == "opener":
        return Edit(kind, answer._replace(opener=right.opener), f"it begins with {right.opener or 'the answer'}")
    if not of_list:
        mended = right._replace(name=answer.name, opener=answer.opener)
        return Edit(kind, mended, f"it says {mended.said[0]}" if mended.said else "it claims nothing")
    wanted = [value for value in right.said if ATTRIBUTE_OF_VALUE[value] == fault.part]
    kept = {value for value in answer.said if ATTRIBUTE_OF_VALUE[value] != fault.part}
    ordered = [v for v in right.said if v in kept or v in wanted or OPPOSITE[v] in kept]
    values = [v if v in kept or v in wanted else OPPOSITE[v] for v in ordered]
    invented = [v for v in answer.said if v in kept and v not in values]
    return Edit(
        kind, answer.saying(values + invented), f"it says {wanted[0]}" if wanted else "it drops what nobody said"
    )


class Edited(NamedTuple):
    """An answer edited for some aspects."""

    aspects: list[str]
    answer: Answer
    words: list[str]
    """What was done; empty where nothing could be."""


def edited(
    memory: Memory,
    answer: Answer,
    *,
    better: bool,
    offered: Sequence[str],
    most: int | None,
    at_least: int,
    random: Random,
) -> Edited:
    """The answer made better or worse in aspects of those offered.

    An aspect is taken, where there is a choice, if there is anything to do for it. Where there is nothing to do for any of those
    given, another part is edited: the answer as a whole is to deserve its label.

    Args:
        most: at most so many aspects, of one's own choice; None: all that are offered.
        at_least: fewest parts to edit, as far as there are so many.
    """
    of_list = memory.describes

    def options(current: Answer) -> list[Edit]:
        return mends(memory, current) if better else damages(memory, current, random)

    def under(aspect: str, edits: Sequence[Edit]) -> list[Edit]:
        return [edit for edit in edits if speaks_of(aspect, edit.kind, of_list=of_list)]

    found = options(answer)
    aspects = list(offered)
    if most is not None:
        served = [aspect for aspect in aspects if under(aspect, found)] or aspects
        aspects = random.sample(served, min(len(served), random.randint(1, most)))
    if not found:
        return Edited(aspects, answer, [])
    wanted = max(at_least, min(2, len(aspects)), random.randint(1, len(found) if better else 2))
    words: list[str] = []
    due = random.sample(aspects, len(aspects))  # each aspect once, as long as there is something to do for it
    while len(words) < wanted and (found := options(answer)):
        fitting = [edit for aspect in aspects for edit in under(aspect, found)]
        if not fitting and words and len(words) >= at_least:
            break
        first = under(due.pop(), found) if due else []
        edit = random.choice(first or fitting or found)
        answer = edit.answer
        words.append(edit.words)
    return Edited(aspects, answer, words)
