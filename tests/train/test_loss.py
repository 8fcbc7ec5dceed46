"""The Bradley-Terry loss against values worked out by hand."""

import math

import pytest
import torch

from configs.fit_settings import RewardFitSettings
from train.reward import bradley_terry, learning_rate_at


def test_loss_is_what_a_hand_worked_example_says() -> None:
    # sigmoid(2 - 0.5) = 1 / (1 + e^-1.5) = 0.817574, -log of it 0.201413; sigmoid(-1 - 1) = 0.119203, -log 2.126928
    loss = bradley_terry(torch.tensor([2.0, -1.0]), torch.tensor([0.5, 1.0]))
    assert loss.tolist() == pytest.approx([0.201413, 2.126928], abs=1e-6)


def test_equal_rewards_cost_ln_2() -> None:
    assert bradley_terry(torch.tensor([3.7]), torch.tensor([3.7])).item() == pytest.approx(math.log(2))


def test_a_margin_asks_chosen_to_win_by_more() -> None:
    # sigmoid(2 - 0.5 - 1.5) = 1/2
    loss = bradley_terry(torch.tensor([2.0]), torch.tensor([0.5]), torch.tensor([1.5]))
    assert loss.item() == pytest.approx(math.log(2))


def test_centering_adds_the_squared_sum_of_the_rewards() -> None:
    plain = bradley_terry(torch.tensor([2.0]), torch.tensor([0.5]))
    centred = bradley_terry(torch.tensor([2.0]), torch.tensor([0.5]), centering=0.01)
    assert (centred - plain).item() == pytest.approx(0.01 * 2.5**2, abs=1e-6)


def test_the_gradient_pushes_the_rewards_apart_by_the_chance_of_being_wrong() -> None:
    chosen = torch.tensor([1.0], requires_grad=True)
    rejected = torch.tensor([0.0], requires_grad=True)
    bradley_terry(chosen, rejected).sum().backward()  # type: ignore[no-untyped-call]
    wrong = 1 / (1 + math.e)
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == pytest.approx((-wrong, wrong))


def test_the_learning_rate_rises_to_its_peak_and_falls_along_a_cosine() -> None:
    settings = RewardFitSettings(learning_rate=1.0, warmup=0.1)
    rates = [learning_rate_at(step, 100, settings) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.001


def test_without_warmup_a_constant_schedule_is_constant() -> None:
    settings = RewardFitSettings(learning_rate=0.5, warmup=0.0, schedule="constant")
    assert {learning_rate_at(step, 7, settings) for step in range(1, 8)} == {0.5}
