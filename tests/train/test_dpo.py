"""DPO: its loss beside TRL's, its reference, and that it learns a preference."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from configs.fit_settings import TinySettings
from configs.language_settings import DpoFitSettings
from store.records import PreferencePair
from tests.train.conftest import MakePairs, Talk, say
from train.causal import pretrained_language_model
from train.checkpoint import read_metrics
from train.dpo import REFERENCE, dpo_loss, encode_groups, fit_dpo, log_probabilities
from train.errors import InterruptedFitError, TrainError
from train.loop import Progress
from train.model import tiny_language_model
from train.tokenizer import load_tokenizer, train_tokenizer

SHAPE = TinySettings(hidden_size=32, intermediate_size=64, layers=2, heads=2, kv_heads=1, vocab_size=400)
CPU = torch.device("cpu")


def settings(out: Path, **changes: object) -> DpoFitSettings:
    given: dict[str, object] = {
        "model": "tiny", "tiny": SHAPE, "max_length": 128, "learning_rate": 3e-3, "steps": 6, "batch_size": 8,
        "checkpoint_every": 2, "out": str(out),
    }  # fmt: skip
    return DpoFitSettings.model_validate(given | changes)


def contrasts(talk: Talk) -> list[PreferencePair]:
    """Two groups: three rejected answers to the second question of one conversation, and a pair that differs early."""
    before = ("Ilse has tea and rye.", "I see.", "What has she?")
    chosen = talk(*before, "Ilse has tea and rye.")
    wrong = ("Which Ilse?", "Omar has ink.", "She has an oil, Ilse.")
    pairs = [
        PreferencePair(f"p{n}", chosen, talk(*before, text), "train", "capo", 2, 2) for n, text in enumerate(wrong)
    ]
    early = PreferencePair(
        "p9",
        talk("Tea?", "Yes, tea.", "Rye?", "No."),
        talk("Tea?", "No, ink.", "Rye?", "Yes, oil."),
        "train",
        "music",
        2,
        1,
    )
    return [*pairs, early]


def tiny(talk: Talk) -> tuple[Any, Any]:
    texts = [message.content for pair in contrasts(talk) for message in (*pair.chosen, *pair.rejected)]
    tokenizer = train_tokenizer(texts, vocab_size=400, max_length=128)
    shape = SHAPE.model_copy(update={"initializer_range": 0.3, "sliding_window": 8})
    return tiny_language_model(shape, tokenizer, max_length=128, random_seed=0), tokenizer


def test_three_rejected_answers_to_one_chosen_are_one_group(talk: Talk) -> None:
    _, tokenizer = tiny(talk)
    encoded = encode_groups(contrasts(talk), tokenizer, max_length=128)
    assert [group.size for group in encoded.groups] == [3, 1]
    assert (encoded.counts["kept"], encoded.counts["groups"]) == (4, 2)
    assert encoded.counts["tree_tokens"] < encoded.counts["tokens"]
    learned = tokenizer.decode([token for token in encoded.groups[1].targets[1] if token >= 0])
    assert learned.replace(" ", "") == "No,ink.<end_of_turn>Yes,oil.<end_of_turn>"  # answers, not what the user says


@pytest.mark.parametrize("trees", [True, False])
def test_the_loss_and_its_gradient_are_trls(talk: Talk, tmp_path: Path, trees: bool) -> None:
    import datasets
    import trl

    model, tokenizer = tiny(talk)
    reference = tiny_language_model(
        SHAPE.model_copy(update={"initializer_range": 0.2}), tokenizer, max_length=128, random_seed=1
    ).eval()
    encoded = encode_groups(contrasts(talk), tokenizer, max_length=128)
    sides = [
        (group.sequences[0], group.targets[0], group.sequences[number], group.targets[number])
        for group in encoded.groups
        for number in range(1, group.size + 1)
    ]

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        longest = max(map(len, rows))
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    rows = [side[0] for side in sides] + [side[2] for side in sides]
    targets = [side[1] for side in sides] + [side[3] for side in sides]
    inputs = {
        "input_ids": padded(rows, 0),
        "attention_mask": padded([[1] * len(row) for row in rows], 0),
        "completion_mask": padded([[int(target >= 0) for target in row] for row in targets], 0),
    }
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.1, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False,
        max_length=None,
    )  # fmt: skip
    dataset = datasets.Dataset.from_list(
        [{"prompt": pair.chosen[0].content, "chosen": " a", "rejected": " b"} for pair in contrasts(talk)]
    )
    trainer = trl.DPOTrainer(
        model=model, ref_model=reference, args=arguments, train_dataset=dataset, processing_class=tokenizer
    )
    model.train()
    theirs = trainer._compute_loss(model, inputs, return_outputs=False)
    theirs.backward()
    their_gradient = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()

    with torch.no_grad():
        kept = log_probabilities(reference, encoded.groups, 0, CPU, trees=trees)
    own = log_probabilities(model, encoded.groups, 0, CPU, trees=trees)
    ours = dpo_loss(*own, *kept, beta=0.1).mean()
    ours.backward()  # type: ignore[no-untyped-call]
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert abs(ours.item() - 0.6931) > 0.01  # the two models differ, so there is something to compare
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, their_gradient[name], atol=1e-5), name


def polite(n: int) -> list[PreferencePair]:
    """Pairs whose better answer says please, whatever was asked."""
    pairs = []
    for number in range(n):
        ask = f"Where is {['tea', 'rye', 'oil', 'ink'][number % 4]} {number}?"
        split = "validation" if number % 4 == 0 else "train"
        pairs.append(
            PreferencePair(f"p{number:03}", say(ask, "Here, please."), say(ask, "Go away."), split, "toy", 1, 1)
        )
    return pairs


@pytest.mark.parametrize("changes", [{}, {"trees": "never"}, {"lora": {"rank": 4}, "learning_rate": 3e-2}])
def test_a_tiny_model_learns_a_preference(tmp_path: Path, changes: dict[str, object]) -> None:
    result = fit_dpo(settings(tmp_path / "fit", steps=16, evaluate_every=8, **changes), pairs=polite(40))
    lines = read_metrics(tmp_path / "fit" / "metrics.jsonl")
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    assert lines[-1]["loss"] < 0.6
    assert [line["step"] for line in lines if "validation_accuracy" in line] == [8, 16]
    assert result.validation_accuracy == 1.0
    assert result.validation_loss is not None
    assert result.validation_loss < 0.6
    assert result.data_card["trees"] is ("trees" not in changes)
    card = json.loads((result.model_dir / "descant.json").read_text("utf-8"))
    assert (card["objective"], card["base"], card["step"]) == ("dpo", "tiny", 16)
    assert not list(result.model_dir.glob("adapter*"))


def stop(settings: DpoFitSettings, step: int, pairs: list[PreferencePair]) -> None:
    def press_ctrl_c(progress: Progress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(InterruptedFitError):
        fit_dpo(settings, pairs=pairs, progress=press_ctrl_c)


@pytest.mark.parametrize("changes", [{}, {"lora": {"rank": 4, "dropout": 0.1}}])
def test_an_interrupted_fit_ends_bit_for_bit_as_a_whole_one(
    tmp_path: Path, make_pairs: MakePairs, changes: dict[str, object]
) -> None:
    pairs = make_pairs(40, turns=2)
    fit_dpo(settings(tmp_path / "whole", **changes), pairs=pairs)
    cut = settings(tmp_path / "cut", **changes)
    stop(cut, 1, pairs)
    stop(cut, 3, pairs)
    fit_dpo(cut, pairs=pairs)
    whole, gone_on = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == gone_on.read_bytes()


def test_the_reference_is_computed_once_and_a_changed_one_is_refused(
    tmp_path: Path, make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = make_pairs(40)
    cut = settings(tmp_path / "fit")
    stop(cut, 3, pairs)
    kept = tmp_path / "fit" / REFERENCE
    whole, before = kept.read_bytes(), load_file(kept)

    def forbidden(*_: object) -> None:
        raise AssertionError("the reference is read, not computed again")

    with monkeypatch.context() as patch:
        patch.setattr("train.dpo._Reference.compute", forbidden)
        stop(cut, 4, pairs)
    kept.unlink()
    stop(cut, 5, pairs)  # computed again from the start model, not from the checkpoint
    assert all(torch.equal(before[name], values) for name, values in load_file(kept).items())

    values = load_file(kept)
    with safe_open(kept, framework="pt") as file:
        metadata = file.metadata()
    values["chosen"][0] += 1.0
    save_file(values, kept, metadata=metadata)
    with pytest.raises(TrainError, match="was changed since it was written: remove it"):
        fit_dpo(cut, pairs=pairs)
    kept.write_bytes(whole[:-3])
    with pytest.raises(TrainError, match="cannot be read"):
        fit_dpo(cut, pairs=pairs)
    kept.write_bytes(whole)
    with pytest.raises(TrainError, match="holds another fit"):
        fit_dpo(cut, pairs=make_pairs(45))


def test_what_cannot_be_trained_on_is_said(tmp_path: Path, talk: Talk, make_pairs: MakePairs) -> None:
    same = talk("Hi.", "It is tea.")
    with pytest.raises(TrainError, match="2 pairs have equal sides"):
        fit_dpo(settings(tmp_path / "a"), pairs=[PreferencePair(n, same, same, "train", "toy", 1, 0) for n in "ab"])
    with pytest.raises(TrainError, match="24 chosen and 24 rejected sides are longer than max_length 8"):
        fit_dpo(settings(tmp_path / "b", max_length=8), pairs=make_pairs(40))
    with pytest.raises(TrainError, match="train split"):
        fit_dpo(settings(tmp_path / "c"), pairs=[pair for pair in make_pairs(20) if pair.split == "test"])
    assert not (tmp_path / "a").exists()


def test_the_exported_model_loads_as_it_is_and_stops_where_its_turn_ends(tmp_path: Path, make_pairs: MakePairs) -> None:
    result = fit_dpo(settings(tmp_path / "fit", lora={"rank": 2}), pairs=make_pairs(20))
    tokenizer = load_tokenizer(str(result.model_dir))
    model = pretrained_language_model(str(result.model_dir), tokenizer)
    assert tokenizer.convert_tokens_to_ids("<end_of_turn>") in model.generation_config.eos_token_id
