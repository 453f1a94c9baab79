"""What reductions of the pattern IR come down to where they are neither a dot nor a fold."""

from __future__ import annotations

from dataclasses import replace

from attnlang.ir.kernel import Type
from attnlang.ir.pattern import Apply, Expr, Index, Literal, Reduce
from attnlang.ir.rewrite import substitute

COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "any": "or", "all": "and"}


def neutral(op: str, kind: Type) -> bool | int | float:
    """What a reduction gives over nothing."""
    match op:
        case "max" | "min":
            sign = -1 if op == "max" else 1
            return sign * (2**31 - 1 if kind == "i32" else 2**63 - 1 if kind == "i64" else float("inf"))
        case "any" | "all":
            return op == "all"
        case _:
            return 1 if op == "prod" else 0


def log_of_sum(expr: Reduce) -> Expr:
    """log Σ exp(x)  ->  log Σ exp(x − m) + m, with m the largest x, 0 where there is none"""
    others = {axis: replace(axis, name=f"{axis.name}_other") for axis in expr.axes}
    renamed: dict[Expr, Expr] = {Index(axis): Index(other) for axis, other in others.items()}
    where = None if expr.where is None else substitute(expr.where, renamed)
    largest = Reduce("max", tuple(others.values()), substitute(expr.body, renamed), where)
    shift = Apply("where", (Apply("eq", (largest, Literal(float("-inf")))), Literal(0.0), largest))
    powers = Apply("exp", (Apply("sub", (expr.body, shift)),))
    return Apply("add", (Apply("log", (Reduce("sum", expr.axes, powers, expr.where),)), shift))
