"""Which tiles a kernel walks at one call: closed-form ranges where they are exact, else lists where they save work.

A predicate that is affine in query and key needs nothing made for the call. Any other is classified: if its lists,
in the natural order of the tokens or in a better one, hold clearly less than the ranges would visit, kernels read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.bounds import Facts
from attnlang.ir.kernel import LISTED, ORDERED
from attnlang.ir.pattern import BATCH, HEAD, Attention, Let, Pattern, Stage, Symbol
from attnlang.ir.plan import Band, Decision, TileCount, WalkKind
from attnlang.ir.rewrite import conjunction
from attnlang.ir.walk import parts_of, reads_of
from attnlang.passes.boxes_map import Counts
from attnlang.passes.classify import Tiles, classify
from attnlang.passes.counting import depends, tiles_of_ranges
from attnlang.passes.lower_columns import UNIT
from attnlang.passes.order import Order, find_order
from attnlang.passes.ranges import bands
from attnlang.passes.tile_lists import Lists, lists, transposed_lists

Number = bool | int | float
PARTIAL_COST = 1.15
"""A tile whose mask is applied, beside one where it is not."""
LIST_COST = 1.03
"""A tile whose number is read from memory, beside one whose number is computed."""
MOST_LISTED = 1 << 26
"""Beyond so many visited tiles no lists are made: 256 MiB."""
FEWEST_TILES = 17
"""Of fewer tiles a kernel walks all that its ranges hold: making lists would take longer than it."""
FEWEST_QUERIES = 17
"""Fewer queries are decoded, from a place that changes with every call: lists would be made for each anew."""


@dataclass(frozen=True, eq=False)
class Tiling:
    """The lists of one attention at one call, and why. `orders` has one for each map, none in the natural order."""

    walk: WalkKind
    tiles: Tiles
    orders: tuple[Order, ...]
    decisions: tuple[Decision, ...]

    @cached_property
    def lists(self) -> Lists:
        """For each tile of queries the tiles of keys that it visits."""
        return lists(self.tiles)

    @cached_property
    def transposed(self) -> Lists:
        """For each tile of keys the tiles of queries that visit it."""
        return transposed_lists(self.tiles)

    @property
    def classes(self) -> NDArray[np.int32]:
        """[B, H]: which map each head of each batch entry has."""
        shape = (self.tiles.batch, self.tiles.heads)
        return np.ascontiguousarray(np.broadcast_to(self.tiles.classes, shape), np.int32)

    def numbers(self, made: Lists) -> dict[str, int]:
        """The numbers that a kernel by some lists takes besides those of the call, by argument: tiles that programs
        own, and in another order tiles that they walk over."""
        own = made.heavy.shape[1]
        both = len(self.tiles.maps[0].heights) + len(self.tiles.maps[0].widths)
        return {"row_tiles": own, "key_tiles": both - own} if self.orders else {"row_tiles": own}

    def arrays(self, made: Lists) -> dict[str, NDArray[np.int32]]:
        """What a kernel by some lists reads, flat, by argument; none is empty."""
        found = dict(zip(LISTED, (self.classes, made.starts, made.columns, made.heavy), strict=True))
        if self.orders:
            sides = [[order.queries for order in self.orders], [order.keys for order in self.orders]]
            found |= {name: np.stack(side) for name, side in zip(ORDERED, sides, strict=True)}
        return {name: np.append(array, 0).astype(np.int32) for name, array in found.items()}

    @property
    def nbytes(self) -> int:
        """Memory of what the forward kernel reads."""
        return sum(array.nbytes for array in self.arrays(self.lists).values())

    def count(self, branch: str) -> TileCount:
        """Its tiles over all heads of a batch entry."""
        batch, found = self.tiles.batch, self.tiles.counts
        parts = (found.full // batch, found.partial // batch, found.empty // batch)
        return TileCount(branch, self.tiles.rows, self.tiles.columns, *parts)


def read_by(attention: Attention, stages: Sequence[Stage]) -> tuple[frozenset[str], frozenset[str]]:
    """The tensors, and the numbers of a call, that decide what an attention sees; also through tables."""
    lets = {stage.name: stage for stage in stages if isinstance(stage, Let)}
    tensors: set[str] = set()
    numbers: set[str] = {"B", "H", "HK", "NQ", "NK", "q_offset"}
    seen: set[str] = set()
    waiting = [attention.mask, attention.sparsity]
    while waiting:
        expr = waiting.pop()
        numbers |= {part.name for part in parts_of(expr) if isinstance(part, Symbol)}
        for name in {read.source for read in reads_of(expr)} - seen:
            seen.add(name)
            if name in lets:
                waiting += [lets[name].body, *(axis.size for axis in lets[name].axes)]
            else:
                tensors.add(name)
    return frozenset(tensors), frozenset(numbers)


def is_exact(found: tuple[Band, ...]) -> bool:
    """Whether closed-form ranges say all that the predicate says."""
    return all(band.exact for band in found)


def choose_tiling(
    pattern: Pattern,
    attention: Attention,
    symbols: Mapping[str, Number],
    tensors: Mapping[str, Any] | None,
    rows: int,
    columns: int,
    facts: Facts,
) -> Tiling | None:
    """Lists for one attention at one call; None where its kernel does better with ranges, and where a tensor that
    decides is not at hand.

    `symbols`: sizes, q_offset and parameters; `tensors`: arrays of the declared tensors that `read_by` names.
    """
    query, key = attention.rows[-1], attention.over
    found = bands(conjunction(attention.mask, attention.sparsity), query, key, facts)
    queries, keys = int(symbols["NQ"]), int(symbols["NK"])
    width = max(rows, UNIT) if columns == UNIT else columns  # some units together count as a tile
    few = queries < FEWEST_QUERIES or -(-queries // rows) * -(-keys // width) < FEWEST_TILES
    if few or is_exact(found) or not read_by(attention, pattern.stages)[0] <= (tensors or {}).keys():
        return None
    ordered = find_order(attention, symbols, tensors, rows, columns, pattern.stages)
    decisions: tuple[Decision, ...] = ()
    orders: tuple[Order, ...] = ()
    walk: WalkKind = "lists"
    if ordered is None:
        tiles = classify(attention, symbols, tensors, rows, columns, stages=pattern.stages)
    else:
        tiles, orders, walk = ordered.tiles, ordered.orders, "ordered"
        decisions = (Decision("token order", ordered.choice, ordered.reason, ordered.alternative),)
    ranges = _of_ranges(tiles, found, attention, symbols, tensors, facts)
    visited = tiles.counts.full + tiles.counts.partial
    if visited > MOST_LISTED or LIST_COST * _cost(tiles.counts) >= _cost(ranges):
        return None
    choice = f"lists of {visited:,} tiles"
    reason = (
        f"the predicate has no exact ranges; the closed forms around it hold {ranges.full + ranges.partial:,}"
    )
    return Tiling(
        walk, tiles, orders, (Decision("key ranges", choice, reason, "ranges, masked inside"), *decisions)
    )


def tiling_like(
    walk: WalkKind,
    pattern: Pattern,
    attention: Attention,
    symbols: Mapping[str, Number],
    tensors: Mapping[str, Any] | None,
    rows: int,
    columns: int,
) -> Tiling:
    """Lists of tiles of other sides for a walk that was chosen: what a backward pass reads."""
    if walk == "ordered":
        found = find_order(attention, symbols, tensors, rows, columns, pattern.stages)
        if found is not None:
            return Tiling(walk, found.tiles, found.orders, ())
    tiles = classify(attention, symbols, tensors, rows, columns, stages=pattern.stages)
    if walk != "ordered":
        return Tiling(walk, tiles, (), ())
    stored = Order(_as_stored(int(symbols["NQ"]), rows), _as_stored(int(symbols["NK"]), columns))
    return Tiling(walk, tiles, (stored,) * len(tiles.maps), ())


def _as_stored(length: int, side: int) -> NDArray[np.int32]:
    """Tokens where they stand, with free places behind the last."""
    places = np.arange(-(-length // side) * side, dtype=np.int32)
    return np.where(places < length, places, -1).astype(np.int32)


def _cost(counts: Counts) -> float:
    return counts.full + PARTIAL_COST * counts.partial


def _of_ranges(
    tiles: Tiles,
    found: tuple[Band, ...],
    attention: Attention,
    symbols: Mapping[str, Number],
    tensors: Mapping[str, Any] | None,
    facts: Facts,
) -> Counts:
    """What the kernel would visit by ranges, over all heads and batch entries: heads that see alike count alike."""
    known = {**(tensors or {}), **symbols}
    heads = tiles.classes.shape[1]
    classes = (
        tiles.classes.ravel() if any(depends(band, BATCH, HEAD) for band in found) else np.zeros(1, np.int64)
    )
    share = tiles.batch * tiles.heads // classes.size
    _, firsts, amounts = np.unique(classes, return_index=True, return_counts=True)
    total = -(-int(symbols["NQ"]) // tiles.rows) * -(-int(symbols["NK"]) // tiles.columns)
    full = partial = 0
    for place, amount in zip(firsts, amounts, strict=True):
        at = (int(place) // heads, int(place) % heads)
        some, every = tiles_of_ranges(found, attention, (tiles.rows, tiles.columns), known, facts, at)
        full += int(amount) * share * every
        partial += int(amount) * share * (some - every)
    return Counts(full, partial, total * tiles.batch * tiles.heads - full - partial)
