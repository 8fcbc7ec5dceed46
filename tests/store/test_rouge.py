"""ROUGE-L and Self-ROUGE: on cases worked out by hand, and against the package of ROUGE's authors' successors."""

import random
import sys

import pytest

from store.rouge import SELF_ROUGE_TOKENS, rouge_l, rouge_tokens, self_rouge


def test_rouge_l_is_f1_of_the_longest_common_subsequence() -> None:
    # The longest common subsequence of
    #   the cat sat on the mat          (6 tokens)
    #   the dog sat on a mat today      (7 tokens)
    # is `the sat on mat`, 4 long: precision 4/7, recall 4/6,
    # F1 = 2 * 4/7 * 4/6 / (4/7 + 4/6) = 2 * 4 / (6 + 7) = 8/13.
    assert rouge_l("The cat sat on the mat.", "The dog sat on a mat today!") == pytest.approx(8 / 13)


def test_order_counts() -> None:
    # of `a b c d` and `d c b a` one token is in order: 2 * 1 / 8
    assert rouge_l("a b c d", "d c b a") == 0.25


def test_texts_without_tokens_have_nothing_in_common() -> None:
    assert rouge_l("?!", "...") == 0.0
    assert rouge_l("", "a word") == 0.0


def test_tokens_are_runs_of_latin_letters_and_digits() -> None:
    assert rouge_tokens("It's 25 km/h -- naïve_Bayes") == ["it", "s", "25", "km", "h", "na", "ve", "bayes"]


def test_self_rouge_is_the_mean_over_all_pairs_of_queries() -> None:
    # one two three | one two four | five
    #   first and second: `one two` of 3 and 3: 4/6; first and third: 0; second and third: 0
    #   by query: (2/3 + 0) / 2, (2/3 + 0) / 2, 0; their mean is 2/9, which is 22.2 of 100
    assert self_rouge(["one two three", "One, two: four", "five"]) == pytest.approx(100 * 2 / 9)


def test_a_session_of_one_query_repeats_nothing() -> None:
    assert self_rouge(["one"]) is None
    assert self_rouge([]) is None
    assert self_rouge(["Why?", "Why?"]) == 100.0


def test_of_a_long_query_only_the_beginning_counts_in_self_rouge() -> None:
    begins = "word " * SELF_ROUGE_TOKENS
    assert self_rouge([begins, begins + "and then something else"]) == 100.0


def _leave_stderr_open() -> None:
    """rouge_score loads absl, whose log handler closes the stderr that it was made with, here pytest's, when logging is set up anew."""
    from absl import logging

    logging.get_absl_handler().python_handler.setStream(sys.__stderr__)


def test_rouge_l_is_that_of_rouge_score_on_random_texts() -> None:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    _leave_stderr_open()
    dice = random.Random(0)
    words = ["the", "Cat", "isn't", "25.3", "naïve", "km/h", "--", "Why?", "東京", "snake_case", "A", "", "\n", "ÄRGER"]
    for _ in range(300):
        one, other = (" ".join(dice.choices(words, k=dice.randint(0, 30))) for _ in range(2))
        expected = scorer.score(one, other)["rougeL"].fmeasure
        assert rouge_l(one, other) == pytest.approx(expected), (one, other)
