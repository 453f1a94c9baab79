"""Tensors of a call as NumPy reads them, for what is found out about a pattern from their contents."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


def array_of(tensor: torch.Tensor) -> NDArray[Any]:
    """A tensor as NumPy can read it; floats become float64, which holds the values of all others."""
    there = tensor.detach().resolve_neg().cpu()
    return (there.double() if there.is_floating_point() else there).numpy()


def arrays_read(tensors: Mapping[str, torch.Tensor], names: Collection[str]) -> dict[str, NDArray[Any]]:
    """Some of the given tensors, as NumPy can read them."""
    return {name: array_of(tensor) for name, tensor in tensors.items() if name in names}
