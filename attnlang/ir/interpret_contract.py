"""Sums of products over named axes, as matrix products where the factors allow it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from string import ascii_letters
from typing import Any, cast

import torch
from torch import Tensor

from attnlang.ir.interpret_values import Value, finite, total, union, view, where
from attnlang.ir.pattern import Axis


def contract(
    factors: Sequence[Value], condition: Value | None, bound: Sequence[Axis], lengths: Mapping[Axis, int]
) -> Value:
    """Σ over the bound axes of the product of the factors (floats of one dtype) where the condition holds.

    Entries where it does not hold add exactly 0, whatever they are, to the sum and to every gradient.
    """
    masked, left = _masked(list(factors), condition)
    absent = prod(lengths[axis] for axis in bound if not any(axis in value.axes for value in masked + left))
    result = _sum_of_product(masked, left, list(factors), condition, bound)
    return result if absent == 1 else Value(result.tensor * absent, result.axes)


def _masked(factors: list[Value], condition: Value | None) -> tuple[list[Value], list[Value]]:
    """The factors with the condition put into those that have its axes, else as a factor of its own."""
    if condition is None:
        return factors, []
    if len(factors) == 1:
        return [where(condition, factors[0], 0)], []
    able = [set(condition.axes) <= set(value.axes) for value in factors]
    if not any(able):
        return factors, [Value(condition.tensor.to(factors[0].tensor.dtype), condition.axes)]
    return [
        where(condition, value, 0) if fits else value for value, fits in zip(factors, able, strict=True)
    ], []


def _sum_of_product(
    masked: list[Value],
    left: list[Value],
    factors: list[Value],
    condition: Value | None,
    bound: Sequence[Axis],
) -> Value:
    if len(masked) + len(left) == 1 or all(finite(value) for value in masked):
        return pairwise(masked + left, bound)
    axes = union(factors if condition is None else [*factors, condition])
    kept = tuple(axis for axis in axes if axis not in bound)
    tensor = cast(
        Tensor,
        cast(Any, _Careful).apply(
            [value.axes for value in factors],
            condition,
            tuple(bound),
            kept,
            *(value.tensor for value in factors),
        ),
    )
    return Value(tensor, kept)


def pairwise(values: Sequence[Value], bound: Sequence[Axis]) -> Value:
    """Σ over the bound axes of a product, two factors at a time, the smallest intermediate first."""
    remaining: list[Value] = list(values)
    while len(remaining) > 1:
        first, second = _best_pair(remaining, bound)
        others = [value for value in remaining if value is not first and value is not second]
        remaining = [*others, _pair(first, second, _closed((first, second), others, bound))]
    return total(remaining[0], bound)


def _best_pair(remaining: list[Value], bound: Sequence[Axis]) -> tuple[Value, Value]:
    sizes = {pair: _result_size(pair, remaining, bound) for pair in combinations(remaining, 2)}
    return min(sizes, key=lambda pair: sizes[pair])


def _closed(pair: Sequence[Value], others: Sequence[Value], bound: Sequence[Axis]) -> list[Axis]:
    """The bound axes that nothing but this pair has: they can be summed now."""
    return [axis for axis in union(pair) if axis in bound and not any(axis in value.axes for value in others)]


def _result_size(pair: tuple[Value, Value], remaining: list[Value], bound: Sequence[Axis]) -> int:
    others = [value for value in remaining if value is not pair[0] and value is not pair[1]]
    closed = _closed(pair, others, bound)
    lengths = {
        axis: size for value in pair for axis, size in zip(value.axes, value.tensor.shape, strict=True)
    }
    return prod(size for axis, size in lengths.items() if axis not in closed)


def _pair(first: Value, second: Value, closed: Sequence[Axis]) -> Value:
    axes = union((first, second))
    if not closed:
        return Value(view(first, axes) * view(second, axes), axes)
    letters = {axis: ascii_letters[index] for index, axis in enumerate(axes)}
    kept = tuple(axis for axis in axes if axis not in closed)
    spelled = ["".join(letters[axis] for axis in some) for some in (first.axes, second.axes, kept)]
    return Value(torch.einsum(f"{spelled[0]},{spelled[1]}->{spelled[2]}", first.tensor, second.tensor), kept)


def _clean(value: Value) -> Value:
    return Value(torch.where(torch.isfinite(value.tensor), value.tensor, 0.0), value.axes)


def _shown(value: Value, present: list[Value]) -> Value:
    """0 where one of `present` that has no other axes is 0."""
    for one in present:
        if set(one.axes) <= set(value.axes):
            value = where(Value(one.tensor != 0, one.axes), value, 0)
    return value


def _careful_sum(
    values: list[Value], present: list[Value], kept: tuple[Axis, ...], bound: Sequence[Axis]
) -> Tensor:
    """Σ of products where all of `present` (0 or 1) are 1; NaN where such a product has a factor that is not finite."""
    cleaned = [_shown(_clean(value), present) for value in values]
    sums = view(pairwise(cleaned + present, bound), kept)
    sound = [Value(torch.isfinite(value.tensor).to(value.tensor.dtype), value.axes) for value in values]
    blank = [Value(torch.ones_like(value.tensor), value.axes) for value in values]
    terms = view(pairwise(blank + present, bound), kept)
    good = view(pairwise(sound + present, bound), kept)
    return torch.where(terms - good > 0.5, torch.nan, sums)


class _Careful(torch.autograd.Function):
    """A masked sum of products with factors that are infinite or NaN somewhere: what is hidden, and what no
    gradient reaches, adds exactly 0; what is seen gives NaN (or its infinity, where nothing is hidden)."""

    @staticmethod
    def forward(
        ctx: Any,
        axes: list[tuple[Axis, ...]],
        condition: Value | None,
        bound: tuple[Axis, ...],
        kept: tuple[Axis, ...],
        *tensors: Tensor,
    ) -> Tensor:
        ctx.axes, ctx.condition, ctx.bound, ctx.kept = axes, condition, bound, kept
        ctx.save_for_backward(*tensors)
        values = [Value(tensor, names) for tensor, names in zip(tensors, axes, strict=True)]
        if condition is None:
            return view(pairwise(values, bound), kept)
        present = [Value(condition.tensor.to(tensors[0].dtype), condition.axes)]
        return _careful_sum(values, present, kept, bound)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradient = Value(grad_outputs[0], ctx.kept)
        present = [Value((gradient.tensor != 0).to(gradient.tensor.dtype), gradient.axes)]
        condition = cast("Value | None", ctx.condition)
        if condition is not None:
            present.append(Value(condition.tensor.to(gradient.tensor.dtype), condition.axes))
        values = [Value(tensor, axes) for tensor, axes in zip(ctx.saved_tensors, ctx.axes, strict=True)]
        gradients: list[Tensor | None] = [None, None, None, None]
        for index, value in enumerate(values):
            if not ctx.needs_input_grad[index + 4]:
                gradients.append(None)
                continue
            others = [gradient] + [other for place, other in enumerate(values) if place != index]
            summed = [axis for axis in union([*others, *present]) if axis not in value.axes]
            found = _careful_sum(others, present, value.axes, summed)
            gradients.append(found.expand(value.tensor.shape).to(value.tensor.dtype))
        return tuple(gradients)
