"""Least and greatest values of the blocks of a tensor, found on its device: only they are copied to the host.

low, high = extremes(ids, (1, 128))      # ids [B, N] on a GPU; two NumPy arrays [B, ⌈N / 128⌉]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[Any]
WHOLE = 4096
"""Tensors of at most so many elements are copied as they are."""


def blocks_of(shape: Sequence[int], block: int) -> tuple[int, ...]:
    """The length of blocks along each axis: `block` along the axes that are long, while the tensor is large."""
    lengths = [1] * len(shape)
    left = int(np.prod(shape, dtype=np.int64))
    for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
        if left > WHOLE and shape[axis] > block:
            lengths[axis] = block
            left = left // shape[axis] * -(-shape[axis] // block)
    return tuple(lengths)


def extremes(tensor: torch.Tensor, block: Sequence[int]) -> tuple[Array, Array]:
    """Least and greatest value of every block of `block[i]` elements along axis i (for bools: whether all, and whether
    any hold); the last block of an axis may be shorter. Floats come as float64."""
    low = high = tensor.detach()
    for axis, length in enumerate(block):
        if length > 1 and tensor.shape[axis]:
            low, high = _reduced(low, torch.amin, axis, length), _reduced(high, torch.amax, axis, length)
    if low.is_floating_point():
        low, high = low.double(), high.double()
    both: Array = torch.stack([low, high]).cpu().numpy()  # one transfer
    return both[0], both[1]


def _reduced(tensor: torch.Tensor, reduce: Any, axis: int, length: int) -> torch.Tensor:
    """An axis in blocks, each reduced to one value; the rest that fills no block is one of its own."""
    full = tensor.shape[axis] // length
    parts: list[torch.Tensor] = []
    if full:
        parts.append(reduce(tensor.narrow(axis, 0, full * length).unflatten(axis, (full, length)), axis + 1))
    if rest := tensor.shape[axis] - full * length:
        parts.append(reduce(tensor.narrow(axis, full * length, rest), axis, keepdim=True))
    return torch.cat(parts, axis)
