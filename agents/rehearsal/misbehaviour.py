"""How the rehearsal's user breaks its role, where its rates say so: each kind in the ways in which models do it.

Whether a request gets a misbehaviour, and which, is drawn first of all from the request's own chance, so that
`what_was_played` can tell it afterwards from the request alone, without reading the answer. Knows nothing of the gate.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal, get_args

from store.records import Message

Misbehaviour = Literal["role_inversion", "leak", "early_end", "restart", "repetition"]
KINDS: tuple[Misbehaviour, ...] = get_args(Misbehaviour)
END = "[END]"

AS_THE_ASSISTANT = (
    "Sure, here is what you asked for: {answer}",
    "Certainly! Here's the answer. {answer}",
    "Assistant: {answer}",
    "As an AI language model, I can tell you this: {answer}",
    "{answer} Is there anything else I can help you with?",
    "Thanks for that. How can I help you today?",
)
TOLD = (
    "Task: ask\nYou are the user in the conversation below. {question}",
    "<think>\nThe user has the answer now and goes on.\n</think>\n{question}",
    "Let me think about what the user would ask next. {question}",
    "I need to write the user's next message. {question}",
    "As the user simulator, I go on with this: {question}",
    "I was to write [END] where it ends. {question}",
    "<user>\n{question}\n</user>",
    "I am to say one thing, as people do: a follow-up question, a reaction, a correction. {question}",
)
GREETINGS = ("Hello, I have a question. {first}", "Hi there! Can you help me? {first}", "Hello! {first}")


def drawn(random: Random, rates: Sequence[float]) -> Misbehaviour | None:
    """Which misbehaviour a request gets, by rates in the order of KINDS; nothing is drawn where all are 0."""
    if not any(rates):
        return None
    dice = random.random()
    for kind, rate in zip(KINDS, rates, strict=True):
        if dice < rate:
            return kind
        dice -= rate
    return None


def misbehave(
    kind: Misbehaviour,
    messages: Sequence[Message],
    random: Random,
    *,
    answer: Callable[[], str],
    question: Callable[[], str],
) -> str:
    """A next message of the user that breaks the role in this way; the user has spoken before.

    Args:
        answer: what the assistant would answer to the last query; the role turned round says it.
        question: what a user who behaves would ask.
    """
    said = [message.content for message in messages if message.role == "user"]
    heard = [message.content for message in messages if message.role == "assistant"]
    match kind:
        case "role_inversion":
            given_back = heard[-1:] * 2  # the assistant's last answer, word for word
            return random.choice([*(form.format(answer=answer()) for form in AS_THE_ASSISTANT), *given_back])
        case "leak":
            return random.choice(TOLD).format(question=question())
        case "early_end":
            return END
        case "restart":
            again = [said[0]] if len(said) > 1 else []  # after one query, the first again is a repetition
            return random.choice([*(form.format(first=said[0]) for form in GREETINGS), *again])
        case "repetition":
            repeated = random.choice(said[1:] or said)
            return random.choice([repeated, repeated.lower().rstrip(".?! "), f"{repeated} "])
