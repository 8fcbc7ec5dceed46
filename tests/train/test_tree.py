"""Several continuations of one beginning as one sequence: the same log-probabilities and gradients as one by one."""

import random
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)  # fmt: skip
from transformers.models.auto import AutoModelForCausalLM

from train.dpo import Contrast, Group, log_probabilities
from train.masks import IGNORED
from train.tree import shared_beginning, tree_of, why_no_trees

SHAPE: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "gemma2": Gemma2Config(head_dim=8, sliding_window=4096, attn_implementation="eager", **SHAPE),
    "gemma2 with a window of 7": Gemma2Config(head_dim=8, sliding_window=7, attn_implementation="eager", **SHAPE),
    "gemma3 with a window of 7": Gemma3TextConfig(
        head_dim=8, sliding_window=7, layer_types=["sliding_attention", "full_attention"] * 2, **SHAPE
    ),
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(sliding_window=None, **SHAPE),
    "mistral with a window of 7": MistralConfig(sliding_window=7, **SHAPE),
    "qwen3": Qwen3Config(head_dim=8, **SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen2 with a window of 7": Qwen2Config(use_sliding_window=True, sliding_window=7, max_window_layers=1, **SHAPE),
}


def model_of(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).train()


def group_of(trunk: int, *branches: int, seed: int) -> Group:
    """Sequences that share `trunk` tokens, with loss on all that comes after, but for a gap."""
    chance = random.Random(seed)
    shared = [chance.randrange(1, 60) for _ in range(trunk)]
    sequences = [shared + [chance.randrange(1, 60) for _ in range(length)] for length in branches]
    targets = [
        [IGNORED if place < trunk or place == trunk + 2 else token for place, token in enumerate(sequence)]
        for sequence in sequences
    ]
    contrasts = [Contrast(f"{seed}-{number}", trunk + (number == 2) * 3, trunk) for number in range(1, len(branches))]
    return Group(sequences, targets, contrasts, 1, trunk + sum(branches))


@pytest.mark.parametrize("name", CONFIGS)
def test_trees_give_the_log_probabilities_and_gradients_of_plain_batches(name: str) -> None:
    model = model_of(CONFIGS[name])
    assert why_no_trees(model.config) is None
    groups = [group_of(12, 9, 5, 14, 8, seed=1), group_of(3, 20, 11, seed=2), group_of(25, 4, 4, 4, seed=3)]
    found = []
    for trees in (False, True):
        model.zero_grad()
        chosen_P, rejected_P = log_probabilities(model, groups, 0, torch.device("cpu"), trees=trees)
        torch.nn.functional.logsigmoid(0.1 * (chosen_P - rejected_P)).sum().backward()  # type: ignore[no-untyped-call]
        gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
        found.append((torch.cat([chosen_P, rejected_P]).detach(), gradients))
    (plain_R, plain), (tree_R, tree) = found
    assert torch.allclose(plain_R, tree_R, atol=1e-5, rtol=1e-5), (plain_R - tree_R).abs().max()
    largest = max(gradient.abs().max() for gradient in plain.values())
    for key in plain:
        assert torch.allclose(plain[key], tree[key], atol=1e-5 * float(largest), rtol=1e-4), key


def test_the_window_matters_in_the_test_above() -> None:
    groups = [group_of(25, 4, 4, seed=3)]
    sums = []
    for name in ("gemma2", "gemma2 with a window of 7"):
        model = model_of(CONFIGS[name]).eval()
        chosen_P, _ = log_probabilities(model, groups, 0, torch.device("cpu"), trees=True)
        sums.append(chosen_P.item())
    assert abs(sums[0] - sums[1]) > 0.1


def test_a_tree_holds_the_trunk_once_and_finds_every_token_again() -> None:
    sequences = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [1, 2, 8, 7, 6]]
    tree = tree_of(sequences, most=4)
    assert (tree.trunk, tree.ids) == (2, [1, 2, 3, 4, 5, 3, 9, 8, 7, 6])
    assert tree.positions == [0, 1, 2, 3, 4, 2, 3, 2, 3, 4]
    for number, sequence in enumerate(sequences):
        assert [tree.ids[tree.place(number, place)] for place in range(len(sequence))] == sequence
    assert shared_beginning([[1, 2, 3], [1, 2, 3]], 9) == 3
    assert shared_beginning([[1, 2, 3], [1, 2, 3]], 2) == 2


def test_an_architecture_that_is_not_known_says_so() -> None:
    assert "gpt2" in str(why_no_trees(GPT2Config()))
