"""Trainings on mixtures: which fit they are, what the data card and the command tell, and how a curriculum runs."""

import json
import random
from pathlib import Path

import pytest

from configs.fit_settings import RewardFitSettings
from configs.load import ConfigError, load
from store.database import query
from store.records import PreferencePair
from tests.train.conftest import MakeSettings, say
from tests.train.test_arms import in_file
from tests.train.test_checkpoint import curve, interrupt, kill, weights
from tests.train.test_train_commands import TINY, run, write_corpus
from train.arms import fit_arms
from train.batches import plan_stages
from train.commands import fit
from train.data import EncodedPair
from train.errors import TrainError
from train.reward import fit_reward
from train.sources_card import sources_lines

SETS: dict[str, object] = {"real": {}, "synthetic": {}}
Sets = dict[str, list[PreferencePair]]


def numbered(name: str, n: int, *, turns: int = 1) -> list[PreferencePair]:
    """Pairs whose prompts differ, three of five in train."""
    splits = ("train", "train", "train", "validation", "test")
    pairs = []
    for number in range(n):
        asked = [part for _ in range(turns) for part in (f"Say {name} {number}.", f"It is {number}.")]
        chosen, rejected = say(*asked), say(*asked[:-1], "It is not.")
        pairs.append(
            PreferencePair(f"pair_{number:03}_{name}", chosen, rejected, splits[number % 5], name, turns, turns)
        )
    return pairs


@pytest.fixture
def sets() -> Sets:
    return {"real": numbered("tea", 40), "synthetic": numbered("oil", 60, turns=2)}


@pytest.mark.parametrize("by_arms", [False, True])
def test_the_data_card_tells_the_comparisons_that_make_no_pair(
    tiny_settings: MakeSettings, tmp_path: Path, by_arms: bool
) -> None:
    rows = [
        {"question": f"Who wrote book {n}?", "passages": [], "preference": [1, 0, 2]}
        | {f"prediction {m}": f"{name} did." for m, name in enumerate(("Ann", "Bob", "Cy"), start=1)}
        for n in range(30)
    ]
    (tmp_path / "feedback.json").write_text(json.dumps(rows))
    feedback: dict[str, object] = {"path": str(tmp_path / "feedback.json")}
    settings = tiny_settings(steps=1, sets={"people": feedback}, arms={"all": ["people"]} if by_arms else {})
    done = fit_arms(settings)["all"] if by_arms else fit_reward(settings)
    assert done.data_card["sources"]["people"]["undecided"] == {"tie": 30}
    assert "Comparisons of people that make no pair: 30 tie." in sources_lines(done.data_card)


def test_a_mixture_that_changes_nothing_is_the_same_fit_as_the_plain_union(
    tiny_settings: MakeSettings, sets: Sets, tmp_path: Path
) -> None:
    plain = fit_reward(tiny_settings(steps=2, sets=SETS), sets=sets)
    settings = tiny_settings(steps=2, sets=SETS, mixture={}, out=str(tmp_path / "mixed"))
    mixture = fit_reward(settings, sets=sets)
    assert mixture.fit_id == plain.fit_id
    assert weights(settings.out) == weights(str(tmp_path / "fit"))
    staged = tiny_settings(steps=2, sets=SETS, mixture={"order": "curriculum"}, out=str(tmp_path / "staged"))
    other = fit_reward(staged, sets=sets)
    assert other.fit_id != plain.fit_id
    again = staged.model_copy(update={"out": str(tmp_path / "again"), "mixture": _order(["synthetic"], ["real"])})
    assert fit_reward(again, sets=sets).fit_id not in (other.fit_id, plain.fit_id)


def _order(*stages: list[str]) -> object:
    given = {"sets": SETS, "mixture": {"order": "curriculum", "stages": list(stages)}}
    return RewardFitSettings.model_validate(given).mixture


def test_the_data_card_tells_of_every_set_what_went_in_and_what_did_not(
    tiny_settings: MakeSettings, sets: Sets
) -> None:
    sets["synthetic"] += sets["real"][:3]  # twice
    sets["synthetic"] += [sets["real"][8]._replace(pair_id="clash", split="train")]  # held out by the other set
    settings = tiny_settings(steps=2, sets=SETS, mixture={"weights": {"real": 1, "synthetic": 3}, "size": 40})
    card = fit_reward(settings, sets=sets).data_card
    real, synthetic = card["sources"]["real"], card["sources"]["synthetic"]
    assert real["read"] == {"test": 8, "train": 24, "validation": 8}
    assert real["left_out"] == {"train": {"weights": 14}}
    assert (real["used"], real["share"], real["weight_share"]) == ({"train": 10, "validation": 8}, 10 / 40, 0.25)
    assert synthetic["left_out"]["train"] == {"held_out_prompt": 1, "duplicate": 3, "weights": 6}
    assert (synthetic["used"]["train"], synthetic["methods"]) == (30, {"oil": 30})
    assert card["sets"] == {"real": 10, "synthetic": 30}
    assert real["tokens"] + synthetic["tokens"] == card["splits"]["train"]["tokens"]
    assert real["hash"] != synthetic["hash"]
    assert card["mixture"]["order"] == "union"


def test_a_pair_that_is_too_long_is_counted_by_its_set(tiny_settings: MakeSettings, sets: Sets) -> None:
    long = say("Say it at length.", "word " * 200), say("Say it at length.", "No.")
    sets["synthetic"].append(PreferencePair("pair_long", *long, "train", "oil", 1, 1))
    card = fit_reward(tiny_settings(steps=1, sets=SETS, mixture={}), sets=sets).data_card
    assert card["sources"]["synthetic"]["too_long"] == {"train": 1, "validation": 0}
    assert card["sources"]["synthetic"]["used"] == {"train": 36, "validation": 12}
    assert card["sources"]["real"]["too_long"] == {"train": 0, "validation": 0}


def test_a_curriculum_takes_one_stage_after_another() -> None:
    items = [EncodedPair(str(n), [5] * (n + 2), [5], [(0, 0)], 1, 0.0) for n in range(40)]
    plan = plan_stages(items, [(range(30, 40), 5), (range(40), 10)], batch_size=4, random_seed=0)
    assert len(plan) == 15
    assert {place for batch in plan[:5] for place in batch} == set(range(30, 40))
    assert sorted(place for batch in plan[5:] for place in batch) == list(range(40))
    assert plan != plan_stages(items, [(range(30, 40), 5), (range(40), 10)], batch_size=4, random_seed=1)


def test_a_curriculum_trains_on_the_sets_of_its_stages_in_their_order(tiny_settings: MakeSettings, sets: Sets) -> None:
    stages = [{"sets": ["synthetic"], "share": 0.25}, ["real", "synthetic"]]
    settings = tiny_settings(sets=SETS, mixture={"order": "curriculum", "stages": stages})
    result = fit_reward(settings, sets=sets)
    assert result.data_card["mixture"]["stages"] == [
        {"sets": ["synthetic"], "share": 0.25, "pairs": 36, "steps": 3},
        {"sets": ["real", "synthetic"], "share": None, "pairs": 60, "steps": 9},
    ]
    longest = [line["tokens"] for line in map(json.loads, (Path(str(settings.out)) / "metrics.jsonl").open())]
    assert min(longest[:3]) > min(longest[3:])  # real conversations are shorter, and come later only


@pytest.mark.chain
def test_a_curriculum_killed_in_its_middle_ends_bit_for_bit_as_one_that_never_was(
    tiny_settings: MakeSettings, sets: Sets, tmp_path: Path
) -> None:
    mixture = {"order": "curriculum", "stages": [["synthetic"], ["real", "synthetic"]]}
    files = {name: {"path": in_file(tmp_path / f"{name}.jsonl", pairs)} for name, pairs in sets.items()}
    settings = tiny_settings(steps=14, sets=files, mixture=mixture, out=str(tmp_path / "whole"))
    fit_reward(settings)
    killed = settings.model_copy(update={"out": str(tmp_path / "killed")})
    kill(killed, random.randint(5, 9))
    interrupt(killed, random.randint(10, 13), None)
    assert not fit_reward(killed).already_done
    assert weights(killed.out) == weights(settings.out)
    assert curve(killed.out) == curve(settings.out)


def test_arms_take_the_mixture_of_their_own_sets(tiny_settings: MakeSettings, sets: Sets, tmp_path: Path) -> None:
    mixture = {"weights": {"real": 1, "synthetic": 2}, "size": 24, "order": "curriculum"}
    arms = {"real": ["real"], "both": ["synthetic", "real"]}
    results = fit_arms(tiny_settings(steps=3, sets=SETS, arms=arms, mixture=mixture), sets=sets)
    real, both = (results[arm].data_card for arm in arms)
    assert (real["sets"], both["sets"]) == ({"real": 24}, {"synthetic": 16, "real": 8})
    assert (real["mixture"]["order"], both["mixture"]["order"]) == ("union", "curriculum")
    assert [stage["sets"] for stage in both["mixture"]["stages"]] == [["synthetic"], ["real"]]
    run_json = json.loads((tmp_path / "fit" / "both" / "run.json").read_text())
    assert RewardFitSettings.model_validate(run_json["settings"]).mixture is not None


def test_data_alone_is_a_mixture_of_one_set(tiny_settings: MakeSettings, tmp_path: Path) -> None:
    pairs = numbered("tea", 20)
    pairs = [*pairs, pairs[0]._replace(pair_id="pair_again"), *numbered("tea", 1, turns=2)]
    card = fit_reward(tiny_settings(steps=1, mixture={}), pairs=pairs).data_card
    assert card["sources"]["data"]["left_out"] == {"train": {"duplicate": 1}}
    file = in_file(tmp_path / "pairs.jsonl", numbered("tea", 60))
    settings = tiny_settings(steps=1, data={"path": file, "limit": 7}, mixture={"apart_from": [file]})
    with pytest.raises(TrainError, match="none of the"):
        fit_reward(settings)


def test_sets_without_arms_are_one_training_whose_table_the_command_prints(tmp_path: Path) -> None:
    db, file, items = tmp_path / "corpus.duckdb", tmp_path / "real.jsonl", tmp_path / "items.jsonl"
    write_corpus(db, numbered("oil", 60, turns=2), name="boosted")
    in_file(file, [*numbered("tea", 100), *numbered("tea", 5)])
    trained = [
        row["prompt"]
        for row in query(db, "SELECT chosen[1].content AS prompt FROM preference_pairs WHERE split = 'train'")
    ]
    items.write_text(json.dumps({"prompt": trained[0], "chosen": "a", "rejected": "b", "subset": "x"}) + "\n")
    config = tmp_path / "mixed.yaml"
    config.write_text(
        f"name: mixed\nsets:\n  real: {{path: {file}}}\n  synthetic: {{campaign: boosted}}\n"
        f"mixture:\n  weights: {{real: 2, synthetic: 1}}\n  order: curriculum\n  stages: [[synthetic], [real, synthetic]]\n"
        f"  apart_from: [{items}]\n"
    )
    settings = [word for setting in [*TINY, f"out={tmp_path / 'fit'}"] for word in ("--set", setting)]
    printed = run(fit, "reward", config, "--db", db, "--quiet", *settings).stdout
    lines = printed.splitlines()
    assert lines[1].split() == ["set", "read", "used", "share", "asked", "tokens", "validation"]
    assert lines[3].split()[:3] == ["synthetic", "36", "35"]
    assert "Left out of synthetic: 1 with a prompt to keep apart from." in lines
    assert "held out" not in printed
    assert "Apart from items.jsonl (1 prompts)." in lines
    (stages,) = (line for line in lines if line.startswith("In stages: synthetic for "))
    assert "steps, then real + synthetic for " in stages
    assert all(len(line) <= 79 for line in lines[1:-1])
    (row,) = query(
        db, "SELECT data_card->>'$.sources.synthetic.campaign' AS campaign, data_card->'$.mixture.order' AS o FROM fits"
    )
    assert row == {"campaign": "boosted", "o": '"curriculum"'}


def test_the_rmboost_recipe_compares_real_synthetic_and_both_by_one_override(tmp_path: Path) -> None:
    recipe = load("rmboost", RewardFitSettings, folder="fit")
    methods = ["rmboost", "rlaif", "rlcd", "west_of_n"]
    assert {recipe.sets[method].campaign for method in methods} == {f"compare-{method}" for method in methods}
    assert set(recipe.arms) == {"real", *methods, *(f"real_{method}" for method in methods)}
    assert all(recipe.arms[f"real_{method}"] == ("real", method) for method in methods)
    db, file = tmp_path / "corpus.duckdb", tmp_path / "real.jsonl"
    write_corpus(db, numbered("oil", 30), name="compare-rmboost")
    in_file(file, numbered("tea", 30))
    settings = [*TINY[1:], f"out={tmp_path / 'fits'}", f"sets.real.path={file}", "steps=1"]
    words = [word for setting in ["variant=tiny", *settings] for word in ("--set", setting)]
    arms = [word for arm in ("real", "rmboost", "real_rmboost") for word in ("--arm", arm)]
    fits = json.loads(run(fit, "reward", "rmboost", "--db", db, "--quiet", "--json", *words, *arms).stdout)
    assert [list(one["data_card"]["sources"]) for one in fits.values()] == [["real"], ["rmboost"], ["real", "rmboost"]]
    kept = [one["data_card"]["splits"]["train"]["kept"] for one in fits.values()]
    assert kept[2] == kept[0] + kept[1] > kept[0] > 0


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (
            {"mixture": {"weights": {"reel": 1}}},
            r"mixture\.weights: no set is called 'reel'; the sets are: real, synth",
        ),
        ({"mixture": {"weights": {"real": 1}}}, r"mixture\.weights says nothing of the set 'synthetic'"),
        ({"mixture": {"weights": {"real": 0, "synthetic": 1}}}, "greater than 0"),
        ({"mixture": {"size": 10}}, "size divides by weights"),
        ({"mixture": {"weights": {"real": 1, "synthetic": 1}, "repeat": True}}, "repeat fills up to a size"),
        ({"mixture": {"stages": [["real"], ["synthetic"]]}}, "stages are a curriculum's"),
        ({"mixture": {"order": "curriculum", "stages": [["real"]]}}, r"mixture\.stages says nothing of the set 'synth"),
        ({"mixture": {"order": "curriculum", "stages": [["real", "synthetic"]]}}, "at least two stages"),
        ({"mixture": {"order": "curriculum", "stages": [["real"], ["both"]]}}, "no set is called 'both'"),
        (
            {
                "mixture": {
                    "order": "curriculum",
                    "stages": [{"sets": ["real"], "share": 0.5}, {"sets": ["synthetic"], "share": 0.4}],
                }
            },
            "add up to 0.9, not 1",
        ),
        (
            {"mixture": {"order": "curriculum", "stages": [{"sets": ["real"], "share": 1}, ["synthetic"]]}},
            "leave no step",
        ),
        ({"mixture": {"order": "curriculum"}, "order": "short_first"}, "two curricula: choose one"),
        ({"data": {"path": "x.jsonl"}}, "data and sets are both given"),
    ],
)
def test_settings_that_contradict_are_refused_in_one_line(
    given: dict[str, object], problem: str, tmp_path: Path
) -> None:
    config = tmp_path / "fit.yaml"
    config.write_text(json.dumps({"sets": SETS} | given))
    with pytest.raises(ConfigError, match=problem) as refused:
        load(str(config), RewardFitSettings, folder="fit")
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="a curriculum has at least two stages"):
        load("reward-tiny", RewardFitSettings, overrides=["mixture.order=curriculum"], folder="fit")
