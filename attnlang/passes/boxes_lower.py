"""From an expression of the pattern IR, with every size and parameter known, to a graph over one row and one column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np

from attnlang.ir.pattern import (
    Apply,
    Axis,
    DType,
    Expr,
    Index,
    Let,
    Literal,
    Read,
    Reduce,
    Symbol,
    dtype_of,
    free_axes,
)  # fmt: skip
from attnlang.passes.boxes import COLUMN, ROW, Array, Graph, Node, nodes_of
from attnlang.passes.boxes_points import points
from attnlang.passes.summaries import Summary

MOST_TERMS = 256
"""A reduction over more combinations is unknown."""
LARGEST_TABLE = 1 << 24
_JOIN = {"any": "or", "all": "and", "max": "max", "min": "min", "sum": "add", "prod": "mul"}
_EMPTY: dict[str, bool | int] = {
    "any": False, "all": True, "sum": 0, "prod": 1, "max": -(1 << 50), "min": 1 << 50
}  # fmt: skip


class MissingNumber(ValueError):
    """A size or parameter without a value."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the value of '{name}' is needed to classify tiles")


class Lowering:
    """Lowers expressions over the axes in `indices`; `tables`: what is read by name."""

    def __init__(
        self,
        graph: Graph,
        symbols: Mapping[str, bool | int | float],
        tables: Tables,
        indices: Mapping[Axis, Node],
        place: tuple[int, ...] = (),
        known: Callable[[Expr], Node | None] | None = None,
    ) -> None:
        """`place`: the values of the indices of the reductions around the expression; `known`: the nodes of expressions
        that have been lowered elsewhere."""
        self.graph = graph
        self.symbols = symbols
        self.tables = tables
        self.indices = indices
        self.place = place
        self.known = known
        self._found: dict[int, tuple[Expr, Node]] = {}

    def node(self, expr: Expr) -> Node:
        """The node of an expression."""
        if id(expr) not in self._found:
            found = self.known(expr) if self.known is not None else None
            self._found[id(expr)] = (expr, self._node(expr) if found is None else found)
        return self._found[id(expr)][1]

    def number(self, expr: Expr) -> int:
        """A size or start, known without indices."""
        node = self.node(expr)
        if node.op != "const":
            raise MissingNumber("a size")
        return int(node.value)

    def _node(self, expr: Expr) -> Node:
        match expr:
            case Literal(value):
                return self.graph.const(value)
            case Symbol(name, dtype):
                if name not in self.symbols:
                    raise MissingNumber(name)
                value = self.symbols[name]
                return self.graph.const(float(value) if dtype == "float" else value)
            case Index(axis):
                found = self.indices.get(axis)
                return self._unknown(expr, "int") if found is None else found
            case Apply(op, args):
                return self.graph.apply(op, [self.node(arg) for arg in args])
            case Read(source, at, dtype):
                array = self.tables.array(source, tuple(self.node(part) for part in at), self)
                if array is None or 0 in array.shape or array.ndim != len(at):
                    return self._unknown(expr, dtype)
                return self.graph.read(source, array, [self.node(part) for part in at])
            case Reduce():
                return self._reduction(expr)

    def _unknown(self, expr: Expr, dtype: DType) -> Node:
        """A number that differs from occurrence to occurrence."""
        return self.graph.unknown((id(expr), self.place), dtype)

    def _reduction(self, expr: Reduce) -> Node:
        """Written out over all combinations of its indices, where they are few."""
        starts = [self.number(axis.start) for axis in expr.axes]
        sizes = [max(0, self.number(axis.size)) for axis in expr.axes]
        if expr.op not in _JOIN or np.prod(sizes, dtype=np.float64) > MOST_TERMS:
            return self._unknown(expr, dtype_of(expr))
        empty = self.graph.const(_EMPTY[expr.op])
        result = empty
        for place in product(*(range(size) for size in sizes)):
            bound = {
                axis: self.graph.const(start + offset)
                for axis, start, offset in zip(expr.axes, starts, place, strict=True)
            }
            indices = {**self.indices, **bound}
            inner = Lowering(self.graph, self.symbols, self.tables, indices, (*self.place, *place))
            part = inner.node(expr.body)
            if expr.where is not None:
                part = self.graph.apply("where", [self.graph.truth(inner.node(expr.where)), part, empty])
            result = part if result is empty else self.graph.apply(_JOIN[expr.op], [result, part])
        return result


class Tables:
    """Arrays by name: the tensors of the call, and tables of the pattern, evaluated where they are small."""

    def __init__(self, tensors: Mapping[str, Array | Summary], lets: Mapping[str, Let]) -> None:
        self.tensors = tensors
        self.lets = lets
        self._made: dict[tuple[object, ...], Array | None] = {}

    def array(self, source: str, at: tuple[Node, ...], lowering: Lowering) -> Array | Summary | None:
        """The array that is read, with one dimension for each of `at`; None where its contents are not known."""
        if source in self.tensors:
            return self.tensors[source]
        let = self.lets.get(source)
        if let is None or len(let.axes) != len(at):
            return None
        known = tuple(int(node.value) if node.op == "const" else None for node in at)
        key = (source, known)
        if key not in self._made:
            self._made[key] = self._evaluated(let, known, lowering)
        return self._made[key]

    def _evaluated(self, let: Let, known: tuple[int | None, ...], lowering: Lowering) -> Array | None:
        """The table as an array whose dimensions at known offsets have been left as they would be read."""
        free = [axis for axis, offset in zip(let.axes, known, strict=True) if offset is None]
        sizes = [lowering.number(axis.size) for axis in let.axes]
        lengths = [size for size, offset in zip(sizes, known, strict=True) if offset is None]
        if len(free) > 2 or np.prod(lengths, dtype=np.float64) > LARGEST_TABLE or 0 in sizes:
            return None
        graph = Graph()
        indices: dict[Axis, Node] = {}
        given: dict[Node, Array] = {}
        for axis, size, offset in zip(let.axes, sizes, known, strict=True):
            start = lowering.number(axis.start)
            if offset is not None:
                indices[axis] = graph.const(start + min(max(offset, 0), size - 1))
                continue
            side = COLUMN if given else ROW
            indices[axis] = graph.index(side)
            values = np.arange(start, start + size)
            given[indices[axis]] = (
                values if len(free) == 1 else values[:, None] if side == ROW else values[None]
            )
        if free_axes(let.body) - set(indices):
            return None
        root = Lowering(graph, lowering.symbols, self, indices).node(let.body)
        if _reads_unknown(root) or root.fuzzy:
            return None
        values = np.broadcast_to(points(graph, root, given), lengths)
        shape = [size if offset is None else 1 for size, offset in zip(sizes, known, strict=True)]
        return np.ascontiguousarray(values).reshape(shape)


def _reads_unknown(root: Node) -> bool:
    return any(node.op == "unknown" for node in nodes_of(root))
