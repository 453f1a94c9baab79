"""Gradients of an attention that has kernels for its backward pass: what they need is saved, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]
Attend = Callable[[], tuple[Tensor, Tensor]]
"""The result and lse [B, H, NQ] of an attention."""


class Saved:
    """What the backward pass reads: q, k, v, the result, lse, and what arrives at the two (None: nothing). `needed`:
    which of "QKV" want a gradient."""

    def __init__(
        self, inputs: tuple[Tensor, Tensor, Tensor], out: Tensor, lse: Tensor, dout: Tensor, dlse: Tensor | None,
        needed: str,
    ) -> None:  # fmt: skip
        self.inputs = inputs
        self.out = out
        self.lse = lse
        self.dout = dout
        self.dlse = dlse
        self.needed = needed


Backward = Callable[[Saved], dict[str, Tensor]]
"""The gradients by name; one that is missing is 0."""


class _KernelBackward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, attend: Attend, backward: Backward, others: Tensors, q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, Tensor]:
        out, lse = attend()
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, out, lse, *others)
        ctx.gradients = backward
        return out, lse

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        dout, dlse = gradients
        q, k, v, out, lse, *_ = cast(Tensors, ctx.saved_tensors)  # fails where one was changed meanwhile
        wanted = zip("QKV", ctx.needs_input_grad[3:], strict=True)
        needed = "".join(name for name, wants in wanted if wants)
        if dout is None and dlse is None:
            return (None,) * 6
        found = ctx.gradients(
            Saved((q, k, v), out, lse, torch.zeros_like(out) if dout is None else dout, dlse, needed)
        )
        inputs = {"Q": q, "K": k, "V": v}
        made = {name: found.get(name, None) for name in needed}
        filled = {n: torch.zeros_like(inputs[n]) if grad is None else grad for n, grad in made.items()}
        return (None, None, None, *(filled.get(name) for name in "QKV"))


def with_kernel_backward(
    attend: Attend, backward: Backward, main: tuple[Tensor, Tensor, Tensor], others: Tensors
) -> tuple[Tensor, Tensor]:
    """`attend()`, differentiable once in q, k and v (`main`) by `backward`. `others`: tensors that both read; that one
    of them was changed in between is an error, as it is for q, k and v."""
    return cast("tuple[Tensor, Tensor]", cast(Any, _KernelBackward).apply(attend, backward, others, *main))
