"""In half precision a stream's logits, caps and sums are fp32, as transformers' own attention has them."""

import torch

from train.attention import Layout, _ChainAttention, _plain_attention
from train.stream import stream_of

CAP, SCALING = 5.0, 0.25


def outputs_and_gradients(dtype: torch.dtype) -> list[torch.Tensor]:
    trunk = list(range(200))
    stream = stream_of([[[*trunk, *range(300, 400)], [*trunk, *range(500, 590)]]])
    chance = torch.Generator().manual_seed(0)
    n = len(stream.ids)
    shapes = ((2, n, 2, 16), (2, n, 16), (2, n, 16))
    q_k_v = [
        (3.0 * torch.randn(shape, generator=chance)).to(torch.bfloat16).to(dtype).requires_grad_() for shape in shapes
    ]
    out_KTGD = _ChainAttention.apply(  # type: ignore[no-untyped-call]
        *q_k_v, Layout(stream, torch.device("cpu")), SCALING, 64, CAP
    )
    out_KTGD.double().pow(2).sum().backward()
    return [out_KTGD.detach().double(), *(tensor.grad.double() for tensor in q_k_v if tensor.grad is not None)]


def test_bfloat16_is_as_near_to_fp64_as_its_own_numbers_are() -> None:
    exact, half = outputs_and_gradients(torch.float64), outputs_and_gradients(torch.bfloat16)
    assert len(exact) == 4
    for one, other in zip(exact, half, strict=True):
        assert float((one - other).norm() / one.norm()) < 2.0**-6  # a number of bfloat16 is right to 2**-8


def test_bfloat16_is_no_farther_from_fp64_than_plain_attention_with_its_sums_in_fp32() -> None:
    chance = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, 1, 150, 16, generator=chance).to(torch.bfloat16) for _ in range(3))
    causal = torch.full((1, 1, 150, 150), float("-inf")).triu(1)
    plain = _plain_attention(q, k, v, causal.to(torch.bfloat16), SCALING, CAP)[0, :, 0].double()
    exact = _plain_attention(q.double(), k.double(), v.double(), causal.double(), SCALING, CAP)[0, :, 0]
    layout = Layout(stream_of([[list(range(150))]]), torch.device("cpu"))
    stream = _ChainAttention.apply(  # type: ignore[no-untyped-call]
        q[0][:, :, None], k[0], v[0], layout, SCALING, None, CAP
    )[0, :, 0].double()
    assert (stream - exact).norm() <= 1.1 * (plain - exact).norm()
