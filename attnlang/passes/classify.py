"""Which tiles of queries × keys a declared predicate leaves empty, fills, or cuts, without looking at every pair.

tiles = classify(attention, {"NQ": 4096, "NK": 4096, "H": 8, …, "window": 1024}, None, 128, 64)
tiles.counts, tiles.density, tiles.map(head=3).csr()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.ir.pattern import Attention, Axis, Expr, Index, Let, Reduce, Stage, children
from attnlang.passes.boxes import COLUMN, ROW, Graph, Node
from attnlang.passes.boxes_alike import Family, families
from attnlang.passes.boxes_axis import Level, Line
from attnlang.passes.boxes_lower import Lowering, Tables
from attnlang.passes.boxes_map import Counts, Found, TileMap
from attnlang.passes.boxes_refine import Predicate, evaluated, halved, settle, tiles_of
from attnlang.passes.boxes_runs import FULL, OPEN, PARTIAL, FirstLook, Kinds
from attnlang.passes.summaries import Summary

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
        shared = {
            id(each.intervals): each.intervals.nbytes for each in self.maps if each.intervals is not None
        }
        return self.classes.nbytes + sum(each.nbytes for each in self.maps) + sum(shared.values())


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

    `symbols`: sizes, `q_offset` and parameters; `tensors`: the declared tensors by name, or a Summary of each, where
    they are at hand (what reads others counts as partial); `stages`: the pattern's, for the tables that the predicate
    reads. Sound: a FULL tile has no hidden pair, an EMPTY one no visible pair. Raises MissingNumber for a size or
    parameter without value.
    """
    work = Work(attention, symbols, tensors, stages)
    classes, roots = work.classes()
    return Tiles(rows, columns, classes, work.maps(roots, rows, columns, budget), work.heads, work.batch)


class Axes:
    """The axes of an attention before its queries, and which of them its predicate depends on."""

    def __init__(self, attention: Attention) -> None:
        outer = self.before = attention.rows[:-1]
        by_role = {axis.role: axis for axis in outer}
        head = by_role.get("head") or by_role.get("kv_head")
        self.outer: tuple[Axis | None, Axis | None] = (by_role.get("batch"), head)
        self._used: set[Axis] = set()
        self._varies: dict[int, bool] = {}
        for expr in (attention.mask, attention.sparsity):
            self._visit(expr)

    def depends(self, axis: Axis) -> bool:
        """Whether the predicate names an axis."""
        return axis in self._used

    def varies(self, expr: Expr) -> bool:
        """Whether a part of the predicate names an axis before the queries."""
        return self._varies.get(id(expr), True)

    def _visit(self, expr: Expr) -> bool:
        if id(expr) not in self._varies:
            if isinstance(expr, Index):
                self._used.add(expr.axis)
            parts = [self._visit(part) for part in children(expr)]
            if isinstance(expr, Reduce):
                parts += [self._visit(axis.size) for axis in expr.axes]
            before = isinstance(expr, Index) and expr.axis in self.before
            self._varies[id(expr)] = before or any(parts)
        return self._varies[id(expr)]


class Work:
    """One classification: the graph that all heads share, and the lines of queries and keys."""

    def __init__(
        self,
        attention: Attention,
        symbols: Mapping[str, bool | int | float],
        tensors: Mapping[str, Any] | None,
        stages: Iterable[Stage] = (),
    ) -> None:
        lets = {stage.name: stage for stage in stages if isinstance(stage, Let)}
        self.attention = attention
        self.symbols = symbols
        arrays: dict[str, Array | Summary] = {
            name: tensor if isinstance(tensor, Summary) else np.asarray(tensor)
            for name, tensor in (tensors or {}).items()
        }
        self.tables = Tables(arrays, lets)
        self.graph = Graph()
        self._looks: dict[tuple[int, int], FirstLook] = {}
        sizes = Lowering(self.graph, symbols, self.tables, {})
        query, key = attention.rows[-1], attention.over
        self._sizes = sizes
        self.queries = Line(self.graph, ROW, sizes.number(query.start), sizes.number(query.size))
        self.keys = Line(self.graph, COLUMN, sizes.number(key.start), sizes.number(key.size))
        self._seen = Axes(attention)
        indices = {query: self.graph.index(ROW), key: self.graph.index(COLUMN)}
        self._common = Lowering(self.graph, symbols, self.tables, indices)
        self.batch, self.heads = (self.size(axis) for axis in self._seen.outer)

    def classes(self) -> tuple[Numbers, tuple[Node, ...]]:
        """The different predicates of batch entries and heads, and the place of each entry's and head's among them."""
        outer, seen = self._seen.outer, self._seen
        varies = [axis is not None and seen.depends(axis) for axis in outer]
        shape = tuple(
            size if vary else 1 for size, vary in zip((self.batch, self.heads), varies, strict=True)
        )
        result = np.zeros(shape, np.int64)
        roots: dict[Node, int] = {}
        for b in range(shape[0]):
            for h in range(shape[1]):
                fixed = {axis: at for axis, at in zip(outer, (b, h), strict=True) if axis is not None}
                result[b, h] = roots.setdefault(self.root(fixed), len(roots))
        return result, tuple(roots)

    def size(self, axis: Axis | None) -> int:
        """The length of an axis; 1 of none."""
        return 1 if axis is None else self._sizes.number(axis.size)

    def _steady(self, expr: Expr) -> Node | None:
        """The node of an expression that is the same for all heads and batch entries."""
        return None if self._seen.varies(expr) else self._common.node(expr)

    def root(self, fixed: Mapping[Axis, int]) -> Node:
        """The predicate for one head of one batch entry."""
        indices = {axis: self.graph.const(value) for axis, value in fixed.items()}
        indices |= {
            self.attention.rows[-1]: self.graph.index(ROW), self.attention.over: self.graph.index(COLUMN)
        }  # fmt: skip
        lowering = Lowering(self.graph, self.symbols, self.tables, indices, known=self._steady)
        return self.graph.both(lowering.node(self.attention.mask), lowering.node(self.attention.sparsity))

    def maps(self, roots: Sequence[Node], rows: int, columns: int, budget: int) -> tuple[TileMap, ...]:
        """The tiles of each predicate; those of one form are looked at together."""
        top = self._look(rows, columns)
        across, down = top.rows, top.columns
        found = [Found(len(across), len(down)) for _ in roots]
        if len(across) and len(down):
            for family in families(roots):
                self._classify(family, roots, top, (rows, columns), budget, found)
        return tuple(each.map(across, down) for each in found)

    def _look(self, rows: int, columns: int) -> FirstLook:
        """The first look at tiles of a size."""
        if (rows, columns) not in self._looks:
            levels = tiles_of(self.queries, rows), tiles_of(self.keys, columns)
            self._looks[rows, columns] = FirstLook(self.graph, *levels)
        return self._looks[rows, columns]

    def _classify(
        self,
        family: Family,
        roots: Sequence[Node],
        top: FirstLook,
        sides: tuple[int, int],
        budget: int,
        found: Sequence[Found],
    ) -> None:
        """The members of a family, as many at once as have few open tiles together."""
        predicate = Predicate(self.graph, family.root, self.queries, self.keys, family.variants)
        waiting: list[tuple[int, Numbers, Numbers]] = []
        for member, place in enumerate(family.members):
            waiting.append((member, *self._first(roots[place], top, sides, found[place])))
            if member + 1 == len(family.members) or sum(len(i) for _, i, _ in waiting) > MOST_OPEN:
                i, j = (np.concatenate([each[part] for each in waiting]) for part in (1, 2))
                lengths = [len(each[1]) for each in waiting]
                which = np.repeat([each[0] for each in waiting], lengths)
                kinds = self._decided(predicate, top, sides, budget * len(waiting), (i, j, which))
                parts = np.split(kinds, np.cumsum(lengths)[:-1])
                for (at, down, right), kind in zip(waiting, parts, strict=True):
                    found[family.members[at]].cells(down, right, kind)
                waiting = []

    def _first(
        self, root: Node, top: FirstLook, sides: tuple[int, int], found: Found
    ) -> tuple[Numbers, Numbers]:
        """The tiles that a first look leaves open; what it settles goes to `found`."""
        first = top.runs(root)
        if first is None or first.amount(OPEN) > MOST_OPEN:
            predicate = Predicate(self.graph, root, self.queries, self.keys)
            return self._from_above(predicate, top.rows, top.columns, sides, found)
        found.first_look(first)
        return first.cells(OPEN)

    def _decided(
        self,
        predicate: Predicate,
        top: FirstLook,
        sides: tuple[int, int],
        budget: int,
        cells: tuple[Numbers, Numbers, Numbers],
    ) -> Kinds:
        """EMPTY, PARTIAL or FULL for tiles in row i and column j of a member of several predicates."""
        i, j, member = cells
        kinds, state = evaluated(predicate, top.rows, top.columns, i, j, member)
        left = kinds == OPEN
        if left.any():
            if predicate.root.coarse:
                budget = min(budget, int(left.sum()) * self._in_blocks(sides))
            kinds[left] = settle(
                predicate, top.rows, top.columns, i[left], j[left], state[left], budget, member[left]
            )
        return kinds

    def _in_blocks(self, sides: tuple[int, int]) -> int:
        """How many boxes a tile falls into until they are no larger than the blocks of which tensors are known."""
        finest = self.graph.finest_block()
        inside = (sides[0] // finest) * (sides[1] // finest)
        return 2 * inside if inside > 1 else 0

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
