"""The tiles of a predicate whose tokens stand in another order: all of them, or as many as a sample suggests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import Graph, Node
from attnlang.passes.boxes_map import Found, TileMap
from attnlang.passes.boxes_refine import Predicate, evaluated, halved, settle, tiles_of
from attnlang.passes.boxes_runs import EMPTY, FULL, OPEN, PARTIAL, Kinds
from attnlang.passes.order_line import OrderedLine

Numbers = NDArray[np.int64]
CUT = 1.1
"""A cut tile costs so many full ones: its scores are masked."""
SAMPLED = 16
"""Rows of tiles that an estimate looks at."""
TOGETHER = 8
"""So many key tiles are looked at as one before they are looked at singly."""
MOST_AT_FIRST = 1 << 13
"""With so many large boxes the way down to the tiles begins."""


def estimate(
    graph: Graph, root: Node, queries: OrderedLine, keys: OrderedLine, rows: int, columns: int
) -> float:
    """What visiting the tiles costs, in full tiles: some rows of tiles against all key tiles, and so for the rest."""
    amount = queries.size // rows
    chosen = np.unique((np.arange(SAMPLED) * 2 + 1) * amount // (2 * SAMPLED))
    across = queries.level(chosen * rows, chosen * rows + rows - 1)
    predicate = Predicate(graph, root, queries, keys)
    groups, down = tiles_of(keys, columns * TOGETHER), tiles_of(keys, columns)
    i, j = (part.ravel() for part in np.indices((len(across), len(groups))))
    some = (predicate.over(across, groups, i, j) & known.CAN_TRUE) != 0
    i, j = np.repeat(i[some], TOGETHER), np.add.outer(j[some] * TOGETHER, np.arange(TOGETHER)).ravel()
    i, j = i[j < len(down)], j[j < len(down)]
    state = predicate.over(across, down, i, j)
    visited = (state & known.CAN_TRUE) != 0
    visited &= (queries.free(across) < rows)[i] & (keys.free(down) < columns)[j]
    cut = visited & ((state & known.CAN_FALSE) != 0)
    return (float(visited.sum()) + (CUT - 1) * float(cut.sum())) * amount / len(across)


def classified(
    graph: Graph, root: Node, queries: OrderedLine, keys: OrderedLine, rows: int, columns: int, budget: int
) -> TileMap:
    """All tiles, from large boxes to small. A tile with a free place among its keys is not FULL, one without a token
    on a side is EMPTY."""
    predicate = Predicate(graph, root, queries, keys)
    across, down = tiles_of(queries, rows), tiles_of(keys, columns)
    found = Found(len(across), len(down))
    level = 0
    while -(-len(across) >> level) * -(-len(down) >> level) > MOST_AT_FIRST:
        level += 1
    i, j = (part.ravel() for part in np.indices((-(-len(across) >> level), -(-len(down) >> level))))
    while level:
        above, left = tiles_of(queries, rows << level), tiles_of(keys, columns << level)
        kinds, _ = evaluated(predicate, above, left, i, j)
        whole = (kinds == FULL) & ((queries.free(above) == 0)[i] & (keys.free(left) == 0)[j])
        found.boxes(i[whole], j[whole], level, FULL)
        rest = (kinds != EMPTY) & ~whole
        level -= 1
        i, j = halved(i[rest], j[rest], -(-len(across) >> level), -(-len(down) >> level))
    kinds, state = evaluated(predicate, across, down, i, j)
    left_open = kinds == OPEN
    if left_open.any():
        kinds[left_open] = settle(
            predicate, across, down, i[left_open], j[left_open], state[left_open], budget
        )
    found.cells(i, j, _with_free_places(kinds, queries.free(across)[i] == rows, keys.free(down)[j], columns))
    return _without_free_places(found.map(across, down), queries.free(across), keys.free(down))


def _with_free_places(kinds: Kinds, nobody: NDArray[np.bool_], free: Numbers, columns: int) -> Kinds:
    kinds = np.where((kinds == FULL) & (free > 0), np.uint8(PARTIAL), kinds)
    return np.where(nobody | (free == columns), np.uint8(EMPTY), kinds)


def _without_free_places(tiles: TileMap, rows: Numbers, columns: Numbers) -> TileMap:
    """Heights and widths count tokens."""
    return replace(tiles, heights=tiles.heights - rows, widths=tiles.widths - columns)
