"""Rules that find a user turn which cannot be understood by itself: Parrot's first step towards CaPO.

A turn depends on its context when somebody who is shown it alone would not know what it refers to or asks for:
`Why is that?`, `And the price?`, `Make it shorter.` Parrot (arXiv 2310.07301) finds such turns by pronouns, then asks an
LLM. The rules here look for pronouns that have nothing in the turn itself to refer to, and for what is left out or
pointed back at. They go by words alone and know English only: turns in other languages are hardly ever found. What needs
understanding (`How much did he pay for the other two tickets?` where only the prices were told earlier) they miss; how
much that is stands in benchmarks/results/context_dependence.md.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from store.context_words import (
    AUXILIARIES,
    COMPARATIVES,
    DETERMINERS,
    DISCOURSE_NOUNS,
    EMPTY,
    IMPERATIVES,
    PERSONAL,
    REACTIONS,
    SUBJECTS,
    SUBORDINATORS,
    THAT_AFTER,
    THAT_BEFORE,
    THAT_VERBS,
    TIMES,
    UNIQUE,
    VERBS,
    WH,
)
from store.records import Message

LOOKED_AT = 1_000
"""Characters of a query that are looked at, from its front and from its end: what stands between, in a pasted text, is skipped."""
FRAGMENT_WORDS = 12
"""A turn of more words is no fragment: ours."""

TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+(?:[.,]\d+)*|[.?!]+|[^\w\s]|\n+")


class Query(NamedTuple):
    """A user turn as the rules see it: tokens as written and in lower case, marks among them."""

    text: str
    """In lower case, with plain apostrophes, spaces and marks as they were."""
    tokens: list[str]
    written: list[str]
    starts: list[int]
    """Places at which a sentence begins."""
    before: Sequence[Message]
    """The conversation up to it."""
    asked: bool
    """Whether the assistant's last sentence before it asks for something."""

    @property
    def words(self) -> list[str]:
        return [token for token in self.tokens if token[0].isalnum()]


def context_dependent(messages_before: Sequence[Message], query: str) -> bool:
    """Whether a user turn cannot be understood alone, by rules; never so before the first assistant turn."""
    read = _as_shown(messages_before, query)
    return read is not None and any(sign(read) for sign in CHEAPEST_FIRST)


def signs_of(messages_before: Sequence[Message], query: str) -> list[str]:
    """The rules that find a user turn context-dependent, by name, in the order of `SIGNS`; none where it stands alone."""
    read = _as_shown(messages_before, query)
    return [] if read is None else [name for name, sign in SIGNS.items() if sign(read)]


def _as_shown(before: Sequence[Message], query: str) -> Query | None:
    """What the rules look at; null where none applies."""
    last = next((message for message in reversed(before) if message.role == "assistant"), None)
    if last is None or not query.strip():
        return None
    return _read(before, query, asked=_asks(last.content))


def _read(before: Sequence[Message], query: str, *, asked: bool) -> Query:
    shown = query if len(query) <= 2 * LOOKED_AT else f"{query[:LOOKED_AT]}\n{query[-LOOKED_AT:]}"
    shown = shown.strip().replace("’", "'")
    written = TOKEN.findall(shown)
    tokens = [token.lower() for token in written]
    starts = [
        place
        for place, token in enumerate(tokens)
        if token[0].isalnum() and (place == 0 or tokens[place - 1][0] in '.?!\n:;"')
    ]
    return Query(shown.lower(), tokens, written, starts, before, asked)


REQUEST_FOR = re.compile(
    r"\b(?:tell me|let me know|specify|provide|share|give me|describe|clarify|what would you like|which \w+ would you)\b"
)


def _asks(answer: str) -> bool:
    """Whether an answer's last sentence asks the user for something."""
    end = answer.rstrip()[-200:]
    if end.endswith(("?", '?"', "?)", "?'")):
        return True
    return len(answer) < 200 and REQUEST_FOR.search(end.lower()) is not None


def _has_any(query: Query, parts: Sequence[str]) -> bool:
    return any(part in query.text for part in parts)


# what a query has of its own


def _may_be_referred_to(query: Query, start: int, stop: int) -> bool:
    """Whether a noun that a pronoun could stand for is among the tokens: a word after a determiner, or one of no other kind.

    What follows `which`, `what` or `how many` is asked for and is none (`In what year was it built?`).
    """
    after_determiner = after_wh = False
    for place in range(start, stop):
        token = query.tokens[place]
        if not token[0].isalnum():
            after_determiner = after_wh = False
        elif token in DETERMINERS:
            after_determiner = True
        elif token in WH or (token in ("many", "much") and after_wh):
            after_wh, after_determiner = True, False
        elif token in AUXILIARIES or "'" in token:
            after_determiner = after_wh = False
        elif after_determiner and token in VERBS:
            return True
        elif token not in EMPTY and token not in VERBS:
            if not after_wh:
                return True
            after_wh = False
    return False


def _requests(query: Query) -> bool:
    """Whether it asks a question or wants something done."""
    if "?" in query.text or POLITE.search(query.text):
        return True
    for start in query.starts:
        place = start
        while place < len(query.tokens) and query.tokens[place] in (*REACTIONS, "now", "then", "also", "please", ","):
            place += 1
        first = query.tokens[place] if place < len(query.tokens) else ""
        if first in IMPERATIVES or first in WH or first in ASKING:
            return True
    return False


ASKING = frozenset(word for word in AUXILIARIES if "'" not in word or word.endswith("n't"))
POLITE = re.compile(
    r"\b(?:please|(?:can|could|would|will) you|tell me|show me|help me|give me|let's|how to"
    r"|i(?: would|'d)? (?:need|want|like to|love to|wonder|wish)|i'm (?:looking for|curious|wondering)|i am (?:looking for|curious|wondering))\b"
)


# the signs


def _personal(query: Query) -> bool:
    """`How does it work?`: a pronoun of the third person that nothing before it in the query could be meant by."""
    for place, token in enumerate(query.tokens):
        stem = token.split("'")[0]
        if stem not in PERSONAL:
            continue
        if _may_be_referred_to(query, 0, place):
            return False
        if stem == "it" and _is_pleonastic(query, place):
            continue
        if not _comes_first(query, place):
            return True
    return False


PLEONASTIC = re.compile(
    r"\bit(?:'s| is| was| will be| would be| can be| may be|'ll be|)?(?: \w+ly| so| very| also| even| still| really| quite| too)*"
    r" (?:(?:to )?rain\w*|snow\w*|(?:easi|hard|bett|wors)er|possible|impossible|important|necessary|essential|crucial|vital|true|better|best"
    r"|common|normal|okay|ok|legal|illegal|safe|worth|time|likely|hard|easy|difficult|advisable|recommended|good idea"
    r"|a good idea|required|ethical|fair|rude|polite|healthy|bad|good|harmful|wrong|right|acceptable|appropriate|cheaper|said|known"
    r")\b(?: (?:for \w+(?: \w+)? to|to|that|if|when|\w+ing)\b|ing\b)"
)
WEATHER = re.compile(
    r"\b(?:it (?:rain|snow|hail)|it(?:'s| is| was) (?:raining|snowing|late|early|dark|monday|sunday)|(?:it|does it) (?:take|takes) |it (?:seems|appears|turns out) |what time is it)"
)
INVERTED = re.compile(
    r"\b(?:is|was|would|will|be|isn't|wasn't|mean|mak\w+|find|think|consider)(?: \w+)? it(?: be)?(?: \w+ly| a| an| so| too| more| ever)*"
    r" (?!to\b)\w+ (?:to|that|for|if|when)\b"
)


def _is_pleonastic(query: Query, place: int) -> bool:
    """`it` that stands for nothing: `If it rains`, `Is it possible to`, `makes it easier to`."""
    around = " ".join(query.tokens[max(0, place - 4) : place + 8])
    return bool(WEATHER.search(around) or INVERTED.search(around) or PLEONASTIC.search(around))


def _comes_first(query: Query, place: int) -> bool:
    """Cataphora: `When he was young, Mozart ...`."""
    start = max((start for start in query.starts if start <= place), default=0)
    if query.tokens[start] not in SUBORDINATORS or "," not in query.tokens[place:]:
        return False
    after = query.tokens.index(",", place) + 1
    return (
        after < len(query.written) and query.written[after][:1].isupper() and query.tokens[after].split("'")[0] != "i"
    )


def _demonstrative(query: Query) -> bool:
    """`this`, `that`, `these`, `those` for what the query itself has not said, and not for what it goes on to quote."""
    for place, token in enumerate(query.tokens):
        is_one = token in ("this", "these", "those", "that's") or (
            token == "that" and _is_demonstrative_that(query, place)
        )
        if is_one and _points_back(query, place):
            return True
    return False


def _is_demonstrative_that(query: Query, place: int) -> bool:
    """`that` as a pronoun or before its noun, not the one that joins clauses."""
    before = query.tokens[place - 1] if place else ""
    after = query.tokens[place + 1] if place + 1 < len(query.tokens) else "."
    if after == "same" and place + 2 < len(query.tokens):
        after = query.tokens[place + 2]
    if after.rstrip("s") in DISCOURSE_NOUNS or after in DISCOURSE_NOUNS:
        return True
    if place in query.starts or before == ",":
        return after in THAT_VERBS or not after[0].isalnum() or place == 0
    if before in THAT_BEFORE:
        return not (before in ("is", "was") and after in SUBJECTS) and after not in ("i", "you", "we", "people")
    ends = not after[0].isalnum() or after in THAT_AFTER
    return before in VERBS and ends


def _points_back(query: Query, place: int) -> bool:
    if place + 1 < len(query.tokens) and query.tokens[place + 1] in TIMES and query.tokens[place] == "this":
        return False
    if any(token in (":", '"', "“", "`") for token in query.tokens[place + 1 : place + 12]):
        return False  # what is meant is quoted after it
    if query.tokens[place] == "those" and place + 1 < len(query.tokens) and query.tokens[place + 1] in ("who", "with"):
        return False
    after = query.tokens[place + 1] if place + 1 < len(query.tokens) else "."
    noun = after if after[0].isalnum() and after not in EMPTY and after not in AUXILIARIES else None
    if noun is None:
        return not _may_be_referred_to(query, 0, place)
    stem = noun[:4]
    if any(token[:4] == stem for token in query.tokens[:place]):
        return False
    sentence = max((start for start in query.starts if start <= place), default=0)
    return noun in DISCOURSE_NOUNS or not _may_be_referred_to(query, 0, sentence)


POINTERS = re.compile(
    r"\b(?:you (?:just |have |had |'ve |already |also )*(?:mentioned|said|told|referred|suggested|listed|described|explained|gave|provided|recommended|wrote|talked|stated|discussed|proposed|pointed)"
    r"|your (?:\w+ )?(?:answer|response|reply|replies|explanation|suggestion|suggestions|recommendation|recommendations|list|advice|statement|summary|description|analysis|previous|last|earlier|calculation|solution|example|examples)"
    r"|the (?:former|latter|above|previous|preceding|aforementioned)|as (?:before|above|mentioned)|mentioned (?:earlier|before|above)|(?:we|just) (?:talked|discussed|spoke|mentioned)"
    r"|(?:back|return(?:ing)?) to (?:the|our|my|what)|the same (?:"
    + "|".join(sorted(DISCOURSE_NOUNS))
    + r")s?\b|(?:do|does|is|about) the same\b|earlier (?:question|topic|point|answer))\b"
)


POINTER_PARTS = (
    *("you", "mentioned", "talked", "discussed", "spoke", "back to", "return", "same", "earlier"),
    *("former", "latter", "above", "previous", "preceding", "as before"),
)
"""One of them stands in all that a pattern finds: to look for them first is many times faster. So with the other parts."""


def _pointer(query: Query) -> bool:
    """It names what was said: `your last answer`, `the latter`, `you mentioned`, `the same idea`."""
    return _has_any(query, POINTER_PARTS) and POINTERS.search(query.text) is not None


ONE = re.compile(
    r"\b(?:(?:which|another|this|that|the|a|an|any other|each)(?: \w+)? ones?|these ones|those ones|(?:which|some|any|all|none|both|either|neither|two|three|each|one) of (?:them|these|those)"
    r"|the (?:first|second|third|fourth|last|other|others|rest)(?=[.?!,]| and| is| was|$))\b(?! (?:who|of the|day|hand|person|time))"
)


ONE_PARTS = (
    "one",
    "of the",
    "of tho",
    "the first",
    "the second",
    "the third",
    "the fourth",
    "the last",
    "the other",
    "the rest",
)


def _one(query: Query) -> bool:
    """`the second one`, `another one`, `which of them`."""
    found = ONE.search(query.text) if _has_any(query, ONE_PARTS) else None
    if found is None:
        return False
    before = len(TOKEN.findall(query.text[: found.start()]))
    return not _may_be_referred_to(query, 0, before)


MORE = re.compile(
    r"\b(?:(?:one|two|three|four|five|six|ten|few|some|any|\d+|give me|tell me|know|add) more\b(?! than)|(?:any|some|what) others?\b"
    r"|(?:what|anything|who|where|how|someone|nothing|something) else\b|more (?:examples?|details?|information|ideas|options|about)\b)"
)


MORE_PARTS = ("more", "other", "else")


def _more(query: Query) -> bool:
    """`two more people`, `another example`, `what else`, `once again`: there must have been some before."""
    found = MORE.search(query.text) if _has_any(query, MORE_PARTS) else None
    if found is not None:
        return not found[0].startswith(("more ", "know more", "tell me more")) or not _has_topic(query)
    if "again" in query.tokens:
        return True
    if "another" in query.tokens:
        place = query.tokens.index("another")
        return "one" not in query.tokens[:place] and not _may_be_referred_to(query, 0, place)
    return "instead" in query.tokens and "instead of" not in query.text


def _has_topic(query: Query) -> bool:
    return _may_be_referred_to(query, 0, len(query.tokens))


def _continuation(query: Query) -> bool:
    """It goes on with a sentence that it does not begin: `And the price?`, `What about Rome?`, `But why?`, `Now, if ...`."""
    return CONTINUATION.match(query.text) is not None


CONTINUATION = re.compile(
    r"\W*(?:ok(?:ay)?\W+|great\W+|well\W+)?(?:and\b|but\b|then\b|or\b|so\b(?! far| many)|also\b|what about\b|how about\b|now\b(?! that| a)|next\b|additionally\b|in addition\b"
    r"|furthermore\b|moreover\b|let's (?:add|change|go back|return|continue|say|assume|suppose|now)\b|if so\b|in that case\b|after that\b|what if (?:i|we|it|they|he|she) )"
)


def _correction(query: Query) -> bool:
    """It objects to the answer: `Really?`, `Are you sure?`, `No, I meant ...`, `I think there's a mistake.`"""
    return CORRECTION.search(query.text[:160]) is not None


CORRECTION = re.compile(
    r"^\W*(?:really\b|are you (?:sure|certain|positive|kidding|confident)\b|is that (?:right|so|true|correct)\b|wait\b|hold on\b|hmm\b|i (?:thought|was under|always thought)\b|i don't (?:think|believe)\b"
    r"|no, (?:i|it|that|not|you)\b|actually\b|sorry\b|oh\b|i (?:mean|meant)\b|not (?:really|quite|that)\b)"
    r"|\b(?:there(?:'s| is| might be| may be| seems to be| must be| could be)? (?:be )?an? (?:\w+ )?(?:mistake|error|misunderstanding)|(?:that|this|it|information|answer)(?:'s| is| was|\w* sounds?| doesn't \w+| isn't| not| seems?)*(?: \w+){0,2} (?:wrong|incorrect|inaccurate|mistaken|right|correct|accurate)\b"
    r"|you(?:'re| are) (?:wrong|mistaken|incorrect)|double[- ]check|i meant)\b"
)


def _reaction(query: Query) -> bool:
    """An answer to what the assistant asked or offered: `Yes, please.`, `Not yet, but ...`, `I did, thanks.`"""
    if not VERB_PHRASE.match(query.text) and (not query.tokens or query.tokens[0] not in REACTIONS):
        return False
    return not _requests(query) or not _has_topic(query)


VERB_PHRASE = re.compile(
    r"(?:i|we|they|he|she|it) (?:did|do|have|had|am|was|were|will|would|can|could|might|should|haven't|don't|didn't|wasn't|won't|can't)(?: not)?(?:[,.!]| (?:too|but|and)\b)"
)


def _fragment(query: Query) -> bool:
    """No verb: `Germany.`, `In French`, `The second one`, `Why?`"""
    words = query.words
    if not words or len(words) > FRAGMENT_WORDS:
        return False
    return not any(
        word in AUXILIARIES or word in VERBS or word in IMPERATIVES or "'" in word[1:] for word in words
    ) and not (len(words) > 4 and any(word.endswith(("ed", "ing")) for word in words))


def _bare(query: Query) -> bool:
    """Nothing of its own to ask about: `Can you explain further?`, `Continue.`, `Could you give an example?`"""
    words = query.words
    return len(words) <= FRAGMENT_WORDS and all(
        word in EMPTY
        or word in VERBS
        or word in AUXILIARIES
        or word in DETERMINERS
        or word in WH
        or word in DISCOURSE_NOUNS
        or word in REACTIONS
        or word in PERSONAL
        or "'" in word
        for word in words
    )


def _comparison(query: Query) -> bool:
    """A comparison with nothing to compare: `Which is cheaper?`, `Which plan is the best?`"""
    if " than " in query.text or " or " in query.text or " between " in query.text or len(query.words) > 16:
        return False
    if CHOICE.search(query.text):
        return True
    return any(
        token in COMPARATIVES and (place + 1 == len(query.tokens) or query.tokens[place + 1][0] in ".?!,")
        for place, token in enumerate(query.tokens)
    )


CHOICE = re.compile(
    r"^(?:and |so |then )?which (?:\w+ )?(?:is|are|was|were|would be|has|do you|would you|should i)\b(?!.* (?:of|in|among) )"
)


def _statement(query: Query) -> bool:
    """It neither asks nor orders: why it is told stands before it. `I drank half of the glass.`"""
    return not query.asked and not _requests(query)


def _reply(query: Query) -> bool:
    """What the assistant asked for, and nothing that is asked back: `I'm interested in a digital camera.`"""
    if not query.asked or "?" in query.text:
        return False
    return not _requests(query) or (WISH.search(query.text) is not None and not ORDER.search(query.text))


WISH = re.compile(r"\bi(?: would|'d|'m| am)? (?:need|want|like to|love to|looking for|curious|wondering)\b")
ORDER = re.compile(r"\b(?:please|(?:can|could|would|will) you|tell me|show me|help me|give me)\b")


def _definite(query: Query) -> bool:
    """`How much did the school spend?`: `the` before a noun that was spoken of before, and nothing that says which one."""
    names = {
        found[1]
        for found in DEFINITE.finditer(query.text)
        if found[1] not in EMPTY and found[1] not in UNIQUE and len(re.findall(rf"\b{found[1]}\b", query.text)) == 1
    }
    if not names:
        return False
    told = re.compile(rf"\b(?:{'|'.join(names)})\b")
    return any(message.role == "user" and told.search(message.content.lower()) for message in query.before)


DEFINITE = re.compile(
    r"\bthe ([a-z]+)\b(?=[.,?!]|$| (?:is|are|was|were|do|does|did|has|had|have|will|would|can|could|should|might|still|now|and|if|when|also)\b"
    r"| (?:take|spend|need|cost|buy|get|sell|earn|use|make|go|pay|say|look|work)s?\b)"
)


Sign = Callable[[Query], bool]

SIGNS: dict[str, Sign] = {
    "pronoun": _personal,
    "demonstrative": _demonstrative,
    "pointer": _pointer,
    "one": _one,
    "more": _more,
    "continuation": _continuation,
    "correction": _correction,
    "reaction": _reaction,
    "fragment": _fragment,
    "bare": _bare,
    "comparison": _comparison,
    "definite": _definite,
    "reply": _reply,
    "statement": _statement,
}
"""The rules by name; each is one function of the query."""

_CHEAPEST = (
    "statement",
    "continuation",
    "reaction",
    "fragment",
    "bare",
    "comparison",
    "reply",
    "demonstrative",
    "pronoun",
)
CHEAPEST_FIRST = sorted(SIGNS.values(), key=[*map(SIGNS.get, _CHEAPEST), *SIGNS.values()].index)
"""Where one of them is enough: each query of each dialogue is looked at as the dialogue ends."""
