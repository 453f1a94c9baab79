"""The peers: scaled_dot_product_attention and FlexAttention, set up for the patterns that are timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

WINDOW, CAP = 1024, 50.0
Attend = Callable[[], Any]


@dataclass(frozen=True)
class Problem:
    """Q, K, V [B, H, N, D] of one timed problem, and the slopes of its heads."""

    pattern: str
    q: Tensor
    k: Tensor
    v: Tensor
    slopes: Tensor

    @staticmethod
    def random(pattern: str, batch: int, heads: int, length: int, features: int, device: str) -> Problem:
        """bf16 on a GPU, float32 elsewhere."""
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        q, k, v = (torch.randn(batch, heads, length, features, device=device, dtype=dtype) for _ in range(3))
        slopes = torch.exp2(-8 * torch.arange(1, heads + 1, device=device, dtype=torch.float32) / heads)
        return Problem(pattern, q, k, v, slopes.to(dtype))


def sdpa(problem: Problem) -> Attend | None:
    """scaled_dot_product_attention with the fastest arguments that say the pattern; None where it cannot."""
    q, k, v = problem.q, problem.k, problem.v
    length = q.shape[2]
    match problem.pattern:
        case "full":
            return lambda: F.scaled_dot_product_attention(q, k, v)
        case "causal":
            return lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)
        case "sliding_window":
            row = torch.arange(length, device=q.device)
            away = row[:, None] - row[None, :]
            mask = (away >= 0) & (away < WINDOW)
            return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        case "alibi":
            row = torch.arange(length, device=q.device)
            away = (row[:, None] - row[None, :]).to(q.dtype)
            bias = (-problem.slopes[:, None, None] * away).masked_fill(away < 0, float("-inf"))[None]
            bias = bias.expand(q.shape[0], -1, -1, -1)
            return lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        case _:
            return None


@cache
def _compiled() -> Callable[..., Any]:
    torch._dynamo.config.cache_size_limit = 1000  # pyright: ignore[reportPrivateUsage]
    return torch.compile(flex_attention, dynamic=False)


def flex(problem: Problem) -> Attend:
    """FlexAttention: compiled on a GPU, its eager form elsewhere, with a block mask where there is a mask."""
    q, k, v, slopes = problem.q, problem.k, problem.v, problem.slopes
    attend = _compiled() if q.is_cuda else flex_attention
    length = q.shape[2]

    def causal(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return i >= j

    def window(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return (i >= j) & (i - j < WINDOW)

    def alibi(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score - slopes[h] * (i - j)

    def softcap(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return CAP * torch.tanh(score / CAP)

    visible = {"causal": causal, "sliding_window": window, "alibi": causal, "softcap": causal}.get(
        problem.pattern
    )
    change = {"alibi": alibi, "softcap": softcap}.get(problem.pattern)
    blocks = None
    if visible is not None:
        blocks = create_block_mask(visible, None, None, length, length, device=str(q.device.type))
    return lambda: attend(q, k, v, score_mod=change, block_mask=blocks)
