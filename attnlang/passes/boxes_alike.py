"""Predicates of several heads that differ only in what depends on one side: they are evaluated together.

Heads whose strides begin elsewhere, whose slots lie elsewhere or who guard the same windows by other flags have one
form; its parts of one side have a variant for each head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attnlang.passes.boxes import COLUMN, ROW, Node

Variants = Mapping[Node, tuple[Node, ...]]
"""Nodes of one side and what stands in their place in each member."""


@dataclass(frozen=True, eq=False)
class Family:
    """`members`: places of predicates that are `root`, with the variants of each."""

    members: tuple[int, ...]
    root: Node
    variants: Variants


def families(roots: Sequence[Node]) -> list[Family]:
    """All predicates, those of one form together."""
    forms: list[tuple[Node, list[int], list[Mapping[Node, Node]]]] = []
    for place, root in enumerate(roots):
        for first, members, pairs in forms:
            found: dict[Node, Node] = {}
            if _pair(first, root, found):
                members.append(place)
                pairs.append(found)
                break
        else:
            forms.append((root, [place], [{}]))
    return [Family(tuple(members), first, _variants(pairs)) for first, members, pairs in forms]


def _variants(pairs: Sequence[Mapping[Node, Node]]) -> Variants:
    differing = {
        node: None
        for found in pairs
        for node, other in found.items()
        if node.side in (ROW, COLUMN) and node is not other
    }
    return {node: tuple(found.get(node, node) for found in pairs) for node in differing}


def _pair(first: Node, other: Node, found: dict[Node, Node]) -> bool:
    """Whether one has the form of the other; `found`: each node of the first and its one partner."""
    if first in found:
        return found[first] is other
    found[first] = other
    if first.side != other.side or first.dtype != other.dtype:
        return False
    if first.side in (ROW, COLUMN):
        return True
    if (first.op, first.data, len(first.args)) != (other.op, other.data, len(other.args)):
        return False
    return all(_pair(one, another, found) for one, another in zip(first.args, other.args, strict=True))
