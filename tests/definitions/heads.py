"""Section D of the catalogue: mixing, gating and grouping of heads; causal."""

import torch
from torch import Tensor

from .common import (
    Call,
    Given,
    Need,
    Result,
    TensorSpec,
    define,
    not_later,
    softmax,
    softmax_attention,
    weighted,
)

ONE_SIDE = {
    "q1": ("b", "q", "rank", "h"),
    "q2": ("b", "q", "rank", "h"),
    "k1": ("b", "k", "rank", "h"),
    "k2": ("b", "k", "rank", "h"),
    "qd": ("b", "q", "h"),
    "kd": ("b", "k", "h"),
}


@define(
    "D",
    tensors={"pre": TensorSpec(("h", "h")), "post": TensorSpec(("h", "h"))},
    visible=not_later,
)
def talking_heads(call: Call, p: Given) -> Result:
    mixed = torch.einsum("mn,bnqk->bmqk", p.pre, call.dot())
    P, lse = softmax(mixed, call.mask())
    weights = torch.einsum("mn,bnqk->bmqk", p.post, P)
    return Result(weighted(call, weights), lse, weights)


def compose(A: Tensor, q1: Tensor, q2: Tensor, k1: Tensor, k2: Tensor, qd: Tensor, kd: Tensor) -> Tensor:
    """One mixing of the heads of A [B,H,NQ,NK].

    A_m + Σ_r (Σ_n A_n·q1[q,r,n])·q2[q,r,m] + Σ_r (Σ_n A_n·k1[k,r,n])·k2[k,r,m] + A_m·qd[q,m] + A_m·kd[k,m]
    """
    by_query = torch.einsum("bnqk,bqrn,bqrm->bmqk", A, q1, q2)
    by_key = torch.einsum("bnqk,bkrn,bkrm->bmqk", A, k1, k2)
    diagonal_query = A * qd.permute(0, 2, 1)[:, :, :, None]
    diagonal_key = A * kd.permute(0, 2, 1)[:, :, None, :]
    return A + by_query + by_key + diagonal_query + diagonal_key


@define(
    "D",
    params={"rank": 2},
    tensors={
        f"{side}_{name}": TensorSpec(axes) for side in ("pre", "post") for name, axes in ONE_SIDE.items()
    },
    visible=not_later,
)
def composed_heads(call: Call, p: Given) -> Result:
    s = compose(call.dot(), p.pre_q1, p.pre_q2, p.pre_k1, p.pre_k2, p.pre_qd, p.pre_kd)
    P, lse = softmax(s, call.mask())
    weights = compose(P, p.post_q1, p.post_q2, p.post_k1, p.post_k2, p.post_qd, p.post_kd)
    return Result(weighted(call, weights), lse, weights)


@define("D", tensors={"gate": TensorSpec(("b", "q", "h"))}, visible=not_later)
def mixture_of_heads(call: Call, p: Given) -> Result:
    plain = softmax_attention(call, call.dot(), call.mask())
    gate = p.gate.permute(0, 2, 1)[..., None]
    assert plain.weights is not None
    return Result(gate * plain.out, plain.lse, gate * plain.weights)


@define(
    "D",
    tensors={"kv_head": TensorSpec(("h",), "int")},
    needs=(
        Need(
            "0 ≤ kv_head < HK",
            lambda z, p: not hasattr(p, "kv_head") or all(0 <= g < z.HK for g in p.kv_head.tolist()),
        ),
    ),
    visible=not_later,
)
def key_driven_groups(call: Call, p: Given) -> Result:
    s = call.scale * torch.einsum("bhqd,bhkd->bhqk", call.q, call.k[:, p.kv_head])
    weights, lse = softmax(s, call.mask())
    return Result(torch.einsum("bhqk,bhkv->bhqv", weights, call.v[:, p.kv_head]), lse, weights)
