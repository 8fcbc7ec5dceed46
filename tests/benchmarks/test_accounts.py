"""The checks of `benchmarks.accounts` find what they are for."""

from collections.abc import Sequence

import pytest

from agents.rehearsal.request_log import Arrival
from benchmarks.accounts import Corpus, Killed, differences, duplicates, ends_of, good_dialogues, payments


def log_of(*asked: tuple[int, str], seconds_apart: float = 0.1) -> list[Arrival]:
    """Requests by the seed of their call, with what became of each at once."""
    return [
        Arrival("s", number, at, f"call {seed}", None, {"seed": seed}, end, 200, at, "text")  # type: ignore[arg-type]
        for number, (seed, end) in enumerate(asked)
        for at in [number * seconds_apart]
    ]


def killed(arrivals: int, *, paid: Sequence[int] = (), at: float = 0.2) -> Killed:
    return Killed(arrivals, at, frozenset(f"call {seed}" for seed in paid), ())


ANSWERED_TWICE = ((1, "answered"), (2, "fault"), (2, "answered"), (1, "answered"))


@pytest.mark.parametrize(
    ("kills", "again", "unexplained"),
    [
        ([], 0, 1),
        ([killed(2)], 0, 0),
        ([killed(2, at=9.0)], 0, 1),
        ([killed(4)], 0, 1),
        ([killed(2, paid=[1])], 1, 1),
        ([killed(4, paid=[1, 2])], 0, 1),
    ],
    ids=["no kill", "in flight", "answered long before", "killed after both", "noted before", "noted after both"],
)
def test_what_was_paid_twice_is_found_unless_a_kill_explains_it(
    kills: list[Killed], again: int, unexplained: int
) -> None:
    found = payments(log_of(*ANSWERED_TWICE), kills, timeout_seconds=2.0)
    assert (found.answered_again, found.again_though_noted, found.not_in_flight) == (1, again, unexplained)
    assert (found.requests, found.calls, found.timed_out) == (4, 2, 0)


def test_a_call_that_is_asked_again_after_its_time_out_is_told_apart() -> None:
    found = payments(log_of(*ANSWERED_TWICE, seconds_apart=0.7), [], timeout_seconds=2.0)
    assert (found.answered_again, found.timed_out, found.not_in_flight) == (1, 1, 0)


def corpus(**changes: str) -> Corpus:
    """One pair of two dialogues of a turn each, with a verified contrast and a judge who compares."""
    value = {"text": "hi", "status": "done", "verify": "done", "compare": "the pair", "verdict": "landed"} | changes
    dialogue = {"seed_id": "s", "trial": 0, "termination_reason": "max_turns", "error": None}
    sides = [
        dialogue | {"dialogue_id": "c", "turn_ids": ["t"], "status": "done"},
        dialogue | {"dialogue_id": "r", "turn_ids": ["u"], "status": value["status"]},
    ]
    return Corpus(
        {
            "campaigns": [],
            "seeds": [{"seed_id": "s"}],
            "dialogues": sides,
            "turns": [{"turn_id": "t", "content": "hello"}, {"turn_id": "u", "content": value["text"]}],
            "perturbations": [{"perturbation_id": "p", "dialogue_id": "r", "verdict": value["verdict"]}],
            "judgements": [{"judgement_id": "j", "dialogue_id": None, "pair_id": "x"}],
            "pairs": [{"pair_id": "x", "chosen_id": "c", "rejected_id": "r"}],
            "calls": [
                {"call_id": "k", "dialogue_id": "r", "purpose": "verify", "status": value["verify"], "attempts": 1},
                {"call_id": "l", "dialogue_id": "c", "purpose": "compare", "status": "done", "said": value["compare"]},
            ],
            "dialogue_stats": [],
        }
    )


def differing(ours: Corpus) -> dict[str, int]:
    found = differences(ours, corpus(), good_dialogues(ours))
    return {table: odd for table, (_, odd) in found.items() if odd}


def test_a_row_of_a_good_dialogue_that_differs_is_found() -> None:
    assert differing(corpus()) == {}
    assert differing(corpus(text="ho")) == {"turns": 1}
    assert differing(corpus(verdict="missed", compare="another pair")) == {"perturbations": 1, "calls": 1}


def test_a_dialogue_whose_judge_failed_is_not_held_against_the_faultless_one() -> None:
    hurt = corpus(verify="failed", text="ho", verdict="unchecked", compare="another pair")
    assert good_dialogues(hurt) == {"c"}
    assert differing(hurt) == {}


def test_dialogues_without_a_proper_end_are_found() -> None:
    ours = corpus(status="running")
    assert ends_of(ours, corpus()).nameless == 1
    assert ends_of(corpus(status="failed"), corpus()).nameless == 1  # without an error
    ours.tables["dialogues"].pop()
    assert ends_of(ours, corpus()).missing == 1


def test_an_id_that_is_there_twice_is_found() -> None:
    ours = corpus()
    assert duplicates(ours) == {}
    ours.tables["turns"].append(ours.tables["turns"][0])
    assert duplicates(ours) == {"turns": 1}
