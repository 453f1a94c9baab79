"""One index of a predicate whose tokens stand in another order: what each node is over segments of places."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import Node
from attnlang.passes.boxes_axis import Level, Line, as_value
from attnlang.passes.boxes_evaluate import Value
from attnlang.passes.boxes_points import points
from attnlang.passes.boxes_values import Interval
from attnlang.passes.order_places import FREE, Places

Array = NDArray[Any]
Numbers = NDArray[np.int64]
Values = tuple[Array, Array]
"""Least and greatest value of each token: one array where nothing is rounded."""


class Tokens:
    """The values of nodes of one side at every token in row-major order, each computed once."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self._found: dict[Node, Values | None] = {}

    def values(self, node: Node) -> Values | None:
        """The values of a node; None where they are not tabulated."""
        if node not in self._found:
            self._found[node] = self._values(node)
        return self._found[node]

    @cached_property
    def _index(self) -> dict[Node, Array]:
        line = self.line
        return {line.graph.index(line.side): np.arange(line.start, line.start + line.size, dtype=np.int64)}

    def _values(self, node: Node) -> Values | None:
        if node.coarse:
            return self._between(node)
        table = self.line.table(node)
        if table is None:
            return None
        at = points(self.line.graph, self.line.chain(node)[0], self._index) - table.base
        low = table.low[at]
        return low, low if table.low is table.high else table.high[at]

    def _between(self, node: Node) -> Values:
        """Ends of a node of which only those are known, token by token."""
        (at,) = self._index.values()
        found = self.line.level(at, at).value(node)
        if isinstance(found, Interval):
            return found.low, found.high
        return (found & known.CAN_FALSE) == 0, (found & known.CAN_TRUE) != 0


class OrderedLine(Line):
    """A line over places. A free place repeats the token before it, so that it changes nothing of a segment in which
    that token stands."""

    ordered = True

    def __init__(self, tokens: Tokens, order: Places) -> None:
        natural = tokens.line
        super().__init__(natural.graph, natural.side, 0, len(order))
        self.whole = natural.whole
        self._tokens = tokens
        self._free = np.concatenate([[0], np.cumsum(order == FREE)])
        taken = np.maximum.accumulate(np.where(order == FREE, 0, np.arange(len(order))))
        self._order = order[taken].astype(np.int64)
        self._found: dict[Node, Values | None] = {}

    def level(self, first: Numbers, last: Numbers) -> Level:
        """Segments of places."""
        return OrderedLevel(self, first, last)

    def at_places(self, node: Node) -> Values | None:
        """The values of a node at every place."""
        if node not in self._found:
            self._found[node] = self._at_places(node)
        return self._found[node]

    def _at_places(self, node: Node) -> Values | None:
        found = self._tokens.values(node)
        if found is None:
            return None
        low = found[0][self._order]
        return low, low if found[0] is found[1] else found[1][self._order]

    def free(self, level: Level) -> Numbers:
        """How many places of each segment are free."""
        return self._free[level.last + 1] - self._free[level.first]


class OrderedLevel(Level):
    """Segments of places, and what nodes are on each."""

    def __init__(self, line: OrderedLine, first: Numbers, last: Numbers) -> None:
        super().__init__(line, first, last)
        self._places = line
        self._covered = slice(int(first[0]), int(last[-1]) + 1)
        self._adjacent = bool((first[1:] == last[:-1] + 1).all())
        cuts = first if self._adjacent else np.stack([first, last + 1], axis=1).reshape(-1)[:-1]
        self._cuts = cuts - first[0]

    def _value(self, node: Node) -> Value:
        found = self._places.at_places(node)
        if found is None:
            return self.unknown(node)
        values, others = found[0][self._covered], found[1][self._covered]
        low, high = self._reduced(np.minimum, values), self._reduced(np.maximum, others)
        return as_value(node, low, high, found[0] is found[1], False)

    def _reduced(self, pick: np.ufunc, values: Array) -> Array:
        found = pick.reduceat(values, self._cuts)
        return found if self._adjacent else found[::2]
