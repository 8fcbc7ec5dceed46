"""How a second answer cannot be used, where the rehearsal's rates say so: each kind in the ways in which models do it.

Drawn first of all from the request's own chance, as misbehaviour is, so that `what_was_played` can tell it afterwards
from the request alone. Knows nothing of the rules that catch it.
"""

from collections.abc import Sequence
from random import Random
from typing import Literal, get_args

from agents.rehearsal.prompt_text import as_json

Lapse = Literal["repeat", "empty", "editing", "aspects", "unparsable", "endless"]
LAPSES: tuple[Lapse, ...] = get_args(Lapse)
OF_A_PLAIN_ANSWER: tuple[Lapse, ...] = ("empty", "editing", "aspects", "endless")
"""What can be wrong with an answer that is no JSON and was written without a first one (`steer`)."""

AGAIN = ("{answer}", "{bare}", "{bare}!", "{answer} ", "{bare} .")
OF_EDITING = (
    "Here is the revised version: {answer}",
    "Here's an improved version of the answer: {answer}",
    "Revised answer: {answer}",
    "I have rewritten the previous answer. {answer}",
    "{answer} (I have edited the original answer.)",
    "Here is the {direction} answer you asked for: {answer}",
)
OF_ASPECTS = (
    "To be more {adjective}: {answer}",
    "In terms of {aspect}: {answer}",
    "With regard to {aspect}, I say this: {answer}",
    "{answer} This answer shows more {aspect}.",
)
ADJECTIVES = {
    "helpfulness": "helpful",
    "honesty": "honest",
    "truthfulness": "truthful",
    "relevance": "relevant",
    "factuality": "factual",
    "completeness": "complete",
    "coherence": "coherent",
    "accuracy": "accurate",
    "harmlessness": "harmless",
}
ENDLESS_WORDS = 10_000


def drawn_lapse(random: Random, rates: Sequence[float], task: str) -> Lapse | None:
    """Which lapse a request gets, by rates in the order of LAPSES; nothing is drawn where all are 0, and a task only has its own."""
    if not any(rates):
        return None
    dice = random.random()
    for lapse, rate in zip(LAPSES, rates, strict=True):
        if dice < rate:
            return lapse if task == "boost" or lapse in OF_A_PLAIN_ANSWER else None
        dice -= rate
    return None


def spoiled_text(lapse: Lapse, answer: str, first: str, aspects: Sequence[str], random: Random, *, better: bool) -> str:
    """The text of an answer with this lapse.

    Args:
        answer: what a writer who behaves would have answered.
        first: the first answer; empty where there is none.
        aspects: those that the answer was asked to go by.
        better: which way it was asked to differ.
    """
    match lapse:
        case "repeat":
            return random.choice(AGAIN).format(answer=first, bare=first.rstrip(" .!?"))
        case "empty":
            return random.choice(("", " ", "\n"))
        case "editing":
            return random.choice(OF_EDITING).format(answer=answer, direction="better" if better else "worse")
        case "aspects":
            aspect = random.choice(list(aspects) or ["quality"])
            forms = OF_ASPECTS if aspect in ADJECTIVES else OF_ASPECTS[1:]
            return random.choice(forms).format(answer=answer, aspect=aspect, adjective=ADJECTIVES.get(aspect))
        case "endless":
            return " ".join([answer or "And so on."] * (ENDLESS_WORDS // max(1, len(answer.split())) + 1))
        case "unparsable":
            return answer


def spoiled_reply(lapse: Lapse, aspects: Sequence[str], plan: str, answer: str, random: Random) -> str:
    """The reply of a writer who was asked for JSON; `answer` is spoiled already."""
    whole = as_json(aspects=list(aspects), plan=plan, answer=answer)
    if lapse != "unparsable":
        return whole
    return random.choice((answer, whole[: len(whole) * 2 // 3], as_json(plan=plan), f"Plan: {plan}\nAnswer: {answer}"))
