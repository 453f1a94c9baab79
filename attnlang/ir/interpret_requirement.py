"""Requirements on the values of tensors, evaluated densely: where one fails first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attnlang.ir.interpret_expr import Expressions
from attnlang.ir.interpret_scope import Scope
from attnlang.ir.pattern import Apply, Axis, Expr, Reduce


@dataclass(frozen=True)
class Failure:
    """The condition that fails, and values of its free index variables (absolute for q) at which it does."""

    condition: Expr
    place: Mapping[Axis, int]


def first_failure(
    condition: Expr, tensors: Mapping[str, Tensor], symbols: Mapping[str, int | float | bool]
) -> Failure | None:
    """The first place where a condition without free index variables fails, None where it holds.

    Of `a and b` the part that fails is looked at, of `all(… for i in n)` its body. `tensors` holds every tensor that
    is read, `symbols` every size and parameter. Floats are compared in float64.
    """
    device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
    expressions = Expressions(tensors, dict(symbols), torch.float64, device)
    with torch.no_grad():
        return _first(condition, (), expressions)


def _first(condition: Expr, axes: tuple[Axis, ...], expressions: Expressions) -> Failure | None:
    match condition:
        case Reduce("all", inner, body, where):
            held = body if where is None else Apply("or", (Apply("not", (where,)), body))
            return _first(held, (*axes, *inner), expressions)
        case Apply("and", (left, right)):
            return _first(left, axes, expressions) or _first(right, axes, expressions)
        case _:
            pass
    value = expressions.condition(condition, Scope({}))
    if bool(value.tensor.all()) or any(expressions.size(axis) == 0 for axis in axes):
        return None
    offsets = [int(offset) for offset in (~value.tensor).nonzero()[0]]
    starts = [expressions.number(axis.start) for axis in value.axes]
    place = {axis: a + b for axis, a, b in zip(value.axes, starts, offsets, strict=True)}
    return Failure(condition, place)
