"""Attention over a stream of chains (`train.stream`): what each token would see in a sequence of its own, and nothing else.

A token looks at all that stands before it in its sequence, or at the last `window` positions of that; logits may be capped
(Gemma-2, arXiv 2408.00118, section 2). Transformers' own functions know no branches, take a window for a distance within the
stream, and, but for `eager`, drop the cap. A chain is read in blocks of queries: nothing is computed above the diagonal or
before the window, heads of keys and values are never repeated, and the gradient is taken from the kept weights of each block.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from train.stream import Chain, Stream

NAME = "descant_stream"
"""What the attention is called in transformers' table of them."""
MASKS_BY_KIND = {"gemma2", "gemma3_text", "qwen2", "qwen3"}
"""Model types that take a mask for each kind of attention layer by its name; others take one."""
QUERIES = 128
"""Queries of a block at most: few are computed in vain above the diagonal, and a block's logits stay in a core's cache."""

# Shapes: T tokens of the stream, H heads, K heads of keys and values, G heads for each of those, D their size,
# Q queries and N keys of a block.


class Block(NamedTuple):
    """Some queries of a chain, and the keys that one or the other of them sees."""

    queries: slice
    """Of the stream."""
    keys: slice
    """Of the chain's sequence."""
    too_late_QQ: Tensor
    """True where a query stands before one of the last Q keys."""
    too_early_QN: Tensor | None
    """True where one of the first keys is out of a query's window; null where none is."""

    def hide(self, logits_KQGN: Tensor) -> None:
        """Make what a query does not see weigh nothing."""
        n = self.too_late_QQ.shape[1]
        logits_KQGN[..., -n:].masked_fill_(self.too_late_QQ[:, None], float("-inf"))
        if self.too_early_QN is not None:
            n = self.too_early_QN.shape[1]
            logits_KQGN[..., :n].masked_fill_(self.too_early_QN[:, None], float("-inf"))


class Layout:
    """A stream as models are called with it."""

    def __init__(self, stream: Stream, device: torch.device) -> None:
        self.stream = stream
        self.device = device
        self._blocks: dict[int | None, list[tuple[Chain, list[Block]]]] = {}

    def inputs(self, config: Any) -> dict[str, Any]:
        """What a model of this config, with this attention, is called with."""
        unused: Any = torch.zeros(1, 1, 1, 1, device=self.device)  # transformers makes no mask where it is given one
        if config.model_type in MASKS_BY_KIND:
            unused = {"full_attention": unused, "sliding_attention": unused}
        return {
            "input_ids": torch.tensor([self.stream.ids], device=self.device),
            "position_ids": torch.tensor([self.stream.positions], device=self.device),
            "attention_mask": unused,
            "use_cache": False,
            "layout": self,
        }

    def blocks(self, window: int | None) -> list[tuple[Chain, list[Block]]]:
        """The chains in blocks; made once for all layers of a window."""
        if window not in self._blocks:
            self._blocks[window] = [
                (chain, [self._block(chain, start, window) for start in range(0, chain.own.length, QUERIES)])
                for chain in self.stream.chains
            ]
        return self._blocks[window]

    def _block(self, chain: Chain, start: int, window: int | None) -> Block:
        n = min(QUERIES, chain.own.length - start)
        first = chain.first + start
        low = 0 if window is None else max(0, first - window + 1)
        query_Q1 = torch.arange(first, first + n, device=self.device)[:, None]
        too_early_QN = None
        if window is not None and first + n - 1 - window >= low:
            key_N = torch.arange(low, first + n - window, device=self.device)
            too_early_QN = key_N <= query_Q1 - window
        return Block(
            queries=slice(chain.own.start + start, chain.own.start + start + n),
            keys=slice(low, first + n),
            too_late_QQ=torch.ones(n, n, dtype=torch.bool, device=self.device).triu(1),
            too_early_QN=too_early_QN,
        )


class _ChainAttention(torch.autograd.Function):
    """out_KTGD of a whole stream; weights and capped logits of each block are kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        q_KTGD: Tensor,
        k_KTD: Tensor,
        v_KTD: Tensor,
        layout: Layout,
        scaling: float,
        window: int | None,
        cap: float | None,
    ) -> Tensor:
        K, _, G, D = q_KTGD.shape
        out_KTGD = torch.empty_like(q_KTGD)
        wide = torch.promote_types(q_KTGD.dtype, torch.float32)  # of logits and their sums
        kept: list[Tensor] = []
        keeps = any(ctx.needs_input_grad)
        for chain, blocks in layout.blocks(window):
            k_KND, v_KND = _along(chain, k_KTD), _along(chain, v_KTD)
            for block in blocks:
                q_KRD = q_KTGD[:, block.queries].reshape(K, -1, D)  # R = Q * G rows
                logits_KRN = torch.bmm(q_KRD, k_KND[:, block.keys].transpose(1, 2)).to(wide)
                if cap is None:
                    logits_KRN *= scaling
                else:
                    capped_KRN = logits_KRN.mul_(scaling / cap).tanh_()
                    logits_KRN = capped_KRN * cap
                    kept += [capped_KRN] if keeps else []
                block.hide(logits_KRN.view(K, -1, G, logits_KRN.shape[-1]))
                weights_KRN = torch.softmax(logits_KRN, -1).to(q_KTGD.dtype)
                kept += [weights_KRN] if keeps else []
                out_KTGD[:, block.queries] = torch.bmm(weights_KRN, v_KND[:, block.keys]).view(K, -1, G, D)
        ctx.save_for_backward(q_KTGD, k_KTD, v_KTD, out_KTGD, *kept)
        ctx.rest = layout, scaling, window, cap
        return out_KTGD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (dout_KTGD,) = gradients
        q_KTGD, k_KTD, v_KTD, out_KTGD, *rest = ctx.saved_tensors
        layout, scaling, window, cap = ctx.rest
        kept = iter(rest)
        K, _, G, D = q_KTGD.shape
        dq_KTGD, dk_KTD, dv_KTD = torch.empty_like(q_KTGD), torch.zeros_like(k_KTD), torch.zeros_like(v_KTD)
        wide = torch.promote_types(q_KTGD.dtype, torch.float32)
        weighed_KTG = (dout_KTGD.to(wide) * out_KTGD).sum(-1)  # of each query: the mean gradient of its weights
        for chain, blocks in layout.blocks(window):
            k_KND, v_KND = _along(chain, k_KTD), _along(chain, v_KTD)
            dk_KND, dv_KND = torch.zeros_like(k_KND), torch.zeros_like(v_KND)
            for block in blocks:
                keys = block.keys
                q_KRD = q_KTGD[:, block.queries].reshape(K, -1, D)
                dout_KRD = dout_KTGD[:, block.queries].reshape(K, -1, D)
                capped_KRN = next(kept) if cap is not None else None
                weights_KRN = next(kept)
                dv_KND[:, keys] += torch.bmm(weights_KRN.transpose(1, 2), dout_KRD)
                dlogits_KRN = torch.bmm(dout_KRD, v_KND[:, keys].transpose(1, 2)).to(wide)
                dlogits_KRN.sub_(weighed_KTG[:, block.queries].reshape(K, -1, 1)).mul_(weights_KRN)
                if capped_KRN is not None:  # the derivative of tanh is 1 - tanh^2
                    dlogits_KRN.addcmul_(dlogits_KRN * capped_KRN, capped_KRN, value=-1.0)
                dlogits_KRN = dlogits_KRN.mul_(scaling).to(q_KTGD.dtype)
                dq_KTGD[:, block.queries] = torch.bmm(dlogits_KRN, k_KND[:, keys]).view(K, -1, G, D)
                dk_KND[:, keys] += torch.bmm(dlogits_KRN.transpose(1, 2), q_KRD)
            _add_along(chain, dk_KTD, dk_KND)
            _add_along(chain, dv_KTD, dv_KND)
        return dq_KTGD, dk_KTD, dv_KTD, None, None, None, None


def _along(chain: Chain, x_KTD: Tensor) -> Tensor:
    """What stands along a chain's sequence."""
    path = chain.path
    if len(path) == 1:
        return x_KTD[:, path[0].start : path[0].end]
    return torch.cat([x_KTD[:, span.start : span.end] for span in path], dim=1)


def _add_along(chain: Chain, x_KTD: Tensor, more_KND: Tensor) -> None:
    at = 0
    for span in chain.path:
        x_KTD[:, span.start : span.end] += more_KND[:, at : at + span.length]
        at += span.length


def stream_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it: query (B, H, T, D), key and value (B, K, N, D); gives (B, T, H, D).

    Args:
        layout: of the stream that the model reads; null where it reads plain sequences, with `attention_mask`.
    """
    del module, others
    assert not dropout, "models with dropout in their attention have another one"
    _, H, T, D = query.shape
    K = key.shape[1]
    if layout is None:
        scaling = D**-0.5 if scaling is None else scaling
        return _plain_attention(query, key, value, attention_mask, scaling, softcap), None
    q_KTGD = query[0].view(K, H // K, T, D).transpose(1, 2).contiguous()
    scaling = D**-0.5 if scaling is None else scaling
    attended_KTGD: Tensor = _ChainAttention.apply(  # type: ignore[no-untyped-call]
        q_KTGD, key[0].contiguous(), value[0].contiguous(), layout, scaling, sliding_window, softcap
    )
    return attended_KTGD.permute(1, 0, 2, 3).reshape(1, T, H, D), None


def _plain_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, cap: float | None
) -> Tensor:
    """(B, T, H, D) of a batch of plain sequences, as transformers' `eager`; `mask` is added to the logits."""
    B, H, T, D = query.shape
    K = key.shape[1]
    logits_BKGTN = query.reshape(B, K, H // K, T, D) @ key[:, :, None].transpose(3, 4) * scaling
    if cap is not None:
        logits_BKGTN = torch.tanh(logits_BKGTN / cap) * cap
    if mask is not None:
        logits_BKGTN = logits_BKGTN + mask[:, :, None]
    weights_BKGTN = torch.softmax(logits_BKGTN.float(), -1).to(query.dtype)
    return (weights_BKGTN @ value[:, :, None]).reshape(B, H, T, D).transpose(1, 2)


ALL_ATTENTION_FUNCTIONS.register(NAME, stream_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)
