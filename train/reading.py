"""What a model makes of token sequences, read at places: as one stream where it can, else as a batch padded on the right.

Both ways give the same (`train.attention`); the stream computes what sequences share once and nothing for padding. A causal
model's real tokens never see what stands after them, so right padding needs no mask. Knows nothing of heads, losses or data.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from train.attention import NAME, Layout
from train.stream import stream_of

STREAMS = {"gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"}
"""Model types for which a test shows that a stream gives the loss and gradients of one conversation at a time."""
WORTH_SHARING = 16
"""Tokens that sequences have in common before they are grouped: a template's first marks alone are not worth a branch."""

# Shapes: B sequences, T tokens, N readings, D hidden size.


def why_no_streams(config: Any) -> str | None:
    """Why a model cannot read streams; null when it can."""
    if config.model_type not in STREAMS:
        return f"the architecture {config.model_type} is not known to read them rightly"
    if getattr(config, "attention_dropout", 0.0):
        return "its attention drops out weights"
    return None


def reads_streams(model: Any) -> bool:
    """Whether a model was loaded with the attention that streams need."""
    return bool(model.config._attn_implementation == NAME)


def hidden_at(
    body: Any,
    groups: Sequence[Sequence[Sequence[int]]],
    readings: Sequence[tuple[int, int]],
    *,
    pad_token_id: int,
    device: torch.device,
    streams: bool,
) -> Tensor:
    """hidden_ND, the last hidden states at the tokens that `readings` name.

    Args:
        body: a transformers model without its head.
        groups: token sequences; those of a group may begin alike.
        readings: a sequence, counted through all groups, and a place in it.
        streams: whether it reads a stream; `reads_streams` says where it can.
    """
    if streams:
        stream = stream_of(groups)
        hidden_1TD = body(**Layout(stream, device).inputs(body.config)).last_hidden_state
        places = [stream.place(sequence, place) for sequence, place in readings]
        hidden_ND: Tensor = hidden_1TD[0, torch.tensor(places, dtype=torch.long, device=device)]
        return hidden_ND
    ids_BT = pad_right([sequence for group in groups for sequence in group], pad_token_id, device)
    row_N, place_N = torch.tensor(readings, dtype=torch.long, device=device).reshape(-1, 2).T
    hidden_ND = body(input_ids=ids_BT, use_cache=False).last_hidden_state[row_N, place_N]
    return hidden_ND


def pad_right(sequences: Sequence[Sequence[int]], pad_token_id: int, device: torch.device | None = None) -> Tensor:
    """ids_BT, no longer than its longest row."""
    longest = max(len(sequence) for sequence in sequences)
    rows = [[*sequence, *[pad_token_id] * (longest - len(sequence))] for sequence in sequences]
    return torch.tensor(rows, dtype=torch.long, device=device)


def alike(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """The places of sequences, in groups that begin alike."""
    order = sorted(range(len(sequences)), key=lambda place: list(sequences[place]))
    groups: list[list[int]] = []
    for place in order:
        before = sequences[groups[-1][-1]] if groups else []
        is_alike = before[:WORTH_SHARING] == sequences[place][:WORTH_SHARING]
        if groups and is_alike and min(len(before), len(sequences[place])) >= WORTH_SHARING:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
