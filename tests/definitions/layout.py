"""Section H of the catalogue: key/value layout."""

import torch
from torch import Tensor

from .common import (
    Call,
    Given,
    Need,
    Result,
    TensorSpec,
    define,
    everything,
    not_later,
    same_lengths,
    softmax,
    softmax_attention,
    unit_rows,
)


@define(
    "H",
    params={"extra": 16},
    tensors={"ek": TensorSpec(("b", "g", "extra", "d")), "ev": TensorSpec(("b", "g", "extra", "d"))},
    needs=(Need("DV = D", lambda z, p: z.DV == z.D),),
)
def extra_tokens(call: Call, p: Given) -> Result:
    EK, EV = call.per_head(p.ek), call.per_head(p.ev)
    s = call.scale * torch.einsum("bhqd,bhkd->bhqk", call.q, torch.cat([EK, call.keys()], 2))
    causal = call.columns()[None, :] <= call.rows()[:, None]
    always = torch.ones(call.sizes.NQ, p.extra, dtype=torch.bool)
    weights, lse = softmax(s, torch.cat([always, causal], -1))
    return Result(weights @ torch.cat([EV, call.values()], 2), lse)


@define("H", params={"temperature": 0.05}, visible=everything)
def memory_bank(call: Call, p: Given) -> Result:
    cosines = torch.einsum("bhqd,bhkd->bhqk", unit_rows(call.q), unit_rows(call.keys()))
    return softmax_attention(call, cosines / p.temperature, call.mask())


@define("H", params={"reach": 8, "alpha": 0.5}, needs=(same_lengths,), lse=False, visible=not_later)
def windowed_query(call: Call, p: Given) -> Result:
    smooth = torch.stack(
        [call.q[:, :, max(0, row - p.reach + 1) : row + 1].mean(2) for row in range(call.sizes.NQ)], 2
    )

    def attn(q: Tensor) -> Tensor:
        s = call.scale * torch.einsum("bhqd,bhkd->bhqk", q, call.keys())
        return softmax_attention(call, s, call.mask()).out

    return Result(p.alpha * attn(call.q) + (1 - p.alpha) * attn(smooth))
