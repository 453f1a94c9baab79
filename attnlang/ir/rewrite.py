"""Rewriting pattern IR: rules are values `Expr -> Expr | None`, applied bottom-up until none fires."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from attnlang.ir.pattern import FALSE, TRUE, ZERO, Apply, Axis, Expr, Index, Literal, Read, Reduce, dtype_of

Rule = Callable[[Expr], Expr | None]


def map_children(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The node with `change` applied to its direct subexpressions; the same object when nothing changed."""
    match expr:
        case Read(source, at, dtype):
            new = tuple(change(part) for part in at)
            return expr if new == at else Read(source, new, dtype)
        case Apply(op, args):
            new = tuple(change(part) for part in args)
            return expr if new == args else Apply(op, new)
        case Reduce(op, axes, body, where):
            new_body, new_where = change(body), None if where is None else change(where)
            return expr if (new_body, new_where) == (body, where) else Reduce(op, axes, new_body, new_where)
        case _:
            return expr


def substitute(expr: Expr, values: Mapping[Expr, Expr]) -> Expr:
    """`expr` with subexpressions replaced; sizes and starts of axes are rewritten too."""
    if expr in values:
        return values[expr]

    def axis(old: Axis) -> Axis:
        return replace(
            old, size=simplify(substitute(old.size, values)), start=simplify(substitute(old.start, values))
        )

    match expr:
        case Index(old):
            return Index(axis(old))
        case Reduce(op, axes, body, where):
            return Reduce(
                op,
                tuple(axis(old) for old in axes),
                substitute(body, values),
                None if where is None else substitute(where, values),
            )
        case _:
            return map_children(expr, lambda part: substitute(part, values))


def rewrite(expr: Expr, rules: tuple[Rule, ...]) -> Expr:
    """Bottom-up, each node until no rule fires."""
    expr = map_children(expr, lambda part: rewrite(part, rules))
    for rule in rules:
        changed = rule(expr)
        if changed is not None:
            return rewrite(changed, rules)
    return expr


# ------------------------------------------------------------------------------------------------ folding


Number = bool | int | float


def _folded(op: str, values: list[Number]) -> Number | None:
    """The value of an operation on numbers, None for what is not folded."""
    match values:
        case [a]:
            return _folded_one(op, a)
        case [a, b]:
            return _folded_two(op, a, b)
        case [condition, a, b] if op == "where":
            return a if condition else b
        case _:
            return None


def _folded_one(op: str, a: Number) -> Number | None:
    match op:
        case "neg":
            return -a
        case "abs":
            return abs(a)
        case "not":
            return not a
        case "int":
            return int(a)
        case "float":
            return float(a)
        case "floor" | "ceil":
            return math.floor(a) if op == "floor" else math.ceil(a)
        case "round":
            return round(a)
        case _ if op in _REAL:
            return _REAL[op](float(a))
        case _:
            return None


_REAL: dict[str, Callable[[float], float]] = {
    "exp": math.exp, "exp2": math.exp2, "expm1": math.expm1, "log": math.log, "log2": math.log2, "log1p": math.log1p,
    "sqrt": math.sqrt, "sin": math.sin, "cos": math.cos, "tanh": math.tanh, "erf": math.erf, "atan": math.atan,
}  # fmt: skip


def _folded_two(op: str, a: Number, b: Number) -> Number | None:
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "div":
            return a / b
        case "floordiv":
            return a // b
        case "mod":
            return a % b
        case "min" | "max":
            return min(a, b) if op == "min" else max(a, b)
        case "and" | "or":
            return (a and b) if op == "and" else (a or b)
        case _:
            return _compared(op, a, b)


def _compared(op: str, a: Number, b: Number) -> bool | None:
    match op:
        case "lt":
            return a < b
        case "le":
            return a <= b
        case "gt":
            return a > b
        case "ge":
            return a >= b
        case "eq":
            return a == b
        case "ne":
            return a != b
        case _:
            return None


def fold_constants(expr: Expr) -> Expr | None:
    """An operation on literals  ->  its literal"""
    match expr:
        case Apply(op, args) if all(isinstance(arg, Literal) for arg in args):
            try:
                value = _folded(op, [arg.value for arg in args if isinstance(arg, Literal)])
            except (ZeroDivisionError, ValueError, OverflowError):
                return None
            return None if value is None else Literal(value)
        case _:
            return None


def neutral(expr: Expr) -> Expr | None:
    """x + 0, x - 0, x * 1, x // 1, 0 + x, 1 * x  ->  x;  0 * x  ->  0 for ints;  x mod 1  ->  0;  x - x  ->  0"""
    match expr:
        case Apply("add" | "sub", (x, Literal(0))) | Apply("add", (Literal(0), x)):
            return x if dtype_of(x) == dtype_of(expr) else None
        case Apply("mul" | "floordiv", (x, Literal(1))) | Apply("mul", (Literal(1), x)):
            return x if dtype_of(x) == dtype_of(expr) else None
        case Apply("mul", (Literal(0), x)) | Apply("mul", (x, Literal(0))) if dtype_of(expr) == "int":
            return ZERO
        case Apply("mod", (x, Literal(1))) if dtype_of(x) == "int":
            return ZERO
        case Apply("sub", (x, y)) if x == y and dtype_of(x) == "int":
            return ZERO
        case _:
            return None


def logic(expr: Expr) -> Expr | None:
    """true and x -> x;  false and x -> false;  the same for or, not, and where with a known condition"""
    match expr:
        case Apply("and", (Literal(True), x)) | Apply("and", (x, Literal(True))):
            return x
        case Apply("and", (Literal(False), _)) | Apply("and", (_, Literal(False))):
            return FALSE
        case Apply("or", (Literal(False), x)) | Apply("or", (x, Literal(False))):
            return x
        case Apply("or", (Literal(True), _)) | Apply("or", (_, Literal(True))):
            return TRUE
        case Apply("not", (Apply("not", (x,)),)):
            return x
        case Apply("and" | "or", (x, y)) if x == y:
            return x
        case Apply("where", (Literal(condition), x, y)):
            return x if condition else y
        case Apply("where", (_, x, y)) if x == y:
            return x
        case _:
            return None


SIMPLIFY: tuple[Rule, ...] = (fold_constants, neutral, logic)


def simplify(expr: Expr) -> Expr:
    """Constant folding and neutral elements; the value is the same bit by bit."""
    return rewrite(expr, SIMPLIFY)


def conjunction(*parts: Expr) -> Expr:
    """All of them, simplified."""
    result: Expr = TRUE
    for part in parts:
        result = simplify(Apply("and", (result, part)))
    return result
