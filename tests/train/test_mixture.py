"""What a mixture leaves out of each set, and how it divides by weights."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.mixture_settings import MixtureSettings
from store.export import read_preference_file
from store.identity import split_of
from store.records import Message, PreferencePair
from tests.train.conftest import say
from train.errors import TrainError
from train.mixture import Mixture, Sets, divide, mix, prompt_of, prompts_to_avoid, stage_steps


def pair(
    prompt: str, good: str = "Yes.", bad: str = "No.", *, split: str = "train", id: str | None = None
) -> PreferencePair:
    chosen, rejected = say(prompt, good), say(prompt, bad)
    return PreferencePair(id or f"{split}/{prompt}/{good}/{bad}", chosen, rejected, split, "toy", 1, 1)


def many(name: str, n: int, *, split: str = "train") -> list[PreferencePair]:
    return [pair(f"{name} {number}?", split=split) for number in range(n)]


def mixed(settings: dict[str, object], sets: Sets, limits: dict[str, int | None] | None = None) -> Mixture:
    return mix(sets, MixtureSettings.model_validate(settings), limits=limits or {}, random_seed=0)


def train_of(mixture: Mixture, name: str) -> list[str]:
    return [pair.pair_id for pair in mixture.sets[name] if pair.split == "train"]


def test_a_prompt_that_one_set_holds_out_is_trained_on_in_none() -> None:
    real = [pair("What is tea?", split="test"), pair("What is rye?", split="validation"), pair("What is oil?")]
    synthetic = [pair("What is tea?", "Hot.", "Cold."), pair(" What  is rye?\n", "Dark.", "Red."), pair("What is ink?")]
    mixture = mixed({}, {"real": real, "synthetic": synthetic})
    assert train_of(mixture, "real") == ["train/What is oil?/Yes./No."]
    assert train_of(mixture, "synthetic") == ["train/What is ink?/Yes./No."]
    assert mixture.left_out == {"real": {}, "synthetic": {"train": {"held_out_prompt": 2}}}
    assert [pair.split for pair in mixture.sets["real"]] == ["test", "validation", "train"]


def test_a_held_out_prompt_counts_from_a_later_set_too_and_whatever_the_system_message() -> None:
    plain = pair("What is tea?")
    system = (Message(role="system", content="Be short."),)
    other = plain._replace(chosen=system + plain.chosen, rejected=system + plain.rejected, split="test", pair_id="o")
    mixture = mixed({}, {"first": [plain, pair("What is oil?")], "later": [other]})
    assert train_of(mixture, "first") == ["train/What is oil?/Yes./No."]


def test_the_split_of_a_file_never_clashes_with_itself() -> None:
    pairs = [pair._replace(split=split_of(pair.chosen)) for pair in many("Say", 300)]
    assert {pair.split for pair in pairs} == {"train", "validation", "test"}
    assert mixed({}, {"a": pairs, "b": many("Tell", 3)}).left_out == {"a": {}, "b": {}}


def test_the_same_conversations_count_once_and_stay_in_the_set_named_first() -> None:
    copy = pair("Tea?", "Yes,  hot.", id="pair_of_another_tool")
    mixture = mixed(
        {}, {"real": [pair("Tea?", "Yes, hot."), pair("Oil?")], "synthetic": [copy, pair("Ink?"), pair("Ink?")]}
    )
    assert train_of(mixture, "real") == ["train/Tea?/Yes, hot./No.", "train/Oil?/Yes./No."]
    assert train_of(mixture, "synthetic") == ["train/Ink?/Yes./No."]
    assert mixture.left_out == {"real": {}, "synthetic": {"train": {"duplicate": 2}}}


def test_equal_texts_of_other_roles_or_ids_are_other_conversations() -> None:
    one = pair("Tea?", "Yes.", "No.")
    two = pair("Tea?", "Yes.", "Never.", id=one.pair_id)  # the same id, as of two runs of one campaign
    mixture = mixed({}, {"a": [one], "b": [two]})
    assert [len(pairs) for pairs in mixture.sets.values()] == [1, 1]


def test_opposite_labels_of_the_same_conversations_cost_both_unless_they_are_kept() -> None:
    a, b = [pair("Tea?", "Hot.", "Cold."), pair("Oil?")], [pair("Tea?", "Cold.", "Hot."), pair("Tea?", "Hot.", "Cold.")]
    mixture = mixed({}, {"a": a, "b": b})
    assert (train_of(mixture, "a"), train_of(mixture, "b")) == (["train/Oil?/Yes./No."], [])
    assert mixture.left_out == {"a": {"train": {"contradiction": 1}}, "b": {"train": {"contradiction": 2}}}
    kept = mixed({"contradictions": "keep"}, {"a": a, "b": b})
    assert kept.left_out == {"a": {}, "b": {"train": {"duplicate": 1}}}


def test_prompts_to_keep_apart_from_leave_train_and_no_other_split() -> None:
    pairs = [pair("Tea?"), pair("Oil?"), pair("Ink?", split="validation")]
    mixture = mix({"a": pairs}, MixtureSettings(), limits={}, random_seed=0, apart_from={"Oil?", "Ink?"})
    assert [pair.split for pair in mixture.sets["a"]] == ["train", "validation"]
    assert mixture.left_out == {"a": {"train": {"apart_from": 1}}}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Say\n tea.", "chosen": "Tea.", "rejected": "No.", "subset": "Math", "id": 1},
        {"prompt": "Say tea.", "chosen": ["Tea."], "rejected": ["No."], "num_correct": 1, "subset": "Math", "id": "1"},
        {"prompt": [{"role": "system", "content": "x"}, {"role": "user", "content": "Say tea."}], "chosen": []},
        {"chosen": [{"role": "user", "content": "Say tea."}, {"role": "assistant", "content": "Tea."}], "rejected": []},
        {"prompt": "Say tea.", "chosen": "Tea.", "rejected": "No."},
        {
            "prompt": "Say tea.",
            "prompt_id": "p1",
            "score_chosen": 8.5,
            "score_rejected": 3.0,
            "rejected": [],
            "chosen": [{"role": "user", "content": "Say tea."}, {"role": "assistant", "content": "Tea."}],
        },
        {"question_id": 81, "turns": ["Say tea.", "Again."], "category": "writing"},
        {"id": 1, "task": "CM", "history": [{"user": "Say tea.", "bot": "Tea."}]},
        {"chosen": "\n\nHuman: Say tea.\n\nAssistant: Tea.", "rejected": "\n\nHuman: Say tea.\n\nAssistant: No."},
    ],
    ids=[
        "rewardbench",
        "rewardbench2",
        "trl-explicit",
        "skywork",
        "prompt",
        "ultrafeedback",
        "mtbench",
        "mtbench101",
        "hh",
    ],
)
def test_prompts_are_read_from_every_kind_of_evaluation_file(row: dict[str, object], tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps(row) + "\n")
    assert prompts_to_avoid([str(file)]) == {str(file): {"Say tea."}}
    assert prompt_of(say("Say  tea.", "Tea.")) == "Say tea."


def test_a_prompt_that_a_format_words_is_the_one_that_its_pairs_have(tmp_path: Path) -> None:
    file = tmp_path / "tldr.jsonl"
    post = {"id": "t3_1", "post": "I lost my tea.", "title": "Tea", "subreddit": "tea"}
    file.write_text(
        json.dumps({"info": post, "summaries": [{"text": "Lost tea."}, {"text": "Tea."}], "choice": 0}) + "\n"
    )
    (found,) = read_preference_file(file)
    assert prompts_to_avoid([str(file)]) == {str(file): {prompt_of(found.chosen)}}


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"prompt": 7}\n')
    with pytest.raises(TrainError, match=r"apart_from: .*items\.jsonl:1: prompt"):
        prompts_to_avoid([str(file)])
    with pytest.raises(TrainError, match="no file"):
        prompts_to_avoid([str(tmp_path / "none.jsonl")])


def test_a_limit_counts_what_is_left_after_the_rules() -> None:
    real = [*many("a", 4), *many("a", 4)]
    mixture = mixed({}, {"real": real}, {"real": 3})
    assert len(train_of(mixture, "real")) == 3
    assert mixture.left_out["real"]["train"] == {"duplicate": 4, "limit": 1}


def test_weights_take_the_most_that_keeps_the_shares() -> None:
    sets: Sets = {"real": many("a", 30), "synthetic": many("b", 40)}
    weights: dict[str, object] = {"weights": {"real": 1, "synthetic": 2}}
    mixture = mixed(weights, sets)
    assert {name: len(pairs) for name, pairs in mixture.sets.items()} == {"real": 20, "synthetic": 40}
    assert mixture.left_out["real"]["train"] == {"weights": 10}
    capped = mixed(weights, sets, {"synthetic": 10})
    assert {name: len(pairs) for name, pairs in capped.sets.items()} == {"real": 5, "synthetic": 10}


def test_a_larger_mixture_adds_to_a_smaller_one_and_held_out_pairs_stay() -> None:
    sets = {"a": [*many("a", 30), *many("x", 3, split="test")], "b": many("b", 40), "c": many("c", 40)}
    weights = {"a": 1, "b": 2.5, "c": 0.7}
    drawn = [mixed({"weights": weights, "size": size}, sets) for size in range(4, 60)]
    for small, large in pairwise(drawn):
        for name in sets:
            assert set(train_of(small, name)) <= set(train_of(large, name))
    assert [sum(len(train_of(one, name)) for name in sets) for one in drawn] == list(range(4, 60))
    assert all(sum(pair.split == "test" for pair in one.sets["a"]) == 3 for one in drawn)
    assert train_of(drawn[9], "b") != [pair.pair_id for pair in sets["b"]][: len(train_of(drawn[9], "b"))]


def test_another_random_seed_draws_other_pairs() -> None:
    sets: Sets = {"a": many("a", 30), "b": many("b", 30)}
    settings = MixtureSettings.model_validate({"weights": {"a": 1, "b": 2}, "size": 12})
    drawn = [train_of(mix(sets, settings, limits={}, random_seed=seed), "a") for seed in (0, 1)]
    assert len(drawn[0]) == len(drawn[1]) == 4
    assert drawn[0] != drawn[1]


def test_a_set_that_is_too_small_for_the_size_is_named_with_what_it_lacks() -> None:
    sets = {"real": many("a", 30), "synthetic": many("b", 40)}
    weights = {"real": 1, "synthetic": 2}
    with pytest.raises(
        TrainError, match="size 90 asks for 60 training pairs of synthetic, which has 40: 20 too few; take at most 60"
    ):
        mixed({"weights": weights, "size": 90}, sets)
    with pytest.raises(TrainError, match=r"sets\.real has no training pair left for its weight"):
        mixed({"weights": weights}, {"synthetic": many("a", 3), "real": many("a", 3)})
    with pytest.raises(TrainError, match="a mixture of 1 training pairs has none of real"):
        mixed({"weights": weights, "size": 1}, sets)


def test_repeat_fills_up_to_the_size_evenly() -> None:
    sets = {"real": many("a", 30), "synthetic": many("b", 40)}
    mixture = mixed({"weights": {"real": 1, "synthetic": 3}, "size": 120, "repeat": True}, sets)
    assert {name: len(pairs) for name, pairs in mixture.sets.items()} == {"real": 30, "synthetic": 90}
    assert mixture.repeated == {"real": 0, "synthetic": 50}
    counts = {train_of(mixture, "synthetic").count(pair.pair_id) for pair in sets["synthetic"]}
    assert counts == {2, 3}


@given(st.lists(st.sampled_from([0.1, 0.3, 0.5, 1, 1, 2, 3, 7]), min_size=1, max_size=5), st.integers(0, 60))
def test_dividing_gives_the_whole_size_and_never_takes_back(weights: list[float], size: int) -> None:
    named = {str(place): weight for place, weight in enumerate(weights)}
    found, more = divide(size, named), divide(size + 1, named)
    assert sum(found.values()) == size
    assert all(found[name] <= more[name] for name in named)
    assert all(abs(found[name] - size * named[name] / sum(weights)) < 2.0 for name in named)


def test_the_steps_of_a_curriculum_follow_shares_or_pairs() -> None:
    assert stage_steps([100, 300], [None, None], 40) == [10, 30]
    assert stage_steps([100, 300], [0.5, 0.5], 41) == [20, 21]
    assert stage_steps([100, 100, 300], [0.2, None, None], 100) == [20, 20, 60]
    with pytest.raises(TrainError, match="stage 2 of the curriculum has no training pair left"):
        stage_steps([100, 0], [None, None], 40)
    with pytest.raises(TrainError, match="stage 1 of the curriculum has no step of the 40"):
        stage_steps([1, 300], [None, None], 40)
