"""Gradients of a kernel that has no backward pass of its own: the dense evaluation is run again and differentiated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


class _DenseBackward(torch.autograd.Function):
    """forward: the kernel; backward: autograd through `dense` at the same inputs."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Callable[[Sequence[Tensor]], Tensors],
        dense: Callable[[Sequence[Tensor]], Tensors],
        *inputs: Tensor,
    ) -> Tensors:
        ctx.dense = dense
        ctx.save_for_backward(*inputs)
        return kernel(inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        inputs = [
            tensor.detach().requires_grad_(needed)
            for tensor, needed in zip(saved, ctx.needs_input_grad[2:], strict=True)
        ]
        with torch.enable_grad():
            outputs = ctx.dense(inputs)
        pairs = [(out, grad) for out, grad in zip(outputs, gradients, strict=True) if grad is not None]
        wanted = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in pairs],
                wanted,
                [grad.to(out.dtype) for out, grad in pairs],
                allow_unused=True,
            )
        )
        return (None, None, *(next(found) if tensor.requires_grad else None for tensor in inputs))


def with_dense_backward(
    kernel: Callable[[Sequence[Tensor]], Tensors],
    dense: Callable[[Sequence[Tensor]], Tensors],
    inputs: Sequence[Tensor],
) -> Tensors:
    """The results of `kernel(inputs)`, differentiable as `dense(inputs)` is: same results, in plain PyTorch."""
    return cast(Tensors, cast(Any, _DenseBackward).apply(kernel, dense, *inputs))
