"""Whether an expression is a finite number wherever its inputs are: then 0 times it is 0."""

from __future__ import annotations

from math import isfinite

from attnlang.ir.bounds import Facts, interval
from attnlang.ir.pattern import Apply, Expr, Literal, Reduce, children, free_axes

ALIKE = ("batch", "head", "kv_head")
LARGEST_EXPONENT = 80.0  # exp of it is finite in float32


def is_finite(expr: Expr, facts: Facts) -> bool:
    """True only where no operation in it can divide by 0, overflow an exponential or leave its domain for one pair
    and not for another; what depends on batch and head alone counts as finite."""
    if isinstance(expr, Apply) and not any(axis.role not in ALIKE for axis in free_axes(expr)):
        return True
    if not all(is_finite(child, facts) for child in children(expr)):
        return False
    match expr:
        case Literal(float(value)):
            return isfinite(value)
        case Reduce(op, _, _, _):
            return op in ("sum", "mean", "any", "all")
        case Apply(op, args):
            return _operation(op, args, facts)
        case _:
            return True


def _operation(op: str, args: tuple[Expr, ...], facts: Facts) -> bool:
    low, high = interval(args[-1], facts)
    match op:
        case "div" | "floordiv" | "mod":
            return low > 0 or high < 0
        case "log" | "log2" | "rsqrt":
            return low > 0
        case "log1p":
            return low > -1
        case "sqrt":
            return low >= 0
        case "exp" | "exp2" | "expm1":
            return high <= LARGEST_EXPONENT
        case "pow":
            return isinstance(args[1], Literal) and isinstance(args[1].value, int) and args[1].value >= 0
        case _:
            return True
