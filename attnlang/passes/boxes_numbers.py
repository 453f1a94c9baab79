"""The operations of the pattern IR on NumPy numbers and arrays, as its interpreter defines them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _divisor(b: Any) -> Any:
    """Whole numbers divide by 0 only where the result is hidden."""
    return np.where(np.equal(b, 0), 1, b)


def _whole(x: Any, rounding: Callable[[Any], Any]) -> Any:
    values = np.asarray(x)
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    return np.nan_to_num(rounding(values), nan=0.0, posinf=0.0, neginf=0.0).astype(np.int64)


def _rsqrt(x: Any) -> Any:
    return 1.0 / np.sqrt(x)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(np.negative(x)))


def _softplus(x: Any) -> Any:
    return np.logaddexp(x, 0.0)


def _truth(x: Any) -> Any:
    return np.not_equal(x, 0)


def _int_power(a: Any, b: Any) -> Any:
    return np.power(np.asarray(a, dtype=np.int64), np.maximum(b, 0))


_where: Callable[..., Any] = np.where


def _float_power(a: Any, b: Any) -> Any:
    return np.power(np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))


_FLOATS: dict[str, Callable[..., Any]] = {
    "div": np.divide, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log1p": np.log1p, "sqrt": np.sqrt, "rsqrt": _rsqrt, "sin": np.sin, "cos": np.cos, "tanh": np.tanh,
    "sigmoid": _sigmoid, "softplus": _softplus, "erf": _erf,
}  # fmt: skip
_SAME: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs, "sign": np.sign,
    "min": np.minimum, "max": np.maximum,
}  # fmt: skip
_BOOLS: dict[str, Callable[..., Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "same": np.equal,
}  # fmt: skip
_ROUNDING: dict[str, Callable[[Any], Any]] = {
    "floor": np.floor, "ceil": np.ceil, "round": np.rint, "int": np.trunc,
}  # fmt: skip


def numeric(op: str, args: Sequence[Any], whole: bool) -> Any:
    """An operation on numbers or arrays; `whole`: on ints (or bools) rather than floats."""
    with np.errstate(all="ignore"):
        return _numeric(op, args, whole)


def _numeric(op: str, args: Sequence[Any], whole: bool) -> Any:
    if op in _BOOLS:
        return _BOOLS[op](*args)
    if op in _ROUNDING:
        return _whole(args[0], _ROUNDING[op])
    kind = np.int64 if whole else np.float64
    if op in _SAME:
        return _SAME[op](*(np.asarray(arg, dtype=kind) for arg in args))
    if op in _FLOATS:
        return _FLOATS[op](*(np.asarray(arg, dtype=np.float64) for arg in args))
    x: Any = args[0]
    match op:
        case "and":
            return _truth(args[0]) & _truth(args[1])
        case "or":
            return _truth(args[0]) | _truth(args[1])
        case "not":
            return ~_truth(args[0])
        case "where":
            return _where(_truth(x), args[1], args[2])
        case "floordiv":
            return np.floor_divide(x, _divisor(args[1]) if whole else args[1])
        case "mod":
            return np.remainder(x, _divisor(args[1]) if whole else args[1])
        case "pow":
            return _int_power(x, args[1]) if whole else _float_power(x, args[1])
        case "float":
            return np.asarray(x, dtype=np.float64)
        case _:
            return x
