"""Evaluation of expressions: named axes, reads and reductions over ranges of their indices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Protocol, assert_never

import torch
from torch import Tensor

from attnlang.ir.interpret_contract import contract
from attnlang.ir.interpret_operations import common_float, operate
from attnlang.ir.interpret_values import Range, Value, both, expand, take, union, where
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
from attnlang.ir.thresholds import masked_logsumexp

_SMALLEST_INT = -(2**62)
Key = tuple[int, tuple[tuple[Axis, Range], ...], bool]


@dataclass(frozen=True)
class Scope:
    """What an expression is evaluated for: a range per index (all of it where none is given), the values before the
    current token of the recurrences around it, and the axes that are walked one by one."""

    ranges: Mapping[Axis, Range]
    previous: Mapping[str, Value] = field(default_factory=dict[str, Value])
    walked: frozenset[Axis] = frozenset()
    memo: dict[Key, tuple[Expr, Value]] = field(default_factory=dict["Key", "tuple[Expr, Value]"])

    def inside(self, axes: tuple[Axis, ...]) -> Scope:
        """The scope of a reduction: its own axes run over all their values."""
        if not any(axis in self.ranges for axis in axes):
            return self
        ranges = {axis: range_ for axis, range_ in self.ranges.items() if axis not in axes}
        return Scope(ranges, self.previous, self.walked, self.memo)


class Stages(Protocol):
    """Where an expression finds the stages of its pattern."""

    def axes_of(self, source: str) -> tuple[Axis, ...] | None:
        """The axes a stage (or part of one) is read by; None: no stage is called so."""
        ...

    def value(self, source: str, demand: tuple[Range, ...]) -> Value:
        """The stage over its own axes, for the demanded ranges."""
        ...


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
                return self._constant(value)
            case Symbol(name, _):
                return self._constant(self.symbols[name])
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

    def _constant(self, value: int | float | bool) -> Value:
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
            scope.memo[key] = (expr, self._reduce(expr, scope))
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

    # --------------------------------------------------------------------------------------- reductions

    def _reduce(self, expr: Reduce, outer: Scope) -> Value:
        scope = outer.inside(expr.axes)
        if prod(self.size(axis) for axis in expr.axes) == 0:
            return self._nothing(expr, scope)
        condition = None if expr.where is None else self.condition(expr.where, scope)
        match expr.op:
            case "sum":
                return self.weighted_sum((expr.body,), (), condition, expr.axes, scope)
            case "mean":
                return self._mean(expr, condition, scope)
            case "any" | "all":
                return self._truth(expr, condition, scope)
            case "max" | "min":
                return self._extreme(expr, condition, scope)
            case "prod":
                return self._product(expr, condition, scope)
            case "logsumexp":
                return self._logsumexp(expr, condition, scope)
            case _:
                assert_never(expr.op)

    def _nothing(self, expr: Reduce, scope: Scope) -> Value:
        """A reduction over no values at all."""
        match expr.op:
            case "sum" | "prod":
                kind = self._constant(1 if expr.op == "prod" else 0)
                whole = self.evaluate(expr.body, scope).tensor.is_floating_point()
                return Value(kind.tensor.to(self.compute)) if whole else kind
            case "mean":
                return Value(torch.zeros((), dtype=self.compute, device=self.device))
            case "any" | "all":
                return self._constant(expr.op == "all")
            case "max" | "logsumexp" | "min":
                infinite = float("inf") if expr.op == "min" else float("-inf")
                return Value(torch.full((), infinite, dtype=self.compute, device=self.device))
            case _:
                assert_never(expr.op)

    def weighted_sum(
        self,
        bodies: tuple[Expr, ...],
        weights: tuple[Value, ...],
        condition: Value | None,
        axes: tuple[Axis, ...],
        scope: Scope,
    ) -> Value:
        """Σ over the axes of the product of expressions and values where the condition holds."""
        factors, conditions = _factors(bodies)
        for extra in conditions:
            found = self.condition(extra, scope)
            condition = found if condition is None else both(condition, found)
        values = [*weights, *(self.evaluate(factor, scope) for factor in factors)]
        lengths = {axis: self.length(axis, scope) for axis in axes}
        if not any(value.tensor.is_floating_point() for value in values):
            return self._count(values, condition, axes, lengths)
        tensors = common_float([value.tensor for value in values], self.compute)
        factors_ = [Value(tensor, value.axes) for tensor, value in zip(tensors, values, strict=True)]
        return contract(factors_, condition, axes, lengths)

    def _count(
        self,
        values: list[Value],
        condition: Value | None,
        axes: tuple[Axis, ...],
        lengths: Mapping[Axis, int],
    ) -> Value:
        """A sum of products of ints and bools."""
        product = Value(values[0].tensor.to(torch.int64), values[0].axes)
        for value in values[1:]:
            product = operate("mul", (product, value), self.compute)
        if condition is not None:
            product = where(condition, product, 0) if product.axes else _scaled(condition, product)
        dims = [dim for dim, axis in enumerate(product.axes) if axis in axes]
        absent = prod(lengths[axis] for axis in axes if axis not in product.axes)
        tensor = product.tensor.sum(dims) if dims else product.tensor
        return Value(tensor * absent, tuple(axis for axis in product.axes if axis not in axes))

    def _mean(self, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
        total = self.weighted_sum((expr.body,), (), condition, expr.axes, scope)
        lengths = {axis: self.length(axis, scope) for axis in expr.axes}
        one = self._constant(1)
        number = self._count([one], condition, expr.axes, lengths)
        at_least_one = Value(number.tensor.clamp(min=1), number.axes)
        return operate("div", (total, at_least_one), self.compute)

    def _dims(self, value: Value, axes: Iterable[Axis]) -> tuple[list[int], tuple[Axis, ...]]:
        bound = set(axes)
        dims = [dim for dim, axis in enumerate(value.axes) if axis in bound]
        return dims, tuple(axis for axis in value.axes if axis not in bound)

    def _truth(self, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
        body = self.condition(expr.body, scope)
        if expr.op == "all":
            body = Value(~body.tensor, body.axes)
        found = body if condition is None else both(body, condition)
        dims, axes = self._dims(found, expr.axes)
        seen = found.tensor.any(dim=tuple(dims)) if dims else found.tensor
        return Value(~seen if expr.op == "all" else seen, axes)

    def _extreme(self, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
        body = self.evaluate(expr.body, scope)
        floats = body.tensor.is_floating_point()
        if not floats:
            body = Value(body.tensor.to(torch.int64), body.axes)
        if condition is not None:
            least = float("-inf") if floats else _SMALLEST_INT
            body = where(condition, body, least if expr.op == "max" else -least)
        dims, axes = self._dims(body, expr.axes)
        if not dims:
            return body
        return Value(body.tensor.amax(dims) if expr.op == "max" else body.tensor.amin(dims), axes)

    def _over_all(
        self, expr: Reduce, condition: Value | None, scope: Scope
    ) -> tuple[Tensor, Tensor, tuple[Axis, ...]]:
        """Body and condition over all of the bound axes (last, as one dimension) and the others before it."""
        body = self.evaluate(expr.body, scope)
        always = Value(torch.ones((), dtype=torch.bool, device=self.device))
        seen = always if condition is None else condition
        free = tuple(axis for axis in union((body, seen)) if axis not in expr.axes)
        axes = free + expr.axes
        shape = [self.length(axis, scope) for axis in axes]
        flat = [expand(value, axes, shape).flatten(len(free)) for value in (body, seen)]
        return flat[0], flat[1], free

    def _product(self, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
        body, seen, axes = self._over_all(expr, condition, scope)
        return Value(torch.where(seen, body, torch.ones_like(body)).prod(-1), axes)

    def _logsumexp(self, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
        body, seen, axes = self._over_all(expr, condition, scope)
        body = body if body.is_floating_point() else body.to(torch.float64)
        return Value(masked_logsumexp(body, seen).squeeze(-1), axes)


def _scaled(condition: Value, number: Value) -> Value:
    return Value(condition.tensor.to(torch.int64) * number.tensor, condition.axes)


def _factors(bodies: Iterable[Expr]) -> tuple[list[Expr], list[Expr]]:
    """A product as its factors, and the conditions without which it is 0."""
    factors: list[Expr] = []
    conditions: list[Expr] = []
    for body in bodies:
        match body:
            case Apply("mul", args):
                inner, hidden = _factors(args)
            case Apply("neg", (arg,)):
                inner, hidden = _factors((arg,))
                inner = [Literal(-1), *inner]
            case Apply("where", (condition, value, Literal(0) | Literal(0.0))):
                inner, hidden = _factors((value,))
                hidden = [condition, *hidden]
            case _:
                inner, hidden = [body], []
        factors += inner
        conditions += hidden
    return factors, conditions
