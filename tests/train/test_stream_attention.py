"""A model that reads a stream: rewards and gradients are those of each conversation by itself, in fp64 and in fp32."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)  # fmt: skip

from train import attention
from train.attention import NAME, Layout
from train.model import masked_rewards
from train.reading import hidden_at
from train.stream import stream_of

SHAPE: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.4, "pad_token_id": 0, "num_labels": 1,
    "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
GEMMA2: dict[str, Any] = {"head_dim": 6, "query_pre_attn_scalar": 6, "attn_logit_softcapping": 2.0, **SHAPE}
CONFIGS: dict[str, Any] = {
    "gemma2": Gemma2Config(sliding_window=7, **GEMMA2),
    "gemma3": Gemma3TextConfig(
        head_dim=6, sliding_window=7, layer_types=["sliding_attention", "full_attention"] * 2, **SHAPE
    ),
    "llama": LlamaConfig(**SHAPE),
    "mistral": MistralConfig(sliding_window=7, **SHAPE),
    "qwen2": Qwen2Config(use_sliding_window=True, sliding_window=7, max_window_layers=1, **SHAPE),
    "qwen3": Qwen3Config(head_dim=6, **SHAPE),
}
Groups = list[list[list[int]]]


def model_of(name: str, dtype: torch.dtype, how: str = "eager") -> Any:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[name], attn_implementation=how)
    return model.to(dtype).train()


@contextmanager
def kept_in_float64() -> Iterator[None]:
    """transformers casts to fp32 in norms and in softmax; in the block it leaves what is fp64 as it is."""
    to, to_float, softmax = Tensor.to, Tensor.float, torch.nn.functional.softmax

    def is_cast(x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        return x.dtype == torch.float64 and torch.float32 in (*args, kwargs.get("dtype"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "to", lambda x, *args, **kw: x if is_cast(x, args, kw) else to(x, *args, **kw))
        patch.setattr(Tensor, "float", lambda x: x if x.dtype == torch.float64 else to_float(x))
        patch.setattr(
            torch.nn.functional,
            "softmax",
            lambda x, dim=None, dtype=None: softmax(x, dim=dim, dtype=None if x.dtype == torch.float64 else dtype),
        )
        yield


def random_groups(chance: random.Random) -> Groups:
    """Trees whose branches part anywhere, from the trunk and from each other; some sequences are equal, or begin another."""
    groups = []
    for _ in range(chance.randrange(1, 4)):
        group: list[list[int]] = []
        for _ in range(chance.randrange(1, 5)):
            start = group[chance.randrange(len(group))] if group else []
            kept = start[: chance.randrange(len(start) + 1)]
            group.append((kept + [chance.randrange(2, 50) for _ in range(chance.randrange(0, 40))]) or [2])
        groups.append(group)
    return groups


def one_by_one(model: Any, groups: Groups) -> Tensor:
    """reward_S of all sequences, each read by itself."""
    return torch.stack(
        [
            model.score(model.model(input_ids=torch.tensor([sequence]), use_cache=False).last_hidden_state[0, -1])[0]
            for group in groups
            for sequence in group
        ]
    )


def as_stream(model: Any, groups: Groups) -> Tensor:
    stream = stream_of(groups)
    ends = [len(sequence) - 1 for group in groups for sequence in group]
    before = model.config._attn_implementation  # transformers' own, which reads one by one
    model.config._attn_implementation = NAME
    hidden_1TD = model.model(**Layout(stream, torch.device("cpu")).inputs(model.config)).last_hidden_state
    model.config._attn_implementation = before
    reward: Tensor = model.score(hidden_1TD[0, [stream.place(n, end) for n, end in enumerate(ends)]])[:, 0]
    return reward


def learned(model: Any, reward_S: Tensor) -> tuple[float, dict[str, Tensor]]:
    """A loss of the rewards, and its gradients."""
    model.zero_grad()
    weight_S = torch.linspace(-1.0, 1.0, len(reward_S), dtype=reward_S.dtype)
    loss = torch.nn.functional.softplus(-(reward_S * weight_S)).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", CONFIGS)
@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10**6))
def test_in_float64_loss_and_gradients_are_those_of_one_by_one(name: str, seed: int) -> None:
    groups = random_groups(random.Random(seed))
    with kept_in_float64(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "QUERIES", 8)  # several blocks even in short chains
        model = model_of(name, torch.float64)
        loss, gradients = learned(model, one_by_one(model, groups))
        found, of_stream = learned(model, as_stream(model, groups))
    assert abs(loss - found) < 1e-9 * max(1.0, abs(loss))
    assert gradients.keys() == of_stream.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(of_stream[key], gradient, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", CONFIGS)
def test_in_float32_it_is_no_farther_from_float64_than_twice_eager(name: str) -> None:
    far = {
        "one by one": [0.0, 0.0],
        "as a stream": [0.0, 0.0],
    }  # of loss and gradients; one tree alone is a matter of luck
    exact, model = model_of(name, torch.float64), model_of(name, torch.float32)
    for seed in range(8):
        groups = random_groups(random.Random(seed))
        with kept_in_float64():
            loss, gradients = learned(exact, one_by_one(exact, groups))
        for way, read in (("one by one", one_by_one), ("as a stream", as_stream)):
            found, of_way = learned(model, read(model, groups))
            far[way][0] += abs(found - loss)
            far[way][1] += max(float((of_way[key] - gradients[key]).abs().max()) for key in gradients)
    for eager, ours in zip(far["one by one"], far["as a stream"], strict=True):
        assert ours <= 2 * eager


def test_the_same_comparison_finds_a_dropped_cap() -> None:
    """Transformers' `sdpa` leaves Gemma-2's cap out: what holds above must not hold of it."""
    groups = random_groups(random.Random(3))
    with kept_in_float64():
        model = model_of("gemma2", torch.float64)
        loss, _ = learned(model, one_by_one(model, groups))
        uncapped = model_of("gemma2", torch.float64, "sdpa")
        found, _ = learned(uncapped, one_by_one(uncapped, groups))
    assert abs(loss - found) > 1e-3


@pytest.mark.parametrize("change", ["window", "cap", "positions"])
def test_the_same_comparison_finds_a_wrong_stream(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [[[*range(2, 30), 31, 32], [*range(2, 30), 33, 34, 35]]]
    model = model_of("gemma2", torch.float32)
    right = one_by_one(model, groups)
    torch.testing.assert_close(as_stream(model, groups), right, atol=1e-4, rtol=1e-4)
    if change == "window":  # counted along the stream
        monkeypatch.setattr(Layout, "blocks", lambda layout, _: blocks(layout, None))
    elif change == "cap":
        for layer in model.model.layers:
            layer.self_attn.attn_logit_softcapping = None
    else:
        monkeypatch.setattr(
            Layout,
            "inputs",
            lambda layout, config: (
                inputs(layout, config) | {"position_ids": torch.arange(len(layout.stream.ids))[None]}
            ),
        )
    assert (as_stream(model, groups) - right).abs().max() > 1e-3


blocks, inputs = Layout.blocks, Layout.inputs


@pytest.mark.parametrize("name", CONFIGS)
def test_plain_batches_with_a_mask_are_read_as_by_eager(name: str) -> None:
    groups = random_groups(random.Random(5))
    sequences = [sequence for group in groups for sequence in group]
    longest = max(map(len, sequences))
    ids_BT = torch.tensor([[0] * (longest - len(sequence)) + sequence for sequence in sequences])  # padded on the left
    model = model_of(name, torch.float32)
    found = []
    for way in ("eager", NAME):
        model.config._attn_implementation = way
        found.append(masked_rewards(model, ids_BT, (ids_BT != 0).long()))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_recomputed_activations_are_those_of_the_stream() -> None:
    groups = random_groups(random.Random(4))
    model = model_of("gemma2", torch.float32, NAME)
    loss, gradients = learned(model, as_stream(model, groups))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again, recomputed = learned(model, as_stream(model, groups))
    assert loss == again
    assert all(torch.equal(gradients[key], recomputed[key]) for key in gradients)


@pytest.mark.parametrize("streams", [True, False])
def test_nothing_that_is_read_gives_no_rows(streams: bool) -> None:
    body = model_of("llama", torch.float32, NAME).model
    found = hidden_at(body, [[[1, 2, 3]]], [], pad_token_id=0, device=torch.device("cpu"), streams=streams)
    assert found.shape == (0, SHAPE["hidden_size"])
