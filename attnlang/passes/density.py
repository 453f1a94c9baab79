"""The share of pairs that an attention sees: exact in closed form or by differences, else bounds from finer tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import BATCH, HEAD, KEY, QUERY, Attention, Stage, free_axes
from attnlang.ir.rewrite import conjunction
from attnlang.passes.boxes import COLUMN, ROW, Graph
from attnlang.passes.boxes_lower import Lowering, MissingNumber
from attnlang.passes.boxes_points import points
from attnlang.passes.classify import Tiles, Work, classify
from attnlang.passes.counting import count_pairs
from attnlang.passes.tiling import read_by

Number = bool | int | float
Share = tuple[float, float]
LOOKS = ((128, 1 << 62), (32, 1 << 22), (8, 1 << 19), (1, 1 << 20))
"""Sides of the tiles that are looked at, one after the other, and how many of them may be open before it."""
MOST_DIFFERENCES = 1 << 24
BUDGET = 100_000


def share_of_pairs(
    attention: Attention,
    symbols: Mapping[str, Number],
    tensors: Mapping[str, Any],
    stages: Sequence[Stage],
    facts: Facts,
) -> Share:
    """Bounds of the share of visible pairs over all batch entries and heads; the same twice where it is exact.

    `symbols`: sizes, q_offset and parameters; `tensors`: arrays of those that were given. What nothing is known of
    may be visible or not.
    """
    exact = _in_closed_form(attention, symbols, facts)
    if exact is None:
        exact = _by_differences(attention, symbols, tensors, stages)
    if exact is not None:
        return exact, exact
    try:
        return _by_tiles(attention, symbols, tensors, stages)
    except MissingNumber:
        return 0.0, 1.0


def _in_closed_form(attention: Attention, symbols: Mapping[str, Number], facts: Facts) -> float | None:
    """Counted from exact ranges of keys."""
    if (attention.rows[-1], attention.over) != (QUERY, KEY):
        return None
    visible = conjunction(attention.mask, attention.sparsity)
    pairs = count_pairs(visible, QUERY, KEY, symbols, facts)
    total = int(symbols["NQ"]) * int(symbols["NK"]) * int(symbols["H"])
    return None if pairs is None else pairs / max(total, 1)


def _by_differences(
    attention: Attention, symbols: Mapping[str, Number], tensors: Mapping[str, Any], stages: Sequence[Stage]
) -> float | None:
    """Counted difference by difference, where visibility depends on q − k only."""
    if attention.rows != (BATCH, HEAD, QUERY) or attention.over != KEY:
        return None
    queries, keys, offset = (int(symbols[name]) for name in ("NQ", "NK", "q_offset"))
    differences = np.arange(offset - keys + 1, offset + queries)
    used = free_axes(conjunction(attention.mask, attention.sparsity))
    batch, heads = (int(symbols[size]) if axis in used else 1 for axis, size in ((BATCH, "B"), (HEAD, "H")))
    if batch * heads * len(differences) > MOST_DIFFERENCES:
        return None
    # q = k + difference, between the first and the last query and key
    pairs = np.minimum(offset + queries - 1, keys - 1 + differences) - np.maximum(offset, differences) + 1
    total = 0
    for entry in range(batch):
        for head in range(heads):
            seen = _differences_seen(attention, symbols, tensors, stages, (entry, head), differences)
            if seen is None:
                return None
            total += int(pairs[seen].sum())
    return total / max(batch * heads * queries * keys, 1)


def _differences_seen(
    attention: Attention,
    symbols: Mapping[str, Number],
    tensors: Mapping[str, Any],
    stages: Sequence[Stage],
    at: tuple[int, int],
    differences: NDArray[np.int64],
) -> NDArray[np.bool_] | None:
    """At which differences q − k a head of a batch entry sees; None where that is not all that counts."""
    work = Work(attention, symbols, tensors, stages)
    graph: Graph = work.graph
    difference, key = graph.index(ROW), graph.index(COLUMN)
    indices = {
        QUERY: graph.sum([(1, difference), (1, key)], 0),
        KEY: key,
        BATCH: graph.const(at[0]),
        HEAD: graph.const(at[1]),
    }
    lowering = Lowering(graph, symbols, work.tables, indices)
    root = graph.both(lowering.node(attention.mask), lowering.node(attention.sparsity))
    if root.side & COLUMN or root.fuzzy:
        return None
    return np.broadcast_to(points(graph, root, {difference: differences}).astype(np.bool_), differences.shape)


def _by_tiles(
    attention: Attention, symbols: Mapping[str, Number], tensors: Mapping[str, Any], stages: Sequence[Stage]
) -> Share:
    """Bounds from tiles, down to single pairs where few are open; not further where tensors are missing."""
    looks = LOOKS if read_by(attention, stages)[0] <= set(tensors) else LOOKS[:1]
    low, high, open_pairs = 0.0, 1.0, 0
    for side, most in looks:
        if open_pairs > most * side * side:
            break
        tiles = classify(attention, symbols, tensors, side, side, stages, BUDGET)
        low, high = max(low, tiles.density[0]), min(high, tiles.density[1])
        open_pairs = _open_pairs(tiles)
        if open_pairs == 0:
            break
    return low, high


def _open_pairs(tiles: Tiles) -> int:
    """Pairs in partial tiles, of each map once."""
    return sum(visited - full for full, visited in (each.pairs for each in tiles.maps))
