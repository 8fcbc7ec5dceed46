"""RMBoost at a place of a dialogue: the label before the second answer, what an answer must not be, the pair and its records."""

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from configs.pairing_settings import ASPECTS, PairingSettings
from graphs.rmboost import labels_of
from store.records import Caught, Dialogue
from tests.graphs.conftest import FIRST, Part, Play, Played, seed_of
from tests.scripted import CutOff, said

ALWAYS_BETTER = {"recipe": "rmboost", "pairing": {"boost": {"better": 1.0}}}
ALWAYS_WORSE = {"recipe": "rmboost", "pairing": {"boost": {"better": 0.0}}}


def boosted(answer: str = "a much fuller and quite other text", **fields: Any) -> str:
    return json.dumps({"aspects": ["helpfulness"], "plan": "say more", "answer": answer} | fields)


def in_turn(*replies: str) -> Part:
    left = iter(replies)
    return lambda _: next(left)


def caught(played: Played) -> list[tuple[str, str, str]]:
    return [(row.reason, row.outcome, row.agent or "") for row in played.of(Caught)]


def side(played: Played, branch: str) -> list[str]:
    (dialogue,) = (row for row in played.of(Dialogue) if row.branch == branch)
    return [played.turns[turn].content for turn in dialogue.turn_ids]


@pytest.mark.parametrize(("given", "second"), [(ALWAYS_BETTER, "chosen"), (ALWAYS_WORSE, "rejected")])
def test_the_second_answer_stands_on_the_side_of_its_label(play: Play, given: Any, second: str) -> None:
    played = play(**given, parts={"boost": lambda _: boosted()})
    first = "rejected" if second == "chosen" else "chosen"
    assert side(played, second) == ["the first instruction", "a much fuller and quite other text"]
    assert side(played, first) == ["the first instruction", "answer to <the first instruction>"]
    (pair,), (edit,) = played.pairs, played.perturbations
    assert (pair.method, pair.label_source, pair.intended_label, pair.judged_label) == (
        "rmboost", "construction", "chosen", None,
    )  # fmt: skip
    assert pair.aspects == edit.aspects == ("helpfulness",)
    assert (edit.kind, edit.direction, edit.plan, edit.verdict) == (
        "rmboost_edit", "better" if second == "chosen" else "worse", "say more", "unchecked",
    )  # fmt: skip
    assert edit.dialogue_id == (pair.chosen_id if second == "chosen" else pair.rejected_id)
    assert played.turns[edit.turn_id].perturbation_id == edit.perturbation_id


def test_the_writer_is_told_the_first_answer_its_label_and_the_aspects_of_the_domain(play: Play) -> None:
    given = {"recipe": "rmboost", "pairing": {"domain": "summaries", "boost": {"better": 0.0}}}
    played = play(**given, parts={"boost": lambda _: boosted(aspects=["coverage"])})
    (prompt,) = played.asked("boost")
    assert "<answer>\nanswer to < /answer>" not in prompt
    assert "<answer>\nanswer to <the first instruction>\n</answer>" in prompt
    assert "clearly worse than this one" in prompt
    assert all(f"- {name}: {meaning}" in prompt for name, meaning in ASPECTS["summaries"].items())


def test_aspects_drawn_by_chance_are_offered_alone(play: Play) -> None:
    given = {"recipe": "rmboost", "pairing": {"boost": {"chosen_by": "chance", "most_aspects": 1}}}
    played = play(**given, parts={"boost": lambda _: boosted(aspects=["whatever"])})
    (pair,), (prompt,) = played.pairs, played.asked("boost")
    assert pair.aspects is not None
    assert len(pair.aspects) == 1
    assert [name for name in ASPECTS["general"] if f"- {name}: " in prompt] == list(pair.aspects)


def test_labels_come_from_the_place_alone_and_in_the_share_that_is_asked_for() -> None:
    pairing = PairingSettings.model_validate({"boost": {"better": 0.3, "chosen_by": "chance"}})
    drawn = [labels_of(pairing, f"dlg_{number}", 3)[0] for number in range(2000)]
    assert drawn == [labels_of(pairing, f"dlg_{number}", 3)[0] for number in range(2000)]
    share = sum(label.direction == "better" for label in drawn) / len(drawn)
    assert share == pytest.approx(0.3, abs=3 * (0.21 / 2000) ** 0.5)
    assert {len(label.aspects or ()) for label in drawn} == {1, 2}
    assert {label.direction for label in labels_of(PairingSettings.model_validate({"boost": {"labels": "both"}}), "d", 1)} == {
        "better", "worse",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("no JSON at all", "unparsable"),
        (boosted(aspects=["speed"]), "unparsable"),
        (boosted(aspects=["helpfulness", "honesty", "truthfulness"]), "unparsable"),
        (json.dumps({"aspects": ["honesty"], "answer": "no plan is given"}), "unparsable"),
        ("", "empty"),
        (boosted("  "), "empty"),
        (boosted("answer to <the first instruction>"), "near_identical"),
        (boosted("Answer to the first instruction!"), "near_identical"),
        (boosted("Here is the revised version: tea is a drink."), "speaks_of_editing"),
    ],
)
def test_a_second_answer_that_cannot_be_used_is_asked_for_again_and_counted(play: Play, bad: str, reason: str) -> None:
    played = play(**ALWAYS_BETTER, parts={"boost": in_turn(bad, boosted())})
    assert caught(played) == [(reason, "asked_again", "perturbation")]
    assert side(played, "chosen")[-1] == "a much fuller and quite other text"
    assert played.perturbations[0].attempts == 2
    first, again = played.asked("boost")
    assert "<refused>" not in first
    assert again.count("<refused>") == 1


def test_after_its_repairs_the_first_answer_is_drawn_anew_under_the_same_label(play: Play) -> None:
    numbers = count(1)
    bad = ["nothing"] * 3
    played = play(
        **ALWAYS_WORSE,
        parts={"chat": lambda _: f"plain answer of number {next(numbers)}", "boost": in_turn(*bad, boosted())},
    )
    assert caught(played) == [("unparsable", "asked_again", "perturbation")] * 3
    assert side(played, "chosen")[-1] == "plain answer of number 2"
    assert "<refused>" not in played.asked("boost")[-1]
    assert {prompt.count("clearly worse") for prompt in played.asked("boost")} == {1}


def test_a_place_whose_redraws_are_spent_makes_no_pair_and_the_dialogue_goes_on_from_its_first_answer(
    play: Play,
) -> None:
    numbers = count(1)
    played = play(
        recipe="rmboost",
        turns=2,
        pairing={"places": "every", "redraws": 1, "boost": {"repairs": 0}},
        parts={"chat": lambda _: f"plain answer of number {next(numbers)}", "boost": lambda _: "nothing"},
    )
    assert played.pairs == []
    assert [row.outcome for row in played.of(Caught)] == ["asked_again", "no_pair"] * 2
    assert played.texts() == [
        "the first instruction",
        "plain answer of number 1",
        "question 1",
        "plain answer of number 3",
    ]


def test_a_cut_off_first_answer_makes_no_pair(play: Play) -> None:
    played = play(**ALWAYS_WORSE, parts={"chat": lambda _: " ", "boost": lambda _: boosted()})
    assert caught(played) == [("empty", "asked_again", "assistant")] * 2 + [("empty", "no_pair", "assistant")]
    assert played.pairs == []
    assert played.outcome.done == 1


def test_both_labels_make_two_pairs_of_one_first_answer(play: Play) -> None:
    played = play(
        recipe="rmboost",
        pairing={"boost": {"labels": "both"}},
        parts={"boost": lambda text: boosted("a fine full text" if "clearly better" in text else "some poor thing")},
    )
    pairs = played.pairs
    texts = {row.dialogue_id: played.turns[row.turn_ids[-1]].content for row in played.of(Dialogue)}
    assert [(texts[pair.chosen_id], texts[pair.rejected_id]) for pair in pairs] == [
        ("a fine full text", "answer to <the first instruction>"),
        ("answer to <the first instruction>", "some poor thing"),
    ]
    assert len({pair.pair_id for pair in pairs}) == 2


def test_a_second_answer_of_another_length_is_refused_where_a_limit_stands(play: Play) -> None:
    given = {"recipe": "rmboost", "pairing": {"boost": {"longest": 2.0, "better": 1.0}}}
    played = play(
        **given, parts={"boost": in_turn(boosted("word " * 12), boosted("so"), boosted("a good text of words"))}
    )
    assert [reason for reason, _, _ in caught(played)] == ["too_long", "too_short"]


def judge_by(better: Callable[[str], bool]) -> Part:
    """Prefers the answer of which `better` holds, in either place; the same in each aspect."""

    def judge(prompt: str) -> str:
        first = prompt.split("<answer_a>\n")[1].split("\n</answer_a>")[0]
        side = "A" if better(first) else "B"
        return json.dumps({"rationale": "r", "aspects": {"helpfulness": side}, "better": side})

    return judge


VERIFIED = {"recipe": "rmboost", "pairing": {"boost": {"better": 1.0, "verify": True}}}


def test_a_verified_answer_carries_the_judges_label_overall_and_by_aspect(play: Play) -> None:
    judge = judge_by(lambda text: "fuller" in text)
    played = play(**VERIFIED, parts={"boost": lambda _: boosted(), "prefer": judge})
    (pair,), (edit,) = played.pairs, played.perturbations
    assert (pair.intended_label, pair.judged_label, edit.verdict) == ("chosen", "chosen", "landed")
    rows = [(row.rubric, row.presentation, row.verdict) for row in played.judgements]
    assert sorted(rows) == [
        ("aspect: helpfulness", "chosen_first", "chosen"),
        ("aspect: helpfulness", "rejected_first", "chosen"),
        ("prefer", "chosen_first", "chosen"),
        ("prefer", "rejected_first", "chosen"),
    ]
    assert len({row.judgement_id for row in played.judgements}) == 4
    assert all(f"- {name}: " not in prompt for prompt in played.asked("prefer") for name in ("honesty", "truthfulness"))


@pytest.mark.parametrize(
    ("reply", "reason"),
    [("other way", "missed"), ("always A", "tie"), ("no JSON", "invalid")],
)
def test_an_answer_that_judges_do_not_find_to_deserve_its_label_makes_no_pair(
    play: Play, reply: str, reason: str
) -> None:
    other_way = judge_by(lambda text: "fuller" not in text)
    replies: dict[str, Part] = {
        "other way": other_way,
        "always A": lambda _: '{"better": "A"}',
        "no JSON": lambda _: "?",
    }
    given = {
        "recipe": "rmboost",
        "judge_repairs": 0,
        "pairing": {"redraws": 0, "boost": {"better": 1.0, "verify": True, "repairs": 1}},
    }
    played = play(**given, parts={"boost": lambda _: boosted(), "prefer": replies[reply]})
    assert played.pairs == []
    assert played.judgements == []
    assert caught(played) == [(reason, "asked_again", "perturbation"), (reason, "no_pair", "perturbation")]


def test_without_agreement_required_the_pair_keeps_both_labels(play: Play) -> None:
    given = {"recipe": "rmboost", "pairing": {"boost": {"better": 1.0, "verify": True, "require_agreement": False}}}
    judge = judge_by(lambda text: "fuller" not in text)
    played = play(**given, parts={"boost": lambda _: boosted(), "prefer": judge})
    (pair,), (edit,) = played.pairs, played.perturbations
    assert (pair.intended_label, pair.judged_label, edit.verdict) == ("chosen", "rejected", "missed")
    assert played.of(Caught) == []


@pytest.mark.parametrize(
    ("goes_on", "expected"),
    [("first", "answer to <the first instruction>"), ("chosen", "a much fuller and quite other text")],
)
def test_the_dialogue_goes_on_from_the_answer_that_the_settings_name(play: Play, goes_on: str, expected: str) -> None:
    given = {
        "recipe": "rmboost",
        "turns": 2,
        "pairing": {"places": {"bernoulli": 1.0}, "go_on_from": goes_on, "boost": {"better": 1.0}},
    }
    numbers = count(1)
    boosts = in_turn(boosted(), boosted("the second boost of them all"))
    chat = lambda text: "answer to <the first instruction>" if "first" in text else f"late answer {next(numbers)}"  # noqa: E731
    played = play(**given, parts={"boost": boosts, "chat": chat})
    assert played.texts()[:2] == ["the first instruction", expected]
    assert f"<assistant>\n{expected}\n</assistant>" in played.asked("boost")[1]
    first, second = played.pairs
    assert (first.first_divergent_turn, second.first_divergent_turn) == (1, 2)
    trunks = [
        set(row.turn_ids[:-1])
        for row in played.of(Dialogue)
        if row.dialogue_id in (second.chosen_id, second.rejected_id)
    ]
    assert trunks[0] == trunks[1] == set(played.dialogues["main"].turn_ids[:3])
    turns = [turn for row in played.of(Dialogue) for turn in row.turn_ids]
    assert set(turns) == set(played.turns), "every turn of a dialogue is there, and no other"


def test_a_given_conversation_is_boosted_at_its_own_answers_and_nothing_is_played(play: Play) -> None:
    seed = seed_of(
        said("user", "Who wrote it?"), said("assistant", "A schoolmaster."),
        said("user", "Why?"), said("assistant", "To explain hard words."),
    )  # fmt: skip
    given = {
        "recipe": "rmboost", "seeds": {"path": "x", "cut": "last_assistant"},
        "pairing": {"play": False, "boost": {"better": 0.0}},
    }  # fmt: skip
    numbers = count(1)
    played = play(**given, seed=seed, parts={"boost": lambda _: boosted(f"a poor thing of number {next(numbers)}")})
    assert [call.purpose for call in played.calls] == ["boost", "boost"]
    texts = {row.dialogue_id: [played.turns[turn].content for turn in row.turn_ids] for row in played.of(Dialogue)}
    assert [(texts[pair.chosen_id], texts[pair.rejected_id]) for pair in played.pairs] == [
        (["Who wrote it?", "A schoolmaster."], ["Who wrote it?", "a poor thing of number 1"]),
        (
            ["Who wrote it?", "A schoolmaster.", "Why?", "To explain hard words."],
            ["Who wrote it?", "A schoolmaster.", "Why?", "a poor thing of number 2"],
        ),
    ]
    assert played.dialogues["main"].termination_reason == "as_given"


def test_a_given_answer_is_not_drawn_anew(play: Play) -> None:
    seed = seed_of(said("user", "Who wrote it?"), said("assistant", "A schoolmaster."))
    given = {"recipe": "rmboost", "seeds": {"path": "x", "cut": "last_assistant"}, "pairing": {"play": False}}
    played = play(**given, seed=seed, parts={"boost": lambda _: "nothing"})
    assert caught(played) == [("unparsable", "asked_again", "perturbation")] * 2 + [
        ("unparsable", "no_pair", "perturbation")
    ]


def test_a_writer_that_fails_leaves_the_dialogue_with_its_first_answer(play: Play) -> None:
    def fails(_: str) -> str:
        raise ValueError("the writer is out")

    played = play(**ALWAYS_BETTER, parts={"boost": fails}, seed=FIRST)
    assert played.texts() == ["the first instruction", "answer to <the first instruction>"]
    (row,) = played.of(Caught)
    assert (row.source, row.outcome) == ("provider", "no_pair")
    assert played.pairs == []


def test_with_both_labels_no_pair_is_made_of_a_first_answer_that_something_is_wrong_with(play: Play) -> None:
    answers = iter(["plain answer of number 1", "", ""])
    played = play(
        recipe="rmboost",
        pairing={"redraws": 2, "boost": {"labels": "both", "repairs": 0}},
        parts={
            "chat": lambda _: next(answers),
            "boost": lambda text: "junk" if "clearly better" in text else boosted("a poor and other thing of words"),
        },
    )
    assert side(played, "chosen")[-1] == "plain answer of number 1"
    assert len(played.pairs) == 1
    assert played.texts()[-1] == "plain answer of number 1"


def test_with_both_labels_a_redraw_goes_on_with_the_label_at_work_alone(play: Play) -> None:
    numbers = count(1)
    worse = iter(["junk", boosted("a poor and other thing of words")])
    played = play(
        recipe="rmboost",
        pairing={"redraws": 1, "boost": {"labels": "both", "repairs": 0}},
        parts={
            "chat": lambda _: f"plain answer of number {next(numbers)}",
            "boost": lambda text: boosted() if "clearly better" in text else next(worse),
        },
    )
    assert len(played.pairs) == 2
    assert [("better" in prompt.split("clearly ")[1][:6]) for prompt in played.asked("boost")] == [True, False, False]


def test_each_place_of_a_dialogue_draws_a_label_of_its_own() -> None:
    pairing = PairingSettings.model_validate({"boost": {"better": 0.5}})
    drawn = [labels_of(pairing, "dlg", depth)[0].direction for depth in range(400)]
    assert 150 < drawn.count("better") < 250


def test_a_second_answer_that_was_cut_off_makes_no_pair_though_it_can_be_read(play: Play) -> None:
    played = play(**ALWAYS_BETTER, parts={"boost": in_turn(CutOff(boosted()), boosted("another text, and whole"))})
    assert caught(played) == [("cut_off", "asked_again", "perturbation")]
    assert side(played, "chosen")[-1] == "another text, and whole"


def test_a_first_answer_that_was_cut_off_makes_no_pair(play: Play) -> None:
    chat = in_turn(CutOff("so it begins"), "so it begins and ends")
    played = play(**ALWAYS_BETTER, parts={"chat": chat, "boost": lambda _: boosted()})
    assert caught(played) == [("cut_off", "asked_again", "assistant")]
    assert side(played, "rejected")[-1] == "so it begins and ends"


def test_every_verdict_is_a_call_of_its_own(play: Play) -> None:
    judge = judge_by(lambda text: "sound" in text)
    played = play(
        **VERIFIED, parts={"boost": in_turn(boosted("quite a bad one"), boosted("a sound one")), "prefer": judge}
    )
    calls = [call.call_id for call in played.calls if call.purpose == "prefer"]
    assert len(calls) == len(set(calls)) == 4


def test_a_tie_that_is_kept_is_a_miss(play: Play) -> None:
    given = {"recipe": "rmboost", "pairing": {"boost": {"better": 0.0, "verify": True, "require_agreement": False}}}
    played = play(**given, parts={"boost": lambda _: boosted(), "prefer": lambda _: '{"better": "A"}'})
    (pair,), (edit,) = played.pairs, played.perturbations
    assert (pair.judged_label, edit.verdict, pair.n_contrast_turns) == ("tie", "missed", 0)


def test_the_turn_that_is_answered_excuses_talk_of_editing_and_no_older_one(play: Play) -> None:
    seed = seed_of(
        said("user", "Please revise this e-mail: Dear all."), said("assistant", "Dear friends."), said("user", "Who wrote it?"),
    )  # fmt: skip
    boosts = in_turn(boosted("Here is the revised version: a clerk did."), boosted("A clerk of the court wrote it."))
    played = play(**ALWAYS_BETTER, seed=seed, parts={"boost": boosts})
    assert caught(played) == [("speaks_of_editing", "asked_again", "perturbation")]


def test_a_dialogue_can_go_on_from_the_worse_side(play: Play) -> None:
    given = {
        "recipe": "rmboost",
        "turns": 2,
        "pairing": {"places": "every", "go_on_from": "rejected", "boost": {"better": 0.0}},
    }
    numbers = count(1)
    played = play(**given, parts={"boost": lambda _: boosted(f"a poor thing of number {next(numbers)}")})
    assert played.texts()[1::2] == ["a poor thing of number 1", "a poor thing of number 2"]
