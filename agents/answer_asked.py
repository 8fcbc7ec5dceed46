"""What a user says who is to be answered with talk of versions, edits or other answers, and the plain text in which all talk is looked for.

To name such a thing is not to ask for it: "Which version of Python?", "Why was the constitution revised?" and "Should I fix
this code?" are no requests to rework a text. A request is one in the imperative or a polite form, with the text that it is
about: "revise this letter", "can you make it shorter", "a better version of my essay", "what is wrong with this code".
"""

import re
import unicodedata
from functools import lru_cache


def any_of(*phrases: str) -> re.Pattern[str]:
    """A pattern for plain text: a space of a phrase is a space, the end of a line or a hyphen, but not of a paragraph."""
    return re.compile("|".join(phrases).replace(" ", r"[ \n-]"), re.IGNORECASE | re.MULTILINE)


UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]")
EMPHASIS = re.compile(r"[*`]+|~~|(?<!\w)_+|_+(?!\w)|</?(?:b|i|u|em|strong|mark)>", re.IGNORECASE)
HYPHEN = re.compile("[\u2010-\u2012]")
BREAK = re.compile(r" ?\n ?")
SPACE = re.compile(r"[^\S\n]+")
EMPTY_LINES = re.compile(r"\n{3,}")


@lru_cache(maxsize=16)
def plain(text: str) -> str:
    """A text in one typography: compatible signs made one, no emphasis, no soft hyphens, single spaces; lines stay."""
    if not text.isascii():
        text = HYPHEN.sub("-", UNSEEN.sub("", unicodedata.normalize("NFKC", text)))
    spaced = SPACE.sub(" ", EMPHASIS.sub("", text))
    return EMPTY_LINES.sub("\n\n", BREAK.sub("\n", spaced))


# a text to be reworked

A_TEXT = (
    r"(?:text|essay|e-?mail|letter|message|note|sentence|paragraph|passage|poem|story|code|function|script|program|query|summary|answer|response|reply"
    r"|article|list|title|headline|speech|report|description|review|post|tweet|plan|proposal|statement|outline|paper|document|draft|version|abstract|cv|r[eé]sum[eé]"
    r"|bio|introduction|conclusion|ending|caption|slogan|lyrics|song|dialogue|translation|phrase|wording|writing|work|tone|style|grammar|spelling|line|word|table|recipe)s?"
)
POINTED_AT = (
    r"(?:(?:it|this|that|them|these|those)(?= ?(?:\Z|[.!?,:;\n\"“'(])| (?:to|so|into|in|for|by|with|without|and|as|please|an?|more|less|but|using|from|like|up|down|again|further)\b)"
    rf"|(?:this|that|these|those|my|our|your|his|her|their|the|any|each|all)(?: \S+){{0,3}}? {A_TEXT}\b|(?:the|what is|what['’]s) (?:following|above|below)\b)"
)
"""The text that a request is about."""
ASKING = r"(?:^|[.!?:;,(\"“—] ?|\b(?:please|and|then|now|but|also|just|kindly|to|you|me|how (?:do|can|could|would|should|might) (?:i|we|you)) )(?:please )?"
"""What stands before a verb that asks."""
COMPARATIVE = (
    r"(?:better|shorter|longer|simpler|clearer|briefer|nicer|kinder|friendlier|different|improved|revised|corrected|edited|rewritten|updated|polished|condensed|fixed"
    r"|(?:more|less) \w+|second|new|alternative|formal|informal|short|concise|simple|simplified)"
)
REWORKABLE = (
    r"(?:revis|edit|improv|correct|polish|chang|modif|alter|fix|lengthen|expand|extend|updat|simplif|adjust|adapt|convert|turn|refin|enhanc|tweak|tailor|touch|debug|refactor"
    r"|re-?writ|re-?phras|re-?word|re-?work|re-?draft|proof-?read|paraphras|shorten|condens|translat|make|mak)(?:e|y|ing|ify)?(?: up| on| upon)?"
)
ASKS_TO_REWORK = any_of(
    rf"{ASKING}(?:re-?write|re-?phrase|re-?word|re-?work|re-?draft|proof-?read|paraphrase|shorten|condense|translate)\b",
    rf"{ASKING}(?!mak){REWORKABLE}(?: \w+)? {POINTED_AT}",
    rf"{ASKING}(?:revise|edit|improve|correct|simplify|fix)(?: please)?:",
    rf"\b(?:make|making|get|keep) (?:it|this|that|them|these|those|(?:this|that|my|our|your|the)(?: \S+){{0,2}}? {A_TEXT})(?: \w+){{0,2}}? (?:\w+er|more|less|sound|read|into|as|fit|formal|informal|short|simple|concise|rhyme)\b",
    rf"{ASKING}(?:add|include|remove|replace|incorporate|insert|delete|drop|cut|put)\b[^.!?\n]{{0,60}}? (?:to|from|in|into|of|with) (?!your (?:answer|response|reply)){POINTED_AT}",
    rf"{ASKING}(?:remove|replace|delete|drop|cut) (?:the|my|this|that|these|those|any|all)(?: \w+){{0,2}}? (?:sentence|paragraph|line|word|title|part|section|greeting|ending)s?\b",
    r"(?:^|[.!?] )(?:now |again,? |but |and |even |a bit |please )*(?:shorter|longer|simpler|clearer|(?:more|less) \w+)(?:,? please| now)?[.!]?\Z",
    rf"\b(?:an?|another|your|the {COMPARATIVE})(?: [\w-]+){{0,3}}? (?:version|draft|rewrite|revision|paraphrase|translation|edit) of (?:{POINTED_AT}|my|your|our)",
    rf"\b(?:give|write|tell|show|try|provide|offer|suggest|create|produce|send|draft|want|need|like|have|make|generate)(?: me| us)? (?:(?:an?|the|some)(?: \w+)? {COMPARATIVE}|another)(?: \w+){{0,2}}? (?:{A_TEXT}|one|attempt|explanation)\b",
    rf"^\W{{0,8}}(?:another|(?:an? )?{COMPARATIVE}) (?:answer|response|reply|version|draft|one|wording|phrasing|title|summary)(?:,? please)?\W{{0,8}}\Z",
    rf"\b(?:need|want|like)s?(?: to have| to get)? (?:{POINTED_AT}|(?:this|that|it|them))(?: to be)? (?:revised|re-?written|edited|improved|corrected|polished|shortened|proof-?read|translated|re-?worked|re-?phrased|\w+er|(?:more|less) \w+)\b",
    rf"{POINTED_AT} needs? (?:editing|proof-?reading|revising|revision|polish|polishing|work|corrections?|to be)\b",
    r"\b(?:check|fix|correct)\b[^.!?\n]{0,40} (?:grammar|spelling|typos?|punctuation|wording)\b",
    rf"\b(?:check|fix|correct|find|spot)\b[^.!?\n]{{0,40}} (?:errors?|mistakes?|bugs?) (?:in|of|with) {POINTED_AT}",
    rf"\bwhat(?:['’]s| is) wrong (?:with|in) {POINTED_AT}",
    rf"\b(?:is|are) (?:this|that|these|the following|my)(?: \w+){{0,2}}? {A_TEXT}(?: \w+)? (?:correct|right|ok|okay|grammatical)\b",
    r"\b(?:what|where|why|how) (?:did|have|do) you (?:change|edit|alter|differ)\w*",
    # German
    r"\b(?:überarbeiten?|verbessern?|verbessere|formulieren?|korrigieren?|ändere|ändern|kürzen?)(?: sie| bitte| mir| doch)* (?:dies|den|die|das|mein|ihn|es|folgend)",
    r"\bschreiben?(?: sie)?[^.!?\n]{1,60}\bum\b",
    r"\b(?:kannst|könntest|können|könnten|würdest|würden|bitte)[^.!?\n]{0,80}(?:überarbeiten|verbessern|umschreiben|formulieren|korrigieren|ändern|kürzen)\b",
    # French
    r"\b(?:révise[zr]?|réécri(?:s|vez|re)|reformule[zr]?|améliore[zr]?|corrige[zr]?|modifie[zr]?|raccourci(?:s|ssez|r))(?: (?:ce|cet|cette|ces|mon|ma|mes|le|la|les|ton|ta|votre|moi)\b| l['’])",
    # Spanish
    r"\b(?:revis[ae]r?|reescrib(?:e|a|ir)|mejor(?:a|e|ar)|corrige|corrija|corregir|acort(?:a|e|ar)) (?:este|esta|esto|estos|estas|mi|mis|el|la|los|las|tu|su)\b",
    r"\b(?:revísa|reescríbe|mejóra|corríge|acórta)l[oa]s?\b",
    # Chinese
    r"(?:请|帮|麻烦|能否|能不能|可以|可否|把|将|给我|替我)[^。！？!?\n]{0,40}(?:修改|改写|改进|润色|重写|修订|优化|更正|纠正|缩短|改成|改为|换成)",
    r"(?:^|[。！？!?,;:])(?:修改|改写|改进|润色|重写|修订|优化|更正|纠正|缩短)",
    r"(?:修改|改写|改进|润色|重写|修订|优化|更正|纠正|缩短)(?:一下|这|下面|以下|上面|我的)",
)
ANSWERS = r"(?:answer|response|reply)"
ASKS_TO_COMPARE = any_of(
    rf"\b(?:compar\w+|contrast\w*|evaluat\w+|critiqu\w+|grade|judge|rate|assess\w*|review\w*|feedback)\b[\s\S]{{0,80}}\b{ANSWERS}s?\b",
    rf"\b(?:your|my|the|this|that|these|those|two|both|which|each|first|second|previous|last|other|better|student['’]?s?|{ANSWERS} [a-d1-4]) {ANSWERS}s?\b|\b{ANSWERS} (?:[ab1-4]|one|two)\b",
    r"\bon purpose\b|\b(?:deliberate|intentional|purpose)ly\b",
    r"antwort|réponse|respuesta|回答|答案|回复",
)
