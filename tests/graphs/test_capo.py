"""CaPO: context-dependent queries, three negatives of each side by side, and the branches and pairs that they make."""

from itertools import count

import pytest

from configs.errors import DescantError
from configs.load import load
from configs.settings import CONTEXT_KINDS, CampaignSettings
from store.records import Dialogue, Judgement
from tests.graphs.conftest import Part, Play, Played, seed_of
from tests.scripted import said

CAPO = {"recipe": "capo", "turns": 3}
GOLD = seed_of(
    said("system", "The reader is a child of seven years."),
    said("user", "Who wrote the first dictionary of the language?"),
    said("assistant", "A schoolmaster did, four hundred years ago."),
    said("user", "Why did he write it?"),
    said("assistant", "To explain hard words."),
)
FROM_GOLD = {"recipe": "capo", "seed": GOLD, "capo": {"play": False}, "seeds": {"path": "x", "cut": "last_assistant"}}


def parts(**others: Part) -> dict[str, Part]:
    """A user who always points back, and an assistant who never says the same twice."""
    numbers = count(1)
    return {
        "ask": lambda text: f"And why is it {text.count('<user>')} like that?",
        "chat": lambda text: f"answer {next(numbers)} to <{text}>",
        **others,
    }


def of_branch(played: Played, branch: str) -> list[Dialogue]:
    return [dialogue for dialogue in played.of(Dialogue) if dialogue.branch == branch]


def texts_of(played: Played, dialogue: Dialogue) -> list[str]:
    return [played.turns[turn].content for turn in dialogue.turn_ids]


def test_each_dependent_query_has_one_chosen_and_three_rejected_on_one_trunk(play: Play) -> None:
    played = play(**CAPO, parts=parts())
    main = played.dialogues["main"]
    chosen, rejected = of_branch(played, "chosen"), of_branch(played, "rejected")
    assert [dialogue.n_turns for dialogue in chosen] == [2, 3]
    assert [dialogue.n_turns for dialogue in rejected] == [2] * 3 + [3] * 3
    for dialogue in chosen:
        assert dialogue.turn_ids == main.turn_ids[: len(dialogue.turn_ids)]
    for dialogue in rejected:
        assert dialogue.turn_ids[:-1] == main.turn_ids[: len(dialogue.turn_ids) - 1]
        assert played.turns[dialogue.turn_ids[-1]].parent_id == dialogue.turn_ids[-2]
    assert {dialogue.forked_from for dialogue in [*chosen, *rejected]} == {main.dialogue_id}
    assert len(played.turns) == 6 + 6
    assert [p.kind for p in played.perturbations] == [*CONTEXT_KINDS] * 2
    assert [p.dialogue_id for p in played.perturbations] == [dialogue.dialogue_id for dialogue in rejected]
    assert played.outcome.records[-1] == main
    assert (played.outcome.done, played.outcome.failed) == (1, 0)
    assert len({dialogue.dialogue_id for dialogue in played.of(Dialogue)}) == 1 + 2 + 6


def test_each_negative_that_did_not_miss_is_a_pair_with_the_same_chosen_side(play: Play) -> None:
    played = play(**CAPO, parts=parts())
    chosen, rejected = of_branch(played, "chosen"), of_branch(played, "rejected")
    assert [pair.chosen_id for pair in played.pairs] == [chosen[0].dialogue_id] * 3 + [chosen[1].dialogue_id] * 3
    assert [pair.rejected_id for pair in played.pairs] == [dialogue.dialogue_id for dialogue in rejected]
    assert [pair.first_divergent_turn for pair in played.pairs] == [2] * 3 + [3] * 3
    assert {(pair.method, pair.n_contrast_turns, pair.label_source) for pair in played.pairs} == {
        ("capo", 1, "construction")
    }


def test_the_answer_to_the_query_alone_is_what_the_transcript_keeps(play: Play) -> None:
    played = play(**FROM_GOLD)
    answers = [texts_of(played, dialogue)[-1] for dialogue in of_branch(played, "rejected")]
    assert answers == [
        "answer to <Why did he write it?>",
        "answer to <a guess of 1>",
        "answer to <a misreading of 1>",
    ]
    assert [p.altered_instruction for p in played.perturbations] == [None, "a guess of 1", "a misreading of 1"]
    assert {p.instruction for p in played.perturbations} == {"Why did he write it?"}


def test_the_seeds_own_answers_are_chosen_and_nothing_is_played(play: Play) -> None:
    played = play(**FROM_GOLD)
    assert texts_of(played, played.dialogues["main"]) == [message.content for message in GOLD.messages]
    assert played.dialogues["main"].termination_reason == "as_given"
    (chosen,) = of_branch(played, "chosen")
    assert chosen.turn_ids == played.dialogues["main"].turn_ids
    assert {call.purpose for call in played.calls} == {
        *("depends", "guess", "misread", "verify_context"),
        *("answer_neglect", "answer_guess", "answer_misread"),
    }
    assert len(played.pairs) == 3


def test_without_its_history_a_query_stands_alone_and_a_misread_one_keeps_it(play: Play) -> None:
    played = play(**FROM_GOLD)
    shown = {call.purpose: call.messages or () for call in played.calls}
    assert [m.content for m in shown["answer_neglect"]] == ["Why did he write it?"]
    assert [m.content for m in shown["answer_guess"]] == ["a guess of 1"]
    history = [message.content for message in GOLD.messages[:-2]]
    (guess,) = shown["guess"]
    assert "Why did he write it?" in guess.content
    assert not any(text in guess.content for text in history)
    (misread,) = shown["misread"]
    assert all(text in misread.content for text in [*history, "Why did he write it?"])
    told = "\n".join(message.content for message in shown["answer_misread"])
    assert all(text in told for text in [*history, "a misreading of 1"])
    assert "Why did he write it?" not in told


@pytest.mark.parametrize(
    ("finding", "verdict"),
    [('{"depends": false}', "stands_alone"), ("Hm.", "invalid"), ('{"depends": true}', "depends")],
)
def test_only_a_query_that_the_judge_confirms_gets_negatives(play: Play, finding: str, verdict: str) -> None:
    played = play(**CAPO, parts=parts(depends=lambda _: finding))
    findings = [j for j in played.of(Judgement) if j.rubric == "depends"]
    assert [j.verdict for j in findings] == [verdict] * 2
    queries = [turn for turn in played.dialogues["main"].turn_ids if played.turns[turn].role == "user"]
    assert [j.turn_id for j in findings] == queries[1:]
    assert len(played.pairs) == (6 if verdict == "depends" else 0)
    assert len(of_branch(played, "chosen")) == (2 if verdict == "depends" else 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("perturb.schedule=one", "drop perturb.schedule"),
        ("perturb.share=rest", "share=rest is for the two branches"),
        ("perturb.altered_by=assistant", "context_neglect is an error of context"),
        ("perturb.kinds=[music_contrast]", "music_contrast is none"),
        ("judge_pairs=true", "drop judge_pairs"),
        ("capo.play=false", "takes the answers that seeds have"),
        ("capo.queries=0", "greater than or equal to 1"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(override: str, message: str) -> None:
    with pytest.raises(DescantError, match=message):
        load("capo", CampaignSettings, overrides=[override])
