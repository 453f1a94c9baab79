"""What depends on one index only, over segments of it: exact ranges from coordinates and small tables.

A coordinate is the index, or a coordinate ± constant, // constant, mod constant: on a segment its values are without
gaps. Everything else of one side is tabulated point by point over the narrowest coordinate it depends on, and a
segment is answered from the table; `max(x − 3, 0)` with `x = q mod width` is a table of `width` numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import Graph, Node
from attnlang.passes.boxes_evaluate import Evaluation, Value
from attnlang.passes.boxes_points import points
from attnlang.passes.boxes_tables import Table
from attnlang.passes.boxes_values import Array, Bits, Flags, Interval

Numbers = NDArray[np.int64]
LONGEST_TABLE = 1 << 24


class Line:
    """One index of a predicate: `start` … `start + size − 1`, and the tables over it."""

    ordered = False
    """Whether segments are of places in another order of the tokens (order_line.py)."""

    def __init__(self, graph: Graph, side: int, start: int, size: int) -> None:
        self.graph = graph
        self.side = side
        self.start = start
        self.size = size
        self._tables: dict[Node, Table | None] = {}
        self._chains: dict[Node, tuple[Node, ...]] = {}
        self.whole = Level(self, np.asarray([start]), np.asarray([start + size - 1]))

    def level(self, first: Numbers, last: Numbers) -> Level:
        """Segments of the line."""
        return Level(self, first, last)

    def chain(self, node: Node) -> tuple[Node, ...]:
        """The coordinates a node is a function of, narrowest first; a coordinate begins with itself."""
        found = self._chains.get(node)
        if found is None:
            if is_coordinate(node):
                found = (node, *(self.chain(node.args[0]) if node.args else ()))
            else:
                chains = [self.chain(arg) for arg in node.args if arg.side]
                found = tuple(item for item in chains[0] if all(item in other for other in chains[1:]))
            self._chains[node] = found
        return found

    def table(self, node: Node) -> Table | None:
        """The values over the narrowest coordinate; None where there would be too many."""
        if node not in self._tables:
            self._tables[node] = self._tabulate(node)
        return self._tables[node]

    def _tabulate(self, node: Node) -> Table | None:
        base = self.chain(node)[0]
        reach = self.whole.interval(base)
        low, high = int(reach.low[0]), int(reach.high[0])
        if high - low >= LONGEST_TABLE:
            return None
        if (
            node.op == "read"
            and node.args == (base,)
            and (low, high + 1) == (0, len(self.graph.arrays[node.number]))
        ):
            return self.graph.table(node)
        at = np.arange(low, high + 1)
        if not node.fuzzy:
            values = np.broadcast_to(points(self.graph, node, {base: at}), at.shape)
            return Table(low, values, values)
        evaluation = Evaluation(
            self.graph,
            lambda part: Interval(at, at, True, True) if part is base else self._read(part, base, at),
        )
        if node.dtype == "bool":
            bits = np.broadcast_to(evaluation.condition(node), at.shape)
            return Table(low, (bits & known.CAN_FALSE) == 0, (bits & known.CAN_TRUE) != 0)
        found = evaluation.number(node)
        return Table(low, np.broadcast_to(found.low, at.shape), np.broadcast_to(found.high, at.shape))

    def _read(self, part: Node, base: Node, at: Numbers) -> Value | None:
        if part.op != "read" or part.fuzzy:
            return None
        values = points(self.graph, part, {base: at})
        if part.dtype == "bool":
            return np.where(values, known.ALWAYS, known.NEVER).astype(np.uint8)
        return Interval(values, values, True, True)


def is_coordinate(node: Node) -> bool:
    """Whether its values on a segment of the index have no gaps, and cost nothing."""
    match node.op:
        case "index":
            return True
        case "sum":
            return len(node.args) == 1 and abs(node.data[0]) == 1 and is_coordinate(node.args[0])
        case "floordiv" | "mod":
            x, divisor = node.args
            return divisor.op == "const" and divisor.value > 0 and is_coordinate(x)
        case _:
            return False


def _divisor(node: Node) -> Interval:
    return known.number(node.args[1].value)


class Level:
    """Segments first … last (absolute, sorted) of a line, and what nodes of its side are on each."""

    def __init__(self, line: Line, first: Numbers, last: Numbers) -> None:
        self.line = line
        self.first = first
        self.last = last
        self._found: dict[Node, Value] = {}

    def __len__(self) -> int:
        return len(self.first)

    def value(self, node: Node) -> Value:
        """A node of this side over every segment."""
        found = self._found.get(node)
        if found is None:
            found = self._found[node] = self._value(node)
        return found

    def interval(self, node: Node) -> Interval:
        """A number of this side over every segment."""
        found = self.value(node)
        return found if isinstance(found, Interval) else known.as_number(found)

    def condition(self, node: Node) -> Bits:
        """A condition of this side over every segment."""
        found = self.value(node)
        assert not isinstance(found, Interval)
        return found

    def _value(self, node: Node) -> Value:
        match node.op:
            case "index":
                return Interval(self.first, self.last, True, True)
            case _ if node.coarse:
                return self._by_intervals(node)
            case "sum" if len(node.args) == 1 and not node.fuzzy:
                return known.total([(node.data[0], self.interval(node.args[0]), 0)], node.data[-1])
            case "range" if is_coordinate(node.args[0]):
                return np.broadcast_to(known.in_range(self.interval(node.args[0]), *node.data), len(self))
            case "floordiv" if is_coordinate(node):
                return known.quotient(self.interval(node.args[0]), _divisor(node), True)
            case "mod" if is_coordinate(node):
                return known.remainder(self.interval(node.args[0]), _divisor(node), True)
            case _:
                return self._looked_up(node)

    def _looked_up(self, node: Node) -> Value:
        table = self.line.table(node)
        if table is None:
            return self.unknown(node)
        base = self.interval(self.line.chain(node)[0])
        low, high, tight = table.over(base.low - table.base, base.high - table.base)
        tight = tight & base.dense
        dense = node.dtype == "int" and bool(np.any(tight)) and table.dense
        return as_value(node, low, high, tight, dense)

    def _by_intervals(self, node: Node) -> Value:
        """From what its operands are, where there is no table of single values."""

        def leaf(part: Node) -> Value | None:
            return None if part is node or not part.side else self.value(part)

        evaluation = Evaluation(self.line.graph, leaf)
        if node.dtype == "bool":
            return np.broadcast_to(evaluation.condition(node), len(self))
        found = evaluation.number(node)
        low, high = (np.broadcast_to(end, len(self)) for end in (found.low, found.high))
        return Interval(low, high, found.tight, found.dense)

    def unknown(self, node: Node) -> Value:
        """Nothing known, for every segment."""
        if node.dtype == "bool":
            return np.full(len(self), known.UNKNOWN, np.uint8)
        none = known.anything(node.dtype == "int")
        return Interval(np.repeat(none.low, len(self)), np.repeat(none.high, len(self)))


def as_value(node: Node, low: Array, high: Array, tight: Flags, dense: Flags) -> Value:
    """What is known of a node from its least and greatest value on each segment."""
    if node.dtype == "bool":
        return known.bits(high, ~low, tight & high, tight & ~low)
    if node.dtype == "float" and np.isnan(low).any():
        low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
        tight = tight & np.isfinite(low)
    return Interval(low, high, tight, tight & dense)
