"""Building pattern IR: operations that fold what is known at once, and changes of index variables."""

from __future__ import annotations

from collections.abc import Mapping

from attnlang.ir.pattern import (
    HEAD,
    HK,
    KV_HEAD,
    Apply,
    Axis,
    Expr,
    H,
    Index,
    Literal,
    Read,
    Reduce,
    free_axes,
    kv_head_of,
)
from attnlang.ir.rewrite import SIMPLIFY, map_children

_LARGEST = 2**62


def build(op: str, *args: Expr) -> Expr:
    """The operation, folded where its operands are literals or neutral; ints stay within 64 bits."""
    expr = Apply(op, args)
    if op == "pow":
        return _power(expr)
    if op == "neg":
        match args[0]:
            case Apply("neg", (inner,)):
                return inner
            case _:
                pass
    for rule in (*SIMPLIFY, cancel):
        changed = rule(expr)
        if changed is not None and not _too_large(changed):
            return changed
    return expr


def cancel(expr: Expr) -> Expr | None:
    """(x + y) - y  ->  x, for a term of a sum"""
    match expr:
        case Apply("sub", (Apply("add", (left, right)), term)):
            if right == term:
                return left
            if left == term:
                return right
            inner = cancel(Apply("sub", (left, term)))
            return None if inner is None else Apply("add", (inner, right))
        case _:
            return None


def _too_large(expr: Expr) -> bool:
    return isinstance(expr, Literal) and isinstance(expr.value, int) and abs(expr.value) > _LARGEST


def _power(expr: Apply) -> Expr:
    match expr.args:
        case (Literal(int(base)), Literal(int(exponent))) if 0 <= exponent <= 62 and abs(base) < 2**16:
            power = base**exponent
            return Literal(power) if abs(power) <= _LARGEST else expr
        case _:
            return expr


def both(*conditions: Expr) -> Expr:
    """All the conditions; the literals among them folded."""
    result: Expr = Literal(True)
    for condition in conditions:
        result = build("and", result, condition)
    return result


def ceil_div(a: Expr, b: Expr) -> Expr:
    """ceil(a / b) for ints, b > 0."""
    if isinstance(b, Literal) and b.value == 1:
        return a
    return build("floordiv", build("sub", build("add", a, b), Literal(1)), b)


def rename(expr: Expr, values: Mapping[Axis, Expr]) -> Expr:
    """`expr` with other values in place of free index variables, all at once."""
    match expr:
        case Index(axis):
            return values.get(axis, expr)
        case Reduce(op, axes, body, where):
            inner = {axis: value for axis, value in values.items() if axis not in axes}
            if not inner:
                return expr
            return Reduce(op, axes, rename(body, inner), None if where is None else rename(where, inner))
        case _:
            return map_children(expr, lambda part: rename(part, values))


def by_kv_head(expr: Expr) -> Expr:
    """The same over key/value heads, where the query head enters through its key/value head only."""
    if HEAD not in free_axes(expr):
        return expr
    group = kv_head_of(Index(HEAD))

    def change(part: Expr) -> Expr:
        return Index(KV_HEAD) if part == group else map_children(part, change)

    changed = change(expr)
    return expr if HEAD in free_axes(changed) else changed


def sources_of(expr: Expr) -> frozenset[str]:
    """Everything that is read in it."""
    found: set[str] = set()

    def visit(part: Expr) -> None:
        match part:
            case Read(source, at, _):
                found.add(source)
                for index in at:
                    visit(index)
            case Apply(_, args):
                for arg in args:
                    visit(arg)
            case Reduce(_, _, body, where):
                visit(body)
                if where is not None:
                    visit(where)
            case _:
                pass

    visit(expr)
    return frozenset(found)


HEADS_PER_GROUP = Apply("floordiv", (H, HK))
