"""Counts the tiles of a plan at a size, from the closed-form key ranges: never an evaluation at N² points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Symbol,
    free_axes,
)
from attnlang.ir.plan import Band, BranchPlan, TileCount
from attnlang.passes.ranges import bands, key_range

Numbers = NDArray[np.int64]
FIRST, LAST = Symbol("q_first", "int"), Symbol("q_last", "int")


def _floor_divide(x: Any, y: Any) -> Any:
    return np.floor_divide(x, np.where(y == 0, 1, y))


def _modulo(x: Any, y: Any) -> Any:
    return np.mod(x, np.where(y == 0, 1, y))


_NUMERIC: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "floordiv": _floor_divide,
    "mod": _modulo, "neg": np.negative, "min": np.minimum, "max": np.maximum, "abs": np.abs, "sign": np.sign,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "and": np.logical_and, "or": np.logical_or, "not": np.logical_not, "where": np.where, "pow": np.power,
    "exp": np.exp, "log": np.log, "log2": np.log2, "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil,
    "round": np.round, "int": np.trunc, "float": np.float64,
    "exp2": np.exp2, "tanh": np.tanh,
}  # fmt: skip


MOST_ROWS = 2**24
"""Queries whose visible keys are counted; those of longer calls are not."""


class Unknown(Exception):
    """An expression depends on the contents of a tensor, which are not known when a plan is made."""


def value_of(expr: Expr, symbols: Mapping[str, Any], indices: Mapping[Expr, Any]) -> Any:
    """The value of an expression, for arrays of symbols at once; tensors are read where `symbols` has their arrays."""
    match expr:
        case Literal(value):
            return value
        case Symbol(name, _) if name in symbols:
            return symbols[name]
        case Index(_) if expr in indices:
            return indices[expr]
        case Apply(op, args) if op in _NUMERIC:
            return _NUMERIC[op](*(value_of(arg, symbols, indices) for arg in args))
        case Read(source, at, _) if source in symbols:
            places = [value_of(place, symbols, indices) for place in at]
            array = symbols[source]
            return array[tuple(np.clip(i, 0, n - 1) for i, n in zip(places, array.shape, strict=True))]
        case _:
            raise Unknown


def count_tiles(branch: BranchPlan, symbols: Mapping[str, Any], facts: Facts) -> TileCount:
    """Full, partial and empty tiles over all heads; a band whose range depends on a tensor counts as its bounds
    without that tensor: visited everywhere, full nowhere."""
    queries, keys, heads = (int(symbols[name]) for name in ("NQ", "NK", "H"))
    rows, columns = branch.tile.rows, branch.tile.columns
    by_head = any(depends(band, HEAD) for band in branch.bands)
    group = heads // int(symbols["HK"]) if branch.packed else 1
    full = partial = 0
    for head in range(0, heads if by_head else 1, group):
        some, every = tiles_of_ranges(
            branch.bands, branch.attention, (rows, columns), symbols, facts, (None, head), group
        )
        full += every
        partial += some - every
    factor = 1 if by_head else heads // group
    total = -(-queries * group // rows) * -(-keys // columns) * (heads // group)
    return TileCount(
        branch.attention.name,
        rows,
        columns,
        full * factor,
        partial * factor,
        total - (full + partial) * factor,
    )


def depends(band: Band, *axes: Axis) -> bool:
    """Whether a band may differ along some of these axes."""
    return any(free_axes(part) & set(axes) for part in (*band.lower, *band.upper, band.guard))


def tiles_of_ranges(
    found: tuple[Band, ...],
    attention: Attention,
    sides: tuple[int, int],
    symbols: Mapping[str, Any],
    facts: Facts,
    at: tuple[int | None, int],
    group: int = 1,
) -> tuple[int, int]:
    """Visited and full tiles of one head, `at` batch entry (None: any) and head, by the ranges of its bands; of `group`
    heads that see alike, where each query has a row for each of them."""
    (rows, columns), (batch, head) = sides, at
    query, key = attention.rows[-1], attention.over
    queries, keys, offset = (int(symbols[name]) for name in ("NQ", "NK", "q_offset"))
    first_row = np.arange(0, queries * group, rows, dtype=np.int64)
    last_row = np.minimum(first_row + rows, queries * group) - 1
    env = {**symbols, "q_first": first_row // group + offset, "q_last": last_row // group + offset}
    tiles = len(first_row)
    indices: dict[Expr, Any] = {Index(HEAD): head}
    if batch is not None:
        indices[Index(BATCH)] = batch
    runs: list[tuple[Numbers, Numbers, Numbers, Numbers]] = []
    for band in found:
        ranges = key_range(band, query, key, FIRST, LAST, facts)

        def numbers(expr: Expr | None, otherwise: int) -> Numbers:
            try:
                value = otherwise if expr is None else value_of(expr, env, indices)
            except Unknown:
                value = otherwise
            return np.broadcast_to(np.asarray(value, dtype=np.int64), (tiles,))

        first = numbers(ranges.first, 0) // columns
        stop = np.maximum(-(-numbers(ranges.stop, keys) // columns), first)
        full_first = np.clip(-(-np.maximum(numbers(ranges.full_first, keys), 0) // columns), first, stop)
        full_stop = np.clip(numbers(ranges.full_stop, 0) // columns, full_first, stop)
        runs.append((first, stop, full_first, full_stop))
    return _union(runs, tiles)


def _union(runs: list[tuple[Numbers, Numbers, Numbers, Numbers]], tiles: int) -> tuple[int, int]:
    """Visited and full tiles, overlaps counted once, in the order in which the kernel walks them."""
    if not runs:
        return 0, 0
    stacked = np.stack([np.stack(run) for run in runs])  # [bands, 4, tiles]
    order = np.argsort(stacked[:, 0], axis=0, kind="stable")
    stacked = np.take_along_axis(stacked, order[:, None, :], axis=0)
    done = np.zeros(tiles, dtype=np.int64)
    visited = full = 0
    for first, stop, full_first, full_stop in stacked:
        first = np.maximum(first, done)
        stop = np.maximum(stop, first)
        full_first = np.clip(full_first, first, stop)
        full_stop = np.clip(full_stop, full_first, stop)
        visited += int((stop - first).sum())
        full += int((full_stop - full_first).sum())
        done = np.maximum(done, stop)
    return visited, full


def visible_pairs(branch: BranchPlan, symbols: Mapping[str, Any]) -> int | None:
    """Visible pairs over all heads, where every band is exact; None where the ranges say less than the predicate."""
    return _pairs(branch.bands, branch.attention.rows[-1], symbols)


def count_pairs(seen: Expr, query: Axis, key: Axis, symbols: Mapping[str, Any], facts: Facts) -> int | None:
    """Pairs where a predicate holds, over all heads; None where its ranges have no exact closed form."""
    return _pairs(bands(seen, query, key, facts), query, symbols)


def _pairs(found: tuple[Band, ...], query: Axis, symbols: Mapping[str, Any]) -> int | None:
    if not all(band.exact for band in found) or int(symbols["NQ"]) > MOST_ROWS:
        return None
    heads = int(symbols["H"])
    position = np.arange(int(symbols["NQ"]), dtype=np.int64) + int(symbols["q_offset"])
    by_head = any(depends(band, HEAD) for band in found)
    try:
        counts = [
            _pairs_of_rows(found, symbols, {Index(HEAD): head, Index(query): position}, len(position))
            for head in range(heads if by_head else 1)
        ]
    except Unknown:
        return None
    return sum(counts) * (1 if by_head else heads)


def _pairs_of_rows(
    found: tuple[Band, ...], symbols: Mapping[str, Any], indices: Mapping[Expr, Any], rows: int
) -> int:
    """Pairs of one head: each band is evaluated at every query, so its bounds may go up and down."""
    keys = int(symbols["NK"])

    def numbers(expr: Expr) -> Numbers:
        return np.broadcast_to(np.asarray(value_of(expr, symbols, indices), dtype=np.int64), (rows,))

    runs: list[tuple[Numbers, Numbers, Numbers, Numbers]] = []
    for band in found:
        first, stop = np.zeros(rows, dtype=np.int64), np.full(rows, keys, dtype=np.int64)
        for bound in band.lower:
            first = np.maximum(first, numbers(bound))
        for bound in band.upper:
            stop = np.minimum(stop, numbers(bound) + 1)
        stop = np.where(numbers(band.guard) != 0, np.maximum(stop, first), first)
        runs.append((first, stop, first, stop))
    return _union(runs, rows)[0]
