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
PHRASINGS = (
    "I can only say that you ask about {listed}.",
    "You want to know about {listed}, as far as I can tell.",
    "This is about {listed}: more I cannot say.",
    "As I read it, your question is about {listed}.",
)
CLOSINGS = (
    "More than that I cannot say with any certainty here.",
    "The rest depends on where one stands and whom one asks.",
)
SENTENCE = re.compile(r"[^.?!\n]*(?:[.?!]+|\n+|$)\s*")
LONG = 16
"""From so many words on an edit also gives away a part of the text, or it would not be seen."""
GIVEN_AWAY = 0.25
EXCHANGED = 0.7
"""Of the words that a worse reply misses, how many give way to another; the rest are left out."""


def keywords(text: str) -> list[str]:
    """The telling words of a text, in order, each once."""
    return list(dict.fromkeys(word for word in map(str.lower, WORD.findall(text)) if word not in COMMON))


def answer(message: str, name: str | None, random: Random | None = None, omission_rate: float = 0.0) -> str:
    """A plain answer, which names what was asked about; it claims nothing.

    It is always the same, unless words are passed over at a rate: then its phrasing varies too.
    """
    words = keywords(message)[:N_QUOTED]
    address = f", {name}" if name else ""
    form = PHRASINGS[0]
    if random is not None and omission_rate:
        words = [word for word in words if random.random() >= omission_rate]
        form = random.choice(PHRASINGS)
    if not words:
        return f"I hear you{address}."
    return f"{form.format(listed=', '.join(words))[:-1]}{address}."


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


def edited(message: str, reply: str, random: Random, *, better: bool, at_least: int = 1) -> tuple[str, list[str]]:
    """A reply that takes up more of the message's telling words, or fewer, and the words in question; none where nothing could be done.

    Of a long reply a part gives way too, so that the two are not all but the same.

    Args:
        at_least: fewest words to put in or take out, as far as there are so many.
    """
    asked, taken = keywords(message)[:N_QUOTED], set(keywords(reply))
    open_to_change = [word for word in asked if (word in taken) != better]
    count = min(len(open_to_change), max(at_least, random.randint(1, 3)))
    words = sorted(random.sample(open_to_change, count), key=asked.index)
    kept = _cut(reply)
    if better:
        lost = taken - set(keywords(kept))
        return (_with_words(kept, [w for w in asked if w in words or w in lost]) if words else reply), words
    if not words:
        return f"{kept.rstrip()} {random.choice(CLOSINGS)}".strip(), []
    angles = [angle for angle in ANGLES if angle not in asked and angle not in taken]
    angles.append("matter")
    left = sum(word in taken for word in asked)
    for word in words:
        # most are exchanged, so that the length stays; the last one always, or nothing would be spoken of
        angle = random.choice(angles) if random.random() < EXCHANGED or left == 1 else ""
        left -= 1
        whole = rf"\b{re.escape(word)}\b"
        kept = re.sub(whole if angle else rf", {whole}| {whole},| ?{whole}", angle, kept, flags=re.IGNORECASE)
    return kept if len(reply.split()) < LONG else f"{kept.rstrip()} {random.choice(CLOSINGS)}", words


def _with_words(kept: str, words: Sequence[str]) -> str:
    return f"{kept.rstrip()} It is about {', '.join(words)} as well.".strip()


def _cut(reply: str) -> str:
    """A long text without its last part, whole sentences where it has several."""
    words = len(reply.split())
    if words < LONG:
        return reply
    kept: list[str] = []
    count = 0
    for sentence in SENTENCE.findall(reply):
        if kept and count + len(sentence.split()) > words * (1 - GIVEN_AWAY):
            break
        kept.append(sentence)
        count += len(sentence.split())
    text = "".join(kept)
    if count > words * (1 - GIVEN_AWAY):  # one long sentence
        text = " ".join(reply.split()[: int(words * (1 - GIVEN_AWAY))]) + "."
    return text
