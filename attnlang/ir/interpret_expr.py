"""Evaluation of expressions: named axes, reads and reductions over ranges of their indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

import torch
from torch import Tensor

from attnlang.ir.interpret_operations import operate
from attnlang.ir.interpret_reduce import reduction
from attnlang.ir.interpret_scope import Scope, Stages
from attnlang.ir.interpret_values import Range, Value, expand, take
from attnlang.ir.pattern import (
    Apply,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    Symbol,
    axis_of,
    free_axes,
)


class Expressions:
    """Evaluates expressions over given tensors, sizes and parameters; floats are computed in `compute`."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        symbols: Mapping[str, int | float | bool],
        compute: torch.dtype,
        device: torch.device,
    ) -> None:
        self.tensors = tensors
        self.symbols = symbols
        self.compute = compute
        self.device = device
        self.stages: Stages | None = None
        self._numbers: dict[Expr, int] = {}
        self._converted: dict[str, Tensor] = {}

    # ------------------------------------------------------------------------------------------ numbers

    def number(self, expr: Expr) -> int:
        """An int known without tensors: a size or a start."""
        if expr not in self._numbers:
            self._numbers[expr] = int(self.evaluate(expr, Scope({})).tensor.item())
        return self._numbers[expr]

    def size(self, axis: Axis) -> int:
        """The number of values of an index."""
        return max(0, self.number(axis.size))

    def range_of(self, axis: Axis, scope: Scope) -> Range:
        """The offsets for which an index is evaluated."""
        found = scope.ranges.get(axis)
        return (0, self.size(axis)) if found is None else found

    def length(self, axis: Axis, scope: Scope) -> int:
        """How many values of an index are evaluated."""
        low, high = self.range_of(axis, scope)
        return high - low

    # -------------------------------------------------------------------------------------- expressions

    def evaluate(self, expr: Expr, scope: Scope) -> Value:
        """The value of an expression over (some of) its free axes."""
        match expr:
            case Literal(value):
                return self.constant(value)
            case Symbol(name, _):
                return self.constant(self.symbols[name])
            case Index(axis):
                return self._index(axis, scope)
            case Read():
                return self._read(expr, scope)
            case Apply("detach", (operand,)):
                with torch.no_grad():
                    return self.evaluate(operand, scope)
            case Apply(op, args):
                return operate(op, [self.evaluate(arg, scope) for arg in args], self.compute)
            case Reduce():
                return self._remembered(expr, scope)
            case _:
                assert_never(expr)

    def condition(self, expr: Expr, scope: Scope) -> Value:
        """A condition as bools."""
        value = self.evaluate(expr, scope)
        return value if value.tensor.dtype == torch.bool else Value(value.tensor != 0, value.axes)

    def floats(self, expr: Expr, scope: Scope) -> Value:
        """An expression as floats of the computing type."""
        value = self.evaluate(expr, scope)
        return Value(value.tensor.to(self.compute), value.axes)

    def spread(self, value: Value, axes: tuple[Axis, ...], scope: Scope, last: tuple[Axis, ...]) -> Tensor:
        """A value over exactly `axes`, those in `last` at the end as one dimension."""
        free = tuple(axis for axis in axes if axis not in last)
        shape = [self.length(axis, scope) for axis in free + last]
        return expand(value, free + last, shape).flatten(len(free))

    def constant(self, value: int | float | bool) -> Value:
        """A number of its own kind; floats in float64."""
        dtype = (
            torch.bool
            if isinstance(value, bool)
            else torch.int64
            if isinstance(value, int)
            else torch.float64
        )
        return Value(torch.tensor(value, dtype=dtype, device=self.device))

    def _index(self, axis: Axis, scope: Scope) -> Value:
        low, high = self.range_of(axis, scope)
        start = self.number(axis.start)
        return Value(torch.arange(start + low, start + high, device=self.device), (axis,))

    def _remembered(self, expr: Reduce, scope: Scope) -> Value:
        """Reductions that occur at several places of one expression are evaluated once."""
        key = (id(expr), tuple(scope.ranges.items()), torch.is_grad_enabled())
        if key not in scope.memo:
            scope.memo[key] = (expr, reduction(self, expr, scope))
        return scope.memo[key][1]

    # -------------------------------------------------------------------------------------------- reads

    def _read(self, read: Read, scope: Scope) -> Value:
        previous = scope.previous.get(read.source)
        if previous is not None:
            return self._elements(previous, self._own_axes(read.source), read.at, scope)
        axes = None if self.stages is None else self.stages.axes_of(read.source)
        return self._tensor(read, scope) if axes is None else self._stage(read, axes, scope)

    def _own_axes(self, source: str) -> tuple[Axis, ...]:
        axes = None if self.stages is None else self.stages.axes_of(source)
        if axes is None:
            raise ValueError(f"nothing called {source} is computed before it is read")
        return axes

    def _tensor(self, read: Read, scope: Scope) -> Value:
        tensor = self._declared(read.source)
        plain = self._plain(read.at, [int(length) for length in tensor.shape], scope)
        entries: list[Axis | Value] = []
        for dim, at in enumerate(read.at):
            axis = plain.get(dim)
            if axis is None:
                entries.append(self.evaluate(at, scope))
            else:
                low, high = self.range_of(axis, scope)
                tensor = tensor.narrow(dim, low, high - low)
                entries.append(axis)
        return take(tensor, entries)

    def _declared(self, name: str) -> Tensor:
        if name not in self._converted:
            tensor = self.tensors[name]
            if tensor.dtype.is_floating_point:
                tensor = tensor.to(self.compute)
            elif tensor.dtype != torch.bool:
                tensor = tensor.to(torch.int64)
            self._converted[name] = tensor
        return self._converted[name]

    def _plain(self, at: tuple[Expr, ...], lengths: list[int], scope: Scope) -> dict[int, Axis]:
        """The dimensions that simply run along an axis; the others need offsets computed."""
        axes = [axis_of(expr) for expr in at]
        taken = frozenset[Axis]().union(
            *(free_axes(expr) for expr, axis in zip(at, axes, strict=True) if axis is None)
        )
        plain: dict[int, Axis] = {}
        for dim, axis in enumerate(axes):
            if axis is None or axis in taken or axes.count(axis) > 1:
                continue
            if self.range_of(axis, scope)[1] <= lengths[dim]:
                plain[dim] = axis
        return plain

    def _stage(self, read: Read, axes: tuple[Axis, ...], scope: Scope) -> Value:
        assert self.stages is not None
        plain = self._plain(read.at, [self.size(axis) for axis in axes], scope)
        demand: list[Range] = []
        entries: list[Value | None] = []
        for dim, (at, axis) in enumerate(zip(read.at, axes, strict=True)):
            if dim in plain:
                whole = plain[dim] in scope.walked
                demand.append((0, self.size(axis)) if whole else self.range_of(plain[dim], scope))
                entries.append(None)
            else:
                offsets = self.evaluate(at, scope)
                demand.append(self._spanned(offsets, self.size(axis)))
                entries.append(Value(offsets.tensor - demand[-1][0], offsets.axes))
        value = self.stages.value(read.source, tuple(demand))
        return self._chosen(value, axes, plain, entries, scope)

    def _spanned(self, offsets: Value, size: int) -> Range:
        """The smallest range that holds all offsets that are in range (hidden reads may leave it)."""
        if size == 0 or offsets.tensor.numel() == 0:
            return (0, size)
        low, high = (int(bound.item()) for bound in torch.aminmax(offsets.tensor.clamp(0, size - 1)))
        return (low, high + 1)

    def _chosen(
        self,
        value: Value,
        axes: tuple[Axis, ...],
        plain: dict[int, Axis],
        entries: list[Value | None],
        scope: Scope,
    ) -> Value:
        """The elements of a stage: its own axes replaced by the reader's."""
        tensor, found = value.tensor, list[Axis | Value]()
        for own in value.axes:
            dim = axes.index(own)
            entry = entries[dim]
            if entry is not None:
                found.append(entry)
                continue
            axis = plain[dim]
            if axis in scope.walked:
                low, high = self.range_of(axis, scope)
                tensor = tensor.narrow(len(found), low, high - low)
            found.append(axis)
        return take(tensor, found)

    def _elements(self, value: Value, axes: tuple[Axis, ...], at: tuple[Expr, ...], scope: Scope) -> Value:
        """Elements of a value whose ranges are those of the scope."""
        plain = self._plain(at, [self.size(axis) for axis in axes], scope)
        entries: list[Value | None] = []
        for dim, (expr, axis) in enumerate(zip(at, axes, strict=True)):
            if dim in plain and self.range_of(plain[dim], scope) == self.range_of(axis, scope):
                entries.append(None)
                continue
            offsets, low = self.evaluate(expr, scope), self.range_of(axis, scope)[0]
            entries.append(Value(offsets.tensor - low, offsets.axes))
        found: list[Axis | Value] = []
        for own in value.axes:
            dim = axes.index(own)
            entry = entries[dim]
            found.append(plain[dim] if entry is None else entry)
        return take(value.tensor, found)
