"""What the second answer of a pair must not be, as pure functions of two texts and a prompt: no model is asked.

It must say something, be whole, differ from the first answer, and speak to the user alone: of no other answer, no editing, and
none of the aspects that it was written for (`agents.answer_talk`).

Where two answers are the same (`near_identical`): with the same words and signs of arithmetic, once case, other punctuation
and a polite opening or close ("Sure!", "I hope this helps!") are taken off, they always are; neither the order of sentences nor how
often one is said is a difference. A line of a list is a sentence: bullets in another order are the same again, numbered ones are
not, as each number then goes with other words. Code in a fence is one sentence: its order counts. Otherwise two things must come
together: ROUGE-L F1 of the words (characters in Chinese and Japanese) reaches the threshold, and fewer words of content
changed than one for every WORDS_A_CHANGE. So in up to twenty words one is enough: "It is red, Vera." and "It is blue, Vera."
differ at any threshold. In thirty words a single changed one is no difference, though it may be one of fact: a threshold of
1.0 lets all but the same words pass. No answer is so long that MANY_CHANGED words, a sentence or two, are not enough.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from typing import Literal

from rapidfuzz.distance import LCSseq

from agents.answer_talk import CJK, speaks_of_aspects, speaks_of_editing

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
    if is_empty(answer, prompt):
        return "empty"
    if cut_off:
        return "cut_off"
    if first is not None and hardly_differ(answer, first, near_identical):
        return "near_identical"
    before = prompt, first or ""
    if speaks_of_editing(answer, *before):
        return "speaks_of_editing"
    return "speaks_of_aspects" if speaks_of_aspects(answer, *before, aspects) else None


NOTHING = re.compile(r"[^\w.]*(?:(null|n/a|nil|undefined|nan)\.?|(none))[^\w.]*", re.IGNORECASE)
"""What a program writes for no answer. "None." with its full stop is a sentence, and one that may be right."""
FENCE = re.compile(r"^[ \t]*(?:```|~~~)[\w+-]*[ \t]*$", re.MULTILINE)


def is_empty(answer: str, prompt: str = "") -> bool:
    """Whether there is no letter, digit or symbol, but for a word for nothing that the prompt neither has nor can be asking for.

    Punctuation and an empty block of code say nothing, and an emoji does.
    """
    nothing = NOTHING.fullmatch(answer.strip())
    if nothing:
        word = nothing[1] or nothing[2]
        return not re.search(rf"(?<!\w){word}(?!\w)|\bhow (?:many|much)\b", prompt, re.IGNORECASE)
    kinds = map(unicodedata.category, FENCE.sub("", answer))
    return not any(kind[0] in "LNS" and kind != "Sk" for kind in kinds)


# the same again

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


SENTENCE_END = re.compile(rf"(?<=[{CJK}][!?])|[。！？]|(?<!\A\d[.)])(?<!\A\d\d[.)])(?<=[.!?])[*_\"”')\]]*\s+")
"""In a line; not after the number of a list's item."""
FENCED = re.compile(r"^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


def bare_text(answer: str) -> str:
    """What an answer says, in one case, without polite words at its ends."""
    text = unicodedata.normalize("NFKC", answer).strip()
    bare = CLOSING.sub("", OPENING.sub("", text)).casefold()
    return bare if TOKEN.search(bare) else text.casefold()


def sentences_of(bare: str) -> dict[tuple[str, ...], None]:
    """The words of each sentence and of each block of code, once and in order; light words where there are no others."""
    pieces: list[str] = []
    end = 0
    for start, stop in [*(block.span() for block in FENCED.finditer(bare)), (len(bare), len(bare))]:
        for line in bare[end:start].splitlines():
            pieces += SENTENCE_END.split(line.strip(" \t*#>-"))
        pieces.append(bare[start:stop])
        end = stop
    each = (TOKEN.findall(piece) for piece in pieces)
    return {tuple([word for word in words if word not in LIGHT] or words): None for words in each if words}


def hardly_differ(one: str, other: str, threshold: float) -> bool:
    """Whether two answers are the same but for what does not matter; the file's head says when."""
    bare, bare_before = bare_text(one), bare_text(other)
    said, before = TOKEN.findall(bare), TOKEN.findall(bare_before)
    if said == before:
        return bool(said) or one.split() == other.split()
    if _repeats(said, before) or _repeats(before, said):
        return True
    if _few_changes(said, before, 0, threshold):
        return True
    words, words_before = set(said), set(before)
    if len(words & words_before) * 2 < max(len(words), len(words_before)):  # no need to look at their sentences
        return False
    return _same_sentences(bare, bare_before, threshold)


def _repeats(said: list[str], before: list[str]) -> bool:
    """Whether one is the other several times in a row."""
    times, rest = divmod(len(said), max(1, len(before)))
    return times > 1 and not rest and said == before * times


def _same_sentences(bare: str, bare_before: str, threshold: float) -> bool:
    """Whether few words differ once the sentences that both have are put side by side."""
    sentences, sentences_before = sentences_of(bare), sentences_of(bare_before)
    both = sentences.keys() & sentences_before.keys()
    if not both:
        return False
    said, before = (
        [word for words in each if words not in both for word in words] for each in (sentences, sentences_before)
    )
    return _few_changes(said, before, sum(map(len, both)), threshold)


def _few_changes(said: list[str], before: list[str], shared: int, threshold: float) -> bool:
    """Whether two texts hardly differ that have these words, and so many more in common."""
    total = len(said) + len(before) + 2 * shared
    both = (Counter(said) & Counter(before)).total() + shared
    if 2 * both < threshold * total:  # no need to look at their order
        return False
    number = {
        word: chr(place) for place, word in enumerate(dict.fromkeys([*before, *said]))
    }  # texts align faster than lists
    moves = LCSseq.editops("".join(map(number.__getitem__, before)), "".join(map(number.__getitem__, said)))
    put_in = [said[move.dest_pos] for move in moves if move.tag == "insert"]
    left_out = [before[move.src_pos] for move in moves if move.tag == "delete"]
    if 2 * (len(said) - len(put_in) + shared) < threshold * total:  # ROUGE-L F1: 2 LCS / (m + n)
        return False
    changed = max(sum(word not in LIGHT for word in words) for words in (put_in, left_out))
    longest = max(len(said), len(before)) + shared
    return changed < min(MANY_CHANGED, math.ceil(longest / WORDS_A_CHANGE))
