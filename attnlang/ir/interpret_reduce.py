"""Reductions over indices: sums of products, means, extremes, conditions, logsumexp."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Protocol, assert_never

import torch
from torch import Tensor

from attnlang.ir.interpret_contract import contract
from attnlang.ir.interpret_operations import common_float, operate
from attnlang.ir.interpret_scope import Scope
from attnlang.ir.interpret_values import Value, both, union, where
from attnlang.ir.pattern import Apply, Axis, Expr, Literal, Reduce
from attnlang.ir.thresholds import masked_logsumexp

_SMALLEST_INT = -(2**62)


class Evaluator(Protocol):
    """What a reduction needs of the evaluation it stands in."""

    compute: torch.dtype
    device: torch.device

    def evaluate(self, expr: Expr, scope: Scope) -> Value: ...
    def condition(self, expr: Expr, scope: Scope) -> Value: ...
    def constant(self, value: int | float | bool) -> Value: ...
    def size(self, axis: Axis) -> int: ...
    def length(self, axis: Axis, scope: Scope) -> int: ...
    def spread(
        self, value: Value, axes: tuple[Axis, ...], scope: Scope, last: tuple[Axis, ...]
    ) -> Tensor: ...


def reduction(it: Evaluator, expr: Reduce, outer: Scope) -> Value:
    """A reduction over (some of) its free axes."""
    scope = outer.inside(expr.axes)
    if prod(it.size(axis) for axis in expr.axes) == 0:
        return _nothing(it, expr, scope)
    condition = None if expr.where is None else it.condition(expr.where, scope)
    match expr.op:
        case "sum":
            return weighted_sum(it, (expr.body,), (), condition, expr.axes, scope)
        case "mean":
            return _mean(it, expr, condition, scope)
        case "any" | "all":
            return _truth(it, expr, condition, scope)
        case "max" | "min":
            return _extreme(it, expr, condition, scope)
        case "prod":
            return _product(it, expr, condition, scope)
        case "logsumexp":
            return _logsumexp(it, expr, condition, scope)
        case _:
            assert_never(expr.op)


def _nothing(it: Evaluator, expr: Reduce, scope: Scope) -> Value:
    """A reduction over no values at all."""
    match expr.op:
        case "sum" | "prod":
            kind = it.constant(1 if expr.op == "prod" else 0)
            whole = it.evaluate(expr.body, scope).tensor.is_floating_point()
            return Value(kind.tensor.to(it.compute)) if whole else kind
        case "mean":
            return Value(torch.zeros((), dtype=it.compute, device=it.device))
        case "any" | "all":
            return it.constant(expr.op == "all")
        case "max" | "logsumexp" | "min":
            infinite = float("inf") if expr.op == "min" else float("-inf")
            return Value(torch.full((), infinite, dtype=it.compute, device=it.device))
        case _:
            assert_never(expr.op)


def weighted_sum(
    it: Evaluator,
    bodies: tuple[Expr, ...],
    weights: tuple[Value, ...],
    condition: Value | None,
    axes: tuple[Axis, ...],
    scope: Scope,
) -> Value:
    """Σ over the axes of the product of expressions and values where the condition holds."""
    factors, conditions = _factors(bodies)
    for extra in conditions:
        found = it.condition(extra, scope)
        condition = found if condition is None else both(condition, found)
    values = [*weights, *(it.evaluate(factor, scope) for factor in factors)]
    lengths = {axis: it.length(axis, scope) for axis in axes}
    if not any(value.tensor.is_floating_point() for value in values):
        return _count(it, values, condition, axes, lengths)
    tensors = common_float([value.tensor for value in values], it.compute)
    factors_ = [Value(tensor, value.axes) for tensor, value in zip(tensors, values, strict=True)]
    return contract(factors_, condition, axes, lengths)


def _count(
    it: Evaluator,
    values: list[Value],
    condition: Value | None,
    axes: tuple[Axis, ...],
    lengths: Mapping[Axis, int],
) -> Value:
    """A sum of products of ints and bools."""
    product = Value(values[0].tensor.to(torch.int64), values[0].axes)
    for value in values[1:]:
        product = operate("mul", (product, value), it.compute)
    if condition is not None:
        product = where(condition, product, 0) if product.axes else _scaled(condition, product)
    dims = [dim for dim, axis in enumerate(product.axes) if axis in axes]
    absent = prod(lengths[axis] for axis in axes if axis not in product.axes)
    tensor = product.tensor.sum(dims) if dims else product.tensor
    return Value(tensor * absent, tuple(axis for axis in product.axes if axis not in axes))


def _mean(it: Evaluator, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
    total = weighted_sum(it, (expr.body,), (), condition, expr.axes, scope)
    lengths = {axis: it.length(axis, scope) for axis in expr.axes}
    one = it.constant(1)
    number = _count(it, [one], condition, expr.axes, lengths)
    at_least_one = Value(number.tensor.clamp(min=1), number.axes)
    return operate("div", (total, at_least_one), it.compute)


def _dims(value: Value, axes: Iterable[Axis]) -> tuple[list[int], tuple[Axis, ...]]:
    bound = set(axes)
    dims = [dim for dim, axis in enumerate(value.axes) if axis in bound]
    return dims, tuple(axis for axis in value.axes if axis not in bound)


def _truth(it: Evaluator, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
    body = it.condition(expr.body, scope)
    if expr.op == "all":
        body = Value(~body.tensor, body.axes)
    found = body if condition is None else both(body, condition)
    dims, axes = _dims(found, expr.axes)
    seen = found.tensor.any(dim=tuple(dims)) if dims else found.tensor
    return Value(~seen if expr.op == "all" else seen, axes)


def _extreme(it: Evaluator, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
    body = it.evaluate(expr.body, scope)
    floats = body.tensor.is_floating_point()
    if not floats:
        body = Value(body.tensor.to(torch.int64), body.axes)
    if condition is not None:
        least = float("-inf") if floats else _SMALLEST_INT
        body = where(condition, body, least if expr.op == "max" else -least)
    dims, axes = _dims(body, expr.axes)
    if not dims:
        return body
    return Value(body.tensor.amax(dims) if expr.op == "max" else body.tensor.amin(dims), axes)


def _over_all(
    it: Evaluator, expr: Reduce, condition: Value | None, scope: Scope
) -> tuple[Tensor, Tensor, tuple[Axis, ...]]:
    """Body and condition over all of the bound axes (last, as one dimension) and the others before it."""
    body = it.evaluate(expr.body, scope)
    always = Value(torch.ones((), dtype=torch.bool, device=it.device))
    seen = always if condition is None else condition
    free = tuple(axis for axis in union((body, seen)) if axis not in expr.axes)
    axes = free + expr.axes
    return it.spread(body, axes, scope, expr.axes), it.spread(seen, axes, scope, expr.axes), free


def _product(it: Evaluator, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
    body, seen, axes = _over_all(it, expr, condition, scope)
    return Value(torch.where(seen, body, torch.ones_like(body)).prod(-1), axes)


def _logsumexp(it: Evaluator, expr: Reduce, condition: Value | None, scope: Scope) -> Value:
    body, seen, axes = _over_all(it, expr, condition, scope)
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
