"""By what tokens can be put in order: what a predicate compares of a query with what of a key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attnlang.passes.boxes import BIG, BOTH, COLUMN, ROW, Graph, Node, nodes_of
from attnlang.passes.boxes_axis import Line, is_coordinate

COMPARED = frozenset(("same", "lt", "le", "eq", "mul", "min", "max", "add", "sub", "read"))
LOGICAL = frozenset(("and", "or", "not", "where", "same"))


@dataclass(frozen=True)
class Axis:
    """What of a query (`row`) meets what of a key (`column`); None: that side keeps its order. `exact`: they must be
    alike, so that all of one value should stand together; else near values see one another."""

    row: Node | None
    column: Node | None
    exact: bool


def axes_of(graph: Graph, root: Node, queries: Line, keys: Line) -> tuple[Axis, ...]:
    """The axes of a predicate, each pair once; those by the index itself are left out."""
    found: dict[tuple[Node | None, Node | None], bool] = {}
    for row, column, exact in _met(graph, root):
        pair = _by(queries, row), _by(keys, column)
        if pair != (None, None):
            found[pair] = found.get(pair, True) and exact
    return tuple(Axis(row, column, exact) for (row, column), exact in found.items())


def _met(graph: Graph, root: Node) -> Iterator[tuple[Node | None, Node | None, bool]]:
    """Parts of each side that meet in an operation, and conditions of one side that meet others in logic."""
    nodes = [node for node in nodes_of(root) if node.side == BOTH]
    ranges = [node for node in nodes if node.op == "range"]
    near = {node.args[0] for node in ranges if node.data[0] < node.data[1]}
    exact = {node.args[0] for node in ranges} - near
    reduced = {node.args[0] for node in nodes if node.op == "mod"}
    for node in nodes:
        if node.op == "mod" and node.args[1].op == "const" and node.args[0].op == "sum":
            for row, column in _pairs(node.args[0]):
                row, column = (graph.apply("mod", [_bare(part), node.args[1]]) for part in (row, column))
                yield row, column, node in exact
        elif (node.op == "sum" and node not in reduced) or node.op in COMPARED:
            for row, column in _pairs(node):
                yield row, column, node in exact or node.op in ("same", "eq")
        if node.op in LOGICAL and node.dtype == "bool":
            for part in node.args:
                if part.dtype == "bool" and part.side in (ROW, COLUMN) and node.op != "same":
                    yield (part, None, True) if part.side == ROW else (None, part, True)


def _pairs(node: Node) -> Iterator[tuple[Node, Node]]:
    rows = [part for part in node.args if part.side == ROW]
    columns = [part for part in node.args if part.side == COLUMN]
    if len(rows) == len(columns) == 1:
        yield rows[0], columns[0]


def _by(line: Line, node: Node | None) -> Node | None:
    """What to order by: the coordinate that a node depends on, or the node where it reads an array or is a condition;
    None for the index, and for a condition that begins or ends with it."""
    if node is None:
        return None
    node = _bare(node)
    if node.op == "range" and (node.data[0] <= -BIG or node.data[1] >= BIG) and _rises(node.args[0]):
        return None
    if not is_coordinate(node) and node.dtype != "bool" and not _reads(node):
        node = _bare(line.chain(node)[0])
    return None if node.op == "index" else node


def _bare(node: Node) -> Node:
    """±x + c  ->  x"""
    while node.op == "sum" and len(node.args) == 1:
        node = node.args[0]
    return node


def _rises(node: Node) -> bool:
    """Whether a node is the index, moved or divided."""
    return is_coordinate(node) and all(
        part.op in ("index", "sum", "floordiv", "const") for part in nodes_of(node)
    )


def _reads(node: Node) -> bool:
    return any(part.op == "read" for part in nodes_of(node))
