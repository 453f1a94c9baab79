"""One side of a predicate: by what its tokens may stand in order, and the lines that come of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from attnlang.passes.boxes import Node
from attnlang.passes.boxes_axis import Line
from attnlang.passes.order_line import OrderedLine, Tokens
from attnlang.passes.order_places import Cells, Places, coarser, crossed, from_borders, in_a_row, ranks, room

MOST_ROOM = 1.5
"""Cells begin with tiles only where the places are at most so many times the tokens."""


@dataclass(frozen=True)
class Side:
    """How the tokens of one side stand: sorted by nodes, the first slowest, each with its values joined into so many
    cells; `borders`: every cell of all begins with a tile."""

    by: tuple[tuple[Node, int], ...]
    borders: bool


class Standing:
    """One line, and the orders of it that were looked at; `tile`: how many tokens a tile has."""

    def __init__(self, line: Line, tile: int) -> None:
        self.line = line
        self.tile = tile
        self._tokens = Tokens(line)
        self._values: dict[Node, Cells] = {}
        self._lines: dict[Side, OrderedLine | None] = {}

    def cells(self, node: Node) -> Cells:
        """The values of a node, each a cell; one cell where they are not known."""
        if node not in self._values:
            found = self._tokens.values(node)
            self._values[node] = crossed((), self.line.size) if found is None else ranks(found[0])
        return self._values[node]

    def extent(self, node: Node | None) -> int:
        """How many cells a node has."""
        return 1 if node is None else self.cells(node).amount

    def moves(self, node: Node | None) -> bool:
        """Whether tokens sorted by a node stand in another order than before."""
        return node is not None and bool((self.cells(node).of[1:] < self.cells(node).of[:-1]).any())

    def even(self, node: Node | None) -> bool:
        """Whether the cells of a node that moves nothing begin with tiles as it is."""
        if node is None:
            return True
        of = self.cells(node).of
        begins = (of[1:] != of[:-1]).nonzero()[0] + 1
        return not bool((begins % self.tile).any())

    def ordered(self, side: Side) -> OrderedLine | None:
        """The line as a side says; None where too many places would be free."""
        if side not in self._lines:
            fits = not side.borders or room(self._dealt(side), self.tile) <= MOST_ROOM * self.line.size
            self._lines[side] = self.placed(self.places(side)) if fits else None
        return self._lines[side]

    def places(self, side: Side) -> Places:
        """The tokens as a side says."""
        return (from_borders if side.borders else in_a_row)(self._dealt(side), self.tile)

    def _dealt(self, side: Side) -> Cells:
        return crossed(tuple(coarser(self.cells(node), amount) for node, amount in side.by), self.line.size)

    def placed(self, places: Places) -> OrderedLine:
        """The line in an order."""
        return OrderedLine(self._tokens, places)


@dataclass(frozen=True)
class Box:
    """A way to stand in boxes of a grid: behind the values of `prefix`, cells of about `widths[i]` values of
    `grid[i]`, whose extents are given."""

    prefix: tuple[tuple[Node, int], ...]
    grid: tuple[Node, ...]
    extents: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def side(self) -> Side:
        """The cells without borders."""
        amounts = tuple(-(-extent // width) for extent, width in zip(self.extents, self.widths, strict=True))
        return Side((*self.prefix, *zip(self.grid, amounts, strict=True)), False)

    def longer(self, axis: int, shorter: int) -> Box | None:
        """The box twice as long along one axis, half as long along another; None where it cannot be."""
        widths = list(self.widths)
        if widths[axis] >= self.extents[axis] or widths[shorter] == 1:
            return None
        widths[axis] *= 2
        widths[shorter] //= 2
        return replace(self, widths=tuple(widths))


def even_box(standing: Standing, prefix: tuple[Node, ...], grid: tuple[Node, ...]) -> Box:
    """The box with about as many tokens as a tile whose sides differ least."""
    before = tuple((node, standing.extent(node)) for node in prefix)
    extents = tuple(standing.extent(node) for node in grid)
    cells = prod(amount for _, amount in before) * prod(extents)
    wanted = standing.tile * cells / standing.line.size
    widths = [1] * len(grid)
    while prod(widths) < wanted:
        free = [axis for axis, width in enumerate(widths) if width < extents[axis]]
        if not free:
            break
        widths[min(reversed(free), key=lambda axis: widths[axis])] *= 2
    return Box(before, grid, extents, tuple(widths))
