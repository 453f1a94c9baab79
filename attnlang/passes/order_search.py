"""Candidates for the order of one predicate's tokens, and the best of them by an estimate of what it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import permutations
from math import inf

from attnlang.passes.boxes import Graph, Node
from attnlang.passes.boxes_axis import Line, is_coordinate
from attnlang.passes.order_axes import Axis, axes_of
from attnlang.passes.order_standing import Box, Side, Standing, even_box
from attnlang.passes.order_tiles import estimate

MOST_AXES = 8
MOST_STEPS = 6
"""So often the shape of boxes is changed for a better one."""
MOST_TOKENS = 1 << 18
"""Beyond so many queries and keys the shape of boxes stays as it is."""


@dataclass(frozen=True)
class Candidate:
    """An order for queries and keys."""

    queries: Side
    keys: Side


class Search:
    """Looks for the best order of one predicate."""

    def __init__(self, graph: Graph, root: Node, queries: Standing, keys: Standing) -> None:
        self.graph = graph
        self.root = root
        self.queries = queries
        self.keys = keys
        self.costs: dict[Candidate, float] = {}
        """What was looked at, and its cost in full tiles: infinite where too many places would be free."""
        axes = axes_of(graph, root, queries.line, keys.line)[:MOST_AXES]
        self._axes = [axis for axis in axes if max(self._extents(axis)) > 1]

    @property
    def hopeful(self) -> bool:
        """Whether there is a candidate at all."""
        return any(self._moves(axis) or self._is_uneven(axis) for axis in self._axes)

    def best(self) -> tuple[Candidate, float] | None:
        """The cheapest candidate and its cost in full tiles; None where there is none."""
        for seed in self._seeds():
            self._cost(seed)
            self._cost(_with_borders(seed))
        for prefix, grid in self._grids():
            self._climb(prefix, grid)
        return min(self.costs.items(), key=lambda item: item[1], default=None)

    def _extents(self, axis: Axis) -> tuple[int, int]:
        return self.queries.extent(axis.row), self.keys.extent(axis.column)

    def _moves(self, axis: Axis) -> bool:
        return self.queries.moves(axis.row) or self.keys.moves(axis.column)

    def _cost(self, candidate: Candidate) -> float:
        if candidate not in self.costs:
            sides = self.queries.ordered(candidate.queries), self.keys.ordered(candidate.keys)
            tile = self.queries.tile, self.keys.tile
            cost = inf
            if sides[0] is not None and sides[1] is not None:
                cost = estimate(self.graph, self.root, sides[0], sides[1], *tile)
            self.costs[candidate] = cost
        return self.costs[candidate]

    # ---------------------------------------------------------------------------------- sorted by values

    def _seeds(self) -> Iterator[Candidate]:
        """Sorted by one axis, by all that must be alike, by all conditions of one side."""
        moving = [axis for axis in self._axes if self._moves(axis)]
        uneven = [axis for axis in self._axes if axis not in moving and self._is_uneven(axis)]
        for axis in (*moving, *uneven):
            yield self._sorted([axis])
        for group in (self._classes(), [axis for axis in moving if axis.row is None or axis.column is None]):
            if len(group) > 1 and any(map(self._moves, group)):
                yield self._sorted(group)

    def _is_uneven(self, axis: Axis) -> bool:
        """Whether values that must be alike, or near, stand together as it is, but do not begin with tiles."""
        both = axis.row is not None and axis.column is not None
        return both and not (self.queries.even(axis.row) and self.keys.even(axis.column))

    def _classes(self) -> list[Axis]:
        """What must be alike on both sides."""
        return [
            axis for axis in self._axes if axis.exact and axis.row is not None and axis.column is not None
        ]

    def _sorted(self, axes: list[Axis]) -> Candidate:
        row = tuple((axis.row, self.queries.extent(axis.row)) for axis in axes if axis.row is not None)
        column = tuple(
            (axis.column, self.keys.extent(axis.column)) for axis in axes if axis.column is not None
        )
        return Candidate(Side(row, False), Side(column, False))

    # --------------------------------------------------------------------------------------------- boxes

    def _grids(self) -> Iterator[tuple[list[Axis], list[Axis]]]:
        """Sets of coordinates for boxes, behind what must be alike: with what is near only, then with all."""
        finest = [axis for axis in self._axes if self._is_finest(axis)]
        alike = self._classes()
        residues = [axis for axis in alike if any(self._is_residue(axis, other) for other in finest)]
        near = [axis for axis in finest if not axis.exact]
        behind = [axis for axis in alike if not any(self._within(axis, other) for other in near)]
        both = [axis for axis in finest if axis not in residues]
        if near and self._is_worth_boxes(behind, near):
            yield behind, near
        if both != near and self._is_worth_boxes(residues, both):
            yield residues, both

    def _is_worth_boxes(self, prefix: list[Axis], grid: list[Axis]) -> bool:
        several = len(grid) > 1 or len(prefix) * len(grid) > 0
        return several and any(map(self._moves, (*prefix, *grid)))

    def _is_finest(self, axis: Axis) -> bool:
        """Whether it is a pair of coordinates, and no other pair says the same more finely."""
        nodes = axis.row, axis.column
        return all(node is not None and is_coordinate(node) for node in nodes) and not any(
            self._within(axis, other) for other in self._axes if other is not axis
        )

    def _within(self, axis: Axis, other: Axis) -> bool:
        """Whether an axis is another divided by something, on both sides."""
        pairs = ((self.queries.line, axis.row, other.row), (self.keys.line, axis.column, other.column))
        return all(a is not None and b is not None and _is_quotient(line, a, b) for line, a, b in pairs)

    def _is_residue(self, axis: Axis, other: Axis) -> bool:
        """Whether an axis is what remains of another divided by something, on one side at least."""
        pairs = ((self.queries.line, axis.row, other.row), (self.keys.line, axis.column, other.column))
        return axis is not other and any(
            a is not None and b is not None and a.op == "mod" and b in line.chain(a) for line, a, b in pairs
        )

    def _climb(self, prefix: list[Axis], grid: list[Axis]) -> None:
        """Boxes with about as many tokens as a tile, at first with even sides, then changed while that helps."""
        queries = even_box(self.queries, _rows(prefix), _rows(grid))
        keys = even_box(self.keys, _columns(prefix), _columns(grid))
        self._boxed(queries, keys)
        if self.queries.line.size + self.keys.line.size <= MOST_TOKENS:
            for changed in (_both_changed, _one_changed):
                queries, keys = self._better(queries, keys, changed)

    def _better(self, queries: Box, keys: Box, changed: Change) -> tuple[Box, Box]:
        """The boxes changed step by step, each time to the cheapest, until none is cheaper."""
        least = self._boxed(queries, keys)
        for _ in range(MOST_STEPS):
            shapes = list(changed(queries, keys))
            costs = [self._boxed(*pair) for pair in shapes]
            if not costs or min(costs) >= least:
                break
            least = min(costs)
            queries, keys = shapes[costs.index(least)]
        return queries, keys

    def _boxed(self, queries: Box, keys: Box) -> float:
        """The cost of boxes that begin with tiles, where there is room for it, else of boxes one behind the other."""
        candidate = Candidate(queries.side, keys.side)
        cost = self._cost(_with_borders(candidate))
        return cost if cost < inf else self._cost(candidate)


def _with_borders(candidate: Candidate) -> Candidate:
    """The same with cells that begin with tiles."""
    return Candidate(replace(candidate.queries, borders=True), replace(candidate.keys, borders=True))


Change = Callable[[Box, Box], Iterator[tuple[Box, Box]]]


def _both_changed(queries: Box, keys: Box) -> Iterator[tuple[Box, Box]]:
    """Both boxes longer along one axis and shorter along another."""
    for longer, shorter in permutations(range(len(queries.grid)), 2):
        rows, columns = queries.longer(longer, shorter), keys.longer(longer, shorter)
        if rows is not None and columns is not None:
            yield rows, columns


def _one_changed(queries: Box, keys: Box) -> Iterator[tuple[Box, Box]]:
    """One of the boxes longer along one axis and shorter along another."""
    for longer, shorter in permutations(range(len(queries.grid)), 2):
        rows, columns = queries.longer(longer, shorter), keys.longer(longer, shorter)
        if rows is not None:
            yield rows, keys
        if columns is not None:
            yield queries, columns


def _rows(axes: list[Axis]) -> tuple[Node, ...]:
    return tuple(axis.row for axis in axes if axis.row is not None)


def _columns(axes: list[Axis]) -> tuple[Node, ...]:
    return tuple(axis.column for axis in axes if axis.column is not None)


def _is_quotient(line: Line, node: Node, of: Node) -> bool:
    """Whether a node depends on a coordinate, divided by something."""
    chain = line.chain(node)
    return of in chain and all(part.op in ("floordiv", "sum") for part in chain[: chain.index(of)])
