"""Numbers known when a pattern is called: sizes, parameters and what a pattern computes from them."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping

from attnlang.ir.pattern import Apply, Axis, Expr, Index, Literal, Read, Reduce, Symbol, children

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


def is_number(expr: Expr) -> bool:
    """Whether symbols decide the value of an expression: neither tensors nor index variables enter."""
    if isinstance(expr, Index | Read | Reduce):
        return False
    return all(is_number(part) for part in children(expr))


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


def _quotient(x: Number, y: Number) -> float:
    return x / y


def _floored(x: Number, y: Number) -> Number:
    return x // y


def _negative(x: Number) -> Number:
    return -x


def _absolute(x: Number) -> Number:
    return abs(x)


def _sign(x: Number) -> int:
    return (x > 0) - (x < 0)


def _rsqrt(x: Number) -> float:
    return 1 / math.sqrt(x)


def _same(x: Number) -> Number:
    return x


_OPERATIONS: dict[str, Callable[..., Number]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": _quotient,
    "floordiv": _floored, "mod": operator.mod, "pow": _power, "neg": _negative,
    "min": min, "max": max, "abs": _absolute, "sign": _sign,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq, "ne": operator.ne,
    "not": operator.not_, "exp": math.exp, "exp2": _exp2, "expm1": math.expm1, "log": math.log, "log2": math.log2,
    "log1p": math.log1p, "sqrt": math.sqrt, "rsqrt": _rsqrt, "sin": math.sin, "cos": math.cos, "tanh": math.tanh,
    "sigmoid": _sigmoid, "softplus": _softplus, "erf": math.erf, "atan": math.atan,
    "floor": math.floor, "ceil": math.ceil, "round": round, "int": int, "float": float, "detach": _same,
}  # fmt: skip
