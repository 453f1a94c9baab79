"""Section C of the catalogue: normalizers; causal and of score dot unless the entry says otherwise."""

import math

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
    top,
    unit_rows,
    weighted,
)


def column(t: Tensor) -> Tensor:
    """[H] → [H,1,1]."""
    return t[:, None, None]


def divided(t: Tensor) -> Tensor:
    """Rows divided by their sum, 0 where the sum is 0."""
    total = t.sum(-1, keepdim=True)
    return torch.where(total == 0, 0.0, t / torch.where(total == 0, 1.0, total))


@define("C", tensors={"bias": TensorSpec(("h",))}, lse=False, visible=not_later)
def sigmoid(call: Call, p: Given) -> Result:
    weights = torch.sigmoid(call.dot() + column(p.bias)).masked_fill(~call.mask(), 0.0)
    return Result(weighted(call, weights), None, weights)


@define("C", lse=False, visible=not_later)
def relu(call: Call, p: Given) -> Result:
    visible = call.mask()
    count = visible.sum(-1, keepdim=True).clamp(min=1)
    weights = torch.relu(call.dot()).masked_fill(~visible, 0.0) / count
    return Result(weighted(call, weights), None, weights)


def softmax_with_extra(s: Tensor, visible: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
    """w = exp(s)/(exp(extra) + Σ exp(s)); the lse leaves the extra term out."""
    _, lse = softmax(s, visible)
    denominator = torch.logaddexp(extra.expand_as(lse), lse)
    return torch.exp(s.masked_fill(~visible, -torch.inf) - denominator[..., None]), lse


@define("C", visible=not_later)
def softmax_one(call: Call, p: Given) -> Result:
    weights, lse = softmax_with_extra(call.dot(), call.mask(), torch.zeros(1, 1).double())
    return Result(weighted(call, weights), lse, weights)


@define("C", tensors={"sink": TensorSpec(("h",))}, visible=not_later)
def sink_softmax(call: Call, p: Given) -> Result:
    weights, lse = softmax_with_extra(call.dot(), call.mask(), p.sink[:, None])
    return Result(weighted(call, weights), lse, weights)


@define("C", params={"power": 3, "offset": 1.0}, lse=False, visible=not_later)
def softplus_reweighted(call: Call, p: Given) -> Result:
    q = call.rows()[:, None]
    cosines = torch.einsum("bhqd,bhkd->bhqk", unit_rows(call.q), unit_rows(call.keys()))
    s = math.log(call.sizes.D) * torch.log((q + 1).clamp(min=1).double()) * cosines
    positive = torch.log1p(torch.exp(s)).masked_fill(~call.mask(), 0.0)  # |s| ≤ ln(D)·ln(q+1) is small
    lifted = (q + 1) * divided(positive) - (q >= 3).double() * p.offset
    weights = divided(torch.relu(lifted).masked_fill(~call.mask(), 0.0) ** p.power)
    return Result(weighted(call, weights), None, weights)


def entmax_weights(s: Tensor, visible: Tensor, alpha: float) -> Tensor:
    """max((alpha−1)·s − τ, 0)^(1/(alpha−1)) with Σ = 1, by bisection, with its implicit gradient."""
    x = ((alpha - 1) * s).masked_fill(~visible, -torch.inf)
    some = visible.broadcast_to(s.shape).any(-1, keepdim=True)
    x = torch.where(some, x, 0.0)  # an empty row is computed as another row, and dropped at the end
    power = 1 / (alpha - 1)

    def weights_at(tau: Tensor) -> Tensor:
        above = x - tau
        return torch.where(above > 0, torch.where(above > 0, above, 1.0) ** power, 0.0)

    with torch.no_grad():
        high = x.amax(-1, keepdim=True)  # Σ = 0 here
        low = high - 1.0  # Σ ≥ 1 here: the largest gives 1
        for _ in range(200):
            middle = (low + high) / 2
            enough = weights_at(middle).sum(-1, keepdim=True) >= 1
            low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
        tau = low
        above = x - tau
        slope = torch.where(above > 0, torch.where(above > 0, above, 1.0) ** (power - 1), 0.0) * power
    # One Newton step from the solution leaves τ as it is and gives it the derivative of the solution.
    step = (weights_at(tau).sum(-1, keepdim=True) - 1) / slope.sum(-1, keepdim=True)
    return torch.where(some, weights_at(tau + step), 0.0)


@define("C", lse=False, visible=not_later)
def sparsemax(call: Call, p: Given) -> Result:
    weights = entmax_weights(call.dot(), call.mask(), 2.0)
    return Result(weighted(call, weights), None, weights)


@define(
    "C",
    params={"alpha": 1.5},
    needs=(Need("alpha > 1", lambda z, p: p.alpha > 1),),
    lse=False,
    visible=not_later,
)
def entmax(call: Call, p: Given) -> Result:
    weights = entmax_weights(call.dot(), call.mask(), p.alpha)
    return Result(weighted(call, weights), None, weights)


@define("C", params={"iterations": 3}, needs=(same_lengths,), lse=False, visible=everything)
def sinkhorn(call: Call, p: Given) -> Result:
    L = call.dot()
    for _ in range(p.iterations):
        L = L - torch.logsumexp(L, dim=3, keepdim=True)  # over k
        L = L - torch.logsumexp(L, dim=2, keepdim=True)  # over q
    L = L - torch.logsumexp(L, dim=3, keepdim=True)
    weights = torch.exp(L)
    return Result(weighted(call, weights), None, weights)


@define(
    "C",
    tensors={"alpha": TensorSpec(("b", "h", "q")), "beta": TensorSpec(("b", "h", "q"))},
    visible=not_later,
)
def affine_scaled(call: Call, p: Given) -> Result:
    normalized, lse = softmax(call.dot(), call.mask())
    weights = (p.alpha[..., None] * normalized + p.beta[..., None]).masked_fill(~call.mask(), 0.0)
    return Result(weighted(call, weights), lse, weights)


@define("C", params={"keep": 32}, visible=not_later)
def top_k(call: Call, p: Given) -> Result:
    z, s, visible = call.sizes, call.dot(), call.mask()
    kept = torch.zeros(s.shape, dtype=torch.bool)
    for b in range(z.B):
        for h in range(z.H):
            for row in range(z.NQ):
                candidates = [k for k in range(z.NK) if visible[0, 0, row, k]]
                kept[b, h, row, top(p.keep, s[b, h, row].tolist(), candidates)] = True
    weights, lse = softmax(s, kept)
    return Result(weighted(call, weights), lse, weights)


@define(
    "C",
    tensors={"alpha": TensorSpec(("h",)), "m": TensorSpec(("h", "q", "k"))},
    lse=False,
    visible=everything,
)
def tanh_static(call: Call, p: Given) -> Result:
    weights = column(p.alpha) * torch.tanh(call.products() / call.sizes.D) + p.m
    return Result(weighted(call, weights), None, weights)


@define("C", lse=False, visible=not_later)
def taylor(call: Call, p: Given) -> Result:
    s = call.dot()
    weights = divided((1 + s + s**2 / 2).masked_fill(~call.mask(), 0.0))
    return Result(weighted(call, weights), None, weights)
