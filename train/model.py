"""The reward model: a decoder with a linear head on the hidden state of a conversation's last token.

Differs from transformers' default: attention is `eager` for a Gemma-2, whose soft-cap on attention logits transformers'
`sdpa`, its default, drops without a word. Batches are padded on the right and passed without a mask: a causal model's real
tokens never see what comes after them, and the reward is read at the last real one, whose place is counted and not looked
for. Conversations that begin alike are read as one stream where the model can (`train.reading`). Batches that others padded, on either side, come with their mask. Knows nothing of pairs or training.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)
from transformers.utils import logging

from configs.fit_settings import TinySettings
from train.backbone import attention_of, check_layout, text_only
from train.errors import TrainError
from train.families import FAMILIES, shape_of
from train.reading import hidden_at, reads_streams

SMALL = 20_000_000  # parameters; below it a second thread costs more than it brings (4 times, on two shared cores)

# Shapes: B conversations, T tokens, N readings, D hidden size.


def tiny_model(shape: TinySettings, tokenizer: Any, *, max_length: int, random_seed: int) -> Any:
    """A reward model with random weights, drawn from `random_seed` alone."""
    return _with_random_weights(AutoModelForSequenceClassification, shape, tokenizer, max_length, random_seed)


def tiny_language_model(shape: TinySettings, tokenizer: Any, *, max_length: int, random_seed: int) -> Any:
    """A model that predicts tokens, with random weights drawn from `random_seed` alone."""
    return _with_random_weights(AutoModelForCausalLM, shape, tokenizer, max_length, random_seed)


def _with_random_weights(kind: Any, shape: TinySettings, tokenizer: Any, max_length: int, random_seed: int) -> Any:
    _quiet()
    config = AutoConfig.for_model(
        FAMILIES[shape.family].model_type,
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        initializer_range=shape.initializer_range,
        max_position_embeddings=max_length,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        num_labels=1,
        use_cache=False,
        dtype="float32",
        **shape_of(shape),
    )
    config._attn_implementation = attention_of(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        return kind._model_mapping[type(config)](config)


def load_model(source: str | Path, tokenizer: Any, *, random_seed: int = 0, needs_head: bool = False) -> Any:
    """A reward model in fp32 from a folder or Hugging Face id.

    Args:
        random_seed: of the head, where the model has none.
        needs_head: refuse a model without one, whose rewards would be noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        model = pretrained(AutoModelForSequenceClassification, source, tokenizer, num_labels=1)
    check_layout(model, str(source))
    if needs_head and not any("SequenceClassification" in name for name in model.config.architectures or ()):
        raise TrainError(
            f"{str(source)!r} is a language model without a reward head: train one with descant fit reward"
        )
    model = text_only(model)
    model.config.use_cache = False
    return model


def pretrained(kind: Any, source: str | Path, tokenizer: Any, **options: Any) -> Any:
    """A model in fp32 from a folder or Hugging Face id, as one of transformers' auto classes reads it.

    Attention is `eager` where the model caps its attention logits.
    """
    _quiet()
    try:
        attention = attention_of(AutoConfig.from_pretrained(str(source)))
        model = kind.from_pretrained(str(source), dtype=torch.float32, attn_implementation=attention, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise TrainError(f"no model in {str(source)!r}: {str(error).strip().splitlines()[0]}") from error
    model.config.pad_token_id = tokenizer.pad_token_id
    for parameter in model.parameters():  # out of the mapped file: its alignment could change the last bit of a sum
        parameter.data = parameter.data.clone()
    return model


def _quiet() -> None:
    """No bars and notes of transformers between ours, such as that a chat model has no reward head yet."""
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def rewards(
    model: Any,
    groups: Sequence[Sequence[Sequence[int]]],
    readings: Sequence[tuple[int, int]],
    *,
    pad_token_id: int,
    device: torch.device,
    streams: bool | None = None,
) -> Tensor:
    """reward_N in fp32, read at the places that `readings` name; see `train.reading.hidden_at`.

    Args:
        streams: null reads a stream where the model can.
    """
    as_stream = reads_streams(model) if streams is None else streams
    hidden_ND = hidden_at(model.model, groups, readings, pad_token_id=pad_token_id, device=device, streams=as_stream)
    reward: Tensor = model.score(hidden_ND)[:, 0].float()
    return reward


def masked_rewards(model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """reward_B of a batch that a tokenizer padded, on either side: read at each row's last token that the mask names.

    What the padding is made of does not count, nor whether a conversation ends with the same token.
    """
    place_B = last_tokens(mask_BT)
    positions_BT = (mask_BT.long().cumsum(dim=1) - 1).clamp(min=0)
    rows_B = torch.arange(len(ids_BT), device=ids_BT.device)
    hidden_BTD = model.model(
        input_ids=ids_BT, attention_mask=mask_BT, position_ids=positions_BT, use_cache=False
    ).last_hidden_state
    reward: Tensor = model.score(hidden_BTD[rows_B, place_B])[:, 0].float()
    return reward


def last_tokens(mask_BT: Tensor) -> Tensor:
    """place_B of each row's last token that the mask names."""
    places_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    return (mask_BT.bool() * places_T).argmax(dim=1)


def n_parameters(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def device_of(wish: str) -> torch.device:
    if wish == "cuda" and not torch.cuda.is_available():
        raise TrainError("device 'cuda': torch sees no GPU here; take 'auto' or 'cpu'")
    return torch.device("cuda" if wish != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def fitting_threads(model: Any, device: torch.device) -> Iterator[None]:
    """One CPU thread for a small model, as many as before for others."""
    before = torch.get_num_threads()
    if device.type == "cpu" and n_parameters(model) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Matrix products in `precision`; a CPU without bf16 products goes on in fp32."""
    before = torch.get_float32_matmul_precision()
    if precision == "bf16" and device.type == "cpu":
        torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and device.type != "cpu"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
