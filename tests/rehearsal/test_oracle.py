"""The oracle against transcripts written by hand."""

import pytest

from agents.rehearsal.oracle import TurnGrade, grade
from store.records import Message

OPENING = "Call me Ilse. Belo is red, big and old. What is its size?"


def graded(*contents: str) -> list[TurnGrade]:
    roles = ("user", "assistant")
    return grade([Message.model_validate({"role": roles[i % 2], "content": text}) for i, text in enumerate(contents)])


@pytest.mark.parametrize("answer", ["It is big, Ilse.", "Ilse, it is big.", "it is BIG, Ilse."])
def test_a_right_answer_is_right_in_either_order(answer: str) -> None:
    assert graded(OPENING, answer) == [TurnGrade(1, "right", ("right",), "big, called Ilse")]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("It is old, Ilse.", "wrong attribute"),
        ("It is small, Ilse.", "wrong value"),
        ("I do not know that, Ilse.", "no answer"),
        ("It is big, Omar.", "standing instruction broken"),
        ("It is big.", "standing instruction broken"),
    ],
)
def test_a_wrong_answer_is_wrong_for_its_reason(answer: str, reason: str) -> None:
    assert [(g.verdict, g.reasons) for g in graded(OPENING, answer)] == [("wrong", (reason,))]


def test_an_answer_to_two_people_is_none_of_this_world() -> None:
    assert graded(OPENING, "Omar, it is big, Ilse.")[0].verdict == "unknown"


def test_all_reasons_are_given_when_there_are_several() -> None:
    assert graded(OPENING, "Omar, it is old.")[0].reasons == ("wrong attribute", "standing instruction broken")


def test_the_old_value_is_stale_after_a_correction() -> None:
    told = (
        OPENING,
        "It is big, Ilse.",
        "No, it is small now. And the colour?",
        "It is red, Ilse.",
        "What is its scale?",
    )
    assert graded(*told, "It is small, Ilse.")[-1].verdict == "right"
    assert graded(*told, "It is big, Ilse.")[-1].reasons == ("stale fact",)


def test_an_elliptic_question_keeps_the_thing_and_takes_the_attribute_from_before() -> None:
    two = "Belo is red and big. Kira is blue and big. What is the colour of Belo?"
    assert graded(two, "It is red.", "And Kira?", "It is blue.")[-1].verdict == "right"
    assert graded(two, "It is red.", "And Kira?", "It is red.")[-1].reasons == ("wrong entity",)
    assert graded(two, "It is red.", "And the size?", "It is big.")[-1].verdict == "right"


def test_a_standing_instruction_holds_until_it_is_changed() -> None:
    told = (OPENING, "It is big, Ilse.", "Call me Omar. And the age?")
    assert graded(*told, "It is old, Omar.")[-1].verdict == "right"
    assert graded(*told, "It is old, Ilse.")[-1].reasons == ("standing instruction broken",)


def test_the_opening_word_is_a_standing_instruction() -> None:
    opening = "Begin with Well. " + OPENING
    assert graded(opening, "Well, it is big, Ilse.")[0].verdict == "right"
    assert graded(opening, "So, it is big, Ilse.")[0].reasons == ("standing instruction broken",)


def test_an_answer_about_what_was_never_said_is_invented() -> None:
    assert graded("Belo is red. What is its age?", "It is old.")[0].reasons == ("invented fact",)
    assert graded("Belo is red. What is its age?", "I do not know that.")[0].verdict == "right"


@pytest.mark.parametrize(
    ("question", "answer"),
    [(OPENING, "Well, size is relative."), (OPENING, ""), ("Explain photosynthesis.", "It is big, Ilse."), ("", "Hm.")],
)
def test_text_from_outside_the_world_is_unknown(question: str, answer: str) -> None:
    assert graded(question, answer)[0].verdict == "unknown"


def test_a_stray_sentence_beside_a_question_does_not_hide_it() -> None:
    assert graded("I found this at a market. " + OPENING, "It is big, Ilse.")[0].verdict == "right"
