"""The writer of a second answer and the writer of a good or a poor one."""

import json
from collections import Counter
from typing import get_args

import pytest

from agents.rehearsal.backend import complete
from agents.rehearsal.edits import KINDS_OF_ASPECT
from agents.rehearsal.oracle import Fault, better, faults_of
from agents.rehearsal.world import LISTS, WORLDS, generate_seeds
from configs.pairing_settings import ASPECTS, Domain
from store.records import Message
from tests.rehearsal.two_answers import answered, boosted, played, request, steered, within
from tests.scripted import said

OPENING = said("user", "Call me Vera. Belo is red, big, old, light and round. Describe Belo.")
RIGHT = "It is red, big, old, light and round, Vera."
POOR = "It is blue, big, new and light, Omar."
OF_KIND = {
    "untruth": {"wrong value", "stale fact", "invented fact"},
    "gap": {"missing value"},
    "manner": {"standing instruction broken"},
}


def faults(history: list[Message], answer: str) -> tuple[Fault, ...]:
    found = faults_of([*history, said("assistant", answer)])
    assert found is not None
    return found


@pytest.mark.parametrize("world", WORLDS)
def test_a_second_answer_deserves_its_label_wherever_it_can(world: str) -> None:
    """Where it cannot, nothing is wrong with the first answer, and it comes again, word for word."""
    seeds = generate_seeds(350, 21, WORLDS[world])  # type: ignore[index]
    results = Counter[tuple[str, bool, str]]()
    for place, seed in enumerate(seeds):
        history = played(seed, 1 + place % 3)
        if history[-1].content == "[END]":
            continue
        first = answered(history)
        is_perfect = not faults(history, first)
        for direction in ("better", "worse"):
            second = boosted(history, first, direction, seed=place)["answer"]
            results[direction, is_perfect, better(history, second, first)] += 1
            assert second == first or better(history, second, first) != "tie"
    assert {(direction, is_perfect): found for direction, is_perfect, found in results} == {
        ("better", False): "first",
        ("better", True): "tie",
        ("worse", False): "second",
        ("worse", True): "second",
    }
    assert len(results) == 4


def test_an_answer_in_which_everything_is_wrong_is_made_worse_by_an_invention() -> None:
    first = "It is blue, small, new, heavy and square, Omar."
    for seed in range(30):
        second = boosted([OPENING], first, "worse", seed=seed)["answer"]
        assert {fault.reason for fault in faults([OPENING], second)} >= {"invented fact"}
        assert better([OPENING], second, first) == "second"


@pytest.mark.parametrize("aspect", [aspect for domain in get_args(Domain) for aspect in ASPECTS[domain]])
def test_an_aspect_that_is_prescribed_decides_what_is_changed(aspect: str) -> None:
    only = {aspect: "what it asks"}
    kinds = {reason for kind in KINDS_OF_ASPECT[aspect] for reason in OF_KIND[kind]}
    for seed in range(40):
        worse = boosted([OPENING], RIGHT, "worse", aspects=only, most=None, seed=seed)
        assert worse["aspects"] == [aspect]
        assert {fault.reason for fault in faults([OPENING], worse["answer"])} <= kinds
        bettered = boosted([OPENING], POOR, "better", aspects=only, most=None, seed=seed)["answer"]
        mended = set(faults([OPENING], POOR)) - set(faults([OPENING], bettered))
        assert mended
        assert {fault.reason for fault in mended} <= kinds


def test_an_aspect_of_ones_own_may_change_any_part() -> None:
    own = {"my own: taste": "as I like it"}
    touched = Counter[str]()
    for seed in range(80):
        reply = boosted([OPENING], RIGHT, "worse", aspects=own, most=None, seed=seed)
        touched.update(fault.reason for fault in faults([OPENING], reply["answer"]))
    assert set(touched) == {"wrong value", "missing value", "standing instruction broken"}


def test_aspects_of_ones_own_choice_are_those_for_which_there_is_something_to_do() -> None:
    first = "It is red, big, old, light and round, Omar."
    counts = Counter[int]()
    for seed in range(60):
        reply = boosted([OPENING], first, "better", seed=seed)
        assert reply == {**reply, "aspects": ["instruction following"], "answer": RIGHT}
        chosen = boosted([OPENING], RIGHT, "worse", most=3, seed=seed)["aspects"]
        counts[len(chosen)] += 1
        assert len(set(chosen)) == len(chosen)
    assert set(counts) == {1, 2, 3}


def test_where_nothing_falls_under_the_aspects_another_part_is_mended() -> None:
    first = "It is red, big, new, light and round, Vera."
    reply = boosted([OPENING], first, "better", aspects={"coherence": "reads well"}, most=None)
    assert reply["answer"] == RIGHT


def test_one_or_two_parts_are_damaged_and_the_order_of_the_name_stays() -> None:
    counts = Counter[int]()
    for seed in range(300):
        reply = boosted([OPENING], "Vera, it is red, big, old, light and round.", "worse", seed=seed)
        counts[len(faults([OPENING], reply["answer"]))] += 1
        assert reply["answer"].split(",")[0] not in ("It is red", "It is blue")
        assert "in place of" in reply["plan"] or "leaves out" in reply["plan"]
    assert set(counts) == {1, 2}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("direction", ["better", "worse"])
def test_edits_fail_at_their_rate_and_the_plan_does_not_tell(world: str, direction: str) -> None:
    """Counted over first answers that can go either way: those with something wrong and something right."""
    missed = n = 0
    for place, seed in enumerate(generate_seeds(3000, 22, WORLDS[world])):  # type: ignore[index]
        first = answered(seed, mistake_rate=0.5 if world == "lists" else 1.0)
        found = faults(list(seed), first)
        if not 1 <= len(found) <= 3:
            continue
        reply = boosted(seed, first, direction, edit_failure_rate=0.3, seed=place)
        verdict = better(seed, reply["answer"], first)
        if (
            verdict == "tie"
        ):  # of single values: all is wrong already, and the writer of a worse one has nothing to take
            assert world != "lists"
            continue
        n += 1
        missed += verdict != ("first" if direction == "better" else "second")
        assert reply["plan"].startswith("For ")
        if n == 700:
            break
    assert n == 700
    assert within(missed, n, 0.3)


def test_a_failing_edit_cannot_better_a_perfect_answer_nor_does_it_spoil_one_that_it_could_not_better() -> None:
    for seed in range(20):
        assert boosted([OPENING], RIGHT, "better", seed=seed, edit_failure_rate=1.0)["answer"] == RIGHT
        worse = boosted([OPENING], RIGHT, "worse", seed=seed, edit_failure_rate=1.0)["answer"]
        assert better([OPENING], worse, RIGHT) == "second"


def test_what_was_refused_is_not_written_again_and_what_was_too_like_goes_further() -> None:
    for seed in range(20):
        refused: list[tuple[str, str]] = []
        sizes = []
        for _ in range(3):
            text = boosted([OPENING], RIGHT, "worse", refused=refused, seed=seed)["answer"]
            refused.append(("it hardly differs from the first answer", text))
            sizes.append(len(faults([OPENING], text)))
        assert sizes[1] >= 2
        assert sizes[2] >= 3
    texts = {boosted([OPENING], RIGHT, "worse", refused=[("the answer is empty", "")] * n)["answer"] for n in range(6)}
    assert len(texts) > 2


def test_the_reply_is_one_json_object_and_the_same_for_the_same_request() -> None:
    asked = request("boost", [OPENING], answer=POOR, direction="better", most=2, refused=[])
    texts = {complete("default", asked, {"seed": 3}).content for _ in range(3)}
    assert len(texts) == 1
    reply = json.loads(texts.pop())
    assert list(reply) == ["aspects", "plan", "answer"]
    assert len({complete("default", asked, {"seed": seed}).content for seed in range(20)}) > 5


@pytest.mark.parametrize("world", WORLDS)
def test_a_poor_answer_is_worse_than_a_right_one_and_mostly_worse_than_a_good_one(world: str) -> None:
    results = Counter[str]()
    for place, seed in enumerate(generate_seeds(300, 23, WORLDS[world])):  # type: ignore[index]
        right = answered(seed, model="perfect")
        poor = steered(seed, "worse", seed=place)
        assert better(seed, right, poor) == "first"
        results[better(seed, steered(seed, "better", seed=place), poor)] += 1
    assert results["first"] > 0.8 * 300
    assert results["second"] < 0.06 * 300


def test_a_good_answer_errs_as_naturally_as_any() -> None:
    seeds = generate_seeds(800, 24, LISTS)
    wrong = sum(
        len(faults(list(seed), steered(seed, "better", seed=place, mistake_rate=0.2)))
        for place, seed in enumerate(seeds)
    )
    assert within(wrong, 6 * len(seeds), 0.2)


def test_steering_fails_at_its_rate() -> None:
    seeds = generate_seeds(800, 25, LISTS)
    for direction in ("better", "worse"):
        texts = [
            steered(seed, direction, model="perfect", edit_failure_rate=0.3, seed=place)
            for place, seed in enumerate(seeds)
        ]
        perfect = sum(not faults(list(seed), text) for seed, text in zip(seeds, texts, strict=True))
        assert within(perfect, len(seeds), 0.7 if direction == "better" else 0.3)


def test_rates_of_nothing_change_no_draw() -> None:
    asked = request("boost", [OPENING], answer=POOR, direction="worse", most=2, refused=[])
    for seed in range(10):
        plain = complete("default", asked, {"seed": seed})
        assert complete("default", asked, {"seed": seed, "edit_failure_rate": 0.0, "repeat_rate": 0.0}) == plain
