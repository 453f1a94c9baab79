"""Who sees whom in each attention of a pattern: all pairs, the keys of one query, or the tiles of long sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce as fold
from typing import TYPE_CHECKING, Any

import numpy as np

from attnlang.call_numbers import number
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    TRUE,
    VALUE_FEATURE,
    ZERO,
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Let,
    Literal,
    Pattern,
)
from attnlang.ir.rewrite import map_children
from attnlang.ir.walk import reads_of
from attnlang.passes.boxes_map import TileMap
from attnlang.passes.classify import Tiles, classify
from attnlang.show_colours import Bools
from attnlang.show_tiles import TilePicture, tile_picture

if TYPE_CHECKING:
    from attnlang.ir.interpret import Inputs

Symbols = Mapping[str, bool | int | float]
MOST_AT_ONCE = 1 << 23
"""Pairs that are looked at together."""


@dataclass(frozen=True)
class Branch:
    """An attention as it is drawn: `attention.rows[-1]` down, `attention.over` across. `name` is '' where the pattern
    has only one attention."""

    name: str
    attention: Attention

    @property
    def visible(self) -> Expr:
        """Mask and sparsity."""
        return Apply("and", (self.attention.mask, self.attention.sparsity))

    @property
    def row(self) -> Axis:
        """The index of the rows."""
        return self.attention.rows[-1]

    @property
    def over(self) -> Axis:
        """The index of the columns."""
        return self.attention.over

    def shape(self, symbols: Symbols) -> tuple[int, int]:
        """How many rows and columns."""
        return int(number(self.row.size, symbols)), int(number(self.over.size, symbols))

    def first(self, symbols: Symbols) -> int:
        """The position of the first row."""
        return int(number(self.row.start, symbols))

    def heads(self, symbols: Symbols) -> int:
        """How many heads; 1 where the attention has none."""
        head = _axis(self.attention, ("head", "kv_head"))
        return 1 if head is None else int(number(head.size, symbols))


def branches_of(pattern: Pattern) -> tuple[Branch, ...]:
    """Every attention of a pattern, in order; where there is none, what its states have taken in.

    Raises NoKeyAttention where there is neither.
    """
    found = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    if found:
        return tuple(Branch(stage.name if len(found) > 1 else "", stage) for stage in found)
    from attnlang.ir.interpret import NoKeyAttention
    from attnlang.ir.interpret_states import seen_through_states

    conditions = seen_through_states(pattern)
    if conditions is None:
        raise NoKeyAttention(pattern=pattern.name)
    seen = fold(lambda one, other: Apply("or", (one, other)), conditions)
    rows = (BATCH, HEAD, QUERY)
    states = Attention("states", rows, KEY, VALUE_FEATURE, TRUE, seen, ZERO, (), None, ZERO, has_lse=False)
    return (Branch("", states),)


def needed_by(pattern: Pattern, branch: Branch) -> frozenset[str]:
    """The tensors, Q, K and V included, and the stages that decide what a branch sees, through tables."""
    lets = {stage.name: stage for stage in pattern.stages if isinstance(stage, Let)}
    found: set[str] = set()
    queue = reads_of(branch.visible)
    while queue:
        read = queue.pop()
        if read.source in lets and read.source not in found:
            queue += reads_of(lets[read.source].body)
        found.add(read.source)
    return frozenset(found)


def is_chosen(pattern: Pattern, branch: Branch) -> bool:
    """Whether queries, keys or other stages than tables of numbers decide what a branch sees."""
    known = {stage.name for stage in pattern.stages if isinstance(stage, Let)} | {
        tensor.name for tensor in pattern.tensors
    }
    return bool(needed_by(pattern, branch) - known)


# -------------------------------------------------------------------------------------------------- pairs


def seen_pairs(pattern: Pattern, branch: Branch, inputs: Inputs, batch: int = 0) -> Bools:
    """What the rows of a branch see in one sequence of the batch: [heads, rows, columns].

    An attention with further indices before its rows: what any of them sees. Raises MissingInput.
    """
    symbols = {**inputs.sizes, **inputs.scalars}
    rows, columns = branch.shape(symbols)
    step = max(1, MOST_AT_ONCE // max(1, columns * branch.heads(symbols)))
    pieces = [
        _table(pattern, branch, inputs, batch, low, min(step, rows - low)) for low in range(0, rows, step)
    ]
    return np.concatenate(pieces, axis=1)


def seen_keys(pattern: Pattern, branch: Branch, inputs: Inputs, query: int, batch: int = 0) -> Bools:
    """What the query at a position sees: [heads, columns]. Raises MissingInput."""
    first = branch.first({**inputs.sizes, **inputs.scalars})
    return _table(pattern, branch, inputs, batch, query - first, 1)[:, 0]


def _table(pattern: Pattern, branch: Branch, inputs: Inputs, batch: int, low: int, count: int) -> Bools:
    """[heads, count, columns] of some rows, as a table of the pattern evaluates to."""
    import torch

    from attnlang.ir.interpret import table

    row = branch.row
    some = Axis(f"some {row.name}", Literal(count), row.role, Apply("add", (row.start, Literal(low))))
    sequence = _axis(branch.attention, ("batch",))
    values: dict[Axis, Expr] = {row: Index(some)}
    if sequence is not None:
        values[sequence] = Literal(batch)
    outer = [axis for axis in branch.attention.rows[:-1] if axis != sequence]
    head = _axis(branch.attention, ("head", "kv_head"))
    axes = (*(axis for axis in outer if axis == head), *(axis for axis in outer if axis != head), some)
    seen = Let("what is seen", (*axes, branch.over), _replaced(branch.visible, values), "bool")
    drawn = replace(pattern, stages=(*pattern.stages, seen))
    with torch.no_grad():
        found: Any = table(drawn, seen.name, inputs).numpy()
    found = found if head is not None else found[None]
    return found.any(axis=tuple(range(1, found.ndim - 2)))


def _replaced(expr: Expr, values: Mapping[Axis, Expr]) -> Expr:
    """The expression with something in place of index variables."""
    if isinstance(expr, Index):
        return values.get(expr.axis, expr)
    return map_children(expr, lambda part: _replaced(part, values))


def _axis(attention: Attention, roles: Sequence[str]) -> Axis | None:
    """The first axis before the rows that has one of the roles."""
    return next((axis for axis in attention.rows[:-1] if axis.role in roles), None)


# -------------------------------------------------------------------------------------------------- tiles


def tile_pictures(
    pattern: Pattern, branch: Branch, symbols: Symbols, tensors: Mapping[str, Any], tile: int, batch: int = 0
) -> Iterator[tuple[tuple[int, ...], TilePicture]]:
    """The tiles of a branch, `tile` rows by `tile` columns: heads that see alike, and their picture.

    What reads other stages than tables counts as partial: it may be visible.
    """
    arrays = {name: np.asarray(tensor) for name, tensor in tensors.items()}

    def classified(side: int) -> Tiles:
        return classify(branch.attention, symbols, arrays, side, side, pattern.stages)

    tiles, heads = classified(tile), branch.heads(symbols)
    places = tiles.classes[0 if len(tiles.classes) == 1 else batch]
    of_heads: list[int] = np.broadcast_to(places, (heads,)).tolist()
    for place in dict.fromkeys(of_heads):
        group = tuple(head for head in range(heads) if of_heads[head] == place)

        def coarser(times: int, head: int = group[0]) -> TileMap:
            return classified(tile * times).map(head, batch)

        yield group, tile_picture(tiles.maps[place], coarser)


# -------------------------------------------------------------------------------------------------- heads


def alike(masks: Bools) -> list[tuple[int, ...]]:
    """Heads [heads, …] that see the same, together."""
    groups: dict[bytes, list[int]] = {}
    for head, mask in enumerate(masks):
        groups.setdefault(np.packbits(mask).tobytes(), []).append(head)
    return [tuple(group) for group in groups.values()]


def heads_name(heads: Sequence[int], of: int) -> str:
    """`head 2`, `heads 0–3, 6`, `all 4 heads`; nothing where there is only one."""
    if len(heads) == of:
        return f"all {of} heads" if of > 1 else ""
    runs: list[list[int]] = []
    for head in heads:
        if runs and runs[-1][-1] == head - 1:
            runs[-1].append(head)
        else:
            runs.append([head])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs]
    return f"head{'s' if len(heads) > 1 else ''} {', '.join(texts)}"


def axis_name(axis: Axis) -> str:
    """What the axis of a picture is called."""
    words = {"query": "query", "key": "key", "group": "group"}
    return f"{words[axis.role]} {axis.name}" if axis.role in words else axis.name
