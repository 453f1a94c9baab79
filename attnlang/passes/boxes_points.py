"""The value of a node at points, by NumPy: what tables are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes import Graph, Node
from attnlang.passes.boxes_numbers import numeric

Array = NDArray[Any]


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


def _offsets(at: Any, size: int) -> Any:
    return np.clip(at, 0, size - 1)
