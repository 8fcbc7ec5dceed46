"""Whether an answer talks of its making: of being edited, of another answer, or of the aspects that it was written for. Pure functions.

A phrase counts only where nobody spoke so before: who asks for a letter to be revised (`agents.answer_asked`) gets "the revised
version", and that is no fault. Emphasis, hyphens and the ends of lines hide no phrase. The phrases are English, with the commonest of German, French, Spanish and Chinese. They are narrow on purpose: of
4,208 real answers of MT-Bench-101 none has one where it was not asked for.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from agents.answer_asked import ASKS_TO_COMPARE, ASKS_TO_REWORK, any_of, plain

CJK = "぀-ヿ㐀-䶿一-鿿"
"""Letters of Chinese and Japanese, which put no spaces between words."""


# words of both kinds of talk

ANSWER = r"(?:answer|response|reply)"
TEXT = r"(?:answer|response|reply|version|draft|attempt|rewrite|revision|summary|explanation)"
EARLIER = r"(?:previous|original|first|earlier|prior|initial|other|given|provided|existing|old)"
REWORKED = r"(?:revised|re-?written|reworked|re-?worded|rephrased|edited|redrafted)"
BETTERED = r"(?:improved|better|worse|corrected|updated|enhanced|refined|modified|polished|weaker|stronger|alternative|second|new)"
BETTER = r"(?:better|worse|superior|inferior|improved|stronger|weaker|more \w+|less \w+)"
DEGREE = rf"(?:{REWORKED}|improved|better|worse|corrected|updated|weaker|stronger|poorer|inferior|superior|(?:more|less) \w+)"
CHANGES = r"(?:changes|edits|revisions|improvements|modifications|corrections|adjustments)"
I_HAVE = r"\bi(?:['’]ve| have|['’]ll| will)?(?: now| also| just)?"

REWORKING = any_of(
    rf"\b{REWORKED} (?:version|{ANSWER}|draft|text|summary)\b",
    rf"\bhere(?:['’]s| is| are)(?: my| a| an| the| one)?(?: slightly| much| more| even| somewhat)* (?:{REWORKED}|{BETTERED})(?: and \w+)? {TEXT}\b",
    rf"\b(?:as|in|with) (?:an?|the|my|this) {BETTERED} {ANSWER}\b",
    rf"\bin this {BETTERED} version\b",
    rf"\bversion of (?:the|my|your|this|that) (?:{EARLIER} )?{ANSWER}\b",
    rf"\bmy (?:second|other|new) {ANSWER}\b",
    r"\bthis (?:revision|rewrite) \w+s\b",
    rf"(?:^|[.!?:] )\W*(?:(?:this is |now )?(?:the|my|an?|your) )?(?:{REWORKED}|{BETTERED}) {TEXT}(?: is| reads| goes| would be)?(?: as follows| this| now)?\W{{0,4}}:",
    rf"^\W*(?:{REWORKED}|edit|improved|corrected)\W{{0,4}}:",
    rf"^\W*[(\[](?:{REWORKED}|updated|improved|corrected)(?: {TEXT})?[)\]]",
    rf"\A\W*[(\[](?:{BETTERED}|{BETTER})(?: {TEXT})?[)\]]",
    r"\A\W*(?:(?:the|my|an?) )?(?:revision|re-?write|re-?draft|update)\W{0,4}:",
    rf"\b{DEGREE} {TEXT},? as (?:you )?(?:asked|requested|wanted|instructed|told|required|planned)\b",
    rf"\bas (?:you )?(?:asked|requested|wanted|instructed|told|required|planned)(?: for)?[,:]? (?:(?:here|this)(?:['’]s| is) )?(?:an?|the|my) (?:\w+ )?{DEGREE} (?:{ANSWER}|version)\b",
    rf"\bthis is (?:an?|the|my|your) (?:\w+ )?{DEGREE} {ANSWER}\b",
    rf"{I_HAVE} (?:tried to |wanted to |meant to )?(?:make|made|keep|kept) (?:the|this|my|that) (?:{EARLIER} )?(?:{ANSWER}|version) (?:\w+ )?(?:{BETTER}|\w+er)\b",
    rf"^\W*(?:note|n\.?b\.?|p\.?s\.?)\W{{0,3}} ?{I_HAVE} made it (?:\w+ )?(?:{BETTER}|\w+er)\b",
    rf"^\W*(?:version|draft|{ANSWER}) (?:2|two|ii|b)\W{{0,4}}:",
    rf"^\W*{CHANGES}(?: (?:i|that were|i have))? made\b",
    r"^\W*(?:edit|editing|revision) (?:plan|notes?)\W{0,4}:",
    rf"{I_HAVE} (?:revised?|re-?written|re-?wrote|re-?worded?|re-?phrased?|re-?worked|re-?drafted)\b",
    rf"{I_HAVE} (?:edited|improved|changed|modified|corrected|adjusted|updated|altered|fixed|shortened|expanded(?: on)?) (?:the|my|this|your|that) (?:{EARLIER} )?{TEXT}\b",
    rf"{I_HAVE} made (?:the following|some|a few|several|these|two|three|small|minor|no) (?:\w+ )?{CHANGES}\b",
    rf"{I_HAVE} (?:removed|left out|omitted) (?:\w+ ){{0,3}}(?:details?|information|facts?|sentences?|paragraphs?|examples?|steps?|sections?|context)\b",
    rf"{I_HAVE} added (?:\w+ ){{1,6}}to (?:the|my|this) (?:{EARLIER} )?{TEXT}\b",
    rf"\b(?:let me|i(?:['’]ll| will| would|['’]d)|allow me to|i tried to) (?:try to )?(?:improve|revise|re-?write|rephrase|redo|rework|edit|correct)(?: on| upon)? (?:the|my|this|that|your) (?:{EARLIER} )?{TEXT}\b",
    rf"\b{ANSWER}(?: above| below)? (?:has|have) been (?:\w+ )?(?:{REWORKED}|improved|modified|altered|changed|adjusted|corrected|updated)\b",
    rf"\b(?:to make|makes?|making) (?:the|this|my) {ANSWER} {BETTER}\b",
    # German
    r"\b(?:überarbeitete|verbesserte|umgeschriebene|neu formulierte)[nrs]? (?:version|fassung|antwort|text)\b",
    r"\bich habe (?:die|meine|diese|den) (?:antwort|text|fassung)\w* (?:überarbeitet|verbessert|umgeschrieben|geändert)",
    # French
    r"\b(?:version|réponse) (?:révisée|améliorée|corrigée|remaniée|réécrite)\b",
    r"\bj['’]ai (?:révisé|réécrit|reformulé|amélioré|remanié) (?:la|ma|cette) réponse",
    # Spanish
    r"\b(?:versión|respuesta) (?:revisada|mejorada|corregida|reescrita)\b",
    r"\bhe (?:revisado|reescrito|reformulado|mejorado) (?:la|mi|esta) respuesta",
    # Chinese
    r"(?:修改|修订|改进|改写|润色|优化|更新)(?:后|过|版)?的(?:版本|回答|答案|回复|文本)|(?:修订|改进|修改|优化)版(?:本)?[：:]",
    r"我(?:已经?|对[^。，,]{0,12})(?:修改|改写|改进|润色|重写)了",
)
"""Of a text that was made of another one."""
COMPARING = any_of(
    rf"\b(?:compared (?:to|with)|in contrast to|unlike|than|as opposed to|improv\w+ (?:on|upon|over)|based on) (?:the|my|that|your|its) {EARLIER} {ANSWER}\b",
    rf"\b(?:compared (?:to|with)|in contrast to|unlike|than|as opposed to) the {ANSWER} (?:above|before|given|provided)\b",
    rf"\b(?:this|my|the (?:second|new|above|present|following|{BETTERED})) {ANSWER} (?:is|was|will be|aims to be|tries to be)(?: \w+)? {BETTER}\b",
    rf"\b(?:this|my|the (?:second|new|above|present)) {ANSWER} (?:improves|expands|builds|elaborates) (?:on|upon)\b",
    rf"\bthe (?:first|other|original|given|provided|existing) {ANSWER} (?:was|is|did|does|had|has|lack\w*|fail\w*|miss\w*|contain\w*|omit\w*|state[sd]|says|said|gives|gave)\b",
    rf"\b(?:this|my) {ANSWER}(?: has been| is| was)? (?:deliberately|intentionally|purposely|purposefully)\b",
    rf"{I_HAVE} (?:deliberately|intentionally|purposely) (?:made|left out|omitted|introduced|altered|changed|kept|included|added)\b",
    # German
    r"\b(?:diese|meine) antwort ist (?:\w+ )?(?:besser|schlechter|genauer|vollständiger)",
    r"\b(?:im vergleich zu[rm]?|als die) (?:vorherigen?|ersten?|ursprünglichen?) antwort\b",
    # French
    r"\bcette réponse est (?:\w+ )?(?:meilleure|pire|plus \w+|moins \w+)",
    r"\b(?:par rapport à|que) la réponse (?:précédente|initiale|originale)",
    # Spanish
    r"\besta respuesta es (?:\w+ )?(?:mejor|peor|más \w+|menos \w+)",
    r"\b(?:en comparación con|que) la respuesta (?:anterior|original|inicial)",
    # Chinese
    r"(?:与|和|比|相比)(?:之前|先前|原来|原先|上一个|第一个|前一个)的?(?:回答|答案|回复)|(?:这个|本|此)(?:回答|答案|回复)(?:更|比)",
)
"""Of this answer beside another one, or of what it does on purpose."""

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
        "improved",
        "correct",
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
        r"\bmade",
        "deliberately",
        "intentionally",
        "purpose",
    ),
    *("removed", r"left[ \n-]out", "omitted", "updated", "antwort", "fassung", "réponse", "respuesta", "versión"),
    *("überarbeitete", "verbesserte", "umgeschriebene", "formulierte"),
    *("回答", "答案", "回复", "版", "文本", "修改", "改写", "改进", "润色", "重写"),
)
"""Every phrase has one of these, or is what an answer begins with; no other part of a long answer is read closely."""
NEAR = 160
"""Letters of a phrase before or after its stem, at most."""


def speaks_of_editing(answer: str, prompt: str, first: str) -> bool:
    """Whether an answer speaks of another text that it was made of, or is better or worse than, and nobody did before."""
    answer, prompt, first = plain(answer), plain(prompt), plain(first)
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
    start, end = 0, NEAR  # what an answer begins with is always read
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
    answer, before = plain(answer), f"{plain(prompt)}\n{plain(first)}"
    aspects = tuple(map(plain, aspects))
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


HEADED = any_of(
    r"^\W*(?:(?:chosen|selected|relevant|key|quality) )?aspects?(?: (?:chosen|selected|addressed|improved))?\W{0,4}:"
    r"|\b(?:chosen|selected) (?:aspects|respects)\b|\b(?:better|worse|improved|weaker|stronger) in (?:these|the following|the chosen) (?:aspects|respects)\b",
)


def _adjective(name: str) -> str | None:
    """complete of completeness, factual of factuality, relevant of relevance, accurate of accuracy, honest of honesty, respectful of respect."""
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
    return f"{name}ful" if name.isalpha() and len(name) < 8 else None


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
        rf"\b(?:the|its|this|my) {name} of (?:{answer})\b|^\W*\[{name}\]|\({name}\)",
        rf"(?:^|[.!?]\s+)(?:for (?:the sake of|better|greater|more|improved)|with (?:regard|respect) to) (?:the )?{name}(?!\w)",
        rf"(?:^|[.!?]\s+)(?:for {name} ?:|(?:with|keeping|bearing) {name}(?: and \w+)? in mind ?[,:])|\A\W*for {name} ?,",
        rf"\b{answer}(?: \w+){{0,6}} {name}(?!\w)",
        rf"\b(?:in bezug auf|hinsichtlich|en termes de|en cuanto a|en términos de) (?:die |der |la |el |l['’])?{name}(?!\w)",
        rf"在{name}(?:方面|上)|就{name}而言",
    ]
    if forms:
        either = _either(forms)
        parts += [
            rf"(?:^|[.!?]\s+|\n\s*)to be (?:more|less|as) {either}(?: as possible)?(?: and \w+)?[,:]",
            rf"\b{answer} (?:is|was|aims to be|tries to be|will be)(?: \w+)? (?:more |less |as )?{either}(?!\w)",
            rf"\b(?:more|less) {either} (?:answer|response|reply)\b|\bmak(?:e|es|ing) {answer} (?:more |less ){either}\b",
        ]
    return any_of(*parts)
