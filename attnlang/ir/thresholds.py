"""What is found by search in a row: softmax and logsumexp over the visible, sparsemax, entmax, sinkhorn, choices.

Every function takes tensors whose last dimension is the row (`scores`, bool `visible`, of one shape).
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

_STEPS = 128


def _exponentials(scores: Tensor, visible: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """exp(score − m) where visible, else 0, and m, the largest visible score of the row (0 where all are −inf)."""
    seen = torch.where(visible, scores, -torch.inf)
    if scores.shape[dim] == 0:
        return scores, scores.sum(dim, keepdim=True)
    highest = seen.detach().amax(dim, keepdim=True)
    shift = torch.where(highest == -torch.inf, 0.0, highest)
    return torch.exp(seen - shift), shift


def masked_softmax(scores: Tensor, visible: Tensor) -> Tensor:
    """Softmax over the visible entries of the last dimension; 0 where nothing is visible."""
    exponentials, _ = _exponentials(scores, visible, -1)
    sums = exponentials.sum(-1, keepdim=True)
    return exponentials / torch.where(sums == 0, 1.0, sums)


def masked_logsumexp(scores: Tensor, visible: Tensor, dim: int = -1) -> Tensor:
    """log Σ exp over the visible entries, the dimension kept with length 1; −inf where nothing is visible."""
    exponentials, shift = _exponentials(scores, visible, dim)
    sums = exponentials.sum(dim, keepdim=True)
    empty = sums == 0
    return torch.where(empty, -torch.inf, torch.log(torch.where(empty, 1.0, sums)) + shift)


# ------------------------------------------------------------------------------------------ sparse normalizers


def _sparsemax_threshold(z: Tensor) -> Tensor:
    """τ with Σ max(z − τ, 0) = 1, from the sorted row (hidden entries are −inf)."""
    ordered = torch.sort(z, dim=-1, descending=True).values
    sums = torch.where(ordered == -torch.inf, 0.0, ordered).cumsum(-1)
    ranks = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
    support = (1 + ranks * ordered > sums).sum(-1, keepdim=True).clamp(min=1)
    return (sums.gather(-1, support - 1) - 1) / support


def _entmax_threshold(z: Tensor, power: Tensor) -> Tensor:
    """τ with Σ max(z − τ, 0)^power = 1 where max z = 0: Newton's method inside a shrinking bracket."""
    seen = (z > -torch.inf).sum(-1, keepdim=True).clamp(min=1).to(z.dtype)
    low = torch.full_like(seen, -1.0)
    high = -(seen ** (-1 / power))
    threshold = low
    for _ in range(_STEPS):
        gap = (z - threshold).clamp(min=0)
        excess = (gap**power).sum(-1, keepdim=True) - 1
        slope = -power * torch.where(gap > 0, gap ** (power - 1), 0.0).sum(-1, keepdim=True)
        low = torch.where(excess >= 0, threshold, low)
        high = torch.where(excess <= 0, threshold, high)
        newton = threshold - excess / slope
        inside = (newton > low) & (newton < high)
        following = torch.where(inside, newton, (low + high) / 2)
        following = torch.where(excess == 0, threshold, following)
        if bool(((following - threshold).abs() <= torch.finfo(z.dtype).eps).all()):
            return following
        threshold = following
    return threshold


class _Entmax(torch.autograd.Function):
    """w = max((α−1)s − τ, 0)^(1/(α−1)); dw/ds = diag(u) − u uᵀ/Σu with u = w^(2−α) on the support, and
    dw/dα = (w − ũ)/(α−1)² − (w ln w + ũ H)/(α−1) with ũ = u/Σu, H = −Σ w ln w (Correia, Niculae, Martins 2019)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, visible: Tensor, alpha: Tensor) -> Tensor:
        masked = torch.where(visible, scores, -torch.inf)
        highest = masked.amax(-1, keepdim=True)
        shifted = torch.where(visible, scores - highest, -torch.inf)
        z = torch.where(visible, (alpha - 1) * shifted, -torch.inf)
        if bool((alpha == 2).all()):
            weights = (z - _sparsemax_threshold(z)).clamp(min=0)
        else:
            power = 1 / (alpha - 1)
            weights = (z - _entmax_threshold(z, power)).clamp(min=0) ** power
        weights = torch.where(visible, weights, 0.0)
        sums = weights.sum(-1, keepdim=True)
        weights = weights / torch.where(sums == 0, 1.0, sums)
        ctx.save_for_backward(weights, alpha)
        return weights

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        weights, alpha = cast(tuple[Tensor, Tensor], ctx.saved_tensors)
        support = weights > 0
        u = torch.where(support, torch.where(support, weights, 1.0) ** (2 - alpha), 0.0)
        seen = torch.where(support, gradient, 0.0)
        sums = u.sum(-1, keepdim=True)
        mean = (u * seen).sum(-1, keepdim=True) / torch.where(sums == 0, 1.0, sums)
        for_scores = torch.where(support, u * (seen - mean), 0.0)
        if not ctx.needs_input_grad[2]:
            return for_scores, None, None
        logs = weights * torch.where(support, weights, 1.0).log()
        ahead = (weights * seen).sum(-1, keepdim=True) - mean
        spread = (logs * seen).sum(-1, keepdim=True) - mean * logs.sum(-1, keepdim=True)
        for_alpha = ahead / (alpha - 1) ** 2 - spread / (alpha - 1)
        return for_scores, None, for_alpha.sum_to_size(alpha.shape)


def entmax(scores: Tensor, visible: Tensor, alpha: Tensor) -> Tensor:
    """α-entmax over the visible entries (Peters, Niculae, Martins 2019); α > 1 broadcasts against [..., 1].

    Sparsemax is α = 2 (Martins, Astudillo 2016). 0 where nothing is visible.
    """
    if scores.shape[-1] == 0:
        return scores
    return cast(Tensor, cast(Any, _Entmax).apply(scores, visible, alpha))


def sinkhorn(scores: Tensor, visible: Tensor, rounds: int) -> Tensor:
    """exp of the scores after `rounds` normalizations over keys (last dimension) and queries (the one before),
    and a last one over keys, in the log domain over the visible entries."""

    def normalized(logits: Tensor, dim: int) -> Tensor:
        sums = masked_logsumexp(logits, visible, dim)
        return logits - torch.where(sums == -torch.inf, 0.0, sums)

    logits = torch.where(visible, scores, 0.0)
    for _ in range(rounds):
        logits = normalized(normalized(logits, -1), -2)
    logits = normalized(logits, -1)
    return torch.where(visible, torch.exp(torch.where(visible, logits, 0.0)), 0.0)


# ------------------------------------------------------------------------------------------------- choices


def _decreasing(by: Tensor, visible: Tensor, always: Tensor) -> Tensor:
    """The entries of a row in the order in which they are taken: always, then the others by decreasing `by`, the
    lower index first among equals; the hidden last."""
    by = by.detach().to(torch.float64)
    if bool(torch.isfinite(torch.where(visible, by, 0.0)).all()) and not bool((always & visible).any()):
        return torch.sort(torch.where(visible, by, -torch.inf), dim=-1, descending=True, stable=True).indices
    first = torch.sort(by, dim=-1, descending=True, stable=True).indices
    classes = torch.where(visible, torch.where(always, 0, 1), 2).gather(-1, first)
    return first.gather(-1, torch.sort(classes, dim=-1, stable=True).indices)


def top(by: Tensor, visible: Tensor, always: Tensor, amount: Tensor) -> Tensor:
    """The `amount` (int, broadcasts against [..., 1]) largest of the visible; `always` are taken first and count."""
    order = _decreasing(by, visible, always)
    places = torch.arange(by.shape[-1], device=by.device).expand(order.shape)
    chosen = torch.zeros_like(visible).scatter(-1, order, (places < amount).expand(order.shape))
    return visible & (chosen | always)


def mass(by: Tensor, visible: Tensor, always: Tensor, share: Tensor, total: Tensor | None) -> Tensor:
    """In decreasing order until the sum of what is taken is ≥ share × total; `always` are taken first and count.

    `share` and `total` (None: the sum over the visible) broadcast against [..., 1].
    """
    order = _decreasing(by, visible, always)
    amounts = torch.where(visible, by.detach(), 0.0)
    wanted = share * (amounts.sum(-1, keepdim=True) if total is None else total.detach())
    sums = amounts.gather(-1, order).cumsum(-1)
    before = torch.cat((torch.zeros_like(sums[..., :1]), sums[..., :-1]), dim=-1)
    return visible & (torch.zeros_like(visible).scatter(-1, order, before < wanted) | always)
