"""The score of a pattern as a function of the score that FlexAttention hands to score_mod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    SCALE,
    Apply,
    D,
    Expr,
    Index,
    Read,
    Reduce,
    Symbol,
    children,
    kv_head_of,
    storage,
)  # fmt: skip
from attnlang.ir.rewrite import map_children

SCORE = Symbol("flex score", "float")
"""Stands for what score_mod receives; no parameter can have this name."""


@dataclass(frozen=True)
class Scored:
    """`score` in terms of SCORE, which is the product of Q and K, `unscaled` or times the scale."""

    score: Expr
    unscaled: bool


def scored(score: Expr, scale: float | None) -> Scored | None:
    """The product of Q and K, times the scale wherever it stands so, replaced by SCORE; None where the scale is used
    otherwise and has no value."""
    together = _replaced(score, _is_scaled_product)
    if not _contains(together, _is_product):
        return Scored(together, False) if scale is not None or not _contains(together, _is_scale) else None
    apart = _replaced(score, _is_product)
    if scale is None and _contains(apart, _is_scale):
        return None
    return Scored(apart, True)


def _replaced(expr: Expr, wanted: Callable[[Expr], bool]) -> Expr:
    if wanted(expr):
        return SCORE
    return map_children(expr, lambda part: _replaced(part, wanted))


def _contains(expr: Expr, wanted: Callable[[Expr], bool]) -> bool:
    return wanted(expr) or any(_contains(child, wanted) for child in children(expr))


def _is_scale(expr: Expr) -> bool:
    return expr == SCALE


def _is_scaled_product(expr: Expr) -> bool:
    match expr:
        case Apply("mul", (left, right)):
            return (_is_product(left) and right == SCALE) or (left == SCALE and _is_product(right))
        case _:
            return False


def _is_product(expr: Expr) -> bool:
    """Q[b, h, q] @ K[b, g(h), k]."""
    match expr:
        case Reduce("sum", (axis,), Apply("mul", (Read() as left, Read() as right)), None) if axis.size == D:
            query = ("Q", (Index(BATCH), Index(HEAD), storage(QUERY), Index(axis)))
            key = ("K", (Index(BATCH), kv_head_of(Index(HEAD)), Index(KEY), Index(axis)))
            return {(left.source, left.at), (right.source, right.at)} == {query, key}
        case _:
            return False
