"""The grid on which keys stand: read from the coordinates that a predicate takes of them, such as k // width."""

from __future__ import annotations

from math import ceil, prod

from attnlang.call_numbers import NotKnown, number
from attnlang.ir.pattern import Apply, Axis, Expr, Index
from attnlang.ir.walk import parts_of
from attnlang.show_seen import Symbols

Grid = tuple[int, ...]
"""One to three extents, the last one running fastest: (width,), (height, width) or (frames, height, width)."""


def grid_of(visible: Expr, over: Axis, symbols: Symbols) -> Grid:
    """The grid of the columns of a predicate; the plain length where it takes no coordinates of them.

    `k // n` says that n keys lie in a row of something, `(k // n) mod m` that m such rows make up the next thing.
    """
    size = int(number(over.size, symbols))
    steps = {1}
    for part in parts_of(visible):
        match part:
            case Apply("floordiv", _) | Apply("mod", (Index(_), _)):
                steps.add(_stride(part, over, symbols))
            case Apply("mod", (Apply("floordiv", _) as rows, extent)):
                steps.add(_stride(rows, over, symbols) * _number(extent, symbols))
            case _:
                pass
    kept = [1]
    for step in sorted(steps):
        if kept[-1] < step < size and step % kept[-1] == 0:
            kept.append(step)
    kept = [1, *kept[1:][-2:]]  # three extents at most, the largest things
    ends = [*kept[1:], ceil(size / kept[-1]) * kept[-1]]
    return tuple(end // step for step, end in zip(reversed(kept), reversed(ends), strict=True))


def _stride(expr: Expr, over: Axis, symbols: Symbols) -> int:
    """n of `k // n` or `k mod n`; 0 where it is something else."""
    match expr:
        case Apply("floordiv" | "mod", (Index(axis), step)) if axis == over:
            return _number(step, symbols)
        case _:
            return 0


def _number(expr: Expr, symbols: Symbols) -> int:
    try:
        return max(int(number(expr, symbols)), 0)
    except (NotKnown, ArithmeticError):
        return 0


def fits(grid: Grid, size: int) -> bool:
    """Whether a grid has a place for each of `size` keys and no more than the last row to spare."""
    return prod(grid) >= size > prod(grid) - grid[-1]


def grid_text(grid: Grid) -> str:
    """`8 × 16 × 16`."""
    return " × ".join(map(str, grid))
