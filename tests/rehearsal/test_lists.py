"""The world of descriptions, in which one answer is better than another by degrees."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from agents.prompts import CONTEXT_VARIABLES, Prompts, transcript
from agents.rehearsal.backend import complete
from agents.rehearsal.oracle import Fault, better, faults_of, grade, parts
from agents.rehearsal.reading import Outside, read, read_answer, remember
from agents.rehearsal.world import EASY, HARD, LISTS, OPPOSITE, Answer, generate_seeds, write_answer
from store.identity import content_hash
from store.records import Message
from tests.rehearsal.two_answers import answered, played, within
from tests.scripted import said

Ask = Callable[..., str]
OPENING = said("user", "Call me Vera. Belo is red, big, old, light and round. Describe Belo.")
RIGHT = "It is red, big, old, light and round, Vera."
SEEDS = generate_seeds(2000, 5, LISTS)


def reasons(*contents: str) -> tuple[str, ...]:
    roles = ("user", "assistant")
    messages = [Message.model_validate({"role": roles[i % 2], "content": text}) for i, text in enumerate(contents)]
    return grade(messages)[-1].reasons


def test_the_seeds_of_the_other_worlds_are_what_they_were() -> None:
    digests = [content_hash([seed[0].content for seed in generate_seeds(100, 7, world)]) for world in (EASY, HARD)]
    assert digests == ["f39349120a69f9f09f52", "ccb5915d135b575a0472"]


@pytest.mark.parametrize(
    "asked", ["Describe it.", "Describe Belo.", "What is it like?", "What is Belo like now?", "Tell me about it again."]
)
def test_a_description_is_all_that_is_known_in_the_order_in_which_it_was_told(asked: str) -> None:
    history = [said("user", f"Call me Vera. Belo is red, big and old. It is also soft. It is small now. {asked}")]
    texts = {answered(history, model="perfect", seed=seed) for seed in range(20)}
    assert texts == {"It is red, small, old and soft, Vera.", "Vera, it is red, small, old and soft."}


def test_an_ellipsis_asks_for_a_description_where_one_was_asked_for_before() -> None:
    history = [said("user", "Belo is red and big. Kira is blue and old. Describe Belo.")]
    history += [said("assistant", "It is red and big."), said("user", "And Kira?")]
    assert answered(history, model="perfect") == "It is blue and old."
    history += [said("assistant", "It is blue and old."), said("user", "What is its age?")]
    assert answered(history, model="perfect") == "It is old."


def test_what_was_never_described_cannot_be_and_one_value_is_a_description_too() -> None:
    assert answered([said("user", "Belo is red. Describe Kira.")], model="perfect") == "I do not know that."
    assert answered([said("user", "Describe it.")], model="perfect") == "I do not know that."
    assert answered([said("user", "Belo is red. Describe it.")], model="perfect") == "It is red."


@pytest.mark.parametrize("values", [("red",), ("red", "big"), ("red", "big", "old", "light", "round")])
@pytest.mark.parametrize("name_first", [False, True])
def test_a_written_description_reads_back_as_it_was_meant(values: tuple[str, ...], name_first: bool) -> None:
    answer = Answer(None, "Vera", None).saying(values)
    assert read_answer(write_answer(answer, name_first=name_first)) == answer
    assert answer.said == values


@pytest.mark.parametrize(
    ("answer", "faults"),
    [
        (RIGHT, ()),
        ("Vera, it is round, light, old, big and red.", ()),
        ("It is red, big, new, light and round, Vera.", (("wrong value", "age"),)),
        ("It is red, big, old and round, Vera.", (("missing value", "weight"),)),
        ("It is red, big, old, light, round and soft, Vera.", (("invented fact", "feel"),)),
        ("It is red, blue, big, old, light and round, Vera.", (("wrong value", "colour"),)),
        ("It is red, big, old, light and round, Omar.", (("standing instruction broken", "name"),)),
        (
            "It is blue, small and old, Karl.",
            (
                ("wrong value", "colour"),
                ("wrong value", "size"),
                ("missing value", "weight"),
                ("missing value", "shape"),
                ("standing instruction broken", "name"),
            ),
        ),
        ("I do not know that, Vera.", tuple(("no answer", a) for a in ("colour", "size", "age", "weight", "shape"))),
        ("Noted, Vera.", tuple(("no answer", a) for a in ("colour", "size", "age", "weight", "shape"))),
    ],
)
def test_every_part_of_a_description_is_judged_by_itself(answer: str, faults: tuple[tuple[Any, str], ...]) -> None:
    assert faults_of([OPENING, said("assistant", answer)]) == tuple(Fault(*fault) for fault in faults)
    assert set(reasons(OPENING.content, answer)) == ({reason for reason, _ in faults} or {"right"})


def test_a_value_that_held_before_is_stale() -> None:
    told = (OPENING.content, RIGHT, "No, it is blue now. Describe it again.")
    assert reasons(*told, "It is blue, big, old, light and round, Vera.") == ("right",)
    assert reasons(*told, RIGHT) == ("stale fact",)


def test_a_value_of_another_thing_is_the_wrong_ones() -> None:
    told = "Belo is red and big. Kira is blue and small. Describe Belo."
    assert reasons(told, "It is red and small.") == ("wrong entity",)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (RIGHT, "It is red, big, old, light and square, Vera.", "first"),
        ("It is red, big, old and light, Omar.", "It is red, big, old and light, Vera.", "second"),
        ("It is blue, big, old, light and round, Vera.", "It is red, big, old and light, Vera.", "tie"),
        (RIGHT, RIGHT, "tie"),
        (RIGHT, "It is a fine thing.", "unknown"),
    ],
)
def test_fewer_faults_are_better(one: str, other: str, expected: str) -> None:
    turned = {"first": "second", "second": "first"}
    assert better([OPENING], one, other) == expected
    assert better([OPENING], other, one) == turned.get(expected, expected)


def test_of_single_values_the_right_one_is_better_and_outside_the_world_nobody_knows() -> None:
    history = [said("user", "Call me Ilse. Belo is red. What is its colour?")]
    assert better(history, "It is red, Ilse.", "It is blue, Ilse.") == "first"
    assert better(history, "It is blue, Omar.", "It is blue, Ilse.") == "second"
    assert better([said("user", "Which planets have rings?")], "Saturn has.", "None.") == "unknown"


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_each_part_goes_wrong_at_the_mistake_rate_and_a_third_of_the_wrong_values_are_left_out(rate: float) -> None:
    found = Counter[str]()
    for seed in SEEDS:
        faults = faults_of([*seed, said("assistant", answered(seed, mistake_rate=rate))])
        assert faults is not None
        found.update(fault.reason for fault in faults)
    values = 5 * len(SEEDS)
    assert within(found["wrong value"], values, rate * 2 / 3)
    assert within(found["missing value"] + found["no answer"], values, rate / 3)
    assert within(found["standing instruction broken"], len(SEEDS), rate)
    assert set(found) <= {"wrong value", "missing value", "no answer", "standing instruction broken"}


def test_answers_in_which_only_values_are_wrong_are_alike_in_length() -> None:
    for seed in SEEDS[:300]:
        answer = answered(seed, model="varied")
        faults = faults_of([*seed, said("assistant", answer)])
        assert faults is not None
        missing = sum(fault.reason == "missing value" for fault in faults)
        if missing < 3 and not any(fault.reason == "no answer" for fault in faults):
            assert len(answer.split()) == 9 - missing


def test_samples_differ_and_mostly_one_of_them_is_better() -> None:
    ties = sum(better(seed, answered(seed, seed=1), answered(seed, seed=2)) == "tie" for seed in SEEDS[:1000])
    assert 0.2 < ties / 1000 < 0.3


def test_dialogues_go_on_with_news_and_ask_for_another_description() -> None:
    said_before = Counter[str]()
    for seed in SEEDS[:60]:
        messages = played(seed, 6)
        spoken = [message.content for message in messages if message.role == "user"]
        assert len(set(spoken)) >= 5
        said_before.update(spoken[1:])
        assert not any(isinstance(sentence.event, Outside) for text in spoken for sentence in read(text))
        for end in range(2, len(messages), 2):
            memory, now = remember(messages[: end - 1]), remember(messages[: end + 1])
            assert now.describes
            assert now.right_answer() != memory.right_answer()
            right = answered(messages[: end + 1], model="perfect")
            assert faults_of([*messages[: end + 1], said("assistant", right)]) == ()
            assert parts(now) == 1 + len(now.right_answer().said)
    assert len(said_before) > 100


def test_a_user_who_may_not_say_it_again_does_not() -> None:
    for form in ("Describe it again.", "What is it like now?"):
        messages = [
            OPENING,
            said("assistant", RIGHT),
            said("user", f"It is blue now. {form}"),
            said("assistant", RIGHT),
        ]
        bare = [message.model_dump() for message in messages]
        texts = {complete("perfect", bare, {"seed": seed}).content for seed in range(50)}
        assert not texts & {message.content for message in messages}
        assert all(text.count(".") + text.count("?") == 2 for text in texts)


def test_an_altered_instruction_has_another_description(ask_role: Ask) -> None:
    for place, seed in enumerate(SEEDS[:60]):
        for history in (list(seed), played(seed, 2, model="perfect")):
            shown = {"transcript": transcript(history), "instruction": history[-1].content}
            altered = ask_role("alter", **shown, seed=place)
            answer = answered([*history[:-1], said("user", altered)], model="perfect")
            assert grade([*history, said("assistant", answer)])[-1].verdict == "wrong"


def test_a_judge_grades_a_description_by_its_share_of_right_parts(ask_role: Ask) -> None:
    def share(answer: str, other: str) -> Any:
        sides = {
            f"conversation_{name}": transcript([OPENING, said("assistant", text)])
            for name, text in (("a", answer), ("b", other))
        }
        return json.loads(ask_role("compare", model="perfect", **sides))["better"]

    assert share("It is red, big, old and light, Vera.", "It is red, big, new and light, Vera.") == "A"
    assert share("It is blue, small and new, Omar.", "It is red, big, new and light, Vera.") == "B"


def test_queries_for_a_description_can_be_guessed_misread_and_told_apart_from_the_context() -> None:
    prompts = Prompts(variables=CONTEXT_VARIABLES)

    def ask(task: str, **shown: Any) -> str:
        prompt = prompts.render(task, **shown)
        return complete("perfect", [{"role": "user", "content": prompt}], {}).content

    query, before = "Describe it again.", transcript([OPENING, said("assistant", RIGHT)])
    assert json.loads(ask("depends", transcript=before, query=query))["depends"] is True
    assert json.loads(ask("depends", transcript=before, query="Describe Belo."))["depends"] is False
    guess = ask("guess", query=query, missed=[])
    assert guess.endswith(query)
    assert len(remember([said("user", guess)]).right_answer().said) == 3
    misread = ask("misread", transcript=before, query=query, missed=[])
    told = remember([OPENING, said("user", misread)]).right_answer().said
    assert sum(OPPOSITE[value] in ("red", "big", "old", "light", "round") for value in told) == 1


def test_what_was_described_is_open_no_more() -> None:
    told = "Belo is red and big. Kira is blue. "
    assert {question.thing for question in remember([said("user", told + "Describe Belo.")]).open} == {"Kira"}
