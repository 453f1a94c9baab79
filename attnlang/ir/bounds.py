"""What is known of an integer expression for every call: its interval, and its direction along an axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from attnlang.ir.pattern import Apply, Axis, Expr, Index, Literal, Parameter, Reduce, Symbol, free_axes

INF = math.inf
Interval = tuple[float, float]
EVERYTHING: Interval = (-INF, INF)


@dataclass(frozen=True)
class Facts:
    """Intervals of symbols, and of the axes by name where they are narrower than start … start + size − 1."""

    symbols: Mapping[str, Interval] = field(default_factory=dict[str, Interval])

    @staticmethod
    def of(parameters: tuple[Parameter, ...], q_offset: Interval = EVERYTHING) -> Facts:
        """From the declared ranges of parameters; sizes are at least 1."""
        known: dict[str, Interval] = {name: (1, INF) for name in ("B", "H", "HK", "D", "DV", "NQ", "NK")}
        known["q_offset"] = q_offset
        for parameter in parameters:
            low, high = EVERYTHING
            step = 1 if parameter.dtype == "int" else 0
            for comparison, bound in parameter.bounds:
                match comparison:
                    case "ge":
                        low = max(low, bound)
                    case "gt":
                        low = max(low, bound + step)
                    case "le":
                        high = min(high, bound)
                    case "lt":
                        high = min(high, bound - step)
                    case _:
                        pass
            known[parameter.name] = (low, high)
        return Facts(known)


def interval(expr: Expr, facts: Facts) -> Interval:
    """Least and greatest value over all calls and indices, as far as it is known."""
    match expr:
        case Literal(value):
            return (float(value), float(value))
        case Symbol(name, _):
            return facts.symbols.get(name, EVERYTHING)
        case Index(axis):
            start, size = interval(axis.start, facts), interval(axis.size, facts)
            return (start[0], start[1] + size[1] - 1)
        case Apply(op, args):
            return _of_operation(op, [interval(arg, facts) for arg in args])
        case Reduce("max" | "min", _, body, None):
            return interval(body, facts)
        case _:
            return EVERYTHING


def _product(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y


def _of_operation(op: str, parts: list[Interval]) -> Interval:
    match op, parts:
        case "add", [(a, b), (c, d)]:
            return (a + c, b + d)
        case "sub", [(a, b), (c, d)]:
            return (a - d, b - c)
        case "neg", [(a, b)]:
            return (-b, -a)
        case "mul", [(a, b), (c, d)]:
            corners = [_product(x, y) for x in (a, b) for y in (c, d)]
            return (min(corners), max(corners))
        case "floordiv", [(a, b), (c, d)] if c > 0:
            corners = [_quotient(x, y) for x in (a, b) for y in (c, d)]
            return (min(corners), max(corners))
        case "mod", [(a, b), (c, d)] if c > 0:
            return (0, min(b, d - 1)) if a >= 0 else (0, d - 1)
        case "min", [(a, b), (c, d)]:
            return (min(a, c), min(b, d))
        case "max", [(a, b), (c, d)]:
            return (max(a, c), max(b, d))
        case "abs", [(a, b)]:
            return (0 if a <= 0 <= b else min(abs(a), abs(b)), max(abs(a), abs(b)))
        case "where", [_, (a, b), (c, d)]:
            return (min(a, c), max(b, d))
        case (("int" | "float" | "floor" | "ceil" | "round" | "detach"), [(a, b)]):
            return (math.floor(a) if math.isfinite(a) else a, math.ceil(b) if math.isfinite(b) else b)
        case (("lt" | "le" | "gt" | "ge" | "eq" | "ne" | "and" | "or" | "not"), _):
            return (0, 1)
        case _:
            return EVERYTHING


def _quotient(x: float, y: float) -> float:
    if math.isinf(x):
        return x if not math.isinf(y) else math.copysign(0.0 if x > 0 else INF, x)
    if math.isinf(y):
        return 0.0 if x >= 0 else -1.0
    return float(x // y)


def direction(expr: Expr, axis: Axis, facts: Facts) -> int | None:
    """+1 nondecreasing along the axis, −1 nonincreasing, 0 independent, None not known."""
    if axis not in free_axes(expr):
        return 0
    match expr:
        case Index(_):
            return 1
        case Apply("add" | "min" | "max", (a, b)):
            return _together(direction(a, axis, facts), direction(b, axis, facts))
        case Apply("sub", (a, b)):
            return _together(direction(a, axis, facts), _opposite(direction(b, axis, facts)))
        case Apply("neg", (a,)):
            return _opposite(direction(a, axis, facts))
        case Apply("mul", (a, b)):
            if axis in free_axes(a):
                a, b = b, a
            if axis in free_axes(a):
                return None
            low, high = interval(a, facts)
            along = direction(b, axis, facts)
            return along if low >= 0 else _opposite(along) if high <= 0 else None
        case Apply("floordiv", (a, b)) if axis not in free_axes(b) and interval(b, facts)[0] > 0:
            return direction(a, axis, facts)
        case Apply("int" | "float" | "floor" | "ceil" | "round" | "exp" | "log" | "sqrt" | "tanh", (a,)):
            return direction(a, axis, facts)
        case _:
            return None


def _opposite(along: int | None) -> int | None:
    return None if along is None else -along


def _together(a: int | None, b: int | None) -> int | None:
    if a is None or b is None or a * b < 0:
        return None
    return a or b
