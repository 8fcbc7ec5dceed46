"""RMBoost's rivals at a place of a dialogue: two judged samples, two steered answers, the best and the worst of several."""

import json
from collections.abc import Sequence
from itertools import count

import pytest

from agents.judge import Opinion
from configs.settings import CampaignSettings
from graphs.campaign import ScorerMissingError, check_scorer
from graphs.place import turned_round
from graphs.state import Comparison
from store.records import Caught, Dialogue, Message, Score
from tests.graphs.conftest import FIRST, Part, Play, Played, reward_model

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota")


def numbered() -> Part:
    """An assistant who never says the same twice: the longer, the later."""
    numbers = count(1)
    return lambda _: " ".join(WORDS[: next(numbers)])


def sides(played: Played) -> list[tuple[str, str]]:
    texts = {row.dialogue_id: played.turns[row.turn_ids[-1]].content for row in played.of(Dialogue)}
    return [(texts[pair.chosen_id], texts[pair.rejected_id]) for pair in played.pairs]


def reasons(played: Played) -> list[tuple[str, str]]:
    return [(row.reason, row.outcome) for row in played.of(Caught)]


def prefers(which: str) -> Part:
    """A judge who prefers the answer with a word, whichever side it stands on."""

    def judge(prompt: str) -> str:
        first = prompt.split("<answer_a>\n")[1].split("\n</answer_a>")[0]
        return json.dumps({"rationale": "r", "better": "A" if which in first else "B"})

    return judge


def test_judges_label_two_samples_in_both_orders(play: Play) -> None:
    played = play(recipe="rlaif", parts={"chat": numbered(), "prefer": prefers("beta")})
    assert sides(played) == [("alpha beta", "alpha")]
    (pair,) = played.pairs
    assert (pair.method, pair.intended_label, pair.judged_label) == ("rlaif", None, "chosen")
    assert pair.label_source.startswith("scripted/")
    assert sorted((row.presentation, row.verdict) for row in played.judgements) == [
        ("chosen_first", "chosen"), ("rejected_first", "chosen"),
    ]  # fmt: skip
    assert [call.purpose for call in played.calls] == ["answer", "answer", "prefer", "prefer"]


def test_verdicts_are_told_by_the_sides_of_the_pair_and_not_by_who_was_sampled_first(play: Play) -> None:
    played = play(recipe="rlaif", parts={"chat": numbered(), "prefer": prefers("beta")})
    for row in played.judgements:
        call = next(call for call in played.calls if call.call_id == row.call_id)
        assert call.messages is not None
        shown_first = call.messages[-1].content.split("<answer_a>\n")[1].split("\n</answer_a>")[0]
        assert (shown_first == "alpha beta") == (row.presentation == "chosen_first")


def test_a_judge_who_always_takes_the_first_side_makes_ties_and_no_pair(play: Play) -> None:
    played = play(
        recipe="rlaif", pairing={"redraws": 1}, parts={"chat": numbered(), "prefer": lambda _: '{"better": "A"}'}
    )
    assert played.pairs == []
    assert reasons(played) == [("tie", "asked_again"), ("tie", "no_pair")]
    assert played.texts() == ["the first instruction", "alpha"]


def test_samples_that_hardly_differ_are_not_judged(play: Play) -> None:
    played = play(recipe="rlaif", pairing={"redraws": 0}, parts={"chat": lambda _: "always the same words"})
    assert reasons(played) == [("near_identical", "no_pair")]
    assert played.asked("prefer") == []


def test_judges_go_by_their_majority(play: Play) -> None:
    judges = [{}, {"temperature": 0.1}, {"temperature": 0.2}]
    default = {"model": "scripted/x"}
    played = play(
        recipe="rlaif",
        parts={"chat": numbered(), "prefer": prefers("beta")},
        models={"default": default, "judges": judges},
    )
    assert sides(played) == [("alpha beta", "alpha")]
    assert len(played.judgements) == 6


def test_a_good_and_a_poor_answer_are_asked_for_apart(play: Play) -> None:
    played = play(
        recipe="rlcd",
        parts={"steer": lambda text: "a full and right answer" if "as good as you can" in text else "some poor thing"},
    )
    assert sides(played) == [("a full and right answer", "some poor thing")]
    (pair,) = played.pairs
    assert (pair.method, pair.label_source, pair.intended_label) == ("rlcd", "construction", "chosen")
    good, poor = played.asked("steer_better") + played.asked("steer_worse")
    assert "some poor thing" not in good
    assert "a full and right answer" not in poor


def test_a_steered_answer_that_speaks_of_its_making_is_drawn_anew(play: Play) -> None:
    good = iter(["Here is the revised version: tea is a drink.", "tea is a drink of leaves"])
    played = play(
        recipe="rlcd", parts={"steer": lambda text: next(good) if "as good as you can" in text else "no idea at all"}
    )
    assert reasons(played) == [("speaks_of_editing", "asked_again")]
    assert sides(played) == [("tea is a drink of leaves", "no idea at all")]


def test_both_steered_answers_are_held_to_the_rules_and_each_is_counted(play: Play) -> None:
    steer: Part = lambda text: f"Here is the revised version: {'tea' if 'as good' in text else 'mud'}."  # noqa: E731
    played = play(recipe="rlcd", pairing={"redraws": 0}, parts={"steer": steer})
    assert reasons(played) == [("speaks_of_editing", "no_pair")] * 2


@pytest.mark.parametrize("recipe", ["rlaif", "rlcd", "rmboost"])
def test_a_dialogue_goes_on_from_an_answer_that_nothing_is_wrong_with(play: Play, recipe: str) -> None:
    bad = 2 if recipe == "rlaif" else 1  # of a draw
    answers = iter([""] * bad + ["a sound answer"] * bad)
    good = iter(["", "a sound answer"])
    played = play(
        recipe=recipe,
        pairing={"redraws": 1},
        parts={
            "chat": lambda _: next(answers),
            "steer": lambda text: next(good) if "as good" in text else "a sound answer!",
            "boost": lambda _: "no JSON",
        },
    )
    assert played.pairs == []
    assert played.texts()[-1] == "a sound answer"


def by_words(conversations: Sequence[Sequence[Message]]) -> list[float | None]:
    return [float(len(messages[-1].content.split())) for messages in conversations]


def test_the_best_and_the_worst_of_several_make_the_pair_and_every_reward_is_kept(play: Play) -> None:
    scorer = reward_model(by_words)
    played = play(recipe="west_of_n", candidates=4, picks_by=scorer, parts={"chat": numbered()})
    assert sides(played) == [("alpha beta gamma delta", "alpha")]
    (pair,) = played.pairs
    assert (pair.label_source, pair.intended_label, pair.judged_label, pair.margin) == ("toy", None, None, 3.0)
    assert sorted(score.reward for score in played.of(Score)) == [1.0, 2.0, 3.0, 4.0]
    assert {score.fit_id for score in played.of(Score)} == {"fit_toy"}
    assert sum(row.branch == "candidate" for row in played.of(Dialogue)) == 2
    scored = {score.dialogue_id: score.reward for score in played.of(Score)}
    assert (scored[pair.chosen_id], scored[pair.rejected_id]) == (4.0, 1.0)


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        (lambda conversations: [1.0] * len(conversations), "tie"),
        (lambda conversations: [None] * len(conversations), "unscorable"),
        (lambda conversations: [float("nan")] * len(conversations), "unscorable"),
    ],
)
def test_rewards_that_tell_no_two_apart_make_no_pair(play: Play, rewards: object, reason: str) -> None:
    scorer = reward_model(rewards)  # type: ignore[arg-type]
    played = play(recipe="west_of_n", candidates=3, pairing={"redraws": 0}, picks_by=scorer, parts={"chat": numbered()})
    assert reasons(played) == [(reason, "no_pair")]


def test_samples_that_failed_or_are_empty_are_left_out(play: Play) -> None:
    replies = iter(["alpha", "", "alpha beta gamma"])
    played = play(
        recipe="west_of_n", candidates=3, picks_by=reward_model(by_words), parts={"chat": lambda _: next(replies)}
    )
    assert sides(played) == [("alpha beta gamma", "alpha")]
    assert [reason for reason, _ in reasons(played)] == ["empty"]


def test_all_samples_failing_is_a_failed_dialogue(play: Play) -> None:
    def fails(_: str) -> str:
        raise ValueError("the assistant is out")

    played = play(recipe="rlaif", parts={"chat": fails}, seed=FIRST)
    assert played.outcome.failed == 1
    assert played.dialogues["main"].error is not None


@pytest.mark.parametrize("recipe", ["west_of_n", "best_of_n"])
def test_a_recipe_that_picks_wants_a_scorer(recipe: str) -> None:
    settings = CampaignSettings.model_validate({"recipe": recipe})
    with pytest.raises(ScorerMissingError, match=rf"recipe {recipe} picks by a reward model: set scorer.model"):
        check_scorer(settings, is_there=False)


@pytest.mark.parametrize("method", ["rmboost", "rlaif", "rlcd"])
def test_a_later_answer_of_a_dialogue_can_be_the_only_place(play: Play, method: str) -> None:
    boost = json.dumps({"aspects": ["honesty"], "plan": "p", "answer": "quite another text than before"})
    steer: Part = lambda text: "a right answer" if "as good" in text else "some poor thing"  # noqa: E731
    played = play(
        recipe=method, turns=3, pairing={"places": "last"},
        parts={"chat": numbered(), "boost": lambda _: boost, "prefer": prefers("delta"), "steer": steer},
    )  # fmt: skip
    (pair,) = played.pairs
    assert pair.first_divergent_turn == 3
    assert played.dialogues["main"].n_turns == 3


def test_samples_left_out_are_no_place_without_a_pair(play: Play) -> None:
    replies = iter(["alpha", "", "alpha beta gamma"])
    scorer = reward_model(by_words)
    played = play(recipe="west_of_n", candidates=3, picks_by=scorer, parts={"chat": lambda _: next(replies)})
    assert reasons(played) == [("empty", "left_out")]
    assert len(played.pairs) == 1


def test_a_judge_whose_calls_all_fail_labels_nothing(play: Play) -> None:
    def fails(_: str) -> str:
        raise ValueError("the judge is out")

    played = play(recipe="rlaif", pairing={"redraws": 0}, parts={"chat": numbered(), "prefer": fails})
    assert reasons(played) == [("invalid", "no_pair")]
    assert [call.status for call in played.calls].count("failed") == 2


def test_answers_that_are_drawn_anew_are_calls_of_their_own(play: Play) -> None:
    played = play(
        recipe="rlaif", pairing={"redraws": 2}, parts={"chat": numbered(), "prefer": lambda _: '{"better": "A"}'}
    )
    for purpose in ("answer", "prefer"):
        calls = [call.call_id for call in played.calls if call.purpose == purpose]
        assert len(calls) == len(set(calls)) == 6


def test_verdicts_by_aspect_turn_round_with_their_sides() -> None:
    opinion = Opinion("chosen", None, "", "call", aspects=(("honesty", "rejected"), ("tone", "tie")))
    (turned,) = turned_round([Comparison("m", 0, "chosen_first", opinion)])
    assert (turned.presentation, turned.opinion.verdict) == ("rejected_first", "rejected")
    assert turned.opinion.aspects == (("honesty", "chosen"), ("tone", "tie"))
