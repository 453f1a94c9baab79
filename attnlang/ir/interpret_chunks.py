"""How much of a pattern's output is computed at once, so that the intermediates stay within a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod

from attnlang.ir.interpret_values import Range
from attnlang.ir.memo import Memo
from attnlang.ir.pattern import (
    Apply,
    Attention,
    Axis,
    Expr,
    Let,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    axis_of,
    children,
    free_axes,
)
from attnlang.ir.walk import stage_expressions

_ALIVE = 6
"""Intermediates of the size of the largest one that exist together, by experience."""

Shapes = tuple[frozenset[frozenset[Axis]], list[Axis]]


def chunks(
    pattern: Pattern, size: Callable[[Axis], int], budget: int, width: int
) -> Iterator[dict[Axis, Range]]:
    """Ranges of (b, h, q) that together cover the output, each within `budget` bytes for numbers of `width` bytes."""
    rows = pattern.axes[:3]
    lengths = {axis: size(axis) for axis in rows}
    shapes, order = _shapes(pattern)

    def needed(axes: frozenset[Axis]) -> int:
        return _ALIVE * width * prod(lengths.get(axis, size(axis)) for axis in axes)

    for axis in order:
        cut = [axes for axes in shapes if axis in axes]
        while lengths[axis] > 1 and any(needed(axes) > budget for axes in cut):
            lengths[axis] = (lengths[axis] + 1) // 2
    steps = [[(low, min(low + lengths[axis], size(axis))) for low in range(0, size(axis), lengths[axis] or 1)]
             for axis in rows]  # fmt: skip
    for ranges in product(*steps):
        yield dict(zip(rows, ranges, strict=True))


_known: Memo[None, Shapes] = Memo(64)


def _shapes(pattern: Pattern) -> Shapes:
    """The axes of all intermediates, and the output axes that may be cut; found once for a pattern that is in use."""

    def find() -> Shapes:
        rows = pattern.axes[:3]
        order = [axis for axis in rows if not _mixed(pattern, axis)] or [rows[2]]
        return frozenset(_intermediates(pattern)), order

    return _known.get(pattern, None, find)


def _mixed(pattern: Pattern, axis: Axis) -> bool:
    """Whether some stage is read at other values of an output axis: cutting it would compute that stage repeatedly."""
    names = {stage.name: stage for stage in pattern.stages}
    for expr in (*_expressions(pattern), pattern.output):
        for read in _reads(expr):
            stage = names.get(read.source.partition(".")[0])
            if stage is None or not isinstance(stage, Attention):
                continue
            axes = (*stage.rows, stage.over)
            for own, at in zip(axes, read.at, strict=False):
                if own == axis and axis_of(at) != axis:
                    return True
    return False


def _reads(expr: Expr) -> Iterator[Read]:
    if isinstance(expr, Read):
        yield expr
    for child in children(expr):
        yield from _reads(child)


def _expressions(pattern: Pattern) -> Iterator[Expr]:
    for stage in pattern.stages:
        yield from stage_expressions(stage)


def _intermediates(pattern: Pattern) -> Iterator[frozenset[Axis]]:
    """The axes of everything that is held in memory at some time."""
    yield frozenset(pattern.axes)
    yield from _held(pattern.output)
    for stage in pattern.stages:
        for expr in stage_expressions(stage):
            yield from _held(expr)
        match stage:
            case Attention():
                yield frozenset((*stage.rows, stage.over))
            case Select():
                yield frozenset((*stage.rows, *stage.candidates))
            case Recurrence():
                yield frozenset((*stage.axes, stage.token))
            case Let() | Merge():
                pass


def _held(expr: Expr) -> Iterator[frozenset[Axis]]:
    """The axes of every subexpression; a sum of a product holds its factors, not the product."""
    yield free_axes(expr)
    if isinstance(expr, Reduce) and expr.op in ("sum", "mean"):
        for factor in _product(expr.body):
            yield from _held(factor)
        if expr.where is not None:
            yield from _held(expr.where)
        return
    for child in children(expr):
        yield from _held(child)


def _product(expr: Expr) -> list[Expr]:
    match expr:
        case Apply("mul" | "neg", args):
            return [factor for arg in args for factor in _product(arg)]
        case _:
            return [expr]
