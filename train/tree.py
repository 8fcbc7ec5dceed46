"""Several continuations of one beginning as one sequence: the trunk once, then the branches, each seeing its ancestors only.

A token attends to the trunk and to its own branch up to itself; positions go on from the trunk in every branch, and
a sliding window is measured in positions, not in the distance within the stream. What a token's hidden state is, is
then what it would be in a sequence of its own. The masks are explicit, since transformers' own know neither branches nor
positions that repeat: it would cut the stream wherever positions do not step by one. Knows nothing of losses or data.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

MASKS_BY_KIND = {"gemma2", "gemma3_text", "qwen2", "qwen3"}
"""Model types that take a mask for each kind of attention layer by its name."""
ONE_MASK = {"llama", "mistral"}
"""Model types whose layers are all alike, which take one; a Mistral's may have a window."""

# Shapes: B trees, T tokens of the stream.


class Tree(NamedTuple):
    """Sequences that begin alike, as one stream."""

    trunk: int
    """Tokens that all share."""
    ids: list[int]
    positions: list[int]
    branches: list[int]
    """Of each token: which sequence it belongs to, from 0; -1 for the trunk."""
    begins: list[int]
    """Where in the stream each sequence's own part begins."""

    def place(self, sequence: int, place: int) -> int:
        """Where in the stream the token stands that is at `place` of a sequence."""
        return place if place < self.trunk else self.begins[sequence] + place - self.trunk


def tree_of(sequences: Sequence[Sequence[int]], *, most: int) -> Tree:
    """The tree of sequences that share a beginning.

    Args:
        most: tokens that the trunk has at most; each sequence is longer.
    """
    trunk = shared_beginning(sequences, most)
    ids, positions, branches = list(sequences[0][:trunk]), list(range(trunk)), [-1] * trunk
    begins = []
    for number, sequence in enumerate(sequences):
        begins.append(len(ids))
        ids += sequence[trunk:]
        positions += range(trunk, len(sequence))
        branches += [number] * (len(sequence) - trunk)
    return Tree(trunk, ids, positions, branches, begins)


def shared_beginning(sequences: Sequence[Sequence[int]], most: int) -> int:
    """How many tokens all sequences begin with, at most `most`."""
    for place, tokens in enumerate(zip(*(sequence[:most] for sequence in sequences), strict=False)):
        if len(set(tokens)) > 1:
            return place
    return min(most, *map(len, sequences))


def why_no_trees(config: Any) -> str | None:
    """Why a model cannot read trees; null when it can.

    Only architectures are taken for which a test shows that loss and gradients equal the plain way's.
    """
    if config.model_type in MASKS_BY_KIND | ONE_MASK:
        return None
    return f"the architecture {config.model_type} is not known to read them rightly"


def tree_inputs(trees: Sequence[Tree], config: Any, pad_token_id: int, device: torch.device) -> dict[str, Any]:
    """What the model is called with: ids_BT, position_ids and masks that add 0 where a token may look, else the lowest number."""
    longest = max(len(tree.ids) for tree in trees)

    def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
        return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)

    ids_BT = padded([tree.ids for tree in trees], pad_token_id)
    positions_BT = padded([tree.positions for tree in trees], 0)
    branches_BT = padded([tree.branches for tree in trees], -2)  # padding is a branch of its own, seen by itself alone
    is_earlier_TT = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
    is_same_BTT = branches_BT[:, :, None] == branches_BT[:, None, :]
    is_trunk_B1T = (branches_BT == -1)[:, None, :] & (branches_BT != -2)[:, :, None]
    seen_BTT = is_earlier_TT & (is_same_BTT | is_trunk_B1T)
    masks = {"full_attention": _additive(seen_BTT)}
    windowed = config.model_type == "mistral" and config.sliding_window is not None
    if windowed or "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        distance_BTT = positions_BT[:, :, None] - positions_BT[:, None, :]
        masks["sliding_attention"] = _additive(seen_BTT & (distance_BTT < config.sliding_window))
    mask = masks["sliding_attention" if windowed else "full_attention"] if config.model_type in ONE_MASK else masks
    return {"ids_BT": ids_BT, "position_ids": positions_BT, "attention_mask": mask}


def _additive(seen_BTT: Tensor) -> Tensor:
    mask_B1TT = torch.zeros(seen_BTT.shape, device=seen_BTT.device)
    return mask_B1TT.masked_fill_(~seen_BTT, torch.finfo(torch.float32).min)[:, None]
