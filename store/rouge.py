"""ROUGE-L of two texts, and a session's Self-ROUGE: how far a user's queries repeat one another. Pure functions."""

import re
from collections.abc import Sequence

from rapidfuzz.distance import LCSseq

TOKEN = re.compile(r"[a-z0-9]+")
"""What ROUGE counts (rouge_score's tokens, unstemmed): runs of Latin letters and digits, in lower case."""
SELF_ROUGE_TOKENS = 1_000
"""A query's tokens beyond these do not count in Self-ROUGE, so that long pasted texts cost no minutes: ours."""


def rouge_tokens(text: str) -> list[str]:
    """The tokens of a text. Letters outside a to z part tokens and are none themselves, as ROUGE's tokenizer has it."""
    return TOKEN.findall(text.lower())


def lcs_f1(one: Sequence[str], other: Sequence[str]) -> float:
    """2 LCS / (m + n) of two lists of m and n tokens: F1 of ROUGE-L (Lin 2004, section 3.1); 0 where one is empty."""
    if not one or not other:
        return 0.0
    return 2 * LCSseq.similarity(one, other) / (len(one) + len(other))


def rouge_l(one: str, other: str) -> float:
    """ROUGE-L F1 of two texts, from 0 to 1, the same either way round; 0 where one has no tokens."""
    return lcs_f1(rouge_tokens(one), rouge_tokens(other))


def self_rouge(queries: Sequence[str]) -> float | None:
    """Self-ROUGE of a session, from 0 (no two queries share a token) to 100 (all are alike); null below two queries.

    The mean over its queries of the mean ROUGE-L F1 to each other query of the session, times 100: as F1 is the same
    either way round, that is the mean over all pairs. Parrot (arXiv 2310.07301) reports a Self-ROUGE of 12.5 for its
    set; how it computes it is not known to us, so the definition is ours and the figures need not be comparable.
    """
    tokens = [rouge_tokens(query)[:SELF_ROUGE_TOKENS] for query in queries]
    if len(tokens) < 2:
        return None
    pairs = [lcs_f1(one, other) for place, one in enumerate(tokens) for other in tokens[:place]]
    return 100 * sum(pairs) / len(pairs)
