"""Which tiles of queries × keys a declared predicate leaves empty, fills, or cuts, without looking at every pair.

tiles = classify(attention, {"NQ": 4096, "NK": 4096, "H": 8, …, "window": 1024}, None, 128, 64)
tiles.counts, tiles.density, tiles.map(head=3).csr()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.pattern import Attention, Axis, Expr, Index, Let, Reduce, Stage, children
from attnlang.passes.boxes import COLUMN, ROW, Graph, Node
from attnlang.passes.boxes_axis import Level, Line
from attnlang.passes.boxes_lower import Lowering, Tables
from attnlang.passes.boxes_map import Counts, Found, TileMap
from attnlang.passes.boxes_refine import Predicate, evaluated, halved, settle, tiles_of
from attnlang.passes.boxes_runs import FULL, OPEN, PARTIAL, FirstLook

Numbers = NDArray[np.int64]
Array = NDArray[Any]
BUDGET = 2_000_000
"""How many boxes inside of tiles are looked at for one head."""
MOST_OPEN = 400_000
"""Beyond so many open tiles, larger boxes are tried first."""
MOST_BOXES = 1_000_000
"""Beyond so many boxes that are neither full nor empty, all their tiles count as partial."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """The tiles of an attention, `rows` queries × `columns` keys each. `classes[b, h]` is the place in `maps` of what
    batch entry b and head h see; entries and heads that see alike share a map, and `classes` has length 1 along an
    axis that nothing depends on."""

    rows: int
    columns: int
    classes: Numbers
    maps: tuple[TileMap, ...]
    heads: int
    batch: int

    def map(self, head: int = 0, batch: int = 0) -> TileMap:
        """What one head of one batch entry sees."""
        b, h = self.classes.shape
        return self.maps[int(self.classes[0 if b == 1 else batch, 0 if h == 1 else head])]

    @cached_property
    def _shares(self) -> list[int]:
        """How many pairs of batch entry and head each map stands for."""
        times = self.batch * self.heads // self.classes.size
        return [int(amount) * times for amount in np.bincount(self.classes.ravel(), minlength=len(self.maps))]

    @cached_property
    def counts(self) -> Counts:
        """Full, partial and empty tiles over all heads and batch entries."""
        found = [(share, each.counts) for share, each in zip(self._shares, self.maps, strict=True)]
        return Counts(
            sum(share * counts.full for share, counts in found),
            sum(share * counts.partial for share, counts in found),
            sum(share * counts.empty for share, counts in found),
        )

    @cached_property
    def density(self) -> tuple[float, float]:
        """Bounds of the share of visible pairs: those in full tiles, and those in visited tiles."""
        found = [(share, each.pairs) for share, each in zip(self._shares, self.maps, strict=True)]
        some = self.maps[0]
        total = int(some.heights.sum()) * int(some.widths.sum()) * self.heads * self.batch
        low, high = (sum(share * pairs[end] for share, pairs in found) for end in (0, 1))
        return low / max(total, 1), high / max(total, 1)

    @property
    def nbytes(self) -> int:
        """Memory of the index structures."""
        return self.classes.nbytes + sum(each.nbytes for each in self.maps)


def classify(
    attention: Attention,
    symbols: Mapping[str, bool | int | float],
    tensors: Mapping[str, Any] | None,
    rows: int,
    columns: int,
    stages: Iterable[Stage] = (),
    budget: int = BUDGET,
) -> Tiles:
    """The tiles of what an attention's queries may see.

    `symbols`: sizes, `q_offset` and parameters; `tensors`: the declared tensors by name, where they are at hand (what
    reads others counts as partial); `stages`: the pattern's, for the tables that the predicate reads. Sound: a FULL
    tile has no hidden pair, an EMPTY one no visible pair. Raises MissingNumber for a size or parameter without value.
    """
    lets = {stage.name: stage for stage in stages if isinstance(stage, Let)}
    arrays = {name: np.asarray(tensor) for name, tensor in (tensors or {}).items()}
    work = _Work(attention, symbols, Tables(arrays, lets))
    seen = Axes(attention)
    batch, heads = (work.size(axis) for axis in seen.outer)
    varies = [axis is not None and seen.depends(axis) for axis in seen.outer]
    shape = tuple(size if vary else 1 for size, vary in zip((batch, heads), varies, strict=True))
    classes = np.zeros(shape, np.int64)
    roots: dict[Node, int] = {}
    for b in range(shape[0]):
        for h in range(shape[1]):
            fixed = {axis: at for axis, at in zip(seen.outer, (b, h), strict=True) if axis is not None}
            classes[b, h] = roots.setdefault(work.root(fixed), len(roots))
    maps = tuple(work.map(root, rows, columns, budget) for root in roots)
    return Tiles(rows, columns, classes, maps, heads, batch)


class Axes:
    """The axes of an attention before its queries, and which of them its predicate depends on."""

    def __init__(self, attention: Attention) -> None:
        outer = attention.rows[:-1]
        by_role = {axis.role: axis for axis in outer}
        head = by_role.get("head") or by_role.get("kv_head")
        self.outer: tuple[Axis | None, Axis | None] = (by_role.get("batch"), head)
        self._used: set[Axis] = set()
        self._seen: set[int] = set()
        for expr in (attention.mask, attention.sparsity):
            self._visit(expr)

    def depends(self, axis: Axis) -> bool:
        """Whether the predicate names an axis."""
        return axis in self._used

    def _visit(self, expr: Expr) -> None:
        if id(expr) in self._seen:
            return
        self._seen.add(id(expr))
        if isinstance(expr, Index):
            self._used.add(expr.axis)
        for part in children(expr):
            self._visit(part)
        if isinstance(expr, Reduce):
            for axis in expr.axes:
                self._visit(axis.size)


class _Work:
    """One classification: the graph that all heads share, and the lines of queries and keys."""

    def __init__(
        self, attention: Attention, symbols: Mapping[str, bool | int | float], tables: Tables
    ) -> None:
        self.attention = attention
        self.symbols = symbols
        self.tables = tables
        self.graph = Graph()
        self._looks: dict[tuple[int, int], FirstLook] = {}
        sizes = Lowering(self.graph, symbols, tables, {})
        query, key = attention.rows[-1], attention.over
        self._sizes = sizes
        self.queries = Line(self.graph, ROW, sizes.number(query.start), sizes.number(query.size))
        self.keys = Line(self.graph, COLUMN, sizes.number(key.start), sizes.number(key.size))

    def size(self, axis: Axis | None) -> int:
        """The length of an axis; 1 of none."""
        return 1 if axis is None else self._sizes.number(axis.size)

    def root(self, fixed: Mapping[Axis, int]) -> Node:
        """The predicate for one head of one batch entry."""
        indices = {axis: self.graph.const(value) for axis, value in fixed.items()}
        indices |= {
            self.attention.rows[-1]: self.graph.index(ROW), self.attention.over: self.graph.index(COLUMN)
        }  # fmt: skip
        lowering = Lowering(self.graph, self.symbols, self.tables, indices)
        return self.graph.both(lowering.node(self.attention.mask), lowering.node(self.attention.sparsity))

    def map(self, root: Node, rows: int, columns: int, budget: int) -> TileMap:
        """The tiles of one predicate."""
        top = self._look(rows, columns)
        across, down = top.rows, top.columns
        found = Found(len(across), len(down))
        if len(across) and len(down):
            self._classify(root, top, (rows, columns), budget, found)
        return found.map(across, down)

    def _look(self, rows: int, columns: int) -> FirstLook:
        """The first look at tiles of a size."""
        if (rows, columns) not in self._looks:
            levels = tiles_of(self.queries, rows), tiles_of(self.keys, columns)
            self._looks[rows, columns] = FirstLook(self.graph, *levels)
        return self._looks[rows, columns]

    def _classify(
        self, root: Node, top: FirstLook, sides: tuple[int, int], budget: int, found: Found
    ) -> None:
        predicate = Predicate(self.graph, root, self.queries, self.keys)
        across, down = top.rows, top.columns
        first = top.runs(root)
        if first is not None and first.amount(OPEN) <= MOST_OPEN:
            found.runs(first)
            i, j = first.cells(OPEN)
        else:
            i, j = self._from_above(predicate, across, down, sides, found)
        kinds, state = evaluated(predicate, across, down, i, j)
        left = kinds == OPEN
        if left.any():
            kinds[left] = settle(predicate, across, down, i[left], j[left], state[left], budget)
        found.cells(i, j, kinds)

    def _from_above(
        self, predicate: Predicate, across: Level, down: Level, sides: tuple[int, int], found: Found
    ) -> tuple[Numbers, Numbers]:
        """The tiles that are not settled by larger boxes; what is full goes to `found`."""
        level = 1
        while (len(across) >> level) * (len(down) >> level) > MOST_OPEN:
            level += 1
        look = self._look(sides[0] << level, sides[1] << level)
        first = look.runs(predicate.root)
        if first is None:
            i, j = (part.ravel() for part in np.indices((len(look.rows), len(look.columns))))
        else:
            found.boxes(*first.cells(FULL), level, FULL)
            i, j = (
                np.concatenate(parts) for parts in zip(first.cells(OPEN), first.cells(PARTIAL), strict=True)
            )
        while level:
            kinds, _ = evaluated(predicate, look.rows, look.columns, i, j)
            found.boxes(i[kinds == FULL], j[kinds == FULL], level, FULL)
            rest = (kinds == OPEN) | (kinds == PARTIAL)
            i, j = i[rest], j[rest]
            if len(i) > MOST_BOXES:
                found.boxes(i, j, level, PARTIAL)
                return i[:0], j[:0]
            level -= 1
            look = self._look(sides[0] << level, sides[1] << level)
            i, j = halved(i, j, len(look.rows), len(look.columns))
        return i, j
