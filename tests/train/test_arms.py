"""Arms: several trainings on unions of named sets, at equal steps."""

import json
from pathlib import Path

import pytest

from configs.fit_settings import RewardFitSettings
from configs.load import ConfigError, load, presets
from store.records import PreferencePair
from tests.train.conftest import MakePairs, MakeSettings
from train.arms import fit_arms
from train.checkpoint import read_metrics
from train.data import limited, union
from train.errors import TrainError
from train.sources import gather, read_sets

SETS: dict[str, object] = {"base": {}, "more": {}}
ARMS = {"base": ("base",), "both": ("base", "more")}


def in_file(path: Path, pairs: list[PreferencePair]) -> str:
    """A Skywork-format file."""
    rows = (
        {"chosen": [m.model_dump() for m in pair.chosen], "rejected": [m.model_dump() for m in pair.rejected]}
        for pair in pairs
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_every_arm_is_a_fit_of_the_union_of_its_sets_at_equal_steps(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    base, more = make_pairs(40), make_pairs(60, turns=2, random_seed=1)
    more = [pair._replace(pair_id=f"more_{pair.pair_id}") for pair in more]
    results = fit_arms(tiny_settings(steps=3, sets=SETS, arms=ARMS), sets={"base": base, "more": more})
    assert list(results) == ["base", "both"]
    assert [result.steps for result in results.values()] == [3, 3]
    assert results["base"].data_card["sets"] == {"base": 24}
    assert results["both"].data_card["sets"] == {"base": 24, "more": 36}
    assert results["both"].data_card["splits"]["train"]["kept"] == 60
    assert results["base"].fit_id != results["both"].fit_id
    assert results["both"].model_dir == tmp_path / "fit" / "both" / "model"
    assert len(read_metrics(tmp_path / "fit" / "both" / "metrics.jsonl")) == 3


def test_a_second_run_trains_no_arm_again(tiny_settings: MakeSettings, make_pairs: MakePairs) -> None:
    settings = tiny_settings(steps=2, sets=SETS, arms=ARMS)
    sets = {"base": make_pairs(10), "more": make_pairs(10, random_seed=2)}
    first = fit_arms(settings, sets=sets, arms=["both"])
    again = fit_arms(settings, sets=sets)
    assert list(first) == ["both"]
    assert {arm: result.already_done for arm, result in again.items()} == {"base": False, "both": True}


def test_a_limit_draws_the_same_training_pairs_and_a_larger_one_adds(make_pairs: MakePairs) -> None:
    pairs = make_pairs(100)
    few, many = limited(pairs, 10, random_seed=0), limited(pairs, 30, random_seed=0)
    train = [pair for pair in few if pair.split == "train"]
    assert len(train) == 10
    assert {pair.pair_id for pair in few} < {pair.pair_id for pair in many}
    assert [pair for pair in few if pair.split != "train"] == [pair for pair in pairs if pair.split != "train"]
    assert train != [pair for pair in pairs if pair.split == "train"][:10]  # not merely the front


def test_a_pair_of_two_sets_stands_in_the_union_once(make_pairs: MakePairs) -> None:
    pairs = make_pairs(10)
    assert union({"a": pairs[:7], "b": pairs[5:]}) == pairs


def test_sets_are_read_from_files_and_a_missing_one_is_named(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    file = in_file(tmp_path / "base.jsonl", make_pairs(30))
    settings = tiny_settings(
        sets={"base": {"path": file, "limit": 5}, "more": {"path": str(tmp_path / "none.jsonl")}}, arms=ARMS
    )
    base = settings.model_copy(update={"sets": {"base": settings.sets["base"]}, "arms": {}})
    found = gather(base, None, None)
    assert sum(pair.split == "train" for pair in found.pairs) == 5
    assert found.mixture.left_out["base"]["train"]["limit"] > 10
    with pytest.raises(TrainError, match=r"sets\.more: no file"):
        read_sets(settings, ["base", "more"])
    with pytest.raises(TrainError, match="no arm is called 'bsae': toy has base, both"):
        fit_arms(settings, arms=["bsae"])


def test_an_arm_of_an_unknown_set_is_refused_when_it_is_read() -> None:
    with pytest.raises(ConfigError, match=r"arms\.all: no set is called 'musik'; the sets are: base, music, last_turn"):
        load_recipe("arms.all=[base, musik]")
    with pytest.raises(ConfigError, match="arms are compared at equal steps"):
        load_recipe("steps=null", "epochs=2")


def load_recipe(*overrides: str) -> RewardFitSettings:
    return load("music", RewardFitSettings, overrides=list(overrides), folder="fit")


def test_the_music_recipe_has_the_papers_figures_and_a_tiny_variant_by_one_override() -> None:
    recipe = load_recipe()
    assert (recipe.model, recipe.learning_rate, recipe.batch_size) == ("google/gemma-2-9b-it", 2e-6, 64)
    assert (recipe.steps, recipe.max_length) == (2500, 2048)
    assert (recipe.sets["base"].limit, recipe.sets["music"].limit) == (73_000, 31_000)
    assert set(recipe.arms) == {"base", "more_single_turn", "last_turn", "music"}
    assert all("base" in sets for sets in recipe.arms.values())
    tiny = load_recipe("variant=tiny")
    assert (tiny.model, tiny.batch_size, tiny.steps) == ("tiny", 16, 800)
    assert tiny.sets == recipe.sets
    assert load_recipe("variant=tiny", "steps=7").steps == 7
    assert load_recipe("steps=7", "variant=tiny").steps == 7
    with pytest.raises(ConfigError, match="no such variant; its variants are tiny"):
        load_recipe("variant=small")
    assert "music" in presets("fit")
