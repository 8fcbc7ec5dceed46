"""QA Feedback and TL;DR, two published sets of people's preferences: the turn that a user would have written, and which of
two answers was preferred. Knows rows alone, neither files nor conversations.

Where their columns were looked up stands in docs/seeds.md. The wording of both turns is ours.
"""

import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any, Literal, NamedTuple

from store.rows import RowError, at, kind, list_at, text_at, text_of

LeftOut = Literal["tie", "undecided", "identical", "empty"]
"""Why a comparison makes no pair: nobody is preferred, nobody said, both texts are the same, or one has none."""


class Preferred(NamedTuple):
    """Two answers to one prompt."""

    chosen: str
    rejected: str


def preferred(chosen: str, rejected: str) -> Preferred | LeftOut:
    """A pair of answers, without the space that models begin with, or why it is none."""
    pair = Preferred(chosen.strip(), rejected.strip())
    if not all(pair):
        return "empty"
    return "identical" if pair.chosen == pair.rejected else pair


# QA Feedback: question, passages, `prediction 1` to `prediction 4`, `preference` of their six comparisons

QA_PREDICTION = re.compile(r"prediction [1-9]\d*")
QA_TEXTS = ("question", "text", "gold", *(f"prediction {number}" for number in range(1, 10)))


def is_qa_feedback(row: dict[str, Any]) -> bool:
    return isinstance(row.get("question"), str) and isinstance(row.get("passages"), list)


def qa_prompt(row: dict[str, Any]) -> str:
    """The question, and under it the numbered passages that an answer may rest on, each with the title of its page."""
    question = text_of(at(row, "question"), "question").strip()
    if not question:
        raise RowError("question is empty")
    passages = at(row, "passages")
    if not isinstance(passages, list):
        raise RowError(f"passages should be a list, not {kind(passages)}")
    texts = [_passage(passage, f"passages[{place}]") for place, passage in enumerate(passages)]
    if not texts:  # the question alone, as for a few of the set
        return question
    return "\n\n".join([question, "Passages:", *(f"[{number}] {text}" for number, text in enumerate(texts, start=1))])


def _passage(passage: Any, where: str) -> str:
    """A title and its sentences, as a list (the files of feedback) or as `wikipage` and `content` (the others)."""
    if isinstance(passage, dict):
        title, text = text_at(passage, "wikipage", where), text_at(passage, "content", where)
    else:
        title, *sentences = (text_of(part, f"{where}[{place}]") for place, part in enumerate(list_at(passage, where)))
        text = " ".join(sentence.strip() for sentence in sentences)
    text = text.strip().removeprefix(f"{title}\n\n").strip()  # the first passage of a page begins with its title
    return f"{title}\n{text}" if text else title


def qa_answer(row: dict[str, Any]) -> str | None:
    """What people wrote: `gold` in the files of feedback, the first `answer` in the others."""
    if "gold" in row:
        return text_of(row["gold"], "gold")
    return text_of(list_at(row["answer"], "answer")[0], "answer[0]") if row.get("answer") else None


def qa_comparisons(row: dict[str, Any]) -> Iterator[Preferred | LeftOut]:
    """Of each two predictions, in the order 1 and 2, 1 and 3, ..: 1 is for the first, 2 for the second, 0 for neither."""
    keys = sorted(filter(QA_PREDICTION.fullmatch, row), key=lambda key: int(key.split()[1]))
    texts = [text_of(row[key], key) for key in keys]
    two = list(combinations(texts, 2))
    verdicts = list_at(at(row, "preference"), "preference")
    if len(verdicts) != len(two):
        raise RowError(f"preference has {len(verdicts)} verdicts: {len(texts)} predictions make {len(two)} comparisons")
    for place, (verdict, (one, other)) in enumerate(zip(verdicts, two, strict=True)):
        if verdict is None:
            yield "undecided"
        elif isinstance(verdict, bool) or verdict not in (0, 1, 2):
            raise RowError(f"preference[{place}] is {verdict!r}: it should be 1 or 2, whichever is better, or 0")
        elif verdict == 0:
            yield "tie"
        else:
            yield preferred(one, other) if verdict == 1 else preferred(other, one)


# TL;DR: `info` of a post or an article with two `summaries` and a `choice`; a post with the author's summary; or TRL's text

TLDR_TEXTS = ("title", "post", "summary", "prompt", "completion", "chosen", "rejected")
TRL_TLDR = re.compile(
    r"\s*(?:SUBREDDIT:\s*r/(?P<subreddit>\S+)\s+)?TITLE:(?P<title>[^\n]*)\n\s*(?:POST:)?(?P<post>.*?)\s*TL;DR:\s*",
    re.DOTALL,
)


def is_tldr(row: dict[str, Any]) -> bool:
    """Whether `info` holds a post or an article, or the row itself a post with its summary, or a prompt of TRL's set."""
    info, prompt = row.get("info"), row.get("prompt")
    if isinstance(info, dict):
        return bool({"post", "article"} & info.keys()) and ("summaries" in row or "summary" in row)
    if isinstance(prompt, str):
        others = [row[key] for key in ("completion", "chosen", "rejected") if key in row]
        return all(isinstance(text, str) for text in others) and TRL_TLDR.fullmatch(prompt) is not None
    return {"post", "summary", "subreddit"} <= row.keys()


def tldr_prompt(row: dict[str, Any]) -> str:
    """A request for a summary, the title, and the post or article."""
    info = row.get("info", row)
    if not isinstance(info, dict):
        raise RowError(f"info should be an object with a post or an article, not {kind(info)}")
    if info is row and isinstance(row.get("prompt"), str):
        found = TRL_TLDR.fullmatch(row["prompt"])
        if not found:
            raise RowError('prompt is not "SUBREDDIT: ... TITLE: ... POST: ... TL;DR:", as TRL writes it')
        info = found.groupdict() if found["subreddit"] else {"title": found["title"], "article": found["post"]}
    # Parquet has all keys of `info` in every row, null where a post or an article has none
    what = next((key for key in ("post", "article") if info.get(key) is not None), None)
    if what is None:
        raise RowError(f"neither post nor article stands in the row (there are: {', '.join(info) or 'none'})")
    text, title = text_of(info[what], what).strip(), text_of(info.get("title") or "", "title").strip()
    if not text:
        raise RowError(f"{what} is empty")
    subreddit = text_of(info.get("subreddit") or "", "subreddit").strip()
    where = f" from r/{subreddit}" if subreddit and what == "post" else ""
    ask = f"Summarise this {what}{where} in one or two sentences, as its TL;DR."
    return "\n\n".join([ask, *([f"Title: {title}"] if title else []), text])


def tldr_answer(row: dict[str, Any]) -> str | None:
    """The preferred summary, or what the post's author wrote; null for a summary that was only rated."""
    if "summaries" in row:
        verdict = tldr_comparison(row)
        return verdict.chosen if isinstance(verdict, Preferred) else None
    author = next((row[key] for key in ("completion", "chosen", "summary") if isinstance(row.get(key), str)), None)
    return author.strip() if author else None


def tldr_comparison(row: dict[str, Any]) -> Preferred | LeftOut:
    """`choice` is the place of the better one of two `summaries`."""
    summaries = list_at(at(row, "summaries"), "summaries")
    if len(summaries) != 2:
        raise RowError(f"summaries should be two, not {len(summaries)}")
    texts = [text_at(summary, "text", f"summaries[{place}]") for place, summary in enumerate(summaries)]
    choice = at(row, "choice")
    if choice is None:
        return "undecided"
    if isinstance(choice, bool) or choice not in (0, 1):
        raise RowError(f"choice is {choice!r}: it should be 0 or 1, the place of the better summary")
    return preferred(texts[choice], texts[1 - choice])


def tldr_metadata(row: dict[str, Any]) -> dict[str, Any]:
    """What `info` says beside the text: the post's id and subreddit, or the article's id and site."""
    info = row.get("info")
    keys = ("id", "subreddit", "site")
    return {key: info[key] for key in keys if info.get(key) is not None} if isinstance(info, dict) else {}
