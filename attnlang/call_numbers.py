"""Numbers known when a pattern is called: sizes, parameters and what a pattern computes from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from attnlang.ir.pattern import Apply, Axis, Expr, Index, Literal, Read, Reduce, Symbol

Number = bool | int | float
LARGEST_EXPONENT = 4096


class NotKnown(Exception):
    """The expression depends on something without a value here (a size of a call without tensors)."""


def number(expr: Expr, symbols: Mapping[str, Number], indices: Mapping[Axis, int] | None = None) -> Number:
    """The value of an expression, in Python's exact integers and float64.

    Raises NotKnown where a symbol or an index has no value, ArithmeticError where the arithmetic fails.
    """
    match expr:
        case Literal(value):
            return value
        case Symbol(name, _):
            if name not in symbols:
                raise NotKnown(name)
            return symbols[name]
        case Index(axis):
            if indices is None or axis not in indices:
                raise NotKnown(axis.name)
            return indices[axis]
        case Apply("and", (left, right)):
            return bool(number(left, symbols, indices)) and bool(number(right, symbols, indices))
        case Apply("or", (left, right)):
            return bool(number(left, symbols, indices)) or bool(number(right, symbols, indices))
        case Apply("where", (condition, then, otherwise)):
            chosen = then if number(condition, symbols, indices) else otherwise
            return number(chosen, symbols, indices)
        case Apply(op, args):
            values = [number(arg, symbols, indices) for arg in args]
            try:
                return _OPERATIONS[op](*values)
            except ValueError as error:  # math.log(-1) and its kind
                raise ArithmeticError(str(error)) from None
        case Read(source, _, _):
            raise NotKnown(source)
        case Reduce(op, _, _, _):
            raise NotKnown(op)


def symbols_of(expr: Expr) -> tuple[str, ...]:
    """The names of the symbols in an expression, in the order of their first use."""
    match expr:
        case Symbol(name, _):
            return (name,)
        case Apply(_, args):
            return tuple(dict.fromkeys(name for arg in args for name in symbols_of(arg)))
        case _:
            return ()


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, float) or isinstance(exponent, float):
        return math.pow(base, exponent)
    if exponent < 0:
        return math.pow(base, exponent)
    if exponent > LARGEST_EXPONENT and abs(base) > 1:
        raise OverflowError("a power is too large")
    return int(base) ** int(exponent)


def _exp2(x: Number) -> float:
    return math.pow(2.0, x)


def _softplus(x: Number) -> float:
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def _sigmoid(x: Number) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _floor(x: Number) -> int:
    return math.floor(x)


_OPERATIONS: dict[str, Callable[..., Number]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
    "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b, "pow": _power, "neg": lambda a: -a,
    "min": min, "max": max, "abs": abs, "sign": lambda a: (a > 0) - (a < 0),
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "not": lambda a: not a,
    "exp": math.exp, "exp2": _exp2, "expm1": math.expm1, "log": math.log, "log2": math.log2, "log1p": math.log1p,
    "sqrt": math.sqrt, "rsqrt": lambda a: 1 / math.sqrt(a), "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
    "sigmoid": _sigmoid, "softplus": _softplus, "erf": math.erf,
    "floor": _floor, "ceil": math.ceil, "round": round, "int": int, "float": float, "detach": lambda a: a,
}  # fmt: skip
