"""The operations and reductions on Python numbers, with the infinities and NaN of IEEE arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable

Number = bool | int | float


def _divide(a: Number, b: Number) -> float:
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _whole(operation: Callable[[Number, Number], Number]) -> Callable[[Number, Number], Number]:
    """`//` or `%`, with NaN (ints: 0) for a division by 0, which stands only where the result is hidden."""

    def apply(a: Number, b: Number) -> Number:
        if b != 0:
            return operation(a, b)
        return math.nan if isinstance(a, float) or isinstance(b, float) else 0

    return apply


def _power(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int):
        return a ** max(b, 0)
    try:
        found = a**b
    except ZeroDivisionError:
        return math.inf
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    return math.nan if isinstance(found, complex) else found


def _overflowing(function: Callable[[float], float]) -> Callable[[float], float]:
    def apply(x: float) -> float:
        try:
            return function(x)
        except OverflowError:
            return math.inf

    return apply


def _logarithm(function: Callable[[float], float], pole: float) -> Callable[[float], float]:
    def apply(x: float) -> float:
        return function(x) if x > pole else -math.inf if x == pole else math.nan

    return apply


def _root(x: float) -> float:
    return math.sqrt(x) if x >= 0 else math.nan


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _sign(x: Number) -> Number:
    return x if x == 0 or x != x else type(x)(math.copysign(1, x))


_BINARY: dict[str, Callable[[Number, Number], Number]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": _divide,
    "floordiv": _whole(lambda a, b: a // b), "mod": _whole(lambda a, b: a % b), "pow": _power,
    "min": lambda a, b: a if a < b or a != a else b, "max": lambda a, b: a if a > b or a != a else b,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
}  # fmt: skip
_UNARY: dict[str, Callable[[Number], Number]] = {
    "neg": lambda x: -x, "abs": abs, "sign": _sign, "not": lambda x: not x,
    "exp": _overflowing(math.exp), "exp2": _overflowing(math.exp2), "expm1": _overflowing(math.expm1),
    "log": _logarithm(math.log, 0), "log2": _logarithm(math.log2, 0), "log1p": _logarithm(math.log1p, -1),
    "sqrt": _root, "rsqrt": lambda x: _divide(1.0, _root(x)), "sin": math.sin, "cos": math.cos,
    "tanh": math.tanh, "sigmoid": _sigmoid, "softplus": _softplus, "erf": math.erf, "atan": math.atan,
    "floor": math.floor, "ceil": math.ceil, "round": round, "int": int, "float": float, "detach": lambda x: x,
}  # fmt: skip


def calculate(op: str, operands: list[Number]) -> Number:
    """An operation of `OPERATIONS`."""
    if len(operands) == 2:
        return _BINARY[op](operands[0], operands[1])
    return _UNARY[op](operands[0])


def reduced(op: str, values: list[Number]) -> Number:
    """A reduction over the values where its condition holds."""
    match op:
        case "sum":
            return sum(values)
        case "mean":
            return sum(values) / len(values) if values else 0.0
        case "prod":
            return math.prod(values)
        case "any":
            return any(values)
        case "all":
            return all(values)
        case "max":
            return max(values, default=-math.inf)
        case "min":
            return min(values, default=math.inf)
        case _:
            highest = max(values, default=-math.inf)
            if highest == -math.inf:
                return -math.inf
            return highest + math.log(math.fsum(math.exp(value - highest) for value in values))
