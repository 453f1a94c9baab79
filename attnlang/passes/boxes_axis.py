"""What depends on one index only, over segments of it: exact ranges from coordinates and small tables.

A coordinate is the index, or a coordinate ± constant, // constant, mod constant: on a segment its values are without
gaps. Everything else of one side is tabulated point by point over the narrowest coordinate it depends on, and a
segment is answered from the table; `max(x − 3, 0)` with `x = q mod width` is a table of `width` numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import Graph, Node
from attnlang.passes.boxes_evaluate import Evaluation, Value
from attnlang.passes.boxes_numbers import numeric
from attnlang.passes.boxes_values import Bits, Interval

Array = NDArray[Any]
Numbers = NDArray[np.int64]
LONGEST_TABLE = 1 << 24
SPARSE_TABLE = 1 << 16
BLOCK = 64


def points(graph: Graph, node: Node, given: Mapping[Node, Array]) -> Array:
    """The value of a node at points: arrays that broadcast against one another for the nodes in `given`."""
    found: dict[Node, Any] = dict(given)

    def value(part: Node) -> Any:
        if part not in found:
            found[part] = _at_points(graph, part, [value(arg) for arg in part.args])
        return found[part]

    return np.asarray(value(node))


def _at_points(graph: Graph, node: Node, args: list[Any]) -> Any:
    match node.op:
        case "const":
            return node.value
        case "sum":
            result: Any = node.data[-1]
            for factor, term in zip(node.data[:-1], args, strict=True):
                result = result + (term if factor == 1 else factor * np.asarray(term, np.int64))
            return result
        case "range":
            return (args[0] >= node.data[0]) & (args[0] <= node.data[1])
        case "read":
            array = graph.arrays[node.number]
            value = array[tuple(_offsets(at, size) for at, size in zip(args, array.shape, strict=True))]
            return value if value.dtype == np.bool_ else value.astype(_KINDS[node.dtype], copy=False)
        case _:
            return numeric(node.op, args, all(arg.dtype != "float" for arg in node.args))


_KINDS: dict[str, Any] = {"int": np.int64, "float": np.float64, "bool": np.bool_}


def _offsets(at: Array, size: int) -> Any:
    """Offsets within an array of this size; consecutive ones as a slice."""
    if at.ndim == 1 and at.size == size and at.size and at[0] == 0 and at[-1] == size - 1 and _consecutive(at):
        return slice(None)
    return np.clip(at, 0, size - 1)


def _consecutive(at: Array) -> bool:
    return bool((np.diff(at) == 1).all())


@dataclass(frozen=True, eq=False)
class Table:
    """Values low … high (the same where nothing is rounded) at base … base + n − 1."""

    base: int
    low: Array
    high: Array

    @cached_property
    def steps(self) -> Array:
        """Differences of neighbours; of floats, their signs are what counts."""
        if self.low.dtype == np.bool_:
            return np.diff(self.low.view(np.int8))
        return np.diff(self.low)

    @cached_property
    def direction(self) -> int:
        """1 nowhere falling, −1 nowhere rising, 0 neither or not known."""
        if self.low is not self.high or self.low.dtype.kind == "f" and bool(np.isnan(self.low).any()):
            return 0
        return 1 if not (self.steps < 0).any() else -1 if not (self.steps > 0).any() else 0

    @cached_property
    def dense(self) -> bool:
        """Whether neighbours differ by at most 1: then no whole number between two values is left out."""
        if self.low is not self.high or self.low.dtype.kind == "f":
            return False
        return not self.steps.size or bool(self.steps.max() <= 1 and self.steps.min() >= -1)

    @cached_property
    def _sparse(self) -> tuple[Array, Array]:
        """Least and greatest of every 2^i neighbours."""
        least, most = [self.low], [self.high]
        width = 1
        while 2 * width <= len(self.low):
            for rows, pick in ((least, np.minimum), (most, np.maximum)):
                before = rows[-1]
                rows.append(np.concatenate([pick(before[:-width], before[width:]), before[-width:]]))
            width *= 2
        return np.stack(least), np.stack(most)

    @cached_property
    def _blocks(self) -> Table:
        """The least and greatest of every BLOCK neighbours."""
        starts = np.arange(0, len(self.low), BLOCK)
        return Table(0, np.minimum.reduceat(self.low, starts), np.maximum.reduceat(self.high, starts))

    def over(self, first: Numbers, last: Numbers) -> tuple[Array, Array, Any]:
        """Least and greatest value at offsets first … last, and whether both occur."""
        if self.direction:
            ends = self.low[first], self.low[last]
            return (*(ends if self.direction > 0 else ends[::-1]), True)
        tight = self.low is self.high
        if len(self.low) <= SPARSE_TABLE:
            return (*self._by_powers(first, last), tight)
        if first.ndim and bool((first[1:] > last[:-1]).all()):
            cuts = np.stack([first, last + 1], axis=-1).reshape(-1)
            low, high = (np.append(part, part[-1]) for part in (self.low, self.high))
            return np.minimum.reduceat(low, cuts)[::2], np.maximum.reduceat(high, cuts)[::2], tight
        whole = (first % BLOCK == 0) & (((last + 1) % BLOCK == 0) | (last + 1 == len(self.low)))
        low, high, _ = self._blocks.over(first // BLOCK, last // BLOCK)
        return low, high, whole & tight

    def _by_powers(self, first: Numbers, last: Numbers) -> tuple[Array, Array]:
        power = np.frexp((last - first + 1).astype(np.float64))[1] - 1
        least, most = self._sparse
        second = last + 1 - (np.int64(1) << power.astype(np.int64))
        return (
            np.minimum(least[power, first], least[power, second]),
            np.maximum(most[power, first], most[power, second]),
        )


class Line:
    """One index of a predicate: `start` … `start + size − 1`, and the tables over it."""

    def __init__(self, graph: Graph, side: int, start: int, size: int) -> None:
        self.graph = graph
        self.side = side
        self.start = start
        self.size = size
        self._tables: dict[Node, Table | None] = {}
        self._chains: dict[Node, tuple[Node, ...]] = {}
        self.whole = Level(self, np.asarray([start]), np.asarray([start + size - 1]))

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
        at = np.arange(low, high + 1)
        if not node.fuzzy:
            values = np.broadcast_to(points(self.graph, node, {base: at}), at.shape)
            return Table(low, values, values)
        evaluation = Evaluation(
            self.graph, lambda part: Interval(at, at, True, True) if part is base else self._read(part, base, at)
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
            case "sum" if len(node.args) == 1 and is_coordinate(node.args[0]):
                return known.total([(node.data[0], self.interval(node.args[0]), 0)], node.data[-1])
            case "floordiv" if is_coordinate(node):
                return known.quotient(self.interval(node.args[0]), known.number(node.args[1].value), True)
            case "mod" if is_coordinate(node):
                return known.remainder(self.interval(node.args[0]), known.number(node.args[1].value), True)
            case _:
                return self._looked_up(node)

    def _looked_up(self, node: Node) -> Value:
        table = self.line.table(node)
        if table is None:
            if node.dtype == "bool":
                return np.full(len(self), known.UNKNOWN, np.uint8)
            none = known.anything(node.dtype == "int")
            return Interval(np.repeat(none.low, len(self)), np.repeat(none.high, len(self)))
        base = self.interval(self.line.chain(node)[0])
        low, high, tight = table.over(base.low - table.base, base.high - table.base)
        tight = tight & base.dense
        if node.dtype == "bool":
            return known.bits(high, ~low, tight & high, tight & ~low)
        if node.dtype == "float" and np.isnan(low).any():
            low, high = np.where(np.isnan(low), -np.inf, low), np.where(np.isnan(high), np.inf, high)
            tight = tight & np.isfinite(low)
        return Interval(low, high, tight, tight and table.dense if isinstance(tight, bool) else tight & table.dense)
