"""A kernel for float64: everything that is computed in float32 is computed in float64 instead."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from attnlang.ir.kernel import Kernel

Node = TypeVar("Node")


def in_double(kernel: Kernel) -> Kernel:
    """The same kernel with fp64 for fp32: values, running statistics, numbers of the call and results."""
    return _widened(kernel)


def _widened(node: Node) -> Node:
    """A part of a kernel, with the parts it is made of."""
    found: Any = node
    if isinstance(found, tuple):
        return tuple(_widened(part) for part in found)  # pyright: ignore
    if not is_dataclass(node) or isinstance(node, type):
        return node
    changed = {field.name: _field(field.name, getattr(node, field.name)) for field in fields(node)}
    return replace(node, **changed)


def _field(name: str, value: Any) -> Any:
    return "fp64" if name == "type" and value == "fp32" else _widened(value)
