"""The rehearsal as a judge: scores and comparisons from the prompt alone, with the faults that were planted."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from agents.judge import reference_text
from agents.prompts import JUDGING_VARIABLES, Prompts, transcript
from agents.rehearsal.backend import RehearsalError, complete
from tests.scripted import said

PROMPTS = Prompts(variables=JUDGING_VARIABLES)
OPENING = said("user", "Call me Ilse. Belo is red, big and old. What is its size?")
NEXT = said("user", "And its age?")
GOOD = (OPENING, said("assistant", "It is big, Ilse."), NEXT, said("assistant", "It is old, Ilse."))
HALF = (*GOOD[:3], said("assistant", "It is new, Ilse."))
BAD = (OPENING, said("assistant", "It is small, Nina."), *HALF[2:])
Judge = Callable[..., Any]


def judge(task: str, field: str = "score", /, *, model: str = "perfect", **given: Any) -> Any:
    parameters = {key: given.pop(key) for key in list(given) if key.endswith(("_rate", "_bias", "seed"))}
    prompt = PROMPTS.render(task, **given)
    return json.loads(complete(model, [{"role": "user", "content": prompt}], parameters).content)[field]


def test_a_score_follows_the_share_of_right_answers() -> None:
    scores = [judge("score", transcript=transcript(side)) for side in (GOOD, HALF, BAD)]
    assert scores[0] == 10
    assert scores[2] == 1
    assert 4 <= scores[1] <= 7


def test_realism_falls_with_queries_that_are_said_again_or_spell_everything_out() -> None:
    def grade(*queries: str) -> float:
        turns = [part for query in queries for part in (said("user", query), said("assistant", "It is big, Ilse."))]
        return float(judge("realism", transcript=transcript([OPENING, said("assistant", "It is red, Ilse."), *turns])))

    assert grade("And its age?", "What about its colour?") == 10
    assert grade("What is the age of Belo?", "Which colour has Belo?") == 1
    assert grade("And its age?", "And its age?") == grade("And its age?", "What is the age of Belo?")


def test_an_answer_is_scored_alone_whatever_went_wrong_before() -> None:
    before = transcript(BAD[:3])
    assert judge("score_turn", transcript=before, answer="It is old, Ilse.") == 10
    assert judge("score_turn", transcript=before, answer="It is new, Ilse.") == 1


def test_a_reference_counts_more_than_what_the_conversation_says() -> None:
    wrong = reference_text(["It is small, Nina.", "It is new, Ilse."])
    assert judge("reference", transcript=transcript(BAD), reference=wrong) == 10
    assert judge("reference", transcript=transcript(GOOD), reference=wrong) == 1
    only_first = reference_text(["Ilse, it is big."])  # the same in other words; the second turn by the conversation
    assert judge("reference", transcript=transcript(GOOD), reference=only_first) == 10
    turn = {"transcript": transcript(GOOD[:3]), "reference": reference_text(["It is new, Ilse."])}
    assert judge("reference_turn", answer="It is old, Ilse.", **turn) == 1
    sides = {"conversation_a": transcript(GOOD), "conversation_b": transcript(BAD)}
    assert judge("reference_compare", "better", **sides, reference=wrong) == "B"
    assert judge("compare", "better", **sides) == "A"


def test_text_from_outside_the_world_is_scored_by_what_it_takes_up() -> None:
    asked = said("user", "Describe the Eiffel tower and the Louvre museum.")
    full = (asked, said("assistant", "The Eiffel tower and the Louvre museum: I describe both."))
    empty = (asked, said("assistant", "Bananas."))
    assert judge("score", transcript=transcript(full)) > judge("score", transcript=transcript(empty))


def test_scores_err_at_the_judges_rate() -> None:
    scores = Counter(
        judge("score", transcript=transcript(GOOD), judge_error_rate=0.5, seed=seed) for seed in range(200)
    )
    assert set(scores) == set(range(1, 11))
    assert scores[10] / 200 == pytest.approx(0.55, abs=0.1)


@pytest.mark.parametrize("task", ["compare", "reference_compare"])
def test_a_length_bias_goes_to_the_side_with_more_text_in_that_share(task: str) -> None:
    long = (OPENING, said("assistant", "Nina, it is small."), NEXT, said("assistant", "It is new, Ilse. "))
    given = {"conversation_a": transcript(GOOD), "conversation_b": transcript(long)}
    if task == "reference_compare":
        given["reference"] = reference_text(["It is big, Ilse."])
    picks = Counter(judge(task, "better", length_bias=0.3, seed=seed, **given) for seed in range(300))
    assert picks["B"] / 300 == pytest.approx(0.3, abs=0.08)
    same = {**given, "conversation_b": given["conversation_a"]}
    assert {judge(task, "better", length_bias=1.0, seed=seed, **same) for seed in range(5)} == {"tie"}


def test_a_rate_above_one_is_refused() -> None:
    with pytest.raises(RehearsalError, match="length_bias=2: give a rate between 0 and 1"):
        judge("score", transcript=transcript(GOOD), length_bias=2)
