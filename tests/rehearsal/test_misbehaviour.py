"""The rehearsal's user breaks its role by rates, and what was played is known without reading it."""

import json
from collections import Counter
from typing import Any

import pytest

from agents.prompts import GATE_VARIABLES, VARIABLES, Prompts, transcript
from agents.rehearsal.backend import RehearsalError, complete, what_was_played
from agents.rehearsal.misbehaviour import KINDS
from store.records import Message
from tests.scripted import said

PROMPTS = Prompts(variables=VARIABLES | GATE_VARIABLES)
CHAT = (
    said("user", "Call me Ilse. Belo is red, big and old. What is its size?"),
    said("assistant", "It is big, Ilse."),
    said("user", "And the colour?"),
    said("assistant", "It is red, Ilse."),
)


def request(form: str, messages: tuple[Message, ...] = CHAT, **given: Any) -> list[dict[str, Any]]:
    if form == "bare":
        return [message.model_dump() for message in messages]
    variables: dict[str, Any] = {"transcript": transcript(messages), "turns_left": 3, "caught": [], **given}
    names = (VARIABLES | GATE_VARIABLES)[form]
    return [{"role": "user", "content": PROMPTS.render(form, **{name: variables[name] for name in names})}]


@pytest.mark.parametrize("form", ["ask", "ask_again", "bare"])
def test_each_kind_is_played_at_its_rate_and_known_from_the_request_alone(form: str) -> None:
    asked = request(form)
    played = Counter(what_was_played("rehearsal/misbehaving", asked, {"seed": seed}) for seed in range(1000))
    assert all(played[kind] == pytest.approx(80, abs=30) for kind in KINDS)
    assert played[None] == pytest.approx(600, abs=60)
    for kind in KINDS:
        only = {f"{kind}_rate": 1.0}
        assert {what_was_played("default", asked, {"seed": seed, **only}) for seed in range(5)} == {kind}


def texts(form: str, kind: str, messages: tuple[Message, ...] = CHAT) -> set[str]:
    parameters = {f"{kind}_rate": 1.0}
    return {complete("default", request(form, messages), {"seed": seed, **parameters}).content for seed in range(60)}


@pytest.mark.parametrize("form", ["ask", "ask_again", "bare"])
def test_what_is_played_is_what_it_is_called(form: str) -> None:
    assert texts(form, "early_end") == {"[END]"}
    assert all("Belo is red, big and old" in text for text in texts(form, "restart"))
    assert {text.strip(" ?").lower() for text in texts(form, "repetition")} == {"and the colour"}
    assert any("red" in text for text in texts(form, "role_inversion")), "it answers the last question"
    assert all(text not in ("", "[END]") for text in texts(form, "leak"))
    assert len(texts(form, "leak")) > 5


def test_a_rate_of_nothing_changes_no_draw() -> None:
    for seed in range(20):
        asked = request("ask")
        plain = complete("default", asked, {"seed": seed}).content
        assert complete("default", asked, {"seed": seed, "leak_rate": 0.0, "restart_rate": 0.0}).content == plain
        assert what_was_played("default", asked, {"seed": seed}) is None


def test_only_the_user_misbehaves() -> None:
    always = {"role_inversion_rate": 1.0}
    for messages, answers in ((CHAT[:1], "big"), (CHAT[:3], "red")):
        asked = [message.model_dump() for message in messages]
        assert complete("perfect", asked, always).content in (f"It is {answers}, Ilse.", f"Ilse, it is {answers}.")
        assert what_was_played("default", asked, always) is None


def test_a_bare_conversation_that_ends_on_the_assistant_is_gone_on_with_by_the_user() -> None:
    played = {complete("default", request("bare"), {"seed": seed}).content for seed in range(40)}
    assert all(text.endswith(("?", ".")) and "Ilse" not in text for text in played)
    assert len(played) > 5
    assert "[END]" not in played


def test_asking_again_gives_another_query_than_those_that_were_caught() -> None:
    first = complete("default", request("ask"), {"seed": 1}).content
    for seed in range(40):
        again = complete("default", request("ask_again", caught=[("repetition", first)]), {"seed": seed}).content
        assert again not in (first, "[END]", *(message.content for message in CHAT))


def test_rates_that_come_to_more_than_one_are_refused() -> None:
    with pytest.raises(RehearsalError, match=r"come to 1\.2: together they may be 1 at most"):
        complete("default", request("ask"), {"leak_rate": 0.6, "restart_rate": 0.6})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("And the age?", "none"),
        ("It is red, Ilse.", "role_inversion"),
        ("It is old, Ilse.", "role_inversion"),
        ("Task: ask", "leak"),
        (CHAT[0].content, "restart"),
        ("and the colour", "repetition"),
    ],
)
def test_as_a_judge_it_tells_how_a_query_breaks_the_role(query: str, expected: str) -> None:
    asked = request("gate", query=query)
    verdicts = [json.loads(complete("perfect", asked, {"seed": seed}).content)["problem"] for seed in range(5)]
    assert verdicts == [expected] * 5
    wrong = [json.loads(complete("perfect", asked, {"judge_error_rate": 1.0}).content)["problem"]]
    assert wrong != [expected]
