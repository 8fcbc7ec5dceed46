"""What the second answer of a pair must not be, as pure functions of two texts and a prompt: no model is asked.

It must say something, be whole, differ from the first answer, and speak to the user alone: of no other answer, no editing, and
none of the aspects that it was written for. A phrase of either kind counts only where neither the user nor the first answer
speaks so: who asks for a letter to be revised gets "the revised version", and that is no fault.

Where two answers are the same (`near_identical`): with the same words and signs of arithmetic, once case, other punctuation
and a polite opening or close ("Sure!", "I hope this helps!") are taken off, they always are. Otherwise two things must come
together: ROUGE-L F1 of the words (characters in Chinese and Japanese) reaches the threshold, and fewer words of content
changed than one for every WORDS_A_CHANGE. So in up to twenty words one is enough: "It is red, Vera." and "It is blue, Vera."
differ at any threshold. In thirty words a single changed one is no difference, though it may be one of fact: a threshold of
1.0 lets all but the same words pass. No answer is so long that MANY_CHANGED words, a sentence or two, are not enough.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache
from typing import Literal

from rapidfuzz.distance import LCSseq

AnswerFault = Literal["empty", "cut_off", "near_identical", "speaks_of_editing", "speaks_of_aspects"]
"""That an answer cannot be parsed is found by who parses it."""

WORDS_A_CHANGE = 20
"""Of so many words, begun or whole, one changed word of content is a difference."""
MANY_CHANGED = 25
"""So many are one in answers of any length."""


def answer_fault(
    answer: str,
    *,
    first: str | None,
    prompt: str,
    aspects: Collection[str] = (),
    cut_off: bool = False,
    near_identical: float = 0.9,
) -> AnswerFault | None:
    """Why an answer cannot be one side of a pair, or null: the first reason that holds, in the order of `AnswerFault`.

    Args:
        first: the other answer; null: there is none yet.
        prompt: the user's turn, with the history's text where that counts as spoken of, too.
        aspects: the names of what the answer was to be better or worse in.
        cut_off: whether the model was stopped at its limit.
        near_identical: likeness from which on two answers hardly differ.
    """
    if is_empty(answer):
        return "empty"
    if cut_off:
        return "cut_off"
    if first is not None and hardly_differ(answer, first, near_identical):
        return "near_identical"
    before = prompt, first or ""
    if speaks_of_editing(answer, *before):
        return "speaks_of_editing"
    return "speaks_of_aspects" if speaks_of_aspects(answer, *before, aspects) else None


def is_empty(answer: str) -> bool:
    """Whether there is no letter, digit or symbol: punctuation alone says nothing, and an emoji does."""
    return not any(unicodedata.category(sign)[0] in "LNS" for sign in answer)


# the same again

CJK = "぀-ヿ㐀-䶿一-鿿"
TOKEN = re.compile(
    rf"[{CJK}]|[^\W{CJK}_]+|[+=≠≤≥±×÷%$€£¥√∞]|(?<=\s)[<>](?=[\s=])|(?<=\d)[<>]|[<>](?=\d)|-(?=\d)|(?<=\b\w )[-*/](?= \w\b)|[\U0001f300-\U0001faff☀-➿]"
)
"""A word, a character of Chinese or Japanese, a sign of arithmetic, or an emoji."""
LIGHT = frozenset(
    re.findall(
        r"\w+",
        """a an the is are was were be been am it its that this these those there and so of to just very really quite also please
        well indeed der die das ein eine ist sind le la les un une des est sont el los las una es son 的 了 吗 呢 吧 啊 也 就""",
    )
)
"""Words that change without a change of what is said."""
OPENING = re.compile(
    r"\A\W*(?:(?:sure(?: thing)?|certainly|of course|absolutely|definitely|ok(?:ay)?|alright|great question|good question|no problem|gerne?|nat[uü]rlich|klar"
    r"|bien s[uû]r|d['’]accord|claro(?: que s[ií])?|por supuesto|当然(?:可以)?|好的)(?=\W|\Z)[\s!.,:;—–-]*)+"
    r"|\A\W*(?:当然可以|当然|好的)[！!，,。.\s]*",
    re.IGNORECASE,
)
CLOSING = re.compile(
    r"(?:(?<=[.!?\n*])\s*(?:i hope (?:this|that|it) helps?(?: you)?|let me know if[^.!?\n]*|feel free to ask[^.!?\n]*"
    r"|is there anything else[^.!?\n]*|ich hoffe, das hilft(?: dir| ihnen)?|j['’]esp[eè]re que[^.!?\n]*aide[^.!?\n]*|espero que (?:esto )?(?:te |le )?ayude)\W*)+\Z",
    re.IGNORECASE,
)


def tokens_of(answer: str) -> list[str]:
    """What an answer says, in one case, without punctuation and polite words at its ends."""
    text = unicodedata.normalize("NFKC", answer).strip()
    bare = CLOSING.sub("", OPENING.sub("", text))
    return TOKEN.findall(bare.casefold()) or TOKEN.findall(text.casefold())


def hardly_differ(one: str, other: str, threshold: float) -> bool:
    """Whether two answers are the same but for what does not matter; the file's head says when."""
    said, before = tokens_of(one), tokens_of(other)
    if said == before:
        return bool(said) or one.split() == other.split()
    both, total = (Counter(said) & Counter(before)).total(), len(said) + len(before)
    if 2 * both < threshold * total:  # no need to look at their order
        return False
    number = {
        word: chr(place) for place, word in enumerate(dict.fromkeys([*before, *said]))
    }  # texts align faster than lists
    moves = LCSseq.editops("".join(map(number.__getitem__, before)), "".join(map(number.__getitem__, said)))
    put_in = [said[move.dest_pos] for move in moves if move.tag == "insert"]
    left_out = [before[move.src_pos] for move in moves if move.tag == "delete"]
    if 2 * (len(said) - len(put_in)) < threshold * total:  # ROUGE-L F1: 2 LCS / (m + n)
        return False
    changed = max(sum(word not in LIGHT for word in words) for words in (put_in, left_out))
    return changed < min(MANY_CHANGED, math.ceil(max(len(said), len(before)) / WORDS_A_CHANGE))


# talk of editing, and of other answers

REWORKED = r"(?:revised|re-?written|reworked|re-?worded|rephrased|edited|redrafted)"
BETTERED = r"(?:improved|better|worse|corrected|updated|enhanced|refined|modified|polished|weaker|stronger|alternative|second|new)"
ANSWER = r"(?:answer|response|reply)"
TEXT = r"(?:answer|response|reply|version|draft|attempt|rewrite|revision|summary|explanation)"
EARLIER = r"(?:previous|original|first|earlier|prior|initial|other|given|provided|existing|old)"
I_HAVE = r"\bi(?:['’]ve| have|['’]ll| will)?(?: now| also| just)?"

REWORKING = re.compile(
    rf"\b{REWORKED} (?:version|{ANSWER}|draft|text|summary)\b"
    rf"|\bhere(?:['’]s| is| are)(?: my| a| an| the| one)?(?: slightly| much| more| even| somewhat)* (?:{REWORKED}|{BETTERED})(?: and \w+)? {TEXT}\b"
    rf"|\b(?:as|in|with) (?:an?|the|my|this) {BETTERED} {ANSWER}\b"
    rf"|^\W*(?:{REWORKED}|{BETTERED}) {TEXT}\W{{0,4}}:"
    rf"|{I_HAVE} (?:revised?|re-?written|re-?wrote|re-?worded?|re-?phrased?|re-?worked|re-?drafted)\b"
    rf"|{I_HAVE} (?:edited|improved|changed|modified|corrected|adjusted|updated|altered|fixed|shortened|expanded(?: on)?) (?:the|my|this|your|that) (?:{EARLIER} )?{TEXT}\b"
    rf"|{I_HAVE} made (?:the following|some|a few|several|these|two|three|small|minor|no) (?:\w+ )?(?:changes|edits|revisions|improvements|modifications|corrections|adjustments)\b"
    r"|^\W*(?:changes|edits|revisions|improvements|modifications)(?: (?:i|that were|i have))? made\b|^\W*(?:edit|editing|revision) (?:plan|notes?)\W{0,4}:"
    r"|\b(?:überarbeitete|verbesserte|umgeschriebene|neu formulierte)[nrs]? (?:version|fassung|antwort|text)\b|\bich habe (?:die|meine|diese|den) (?:antwort|text|fassung)\w* (?:überarbeitet|verbessert|umgeschrieben|geändert)"
    r"|\bversion (?:révisée|améliorée|corrigée|remaniée|réécrite)\b|\bréponse (?:révisée|améliorée|corrigée|remaniée)\b|\bj['’]ai (?:révisé|réécrit|reformulé|amélioré|remanié) (?:la|ma|cette) réponse"
    r"|\b(?:versión|respuesta) (?:revisada|mejorada|corregida|reescrita)\b|\bhe (?:revisado|reescrito|reformulado|mejorado) (?:la|mi|esta) respuesta"
    r"|(?:修改|修订|改进|改写|润色|优化|更新)(?:后|过|版)?的(?:版本|回答|答案|回复|文本)|(?:修订|改进|修改|优化)版(?:本)?[：:]|我(?:已经?|对[^。，]{0,12})(?:修改|改写|改进|润色|重写)了",
    re.IGNORECASE | re.MULTILINE,
)
"""Of a text that was made of another one."""
COMPARING = re.compile(
    rf"\b(?:compared (?:to|with)|in contrast to|unlike|(?:better|worse|more \w+|less \w+|shorter|longer|clearer) than|as opposed to) (?:the|my|that|your|its) {EARLIER} {ANSWER}\b"
    rf"|\b(?:this|my|the (?:second|new|above|present|following|{BETTERED})) {ANSWER} (?:is|was|will be|aims to be|tries to be)(?: \w+)? (?:better|worse|superior|inferior|improved|more \w+|less \w+|weaker|stronger)\b"
    rf"|\b(?:this|my|the (?:second|new|above|present)) {ANSWER} (?:improves|expands|builds|elaborates) (?:on|upon)\b"
    rf"|\bthe (?:first|other|original|given|provided|existing) {ANSWER} (?:was|is|did|does|had|has|lacks?|lacked|failed|misses|missed|contains|contained|omits|omitted|states|stated|says|said|gives|gave)\b"
    rf"|\b(?:this|my) {ANSWER}(?: has been| is| was)? (?:deliberately|intentionally|purposely|purposefully)\b|{I_HAVE} (?:deliberately|intentionally|purposely) (?:made|left out|omitted|introduced|altered|changed|kept|included|added)\b"
    r"|\b(?:diese|meine) antwort ist (?:\w+ )?(?:besser|schlechter|genauer|vollständiger)|\b(?:im vergleich zu[rm]?|als die) (?:vorherigen?|ersten?|ursprünglichen?) antwort\b"
    r"|\bcette réponse est (?:\w+ )?(?:meilleure|pire|plus \w+|moins \w+)|\bpar rapport à la réponse (?:précédente|initiale|originale)|\bque la réponse (?:précédente|initiale|originale)"
    r"|\besta respuesta es (?:\w+ )?(?:mejor|peor|más \w+|menos \w+)|\b(?:en comparación con|que) la respuesta (?:anterior|original|inicial)"
    r"|(?:与|和|比|相比)(?:之前|先前|原来|原先|上一个|第一个|前一个)的?(?:回答|答案|回复)|(?:这个|本|此)(?:回答|答案|回复)(?:更|比)",
    re.IGNORECASE,
)
"""Of this answer beside another one, or of what it does on purpose."""

ASKS_TO_REWORK = re.compile(
    r"\b(?:revis\w+|re-?writ\w+|re-?wrote|re-?phras\w+|re-?word\w*|re-?work\w*|re-?draft\w*|edit(?:s|ed|ing|or)?|proof-?read\w*|paraphras\w+|polish|version|draft|touch up|correct(?:ed|ion|ions)?)\b"
    r"|\b(?:improve|change|modify|alter|fix|shorten|lengthen|expand|extend|update|simplify|adjust|adapt|translate|convert|turn|make|made|add|include|remove|replace|refine|enhance|condense|tweak|tailor|incorporate)\b"
    r"(?: \w+){0,2}? (?:it|this|that|them|these|those|text|essay|e-?mail|letter|message|note|sentences?|paragraphs?|poem|story|code|function|script|summary|answer|response|reply|article|list|title|speech|report|description|review|post|plan|proposal|statement|outline|paper)\b"
    r"|\b(?:better|another|different|shorter|longer|simpler|more \w+|less \w+) (?:answer|response|reply|way|one|wording|phrasing|title|summary)\b"
    r"|\b(?:what|where|why|how) (?:did|have|do) you (?:change|edit|alter|differ)\w*"
    r"|überarbeite|umschreib|verbesser|formulier|korrigier|änder|kürz|révis|réécri|reformul|amélior|corrig|modifi|raccourc|revis|reescrib|mejor|reformul|correg|acort|修改|改写|改进|润色|重写|修订|优化|更正|纠正|缩短|改成|改为|换成",
    re.IGNORECASE,
)
ASKS_TO_COMPARE = re.compile(
    rf"\b(?:compar\w+|contrast\w*|evaluat\w+|critiqu\w+|grade|judge|rate|assess\w*|review\w*|feedback)\b.{{0,80}}\b{ANSWER}s?\b"
    rf"|\b(?:your|my|the|this|that|these|those|two|both|which|each|first|second|previous|last|other|better|student['’]?s?|{ANSWER} [a-d1-4]) {ANSWER}s?\b|\b{ANSWER} (?:[ab1-4]|one|two)\b"
    r"|\bon purpose\b|\b(?:deliberate|intentional|purpose)ly\b"
    r"|antwort|réponse|respuesta|回答|答案|回复",
    re.IGNORECASE | re.DOTALL,
)
KINDS = ((REWORKING, ASKS_TO_REWORK), (COMPARING, ASKS_TO_COMPARE))
"""Each with what a user says who is to be answered so."""
STEMS = (
    *(
        "answer",
        "response",
        "reply",
        "summary",
        "explanation",
        "version",
        "draft",
        "attempt",
        "edit",
        "revis",
        "réécri",
        "reformul",
    ),
    *(
        "rewrit",
        "rewrote",
        "rework",
        "reword",
        "rephras",
        "re-w",
        "re-d",
        "re-p",
        " made",
        "deliberately",
        "intentionally",
        "purpose",
    ),
    *(
        "antwort",
        "fassung",
        "réponse",
        "respuesta",
        "versión",
        "回答",
        "答案",
        "回复",
        "版",
        "文本",
        "修改",
        "改写",
        "改进",
        "润色",
        "重写",
    ),
)
"""Every phrase has one of these; no other part of a long answer is read closely."""
NEAR = 160
"""Letters of a phrase before or after its stem, at most."""


def speaks_of_editing(answer: str, prompt: str, first: str) -> bool:
    """Whether an answer speaks of another text that it was made of, or is better or worse than, and nobody did before."""
    parts = list(_around(answer, STEMS))
    return any(
        any(phrase.search(answer, *part) for part in parts)
        and not phrase.search(first)
        and not phrase.search(prompt)
        and not asks.search(prompt)
        for phrase, asks in KINDS
    )


def _around(text: str, stems: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Where a text has one of these stems, with what stands near: parts that do not overlap, in order."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter or two grow in lower case
        yield 0, len(text)
        return
    places = sorted(found.start() for stem in stems for found in re.finditer(stem, lowered))
    start = end = -1
    for place in places:
        if start >= 0 and place - NEAR > end:
            yield start, end
            start = -1
        start, end = max(0, place - NEAR) if start < 0 else start, place + NEAR
    if start >= 0:
        yield start, end


# talk of aspects


def speaks_of_aspects(answer: str, prompt: str, first: str, aspects: Collection[str]) -> bool:
    """Whether an answer speaks of the qualities that it was written for, those alone that were not spoken of before."""
    before = f"{prompt}\n{first}"
    lowered = answer.lower()
    if ("aspect" in lowered or "respects" in lowered) and HEADED.search(answer) and not HEADED.search(before):
        return True
    present = [name for name in aspects if _named((name,)).search(answer)]
    unspoken = tuple(sorted(name for name in present if not _named((name,)).search(before)))
    if not unspoken:
        return False
    if _talk(unspoken).search(answer):
        return True
    labels = {re.sub(r"\W+", " ", found[1]).casefold() for found in _label(unspoken).finditer(answer)}
    opening = _label(unspoken).match(answer.lstrip())
    return len(labels) > 1 or opening is not None


HEADED = re.compile(
    r"^\W*(?:(?:chosen|selected|relevant|key|quality) )?aspects?(?: (?:chosen|selected|addressed|improved))?\W{0,4}:"
    r"|\b(?:chosen|selected) (?:aspects|respects)\b|\b(?:better|worse|improved|weaker|stronger) in (?:these|the following|the chosen) (?:aspects|respects)\b",
    re.IGNORECASE | re.MULTILINE,
)


def _adjective(name: str) -> str | None:
    """complete of completeness, factual of factuality, relevant of relevance, accurate of accuracy, honest of honesty."""
    for ending, instead in (
        ("ness", ""),
        ("ality", "al"),
        ("ity", ""),
        ("ance", "ant"),
        ("ence", "ent"),
        ("acy", "ate"),
        ("ty", "t"),
    ):
        if name.endswith(ending) and len(name) > len(ending) + 3:
            return name.removesuffix(ending) + instead
    return None


def _pattern(name: str) -> str:
    return r"[\s_-]+".join(map(re.escape, name.split()))


def _either(names: Iterable[str]) -> str:
    return "(?:" + "|".join(map(_pattern, names)) + ")"


@lru_cache(maxsize=256)
def _named(names: tuple[str, ...]) -> re.Pattern[str]:
    """A name, or its adjective."""
    forms = [*names, *(form for name in names if (form := _adjective(name)))]
    return re.compile(
        rf"(?<!\w){_either(forms)}(?!\w)|{_either(names)}"
        if any(map(_unspaced, names))
        else rf"(?<!\w){_either(forms)}(?!\w)",
        re.IGNORECASE,
    )


def _unspaced(name: str) -> bool:
    return re.search(f"[{CJK}]", name) is not None


@lru_cache(maxsize=256)
def _label(names: tuple[str, ...]) -> re.Pattern[str]:
    """A name that heads a line, before a colon."""
    return re.compile(rf"^[^\w\n]*({_either(names)})[^\w\n:：]*[:：]", re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=256)
def _talk(names: tuple[str, ...]) -> re.Pattern[str]:
    """A name or its adjective in a phrase that is about an answer."""
    name = _either(names)
    forms = [form for one in names if (form := _adjective(one))]
    answer = r"(?:this|my|the|the (?:second|new)) (?:answer|response|reply|summary)"
    parts = [
        rf"\bin (?:terms|respect) of (?:its |the |their )?{name}(?!\w)",
        rf"\b(?:the|its|this|my) {name} of (?:{answer})\b",
        rf"\b{answer}(?: \w+){{0,6}} {name}(?!\w)",
        rf"\b(?:in bezug auf|hinsichtlich|en termes de|en cuanto a|en términos de) (?:die |der |la |el |l['’])?{name}(?!\w)",
        rf"在{name}(?:方面|上)|就{name}而言",
    ]
    if forms:
        either = _either(forms)
        parts += [
            rf"(?:^|[.!?]\s+|\n\s*)to be (?:more|less|as) {either}(?: as possible)?(?: and \w+)?[,:]",
            rf"\b{answer} (?:is|was|aims to be|tries to be|will be)(?: \w+)? (?:more |less |as )?{either}(?!\w)",
            rf"\b(?:a|an|my|this) (?:more|less) {either} (?:answer|response|reply|summary|version)\b",
        ]
    return re.compile("|".join(parts), re.IGNORECASE | re.MULTILINE)
