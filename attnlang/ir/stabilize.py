"""Formulas with exponentials that cannot overflow: exp(s)/(1 + sum(exp(s))) with s shifted by its maximum.

An expression is *of degree p* where it equals x·exp(p·m) for a shift m that the rows choose. A quotient of two
expressions of one degree is x/y, in which every exponential is exp(u − m) ≤ 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from attnlang.ir.pattern import Apply, Axis, Expr, Index, Literal, Read, Reduce, axis_of, free_axes


@dataclass(frozen=True)
class _Scaled:
    """expr · exp(degree · m), where expr is written with the shift; `shifted` tells whether it has one inside."""

    expr: Expr
    degree: int | float
    shifted: bool = False


def stabilize(expr: Expr, over: Axis, visible: Expr) -> Expr | None:
    """f(exp(s)) / g(exp(s)), of one degree  ->  the same with exp(s − m), m = max of s over the visible."""
    match expr:
        case Apply("div", _):
            return _quotient(expr, over, visible) or _inside(expr, over, visible)
        case Apply("mul", _):
            return _inside(expr, over, visible) or _quotient(expr, over, visible)
        case _:
            return _inside(expr, over, visible)


def _inside(expr: Expr, over: Axis, visible: Expr) -> Expr | None:
    """The rule applied to the operands."""
    match expr:
        case Apply(op, args):
            changed = [stabilize(arg, over, visible) for arg in args]
            if all(arg is None for arg in changed):
                return None
            return Apply(op, tuple(new or old for new, old in zip(changed, args, strict=True)))
        case Reduce(_, _, body, _):
            changed_body = stabilize(body, over, visible)
            return None if changed_body is None else replace(expr, body=changed_body)
        case _:
            return None


def _quotient(expr: Expr, over: Axis, visible: Expr) -> Expr | None:
    terms = list(dict.fromkeys(_exponents(expr)))
    maxima = [_maximum(term, expr, over, visible) for term in terms]
    if not any(
        over in free_axes(term) or isinstance(high, Reduce) for term, high in zip(terms, maxima, strict=True)
    ):
        return None
    bounds = [*maxima, Literal(0.0)] if _constant_beside(expr) else maxima
    highest = bounds[0]
    for bound in bounds[1:]:
        highest = Apply("max", (highest, bound))
    empty = Apply("eq", (highest, Literal(float("-inf"))))
    shift = Apply("detach", (Apply("where", (empty, Literal(0.0), highest)),))
    scaled = _scaled(expr, shift)
    return scaled.expr if scaled is not None and scaled.shifted and scaled.degree == 0 else None


def _exponents(expr: Expr) -> list[Expr]:
    """What stands under the exponentials that the rules below reach."""
    match expr:
        case Apply("exp", (exponent,)):
            return [exponent]
        case Apply("add" | "sub" | "mul" | "div" | "neg" | "where" | "pow" | "min" | "max" | "sqrt", args):
            return [exponent for arg in args for exponent in _exponents(arg)]
        case Reduce("sum" | "mean" | "max" | "min", _, body, _):
            return _exponents(body)
        case _:
            return []


def _bound_axes(expr: Expr) -> dict[Axis, Expr | None]:
    """The axes that reductions in the expression bind, with their conditions."""
    match expr:
        case Reduce(_, axes, body, where):
            return {**{axis: where for axis in axes}, **_bound_axes(body)}
        case Apply(_, args):
            return {axis: where for arg in args for axis, where in _bound_axes(arg).items()}
        case _:
            return {}


def _maximum(term: Expr, expr: Expr, over: Axis, visible: Expr) -> Expr:
    """The maximum of an exponent over the row: over `over` where visible, over bound axes where their sum runs."""
    bound = _bound_axes(expr)
    free = free_axes(term)
    for axis, where in bound.items():
        if axis in free and axis != over:
            term = Reduce("max", (axis,), term, where)
    return Reduce("max", (over,), term, visible) if over in free else term


def _constant_beside(expr: Expr) -> bool:
    """Whether a sum has a term without exponentials (like the 1 in exp(s)/(1 + sum(exp(s)))) beside one with them."""
    match expr:
        case Apply("add" | "sub" | "min" | "max" | "where", args):
            parts = args[1:] if expr.op == "where" else args
            some = [bool(_exponents(part)) for part in parts]
            return (any(some) and not all(some)) or any(_constant_beside(part) for part in parts)
        case Apply(_, args):
            return any(_constant_beside(arg) for arg in args)
        case Reduce(_, _, body, _):
            return _constant_beside(body)
        case _:
            return False


def _raised(scaled: _Scaled, degree: int | float, shift: Expr) -> Expr:
    """The expression as one of a higher degree: x·exp((p − degree)·m)."""
    if scaled.degree == degree or scaled.expr in (Literal(0), Literal(0.0)):
        return scaled.expr
    factor = Apply("exp", (Apply("mul", (Literal(float(scaled.degree - degree)), shift)),))
    return Apply("mul", (scaled.expr, factor))


def _together(op: str, condition: tuple[Expr, ...], args: tuple[Expr, ...], shift: Expr) -> _Scaled | None:
    """x·exp(p·m) ± y·exp(p·m)  =  (x ± y)·exp(p·m); a term of lower degree is raised first."""
    parts = [_scaled(arg, shift) for arg in args]
    present = [part for part in parts if part is not None]
    if len(present) < len(parts):
        return None
    degree = max(part.degree for part in present)
    changed = tuple(_raised(part, degree, shift) for part in present)
    return _Scaled(Apply(op, condition + changed), degree, any(part.shifted for part in present))


def _product(op: str, args: tuple[Expr, ...], shift: Expr) -> _Scaled | None:
    first, second = _scaled(args[0], shift), _scaled(args[1], shift)
    if first is None or second is None:
        return None
    degree = first.degree + second.degree if op == "mul" else first.degree - second.degree
    return _Scaled(Apply(op, (first.expr, second.expr)), degree, first.shifted or second.shifted)


def _scaled(expr: Expr, shift: Expr) -> _Scaled | None:
    """The expression with its exponentials shifted; None where it has some that cannot be."""
    if not _exponents(expr):
        return _Scaled(expr, 0)
    match expr:
        case Apply("exp", (exponent,)):
            return _Scaled(Apply("exp", (Apply("sub", (exponent, shift)),)), 1, True)
        case Apply("add" | "sub" | "min" | "max", args):
            return _together(expr.op, (), args, shift)
        case Apply("where", (condition, *branches)):
            return _together("where", (condition,), tuple(branches), shift)
        case Apply("mul" | "div", args):
            return _product(expr.op, args, shift)
        case Apply("neg" | "sqrt", (arg,)):
            part = _scaled(arg, shift)
            return part and _Scaled(
                Apply(expr.op, (part.expr,)), part.degree / (2 if expr.op == "sqrt" else 1), True
            )
        case Apply("pow", (base, Literal(value))) if not _exponents(Literal(value)):
            part = _scaled(base, shift)
            return part and _Scaled(Apply("pow", (part.expr, Literal(value))), part.degree * value, True)
        case Reduce("sum" | "mean" | "max" | "min", axes, body, where):
            part = _scaled(body, shift)
            if part is None or free_axes(shift) & set(axes):
                return None
            return _Scaled(Reduce(expr.op, axes, part.expr, where), part.degree, part.shifted)
        case _:
            return None


# ------------------------------------------------------------------------------------------------ pipelines


def inline(expr: Expr, source: str, axes: tuple[Axis, ...], body: Expr) -> Expr | None:
    """g(x[…, k'])  ->  g(f(…, k')) where x[axes] = f(axes) = body; None where x is read at anything but plain axes."""
    match expr:
        case Read(name, at, _) if name == source:
            places = [axis_of(place) for place in at]
            names = {own: place for own, place in zip(axes, places, strict=True) if place is not None}
            same = all(place.start == own.start for own, place in names.items())
            return renamed(body, names) if len(names) == len(axes) and same else None
        case Read(name, at, dtype):
            inner = [inline(place, source, axes, body) for place in at]
            kept = tuple(place for place in inner if place is not None)
            return Read(name, kept, dtype) if len(kept) == len(at) else None
        case Apply(op, args):
            changed = [inline(arg, source, axes, body) for arg in args]
            operands = tuple(arg for arg in changed if arg is not None)
            return Apply(op, operands) if len(operands) == len(args) else None
        case Reduce(op, bound, inside, where):
            new, seen = inline(inside, source, axes, body), where and inline(where, source, axes, body)
            return (
                None if new is None or (where is not None and seen is None) else Reduce(op, bound, new, seen)
            )
        case _:
            return expr


def renamed(expr: Expr, names: Mapping[Axis, Axis]) -> Expr:
    """The expression at other index variables; what it binds itself is renamed where it would catch one of them."""
    match expr:
        case Index(axis):
            return Index(names.get(axis, axis))
        case Read(source, at, dtype):
            return Read(source, tuple(renamed(place, names) for place in at), dtype)
        case Apply(op, args):
            return Apply(op, tuple(renamed(arg, names) for arg in args))
        case Reduce(op, bound, body, where):
            outer = {own: new for own, new in names.items() if own not in bound}
            fresh = {axis: replace(axis, name=f"{axis.name}'") for axis in bound if axis in outer.values()}
            inner = {**outer, **fresh}
            seen = None if where is None else renamed(where, inner)
            return Reduce(op, tuple(fresh.get(axis, axis) for axis in bound), renamed(body, inner), seen)
        case _:
            return expr
