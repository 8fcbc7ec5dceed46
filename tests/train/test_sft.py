"""The language model that labs start from: what its loss looks at, and that it learns."""

import math
from pathlib import Path

import pytest
import torch

from configs.fit_settings import RewardFitSettings, SftSettings, TinySettings
from store.records import PreferencePair
from tests.train.conftest import MakePairs, Talk
from train.causal import target_losses
from train.errors import TrainError
from train.loop import Progress
from train.masks import IGNORED, Reader
from train.model import tiny_language_model
from train.reward import fit_reward
from train.sft import fit_sft
from train.tokenizer import train_tokenizer

SHAPE = TinySettings(hidden_size=32, intermediate_size=64, layers=1, heads=2, kv_heads=1, vocab_size=400)


def settings(out: Path, **changes: object) -> SftSettings:
    given: dict[str, object] = {"tiny": SHAPE, "max_length": 128, "steps": 3, "batch_size": 8, "out": str(out)}
    return SftSettings.model_validate(given | changes)


def test_the_loss_is_the_mean_over_targets_of_what_stands_before_them(talk: Talk) -> None:
    tokenizer = train_tokenizer(["Tea?", "Yes."], vocab_size=400, max_length=128)
    model = tiny_language_model(SHAPE, tokenizer, max_length=128, random_seed=0)
    (read,) = Reader(tokenizer).read([talk("Tea?", "Yes.")])
    targets = read.targets("assistant")
    log_probability = torch.log_softmax(model(input_ids=torch.tensor([read.ids])).logits[0].float(), dim=-1)
    by_hand = [-log_probability[place - 1, token].item() for place, token in enumerate(targets) if token != IGNORED]
    losses = target_losses(model, [[read.ids]], [targets], pad_token_id=0, device=torch.device("cpu"))
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-5)


def test_a_language_model_learns_its_answers_and_a_reward_model_starts_from_it(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    pairs: list[PreferencePair] = make_pairs(200)
    seen: list[Progress] = []
    model = fit_sft(
        settings(tmp_path / "sft", steps=60, learning_rate=1e-2), [pair.chosen for pair in pairs], progress=seen.append
    )
    assert seen[0].loss > 1.5 > math.log(2) > seen[-1].loss
    again = fit_sft(
        settings(tmp_path / "sft", steps=60, learning_rate=1e-2), [pair.chosen for pair in pairs], progress=seen.append
    )
    assert (again, len(seen)) == (model, 60)
    fit = fit_reward(
        RewardFitSettings(name="rm", model=str(model), max_length=128, batch_size=8, steps=2, out=str(tmp_path / "rm")),
        pairs=pairs,
    )
    assert (fit.model_dir / "config.json").exists()


def test_conversations_that_are_all_too_long_are_refused(tmp_path: Path, talk: Talk) -> None:
    with pytest.raises(TrainError, match="none of 1 conversations has at most 8 tokens"):
        fit_sft(settings(tmp_path / "sft", max_length=8), [talk("Tea and rye and oil?", "Yes, all of them.")])
