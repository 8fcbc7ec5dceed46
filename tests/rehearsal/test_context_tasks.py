"""Errors of context in the rehearsal's world, through the real prompts."""

import json
from typing import Any

import pytest

from agents.prompts import CONTEXT_VARIABLES, Prompts, transcript
from agents.rehearsal.backend import complete
from agents.rehearsal.oracle import grade
from agents.rehearsal.reading import remember
from store.records import Message

PROMPTS = Prompts(variables=CONTEXT_VARIABLES)


def told(*contents: str) -> list[Message]:
    return [
        Message.model_validate({"role": ("user", "assistant")[place % 2], "content": text})
        for place, text in enumerate(contents)
    ]


HISTORY = told("Call me Ilse. Belo is red, big and old. What is its size?", "It is big, Ilse.")
QUERIES = (
    "What is its colour?",
    "And the paint?",
    "Tell me the colour of Belo.",
    "No, it is new now. What about its age?",
)


def ask(task: str, **variables: Any) -> str:
    """`seed` and rates are the request's, all else the prompt's."""
    given = {key: variables.pop(key) for key in list(variables) if key == "seed" or key.endswith("_rate")}
    prompt = PROMPTS.render(task, **variables)
    return complete("perfect", [{"role": "user", "content": prompt}], {"seed": 0, **given}).content


def chat(*messages: Message) -> str:
    return complete("perfect", [message.model_dump() for message in messages], {}).content


@pytest.mark.parametrize("query", [*QUERIES, "And Belo?"])
def test_a_guess_brings_its_own_fact_and_can_be_answered_alone(query: str) -> None:
    texts = {ask("guess", query=query, missed=[], seed=seed) for seed in range(20)}
    assert len(texts) > 1
    for text in texts:
        memory = remember(told(text))
        assert memory.question is not None
        assert memory.value(memory.question) is not None, text
        (alone,) = grade(told(text, chat(*told(text))))
        assert alone.verdict == "right"
        assert "Ilse" not in chat(*told(text))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_alone_gets_no_answer_and_its_answer_is_wrong_with_the_history(query: str) -> None:
    answer = chat(*told(query))
    assert answer in ("I do not know that.", "It is new.")  # what the query says of itself is known
    assert grade([*HISTORY, *told(query, answer)])[-1].verdict == "wrong"


@pytest.mark.parametrize("query", QUERIES)
def test_a_misread_query_is_answered_wrongly_for_what_was_meant(query: str) -> None:
    for seed in range(20):
        text = ask("misread", transcript=transcript(HISTORY), query=query, missed=[], seed=seed)
        assert "Call me" not in text
        answer = chat(*HISTORY, *told(text))
        assert grade([*HISTORY, *told(query, answer)])[-1].verdict == "wrong", text


def test_what_missed_is_not_written_again() -> None:
    for task, shown in (("guess", {}), ("misread", {"transcript": transcript(HISTORY)})):
        missed: list[str] = []
        for _ in range(3):
            missed.append(ask(task, query="What is its colour?", missed=missed, **shown))
        assert len(set(missed)) == 3, task


def test_outside_the_world_one_word_gives_way_to_a_made_up_name() -> None:
    query = "Why did the emperor build that bridge?"
    texts = {ask("guess", query=query, missed=[], seed=seed) for seed in range(10)}
    assert len(texts) > 3
    for text in texts:
        assert len(set(query.split()) - set(text.split())) == 1
    assert ask("guess", query="Why?", missed=[]).startswith("Why? I mean ")


@pytest.mark.parametrize("kind", ["context_neglect", "context_hallucination", "context_misunderstanding"])
@pytest.mark.parametrize(
    ("answer", "fails"), [("It is red, Ilse.", False), ("I do not know that.", True), ("It is big, Ilse.", True)]
)
def test_the_judge_of_context_errs_no_more_often_than_asked_for(kind: str, answer: str, fails: bool) -> None:
    shown = {"transcript": transcript([*HISTORY, *told("What is its colour?")]), "answer": answer, "kind": kind}
    assert json.loads(ask("verify_context", **shown))["fails"] is fails
    errs = [json.loads(ask("verify_context", **shown, judge_error_rate=0.25, seed=n))["fails"] for n in range(200)]
    assert abs(errs.count(not fails) / 200 - 0.25) < 0.1
