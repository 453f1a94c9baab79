"""from_flex on mask_mods and score_mods as people publish them, against PyTorch's own evaluation of the functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import create_mask, flex_attention

import attnlang
from attnlang.errors import Diagnostic
from tests.flex_masks import IDS, MASKS, OFFSETS, RARER, B, H, Mod, N

D = 8


# ---------------------------------------------------------------------------------------------- mask_mods


@pytest.mark.parametrize("name", [*MASKS, *RARER])
def test_published_mask_mods(name: str) -> None:
    mod = {**MASKS, **RARER}[name]
    pattern = attnlang.from_flex(mask_mod=mod)

    def theirs(b: Any, h: Any, q: Any, k: Any) -> Any:
        return mod(b, h, q, k)

    wanted = create_mask(theirs, B, H, N, N, device="cpu").bool()
    assert torch.equal(pattern.mask(N, N, heads=H, batch=B).expand(wanted.shape), wanted), str(pattern)
    again = attnlang.parse(str(pattern))
    assert again == pattern
    parts = pattern.to_flex(N, N, heads=H, batch=B, block_size=8)
    if parts.mask_mod is not None:
        assert torch.equal(create_mask(parts.mask_mod, B, H, N, N, device="cpu"), wanted)


# --------------------------------------------------------------------------------------------- score_mods


def relative_positional(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    return score + (q_idx - kv_idx)


def checkerboard(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
    score = torch.where(torch.abs(kv_idx - q_idx) % 2 == 1, score * 0.5, score)
    return torch.where(torch.abs(kv_idx - q_idx) % 2 == 0, score * 2.0, score)


def generate_alibi_bias(heads: int) -> Mod:
    def alibi_mod(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        scale = torch.exp2(-((h + 1) * 8.0 / heads))
        bias = (kv_idx - q_idx) * scale
        return score + bias

    return alibi_mod


def generate_tanh_softcap(soft_cap: int) -> Mod:
    def tanh_softcap(score: Any, b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return soft_cap * torch.tanh(score / soft_cap)

    return tanh_softcap


def head_bias(bias: Tensor) -> Mod:
    def mod(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score + 2 * bias[h]

    return mod


def causal_inf(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.where(q >= k, score, float("-inf"))


def t5_bucket(table: Tensor) -> Mod:
    """Relative buckets: exact when near, logarithmic when far."""

    def mod(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        distance = torch.clamp(q - k, min=0)
        far = 4 + (torch.log(torch.clamp(distance, min=1).float() / 4) / math.log(4) * 4).to(torch.int64)
        bucket = torch.where(distance < 4, distance, torch.clamp(far, max=7))
        return score + table[bucket, h]

    return mod


def swin_bias(table: Tensor, index: Tensor) -> Mod:
    def mod(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score + table[index[q, k], h]

    return mod


def learned_scale(scale: nn.Parameter) -> Mod:
    def mod(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score * scale[h].sigmoid() + torch.nn.functional.softplus(score)

    return mod


def decay(gamma: float) -> Mod:
    def mod(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score + (q - k).abs().to(score.dtype) * math.log(gamma)

    return mod


def squared(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.sign(score) * score.square() + score.abs().sqrt() - (score**3) / 10


def rsqrt_length(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return score * torch.log1p(q.float() + 1) * torch.rsqrt(k + 1.0)


def gelu(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return score * 0.5 * (1 + torch.erf(score / math.sqrt(2)))


def masked(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
    return score.masked_fill(q < k, -1e4).clamp(min=-1e4)


SCORES: dict[str, Mod] = {
    "relative": relative_positional, "checkerboard": checkerboard, "alibi": generate_alibi_bias(H),
    "softcap": generate_tanh_softcap(20), "heads": head_bias(torch.linspace(-1, 1, H)), "causal": causal_inf,
    "t5": t5_bucket(torch.linspace(-1, 1, 8 * H).view(8, H)), "decay": decay(0.9), "squared": squared,
    "swin": swin_bias(torch.linspace(-1, 1, 5 * H).view(5, H), torch.arange(N * N).view(N, N) % 5),
    "learned": learned_scale(nn.Parameter(torch.linspace(-1, 1, H))), "length": rsqrt_length, "gelu": gelu,
    "masked": masked,
}  # fmt: skip


@pytest.mark.parametrize("name", SCORES)
def test_published_score_mods(name: str) -> None:
    pattern = attnlang.from_flex(score_mod=SCORES[name])
    assert attnlang.parse(str(pattern)) == pattern
    make = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(B, H, N, D, generator=make) for _ in range(3))
    run: Any = flex_attention
    with torch.no_grad():
        wanted = run(q, k, v, score_mod=SCORES[name])
        torch.testing.assert_close(pattern.reference(q, k, v).float(), wanted, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------ what is refused


def listed(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q - k < [1, 3, 5, 9][h]


def greater_of_two(b: Any, h: Any, q: Any, k: Any) -> Any:
    return max(q, k) < 9


def chained(b: Any, h: Any, q: Any, k: Any) -> Any:
    return 0 <= q - k < 3


def bucketized(b: Any, h: Any, q: Any, k: Any) -> Any:
    return torch.bucketize(q, OFFSETS) == torch.bucketize(k, OFFSETS)


def bits_of_both(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (q & k) == 0


def whole_tensor(b: Any, h: Any, q: Any, k: Any) -> Any:
    return (k == OFFSETS).any()


def of_an_item(b: Any, h: Any, q: Any, k: Any) -> Any:
    return q.item() >= k


REFUSED: dict[str, tuple[Mod, str, str]] = {
    "list": (listed, "E282", "torch.tensor(values)[h]"), "max": (greater_of_two, "E282", "torch.maximum(x, y)"),
    "chain": (chained, "E282", "(a <= x) & (x < b)"), "bucketize": (bucketized, "E280", "for all positions before"),
    "bits": (bits_of_both, "E280", "one of them must be a number"), "item": (of_an_item, "E282", "no value yet"),
    "whole": (whole_tensor, "E281", "one index for each of its axes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_to_write(name: str) -> None:
    mod, code, advice = REFUSED[name]
    with pytest.raises(Diagnostic) as caught:
        attnlang.from_flex(mask_mod=mod)
    assert caught.value.code == code
    assert advice in str(caught.value)


def test_indices_that_are_never_below_zero_are_left_as_they_are() -> None:
    bias = torch.linspace(-1, 1, 2 * N - 1)

    def relative(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score + bias[q - k + (N - 1)] + bias[(q - k).abs()] + bias[q // 2 + k % 3] + bias[IDS[q]]

    assert " mod 47" not in str(attnlang.from_flex(score_mod=relative))

    def backwards(score: Any, b: Any, h: Any, q: Any, k: Any) -> Any:
        return score + bias[q - k]

    assert "bias[(q - k) mod 47]" in str(attnlang.from_flex(score_mod=backwards))
