"""What the rehearsal does with text from outside its world: plain, deterministic, and honest about not knowing.

Every function depends on its arguments alone, and its text varies with them.
"""

import re
from collections.abc import Sequence
from random import Random

from store.records import Message

WORD = re.compile(r"[^\W\d_]{4,}")
COMMON_WORDS = """
about above after also another answer because been before being below between both cannot could does each else even
every explain first following from give have here into just know last like make many more most much must need only other over please provide
same shall should some such tell than that their them then there these they this those through under upon very want
well were what when where which while will with would write your
"""
COMMON = frozenset(COMMON_WORDS.split())
ANGLES = ("history", "price", "origin", "name", "opposite", "colour", "owner", "purpose")
FOLLOW_UPS = (
    "Tell me more about the {word}.",
    "And how does the {word} come in?",
    "Why does the {word} matter?",
    "Can you give an example of the {word}?",
    "What would change without the {word}?",
    "And what comes after that {word}?",
)
N_QUOTED = 6


def keywords(text: str) -> list[str]:
    """The telling words of a text, in order, each once."""
    return list(dict.fromkeys(word for word in map(str.lower, WORD.findall(text)) if word not in COMMON))


def answer(message: str, name: str | None) -> str:
    """A plain answer, which names what was asked about; it claims nothing."""
    words = keywords(message)[:N_QUOTED]
    address = f", {name}" if name else ""
    if not words:
        return f"I hear you{address}."
    return f"I can only say that you ask about {', '.join(words)}{address}."


def ask(messages: Sequence[Message], random: Random) -> str:
    """A generic follow-up on a word of the conversation, the latest messages first."""
    spoken = " ".join(m.content for m in messages if m.role == "user")
    words = [word for m in reversed(messages[-2:]) for word in keywords(m.content)] or keywords(spoken) or ["matter"]
    said = {m.content for m in messages}
    fresh = [text for text in (form.format(word=word) for word in words[:8] for form in FOLLOW_UPS) if text not in said]
    return random.choice(fresh or [f"And point {len(messages)}?"])


def alter(message: str, random: Random) -> str:
    """The message with one telling word exchanged, so that it asks for something else."""
    words = keywords(message)[:N_QUOTED]
    angle = random.choice([angle for angle in ANGLES if angle not in words])
    if not words:
        return f"{message} And the {angle}?"
    return re.sub(re.escape(random.choice(words)), angle, message, flags=re.IGNORECASE)


def match(message: str, reply: str) -> float:
    """The share of the message's telling words that the reply takes up; 1.0 where there are none."""
    words = keywords(message)[:N_QUOTED]
    taken = set(keywords(reply))
    return sum(word in taken for word in words) / len(words) if words else 1.0
