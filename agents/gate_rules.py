"""What a user's next query must not be, as pure functions of the conversation and the query: no model is asked.

Two kinds of reasons. A query can break the user's role (`ROLE_BREAKS`), which a simulator does and a person does not, or it
can be one that a corpus is better without, whoever wrote it (`DROPS`). The rules
are careful with people: words of an assistant or of a prompt count only where they begin a query, or stand in a form that
one writes about oneself alone.

Where saying a query again is which:
- `repetition`: it equals an earlier query (letters and digits, in one case), the one right before it above all;
- `restart`: it equals the first one, or greets, or ends with the whole first query, once the conversation has moved on;
- `repetitive`: it equals none, and its ROUGE-L with one is above a threshold.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from configs.errors import DescantError
from store.records import Message
from store.rouge import lcs_f1

ROLE_BREAKS = ("role_inversion", "leak", "early_end", "restart", "repetition")
DROPS = ("repetitive", "short", "sensitive", "garbled", "unfinished")
REASONS = (*ROLE_BREAKS, *DROPS)

SPAN_WORDS = 8
"""A run of so many words of a prompt's own text is a leak; no sentence of a person was seen to hold one."""
RESTART_WORDS = 6
"""A first query of fewer words may well stand at the end of another one."""
ECHO_WORDS = 2
"""An answer of fewer words is one that a person may give back."""
ECHO_BEGUN_WORDS = 5
"""An answer of fewer words is one that a person may give back with a sentence of their own."""
LEAVE_WORDS = 12
"""Who says more than so many words besides goodbye and thanks has not taken leave."""
LONGEST_WORD = 80
"""Letters; no word of a language that puts spaces between them has more."""
STUTTER = 8
"""One word or syllable so often in a row is a model that got stuck."""


class PatternError(DescantError):
    """Raised here: a file of patterns cannot be read, or a line of it is no regular expression."""


class Finding(NamedTuple):
    """Why a query is caught."""

    reason: str
    source: str = "rule"
    """`rule`, or the model that said so."""


# words

WORD = re.compile(r"[぀-ヿ㐀-䶿一-鿿]|[^\W぀-ヿ㐀-䶿一-鿿]+")  # a character of Chinese or Japanese is a word


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return WORD.findall(text.lower())


# the user's role

SPEAKS_AS = re.compile(r"\W*(?:assistant\s*:|(?:ai|chatbot|bot|model)\s*:(?!.*[?？]))", re.IGNORECASE | re.DOTALL)
OF_ONESELF = "i|my|mine|we|our|this|that|it|you|your|thanks?|please|let|and|but|so|what|how|which|yes|no|here|there"
"""How a person goes on after "Certainly!"."""
ASSISTANT_OPENING = re.compile(
    r"\W*(?:(?:sure|certainly|of course|absolutely|great question|no problem)\b[\s,.!—–-]*"
    r"(?:here(?:'s|’s| is| are)|i can help|i(?:'d|’d| would) be (?:happy|glad)|i(?:'ll|’ll| will) be happy|let me (?:explain|help)|below (?:is|are))"
    r"|here(?:'s| is| are) (?:the|a|an|your|some) \w+(?: \w+)? (?:you (?:asked|requested|wanted)|for you\b)"
    r"|thank you for (?:your question|reaching out)"
    r"|(?:that(?:'s|’s| is) an? )?(?:very )?(?:great|good|excellent|fantastic|wonderful|interesting) question\s*[.!]"
    r"|i(?:'d|’d| would) be (?:more than )?(?:happy|glad|delighted) to (?:help|assist|explain|answer)\b"
    r"|you(?:'re|’re| are) (?:very |most |so )?welcome\s*(?:[.!,]|$)"
    rf"|(?:certainly|absolutely|of course|sure)!\s+(?!(?:{OF_ONESELF})\b)(?!.*\b(?:i|me|my|we|us|our|fine|thanks?|please)\b)[^?？]*\b(?:has|have|is|are|was|were)\b[^?？]*\Z"
    r"|i(?:'m|’m| am) (?:sorry|afraid),? (?:but )?(?:as an ai|i (?:can(?:not|'t|’t)|am unable to) (?:assist|help|provide|answer)))",
    re.IGNORECASE,
)
ASSISTANT_OFFER = re.compile(
    r"\bhow (?:can|may) i (?:help|assist) you\b|\bwhat can i (?:help|assist) you with\b"
    r"|\bis there anything else (?:that )?(?:i can|you(?:'d| would) like|you need)\b"
    r"|\blet me know if (?:there(?:'s|’s| is) anything else\b|you (?:have any (?:other|more|further)|need any(?:thing| more| further)))"
    r"|\b(?:feel free to ask|happy to help you|glad to help you|i hope (?:this|that) helps you)\b",
    re.IGNORECASE,
)
AS_AN_AI = re.compile(
    r"(?:^|[.!?\n]\s*)\W*(?:as an? (?:ai|artificial intelligence|(?:large )?language model)\b(?: (?:language )?(?:model|assistant))?,?\s*i\b"
    r"|as (?:an?|your) (?:virtual )?assistant,?\s*i (?:can(?:not|'t|’t)? (?:tell|help|say|provide|only)|do(?: not|n't|n’t) have|am (?:here|unable|not able))\b"
    r"|i(?:'m|’m| am) (?:just |only )?an? (?:ai|artificial intelligence|(?:large )?language model)\b)",
    re.IGNORECASE,
)


SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+|\n+")
ASKS = re.compile(
    r"[?？:]|\b(?:what|how|why|who|whom|whose|which|where|when|can|could|would|will|should|please|tell|explain|give|show|write|rewrite"
    r"|translate|list|describe|compare|summari[sz]e|make|add|name|find|help|say|said|wrong|incorrect|mean|but|also|next|another"
    r"|instead|before (?:i|you|we) go)\b",
    re.IGNORECASE,
)
"""A question, a request or an objection: whoever says so has not finished, and may well quote."""


def inverts_role(messages: Sequence[Message], query: str) -> bool:
    """Whether the query speaks as the assistant: by its label, its way of offering help, or an answer given back."""
    signs = (SPEAKS_AS.match, ASSISTANT_OPENING.match, ASSISTANT_OFFER.search, AS_AN_AI.search)
    if any(sign(query) for sign in signs):
        return True
    said = words(query)
    answers = [words(message.content) for message in messages if message.role == "assistant"]
    if len(said) >= ECHO_WORDS and said in answers:
        return True
    return any(len(rest) >= ECHO_BEGUN_WORDS and rest in answers for rest in _but_one_sentence(query))


def _but_one_sentence(query: str) -> Iterator[list[str]]:
    """The words without the first or the last sentence, where that one asks for nothing."""
    sentences = [sentence for sentence in SENTENCE_END.split(query) if words(sentence)]
    if len(sentences) > 1:
        for own, rest in ((sentences[0], sentences[1:]), (sentences[-1], sentences[:-1])):
            if not ASKS.search(own):
                yield words(" ".join(rest))


# instructions and reasoning

TAGS = "think|thinking|reasoning|scratchpad|transcript|caught|query|instruction|user|assistant|system"
"""At the end of a line alone: within one, somebody speaks of them."""
MARKS = re.compile(
    rf"\[end\]|^\s*</?(?:{TAGS})>|</?(?:{TAGS})>\s*$|</(?:think|thinking|reasoning|scratchpad)>"
    r"|<\|[a-z_]+\|>|<(?:start|end)_of_turn>|\[/?inst\]"
    r"|[\[(<*]\s*(?:the )?user(?:'s|’s)? (?:next |follow-up )?(?:message|query|question|turn|reply|response)\s*[\])>*:]",
    re.IGNORECASE | re.MULTILINE,
)
OF_THE_TASK = re.compile(
    r"^\W*task:\s*(?:ask|ask_again|alter|contrast|verify|compare|gate)\s*$"
    r"|\buser[ -]simulator\b|\bsimulated user\b"
    r"|\b(?:the|this) (?:user's|user’s|user) next (?:message|query|question|turn)\b"
    r"|\b(?:stay|staying|keep|keeping|remain|remaining) in (?:the|my) (?:user(?:'s|’s)?|character(?: as)? the user(?:'s|’s)?) role\b"
    r"|\b(?:my|the) role as (?:the|a) user\b|\bi(?:'m| am) (?:playing|simulating|acting as) (?:the|a) user\b"
    r"|\b(?:according to|following|per) (?:my|the|these) instructions,? i\b"
    r"|\A\W*(?:user|human)\s*:"
    r"|\A\W*my (?:system )?(?:instructions?|prompt) (?:say|tell|require|ask|are to|is to)s?\b",
    re.IGNORECASE | re.MULTILINE,
)
ALOUD = re.compile(
    r"\b(?:let me|let's|i should|i need to|i have to|i must|i will|i'll) (?:now )?(?:think (?:about|of)|consider|figure out|write|craft|generate|come up with) "
    r"(?:about )?(?:what |how |something )?(?:that )?(?:the|a) (?:real |typical )?user(?:'s|’s)?\b"
    r"|\bas the user,? i (?:should|must|will|would|could|need to|have to) (?:now |probably |then )?"
    r"(?:ask|say|reply|respond|follow|write|express|react|go on|continue)\b"
    r"|\A\W*(?:okay|ok|alright|right|so|well|hm+)\W+(?:so\W+)?the user (?:wants|is asking|asks|asked|has asked|needs|seems|just)\b"
    r"|\A\W*the user (?:is asking|has asked|wants (?:me to|to know))\b"
    r"|\b(?:the|a) (?:real |typical )?user (?:would|might|could|should) (?:probably |likely |now |then |naturally )*(?:say|ask|reply|respond|want to know|follow up)\b",
    re.IGNORECASE,
)


def leaks(messages: Sequence[Message], query: str, instructions: frozenset[tuple[str, ...]] = frozenset()) -> bool:
    """Whether the query tells what a simulator was told, or thinks aloud.

    What the user spoke of before, such as tags or simulators, may be spoken of again.

    Args:
        instructions: the word spans of the prompts' own text (`spans_of`).
    """
    before = "\n".join(message.content.lower() for message in messages if message.role != "assistant")
    for sign in (MARKS, OF_THE_TASK, ALOUD):
        if any(found[0].strip().lower() not in before for found in sign.finditer(query)):
            return True
    return bool(instructions) and not instructions.isdisjoint(_spans(words(query)))


def spans_of(templates: Iterable[str]) -> frozenset[tuple[str, ...]]:
    """Every run of SPAN_WORDS words in the text of prompts, what stands in for variables left out."""
    plain = (part for text in templates for part in re.split(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", text, flags=re.DOTALL))
    return frozenset(span for part in plain for span in _spans(words(part)))


def _spans(said: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return (tuple(said[start : start + SPAN_WORDS]) for start in range(len(said) - SPAN_WORDS + 1))


# the end

FAREWELL = re.compile(
    r"(?:(?<=[.!,;\n—–-])\s*|\A\W*)(?:and |so |no,? |well,? |ok(?:ay)?,? )?"
    r"(?:(?:thanks|thank you)(?: so much| very much| again)? and )?"
    r"(?:good\s?bye|bye(?:[ -]bye)?|farewell|see you|talk to you (?:later|soon)|until next time|take care"
    r"|have an? (?:nice|great|good|wonderful|lovely) (?:day|evening|night|weekend|one|time)"
    r"|(?:i(?: have|(?:'ve|’ve)(?: got)?) )?no (?:further|more|other) questions"
    r"|that(?:'s|’s| is| was|(?:'ll|’ll| will| would) be) (?:all|everything)(?: (?:that )?i (?:need|needed|wanted|wanted to know))?)"
    r"(?: (?:then|for now|now|for today|today|at the moment|for the moment|later|soon|next time|around|ahead|everyone|all))*\s*(?=[.!,;\n—–-]|$)"
    r"|[\[(<*]+\s*(?:the )?(?:end of (?:the |this )?(?:conversation|dialogue|chat)|(?:conversation|dialogue|chat) (?:ends|ended|over))\W",
    re.IGNORECASE,
)
THANKS = re.compile(r"\b(?:thanks|thank you)\b(?: [^\s.!,;]+){0,8}", re.IGNORECASE)


def takes_leave(query: str) -> bool:
    """Whether the query ends the dialogue in words; one that asks something besides does not."""
    if not FAREWELL.search(query):
        return False
    besides = THANKS.sub("", FAREWELL.sub("", query))
    return not ASKS.search(besides) and len(words(besides)) <= LEAVE_WORDS


# the same again

GREETING = re.compile(
    r"\W*(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening))\b(?: (?:there|again|everyone|assistant))?[\s,.!:;—–-]*",
    re.IGNORECASE,
)
OPENING = re.compile(
    rf"{GREETING.pattern}"
    r"(?:i(?:'ve| have) (?:got )?(?:a|another|some) (?:new )?questions?\b"
    r"|i(?:'d| would) like to (?:ask|start|know something)\b|(?:i need (?:some |your )?help|(?:can|could|would) you (?:please )?help me)(?: please| with something)?\s*(?:[?.!,]|$)"
    r"|i(?:'m| am) (?:looking for|new here)\b|nice to meet you\b|i(?:'m| am) here to\b|$)"
    r"|\W*(?:let(?:'s| us) start (?:over|again|from the beginning)|starting over|to begin (?:our|this) conversation)\b",
    re.IGNORECASE,
)


def said_again(messages: Sequence[Message], query: str) -> str | None:
    """`repetition` or `restart` where the query was there before; the file's head says which is which."""
    said = words(query)
    earlier = [words(message.content) for message in messages if message.role == "user"]
    if not earlier:
        return None
    if said and said == earlier[-1]:
        return "repetition"
    if said and said == earlier[0]:
        return "restart"
    if said and said in earlier:
        return "repetition"
    if not any(message.role == "assistant" for message in messages):
        return None
    first = earlier[0]
    greets = GREETING.match(query)
    after_greeting = words(query[greets.end() :]) if greets else said
    ends_with_first = len(first) >= RESTART_WORDS and said[-len(first) :] == first
    return "restart" if OPENING.match(query) or ends_with_first or (greets and after_greeting == first) else None


def is_repetitive(messages: Sequence[Message], query: str, threshold: float) -> bool:
    """Whether the ROUGE-L F1 to any earlier query is above the threshold, over words of any script."""
    said = words(query)
    return any(lcs_f1(words(message.content), said) > threshold for message in messages if message.role == "user")


# what a corpus is better without


def is_short(query: str, min_words: int) -> bool:
    """An empty query always is."""
    said = len(words(query))
    return said == 0 or said < min_words


UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
LONG_WORD = re.compile(rf"[^\W\d_぀-ヿ㐀-䶿一-鿿{UNSPACED}]{{{LONGEST_WORD + 1},}}")
STUCK = re.compile(rf"([^\W\d_]{{2,4}}?)\1{{{STUTTER - 1},}}", re.IGNORECASE)


def is_garbled(query: str) -> bool:
    """Whether no person's keyboard wrote it: broken characters, a word without an end, or one said again and again."""
    if any(sign == "\ufffd" or (unicodedata.category(sign) == "Cc" and sign not in "\n\r\t") for sign in query):
        return True
    if any(LONG_WORD.search(part) for part in query.split() if "://" not in part and "www." not in part):
        return True
    run, before = 0, ""
    for word in words(query):
        run = run + 1 if word == before and word.isalpha() else 1
        before = word
        if run >= STUTTER:
            return True
    return STUCK.search(query) is not None


@lru_cache(maxsize=8)
def patterns(path: str | None) -> tuple[re.Pattern[str], ...]:
    """The expressions of a file, or of our own list.

    Raises:
        PatternError: the file cannot be read, or a line of it is no regular expression.
    """
    name = path or "agents/sensitive.txt"
    try:
        source = files("agents").joinpath("sensitive.txt") if path is None else Path(path)
        text = source.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "it is not a UTF-8 text file"
        raise PatternError(f"cannot read {name!r} for gate.sensitive ({problem}): check the path") from error
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            found.append(re.compile(line.strip(), re.IGNORECASE))
        except re.error as error:
            raise PatternError(
                f"{name}:{number}: no regular expression ({error}): mend the line, or begin it with # to leave it out"
            ) from error
    return tuple(found)


def is_sensitive(query: str, expressions: Sequence[re.Pattern[str]]) -> bool:
    return any(expression.search(query) for expression in expressions)
