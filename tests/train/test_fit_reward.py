"""From pairs to a model that has learned, through the public functions."""

import json
import math
from pathlib import Path

import pytest

from store.records import PreferencePair
from tests.train.conftest import MakePairs, MakeSettings, Talk
from train.checkpoint import read_metrics
from train.errors import StoppedError, TrainError
from train.evaluate import evaluate_pairs
from train.loop import Progress, curves
from train.reward import fit_reward
from train.score import load_scorer


def test_a_tiny_model_learns_a_toy_preference_that_no_baseline_sees(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    pairs = make_pairs(700)
    seen: list[Progress] = []
    result = fit_reward(tiny_settings(steps=160, batch_size=16, evaluate_every=80), pairs=pairs, progress=seen.append)
    evaluation = evaluate_pairs(
        [pair for pair in pairs if pair.split == "test"],
        load_scorer(tmp_path / "fit"),
        train_pairs=[pair for pair in pairs if pair.split == "train"],
    )
    assert evaluation.beats_baselines(), evaluation.to_table()
    assert evaluation.of().value > 0.9
    assert result.validation_accuracy is not None
    assert result.validation_accuracy > 0.9
    assert [progress.step for progress in seen] == list(range(1, 161))
    assert seen[-1].tokens_per_second > 0
    lines = read_metrics(tmp_path / "fit" / "metrics.jsonl")
    assert [line["step"] for line in lines if "validation_accuracy" in line] == [80, 160]
    points = curves(result.fit_id, tmp_path / "fit" / "metrics.jsonl")
    assert {(point.name, point.slice) for point in points} == {
        ("loss", "train"), ("accuracy", "train"), ("margin", "train"), ("gradient_norm", "train"),
        ("tokens_per_second", "train"), ("accuracy", "validation"),
    }  # fmt: skip
    assert sum(point.name == "loss" for point in points) == 16


def test_the_model_folder_says_whose_it_is(tiny_settings: MakeSettings, make_pairs: MakePairs) -> None:
    result = fit_reward(tiny_settings(steps=2), pairs=make_pairs(20))
    card = json.loads((result.model_dir / "descant.json").read_text("utf-8"))
    assert (card["fit_id"], card["step"]) == (result.fit_id, 2)
    assert load_scorer(result.model_dir).fit_id == result.fit_id


def test_equal_sides_train_at_a_loss_of_ln_2(tiny_settings: MakeSettings, talk: Talk, tmp_path: Path) -> None:
    same = talk("Hi.", "It is tea.")
    pairs = [PreferencePair(str(n), same, same, "train", "toy", 1, 1) for n in range(8)]
    result = fit_reward(tiny_settings(steps=2), pairs=pairs)
    assert result.data_card["splits"]["train"]["equal"] == 8
    for line in read_metrics(tmp_path / "fit" / "metrics.jsonl"):
        assert line["loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert line["accuracy"] == 0.5


def test_accumulated_slices_follow_the_same_path_as_the_whole_batch(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    losses = []
    for slices in (1, 3):
        out = str(tmp_path / f"in{slices}")
        fit_reward(tiny_settings(accumulate=slices, steps=4, out=out), pairs=make_pairs(40, turns=2))
        losses.append([line["loss"] for line in read_metrics(Path(out) / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_every_answer_counts_and_recomputed_activations_change_nothing(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    losses = []
    for recompute in (False, True):
        out = str(tmp_path / f"recompute_{recompute}")
        settings = tiny_settings(read_at="every_answer", steps=4, out=out, activation_checkpointing=recompute)
        fit_reward(settings, pairs=make_pairs(40, turns=3))
        losses.append([line["loss"] for line in read_metrics(Path(out) / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_fit_goes_on_from_another_fits_model(
    tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path
) -> None:
    fit_reward(tiny_settings(), pairs=make_pairs(40))
    stage = tiny_settings(model=str(tmp_path / "fit"), out=str(tmp_path / "second"), steps=1, learning_rate=1e-9)
    fit_reward(stage, pairs=make_pairs(40))
    talks = [pair.chosen for pair in make_pairs(5)]
    scores = [load_scorer(tmp_path / name).score(talks) for name in ("fit", "second")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_what_cannot_be_trained_on_is_said(tiny_settings: MakeSettings, make_pairs: MakePairs, tmp_path: Path) -> None:
    pairs = make_pairs(20)
    with pytest.raises(TrainError, match="train split"):
        fit_reward(tiny_settings(), pairs=[pair for pair in pairs if pair.split == "test"])
    with pytest.raises(TrainError, match="all 12 training pairs are longer than max_length 9"):
        fit_reward(tiny_settings(max_length=9), pairs=pairs)
    with pytest.raises(TrainError, match="no model in"):
        fit_reward(tiny_settings(model=str(tmp_path / "absent"), out=str(tmp_path / "b")), pairs=pairs)


def test_a_loss_that_is_not_a_number_stops_and_names_pairs(tiny_settings: MakeSettings, make_pairs: MakePairs) -> None:
    with pytest.raises(StoppedError, match="lower learning_rate") as stopped:
        fit_reward(tiny_settings(learning_rate=1e30, warmup=0.0), pairs=make_pairs(40))
    assert stopped.value.exit_code == 1
    assert "pair_" in str(stopped.value)
