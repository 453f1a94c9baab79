"""Calls of patterns by their interpreted kernels, held against float64 and dense PyTorch of the same precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attnlang import Pattern

HALF = (torch.float16, torch.bfloat16)


def narrowed(given: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors with their floats in this precision."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in given.items()
    }


def error(found: Tensor, wanted: Tensor) -> float:
    """The largest difference; infinite where one is finite and the other is not, or where one is NaN."""
    assert found.shape == wanted.shape
    found, wanted = found.double(), wanted.double()
    if bool(found.isnan().any()) or not torch.equal(found.isinf(), wanted.isinf()):
        return float("inf")
    same = found == wanted
    return torch.where(same, 0.0, (found - wanted).abs()).max().item() if found.numel() else 0.0


def rounding(wanted: Tensor, dtype: torch.dtype) -> float:
    """What the rounding of inputs and results to `dtype` alone may cost."""
    finite = wanted[wanted.isfinite()].abs()
    return 2 * torch.finfo(dtype).eps * max(1.0, finite.max().item() if finite.numel() else 0.0)


def check_call(pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, **arguments: Any) -> tuple[Tensor, Tensor]:
    """Runs the kernel; its output may miss float64 by twice what dense PyTorch of its precision does, and rounding."""
    high = narrowed(
        {name: value for name, value in arguments.items() if isinstance(value, Tensor)}, torch.float64
    )
    out, lse = pattern(q, k, v, target="interpret", return_lse=True, **arguments)
    wanted, wanted_lse = pattern.reference(
        q.double(), k.double(), v.double(), return_lse=True, **{**arguments, **high}
    )
    dense, _ = pattern(q, k, v, target="eager", return_lse=True, **arguments)
    assert out.dtype == q.dtype and lse.dtype == torch.float32
    assert error(out, wanted) <= 2 * error(dense, wanted) + rounding(wanted, q.dtype)
    assert error(lse, wanted_lse) <= rounding(wanted_lse, q.dtype)
    return out, lse


def randoms(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    """Normal numbers of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def inputs(
    NQ: int, NK: int, *, B: int = 1, H: int = 1, HK: int | None = None, D: int = 16, DV: int | None = None,
    dtype: torch.dtype = torch.float32, seed: int = 0,
) -> list[Tensor]:  # fmt: skip
    """q, k and v."""
    groups, width = HK or H, DV or D
    return randoms((B, H, NQ, D), (B, groups, NK, D), (B, groups, NK, width), dtype=dtype, seed=seed)
