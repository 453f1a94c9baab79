"""Products and sums of the pattern IR: taking factors apart, and folding a constant into a score."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from attnlang.ir.pattern import ONE, Apply, Axis, Expr, Literal, Reduce, dtype_of, free_axes


def factors(expr: Expr) -> list[Expr]:
    """The factors of a product, from left to right; −x counts as −1 · x."""
    match expr:
        case Apply("mul", (x, y)):
            return factors(x) + factors(y)
        case Apply("neg", (x,)):
            return [Literal(-1.0), *factors(x)]
        case _:
            return [expr]


def product(parts: Iterable[Expr]) -> Expr:
    """The product; 1 of nothing."""
    items = [part for part in parts if part != Literal(1.0)]
    return reduce(lambda x, y: Apply("mul", (x, y)), items) if items else ONE


def terms(expr: Expr) -> list[tuple[int, Expr]]:
    """The terms of a sum with their signs."""
    match expr:
        case Apply("add", (x, y)):
            return terms(x) + terms(y)
        case Apply("sub", (x, y)):
            return terms(x) + [(-sign, term) for sign, term in terms(y)]
        case Apply("neg", (x,)):
            return [(-sign, term) for sign, term in terms(x)]
        case _:
            return [(1, expr)]


def scaled(expr: Expr, constant: float, varying: frozenset[Axis]) -> Expr:
    """`expr · constant`, with the constant moved onto a factor that does not depend on the varying axes, so that it
    costs nothing per pair."""
    match expr:
        case Apply("add" | "sub" as op, (x, y)):
            return Apply(op, (scaled(x, constant, varying), scaled(y, constant, varying)))
        case Apply("neg", (x,)):
            return Apply("neg", (scaled(x, constant, varying),))
        case Apply("where", (condition, x, y)):
            return Apply("where", (condition, scaled(x, constant, varying), scaled(y, constant, varying)))
        case Apply("div", (x, y)) if not free_axes(y) & varying and free_axes(x) & varying:
            return scaled(Apply("mul", (x, Apply("div", (Literal(1.0), y)))), constant, varying)
        case _:
            parts = factors(expr)
            still = [part for part in parts if not free_axes(part) & varying]
            moving = [part for part in parts if free_axes(part) & varying]
            return product([Apply("mul", (product(still), Literal(constant))), *moving])


def sum_over(expr: Reduce) -> tuple[Axis, Expr] | None:
    """Axis and body of an unconditional sum over one axis, of floats."""
    match expr:
        case Reduce("sum", (axis,), body, None) if dtype_of(body) == "float":
            return axis, body
        case _:
            return None
