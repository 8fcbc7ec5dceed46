"""Second answers that cannot be used: played by rates, and known from the request alone."""

import json
import re
from collections import Counter
from typing import Any

import pytest

from agents.rehearsal.backend import RehearsalError, complete, what_was_played
from agents.rehearsal.lapses import LAPSES, OF_A_PLAIN_ANSWER
from agents.rehearsal.world import PEOPLE
from tests.rehearsal.two_answers import request, within
from tests.scripted import said

OPENING = said("user", "Call me Vera. Belo is red, big, old, light and round. Describe Belo.")
FIRST = "It is red, big, old, light and round, Vera."
BOOST = request("boost", [OPENING], answer=FIRST, direction="worse", most=2, refused=[])
STEER = request("steer", [OPENING], direction="worse")


def texts(lapse: str, asked: list[dict[str, Any]] = BOOST) -> list[str]:
    rate = {f"{lapse}_rate": 1.0}
    return [complete("perfect", asked, {"seed": seed, **rate}).content for seed in range(60)]


def answers(lapse: str) -> list[str]:
    return [json.loads(text)["answer"] for text in texts(lapse)]


@pytest.mark.parametrize("asked", [BOOST, STEER], ids=["boost", "steer"])
def test_each_is_played_at_its_rate_and_known_from_the_request_alone(asked: list[dict[str, Any]]) -> None:
    rates = {f"{lapse}_rate": 0.1 for lapse in LAPSES}
    played = Counter(what_was_played("perfect", asked, {"seed": seed, **rates}) for seed in range(2000, 5000))
    own = LAPSES if asked is BOOST else OF_A_PLAIN_ANSWER
    assert set(played) == {*own, None}
    assert all(within(played[lapse], 3000, 0.1) for lapse in own)
    for lapse in own:
        only = {f"{lapse}_rate": 1.0}
        assert {what_was_played("default", asked, {"seed": seed, **only}) for seed in range(5)} == {lapse}
    assert what_was_played("default", asked, {}) is None


def test_what_is_played_is_what_it_is_called() -> None:
    plain = ["".join(filter(str.isalnum, answer)) for answer in answers("repeat")]
    assert set(plain) == {"".join(filter(str.isalnum, FIRST))}
    assert len(set(answers("repeat"))) > 2
    assert not any(answer.strip() for answer in answers("empty"))
    told = answers("editing")
    assert all(re.search("version|answer", text) and re.search("it is", text, re.IGNORECASE) for text in told)
    assert any(answer.startswith("Here is the revised version: ") for answer in told)
    spoken = answers("aspects")
    assert any(answer.startswith("To be more ") for answer in spoken)
    names = ("instruction following", "helpful", "honest", "truthful")
    assert all(any(name in answer for name in names) for answer in spoken)


def test_what_cannot_be_parsed_lacks_an_object_with_all_three() -> None:
    forms = Counter[str]()
    for text in texts("unparsable"):
        try:
            reply = json.loads(text)
        except json.JSONDecodeError:
            forms["no JSON"] += 1
            continue
        assert set(reply) < {"aspects", "plan", "answer"}
        forms["incomplete"] += 1
    assert set(forms) == {"no JSON", "incomplete"}


@pytest.mark.parametrize("asked", [BOOST, STEER], ids=["boost", "steer"])
def test_what_has_no_end_is_cut_off_by_any_limit(asked: list[dict[str, Any]]) -> None:
    done = complete("perfect", asked, {"endless_rate": 1.0, "max_tokens": 8192})
    assert done.finish_reason == "length"
    assert done.completion_tokens == 8192


def test_a_poor_answer_lapses_in_its_own_ways() -> None:
    assert not any(text.strip() for text in texts("empty", STEER))
    assert all(any(person in text for person in PEOPLE) for text in texts("editing", STEER))
    assert all(text.count("It is") + text.count("it is") == 1 for text in texts("repeat", STEER))


def test_an_attempt_after_a_refusal_has_a_chance_of_its_own() -> None:
    rates = {"empty_rate": 0.5}
    played = []
    for n in range(60):
        refused = [("the answer is empty", "")] * n
        asked = request("boost", [OPENING], answer=FIRST, direction="worse", most=2, refused=refused)
        played.append(what_was_played("perfect", asked, rates))
    assert 15 <= played.count("empty") <= 45


def test_rates_that_come_to_more_than_one_are_refused() -> None:
    with pytest.raises(RehearsalError, match=r"unusable second answers come to 1\.2"):
        complete("default", BOOST, {"repeat_rate": 0.6, "endless_rate": 0.6})


def test_only_second_answers_lapse() -> None:
    rates = {f"{lapse}_rate": 1 / 6 for lapse in LAPSES}
    bare = [OPENING.model_dump()]
    assert {complete("perfect", bare, {"seed": seed, **rates}).content for seed in range(30)} == {
        FIRST,
        "Vera, it is red, big, old, light and round.",
    }
    assert what_was_played("perfect", bare, rates) is None
