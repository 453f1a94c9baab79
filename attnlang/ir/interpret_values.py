"""Tensors with named axes: what an expression evaluates to, and how values are brought together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnlang.ir.pattern import Axis

Range = tuple[int, int]
"""Offsets from the start of an axis: low ≤ offset < high."""


Ranges = dict[Axis, Range]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor whose dimension i runs along `axes[i]`; along every other axis it is constant."""

    tensor: Tensor
    axes: tuple[Axis, ...] = ()


def union(values: Iterable[Value]) -> tuple[Axis, ...]:
    """All axes of the values: those of the widest value first, in its order."""
    ordered = sorted(values, key=lambda value: -len(value.axes))
    return tuple(dict.fromkeys(axis for value in ordered for axis in value.axes))


def view(value: Value, axes: Sequence[Axis]) -> Tensor:
    """The tensor with one dimension per axis of `axes`, of length 1 where the value is constant."""
    if value.axes == tuple(axes):
        return value.tensor
    present = [axis for axis in axes if axis in value.axes]
    tensor = value.tensor.permute([value.axes.index(axis) for axis in present])
    shape: list[int] = []
    for axis in axes:
        shape.append(tensor.shape[present.index(axis)] if axis in value.axes else 1)
    return tensor.reshape(shape)


def align(values: Sequence[Value]) -> tuple[list[Tensor], tuple[Axis, ...]]:
    """Views of all values over the union of their axes, ready to broadcast."""
    axes = union(values)
    return [view(value, axes) for value in values], axes


def expand(value: Value, axes: Sequence[Axis], shape: Sequence[int]) -> Tensor:
    """The tensor over exactly `axes` (a superset of the value's), repeated where it is constant."""
    return view(value, axes).expand(tuple(shape))


def beside(value: Value, rows: Sequence[Axis]) -> Tensor:
    """A value of rows, shaped to stand beside their entries: [..., 1]."""
    lengths = dict(zip(value.axes, value.tensor.shape, strict=True))
    return expand(value, rows, [lengths.get(axis, 1) for axis in rows]).unsqueeze(-1)


def rename(value: Value, names: dict[Axis, Axis]) -> Value:
    """The same tensor along other axes."""
    return Value(value.tensor, tuple(names.get(axis, axis) for axis in value.axes))


def narrow(value: Value, axis: Axis, low: int, high: int) -> Value:
    """The part with low ≤ offset < high along one axis (constant along it: as it is)."""
    if axis not in value.axes:
        return value
    return Value(value.tensor.narrow(value.axes.index(axis), low, high - low), value.axes)


def where(condition: Value, value: Value, otherwise: float | int | bool) -> Value:
    """The value where the condition holds, else a constant."""
    (chosen, tensor), axes = align((condition, value))
    return Value(
        torch.where(chosen, tensor, torch.full((), otherwise, dtype=tensor.dtype, device=tensor.device)), axes
    )


def both(first: Value, second: Value) -> Value:
    """Conjunction of two conditions."""
    (left, right), axes = align((first, second))
    return Value(left & right, axes)


def anywhere(condition: Value, bound: Sequence[Axis]) -> Value:
    """Whether a condition holds at any value of those of the bound axes that it has."""
    for axis in bound:
        if axis in condition.axes:
            rest = tuple(other for other in condition.axes if other != axis)
            condition = Value(condition.tensor.any(condition.axes.index(axis)), rest)
    return condition


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is infinite or NaN, seen at the sum (false too where finite entries sum to more than a
    float holds)."""
    return bool(torch.isfinite(tensor.detach().sum()))


def finite(value: Value) -> bool:
    """`all_finite` of floats; true of ints and bools."""
    return not value.tensor.is_floating_point() or all_finite(value.tensor)


def total(value: Value, bound: Sequence[Axis]) -> Value:
    """The sum over those of the bound axes that the value has."""
    dims = [index for index, axis in enumerate(value.axes) if axis in bound]
    if not dims:
        return value
    return Value(value.tensor.sum(dims), tuple(axis for axis in value.axes if axis not in bound))


def take(tensor: Tensor, entries: Sequence[Axis | Value]) -> Value:
    """Elements of a tensor, one entry per dimension: an axis (the dimension runs along it) or a value of offsets.

    Offsets out of range are moved to the nearest element: such reads stand only where the result is not seen.
    """
    indexed = [entry for entry in entries if isinstance(entry, Value)]
    if not indexed:
        return Value(tensor, tuple(entry for entry in entries if isinstance(entry, Axis)))
    gathered = [dim for dim, entry in enumerate(entries) if isinstance(entry, Value)]
    plain = [dim for dim, entry in enumerate(entries) if isinstance(entry, Axis)]
    plain_axes = tuple(entry for entry in entries if isinstance(entry, Axis))
    views, axes = align(indexed)
    if any(tensor.shape[dim] == 0 for dim in gathered):
        shape = [
            max(lengths) if min(lengths) else 0
            for lengths in zip(*(index.shape for index in views), strict=True)
        ]
        return Value(tensor.new_zeros((*shape, *(tensor.shape[dim] for dim in plain))), axes + plain_axes)
    offsets = [index.clamp(0, tensor.shape[dim] - 1) for index, dim in zip(views, gathered, strict=True)]
    if len(gathered) == 1 and len(axes) == 1:
        here = tuple(axes[0] if isinstance(entry, Value) else entry for entry in entries)
        return Value(tensor.index_select(gathered[0], offsets[0]), here)
    return Value(tensor.permute(gathered + plain)[tuple(offsets)], axes + plain_axes)
