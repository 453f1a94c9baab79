"""From large boxes to tiles, and inside the tiles that stay open, by evaluating a predicate over ever smaller boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import COLUMN, ROW, Graph, Node, nodes_of
from attnlang.passes.boxes_alike import Variants
from attnlang.passes.boxes_axis import Level, Line, is_coordinate
from attnlang.passes.boxes_evaluate import Evaluation, Value
from attnlang.passes.boxes_runs import EMPTY, FULL, OPEN, PARTIAL, Kinds, kinds_of, ramps
from attnlang.passes.boxes_values import Bits, Interval

Numbers = NDArray[np.int64]
AT_ONCE = 1 << 15
MOST_CUTS = 16
TILES_AT_ONCE = 4096
_WIDE = float(1 << 52)


class Predicate:
    """A condition over both lines, evaluated over boxes: a segment of rows times a segment of columns. `variants`: what
    stands in the place of nodes of one side in each of several predicates of this form, its members."""

    def __init__(
        self, graph: Graph, root: Node, rows: Line, columns: Line, variants: Variants | None = None
    ) -> None:
        self.graph = graph
        self.root = root
        self.rows = rows
        self.columns = columns
        self.variants = variants or {}
        parts = [root, *(node for members in self.variants.values() for node in members)]
        nodes = list(dict.fromkeys(node for part in parts for node in nodes_of(part)))
        self.cuts = {
            line.side: [
                node for node in nodes if node.side == line.side and _is_cut(node) and not line.ordered
            ]
            for line in (rows, columns)
        }
        self.ordered = rows.ordered or columns.ordered
        self.wild = _wild(graph, nodes, rows, columns, self.variants)

    def over(
        self, rows: Level, columns: Level, i: Numbers, j: Numbers, member: Numbers | None = None
    ) -> Bits:
        """The state over the boxes i × j of two levels, each for a member of several predicates."""
        result = np.empty(len(i), np.uint8)
        for start in range(0, len(i), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            which = None if member is None or not self.variants else member[part]
            result[part] = Evaluation(
                self.graph, self._picked(rows, columns, i[part], j[part], which), self.wild, self.ordered
            ).condition(self.root)
        return result

    def _picked(
        self, rows: Level, columns: Level, i: Numbers, j: Numbers, member: Numbers | None
    ) -> Callable[[Node], Value | None]:
        none = np.zeros(0, np.int64)
        present, which = (none, none) if member is None else np.unique(member, return_inverse=True)

        def leaf(node: Node) -> Value | None:
            if node.side not in (ROW, COLUMN):
                return None
            level, at = (rows, i) if node.side == ROW else (columns, j)
            if member is None or node not in self.variants:
                return _taken(level.value(node), at)
            values = [level.value(self.variants[node][number]) for number in present]
            return _taken_of(values, which, at)

        return leaf


def _taken_of(values: Sequence[Value], member: Numbers, at: Numbers) -> Value:
    """Of each place the value of its member; `values`: of all members."""
    intervals = [value for value in values if isinstance(value, Interval)]
    if not intervals:
        return np.stack([value for value in values if not isinstance(value, Interval)])[member, at]
    low, high = (
        np.stack(ends)[member, at] for ends in zip(*((x.low, x.high) for x in intervals), strict=True)
    )
    shape = intervals[0].low.shape
    tight, dense = (
        np.stack([np.broadcast_to(flag, shape) for flag in flags])[member, at]
        for flags in zip(*((x.tight, x.dense) for x in intervals), strict=True)
    )
    return Interval(low, high, tight, dense)


def _taken(value: Value, at: Numbers) -> Value:
    if not isinstance(value, Interval):
        return value[at]
    tight, dense = (flag if np.ndim(flag) == 0 else flag[at] for flag in (value.tight, value.dense))
    return Interval(value.low[at], value.high[at], tight, dense)


def _is_cut(node: Node) -> bool:
    return node.op in ("floordiv", "mod") and is_coordinate(node)


class _Bounds(Evaluation):
    """Evaluation over everything as one box, in floats, which do not overflow."""

    def _compute(self, node: Node) -> Value:
        value = super()._compute(node)
        return _floats(value) if isinstance(value, Interval) else value


def _floats(x: Interval) -> Interval:
    return Interval(np.asarray(x.low, np.float64), np.asarray(x.high, np.float64))


def _wild(graph: Graph, nodes: list[Node], rows: Line, columns: Line, variants: Variants) -> frozenset[Node]:
    """Whole numbers over both sides that may be too large to compute with."""

    def leaf(node: Node) -> Value | None:
        if node.side not in (ROW, COLUMN):
            return None
        whole = (rows if node.side == ROW else columns).whole
        value = whole.value(node)
        if not isinstance(value, Interval):
            return value[0] if node not in variants else np.asarray(known.UNKNOWN, np.uint8)
        spans = [whole.interval(each) for each in variants.get(node, (node,))]
        low, high = min(span.low[0] for span in spans), max(span.high[0] for span in spans)
        return _floats(Interval(np.asarray(low), np.asarray(high)))

    bounds = _Bounds(graph, leaf)
    found: set[Node] = set()
    for node in nodes:
        if node.dtype == "int" and node.side == ROW | COLUMN:
            span = bounds.number(node)
            if not (abs(span.low) < _WIDE and abs(span.high) < _WIDE):
                found.add(node)
    return frozenset(found)


# ----------------------------------------------------------------------------------------- large to small


def tiles_of(line: Line, side: int) -> Level:
    """The line in segments of `side`."""
    first = np.arange(line.start, line.start + line.size, side, dtype=np.int64)
    return line.level(first, np.minimum(first + side, line.start + line.size) - 1)


def halved(i: Numbers, j: Numbers, rows: int, columns: int) -> tuple[Numbers, Numbers]:
    """The boxes of the next finer level: each falls into 2 × 2, where they exist."""
    row = np.stack([2 * i, 2 * i, 2 * i + 1, 2 * i + 1], axis=1).reshape(-1)
    column = np.stack([2 * j, 2 * j + 1, 2 * j, 2 * j + 1], axis=1).reshape(-1)
    inside = (row < rows) & (column < columns)
    return row[inside], column[inside]


# --------------------------------------------------------------------------------------- inside of a tile


def settle(
    predicate: Predicate,
    rows: Level,
    columns: Level,
    i: Numbers,
    j: Numbers,
    bits: Bits,
    budget: int,
    member: Numbers | None = None,
) -> Kinds:
    """EMPTY, PARTIAL or FULL for open tiles, by at most `budget` smaller boxes; PARTIAL where they do not suffice."""
    member = np.zeros(len(i), np.int64) if member is None else member
    kinds = np.empty(len(i), np.uint8)
    spent = 0
    for start in range(0, len(i), TILES_AT_ONCE):
        part = slice(start, start + TILES_AT_ONCE)
        allowed = budget * min(start + TILES_AT_ONCE, len(i)) // len(i) - spent
        kinds[part], used = _settled(
            predicate, rows, columns, i[part], j[part], member[part], bits[part], allowed
        )
        spent += used
    return kinds


def _settled(
    predicate: Predicate,
    rows: Level,
    columns: Level,
    i: Numbers,
    j: Numbers,
    member: Numbers,
    bits: Bits,
    budget: int,
) -> tuple[Kinds, int]:
    has = bits & np.uint8(known.HAS_TRUE | known.HAS_FALSE)
    owner = np.arange(len(i))
    used = 0
    by_cuts = True
    while len(owner):
        rows, row_children = _split(rows, i, predicate.cuts[ROW] if by_cuts else None)
        columns, column_children = _split(columns, j, predicate.cuts[COLUMN] if by_cuts else None)
        across, down = row_children[2], column_children[2]
        amounts = across * down
        if not by_cuts and bool((amounts == 1).all()):
            break
        if used + int(amounts.sum()) > budget:
            break
        by_cuts, skipped = False, by_cuts and bool((amounts == 1).all())
        parent = np.repeat(np.arange(len(owner)), amounts)
        place = ramps(np.zeros(len(owner), np.int64), amounts)
        i = row_children[0][parent] + place // down[parent]
        j = column_children[0][parent] + place % down[parent]
        owner = owner[parent]
        if skipped:
            continue
        state = predicate.over(rows, columns, i, j, member[owner])
        used += len(state)
        _gather(has, owner, state)
        keep = ((state & known.UNKNOWN) == known.UNKNOWN) & (has[owner] != known.HAS_TRUE | known.HAS_FALSE)
        owner, i, j = owner[keep], i[keep], j[keep]
    kinds = _BY_OCCURRENCE[has]
    kinds[owner] = PARTIAL
    return kinds, used


_BY_OCCURRENCE: Kinds = np.array(
    [
        PARTIAL if not code & 12 or code & 12 == 12 else FULL if code & known.HAS_TRUE else EMPTY
        for code in range(16)
    ],
    dtype=np.uint8,
)  # fmt: skip


def _gather(has: Bits, owner: Numbers, state: Bits) -> None:
    """What occurs in a box occurs in its tile; the owners are in order."""
    if len(owner):
        starts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        has[owner[starts]] |= np.bitwise_or.reduceat(state & np.uint8(12), starts)


Children = tuple[Numbers, Numbers, Numbers]
"""For each box: its first child segment, one after its last, and how many there are."""


def _split(level: Level, used: Numbers, cuts: list[Node] | None) -> tuple[Level, Children]:
    """The used segments in parts: at the cuts of coordinates, or in halves (None)."""
    segments, inverse = np.unique(used, return_inverse=True)
    first, last = level.first[segments], level.last[segments]
    origin = np.arange(len(segments))
    if cuts:
        parts = Level(level.line, first, last)
        for node in cuts:
            parts, origin = _cut(parts, node, origin)
    elif cuts is None:
        longer = (last > first).astype(np.int64)
        starts = np.stack([first, (first + last + 1) // 2], axis=1)
        keep = np.stack([np.ones_like(longer), longer], axis=1) > 0
        first, origin = starts[keep], np.repeat(origin, longer + 1)
        final = np.append(origin[1:] != origin[:-1], True)
        parts = level.line.level(first, np.where(final, last[origin], np.append(first[1:], 0) - 1))
    else:
        parts = level.line.level(first, last)
    amounts = np.bincount(origin, minlength=len(segments))
    begins = np.cumsum(amounts) - amounts
    return parts, (begins[inverse], (begins + amounts)[inverse], amounts[inverse])


def _cut(level: Level, node: Node, origin: Numbers) -> tuple[Level, Numbers]:
    """Segments, each a part of its `origin`, cut where the coordinate under `//` or `mod` passes a multiple of the
    divisor."""
    divisor = int(node.args[1].value)
    if any(part.op == "sum" and part.data[0] < 0 for part in level.line.chain(node)):
        return level, origin
    first, last, inner = level.first, level.last, level.interval(node.args[0])
    low, high = inner.low // divisor, inner.high // divisor
    amounts = np.where((inner.high - inner.low == last - first) & (high - low <= MOST_CUTS), high - low, 0)
    if not amounts.any():
        return level, origin
    pieces = amounts + 1
    which = np.repeat(np.arange(len(first)), pieces)
    step = ramps(np.zeros(len(first), np.int64), pieces)
    starts = np.where(
        step == 0, first[which], first[which] + (low[which] + step) * divisor - inner.low[which]
    )
    stops = np.append(starts[1:], 0) - 1
    final = step == amounts[which]
    stops[final] = last[which[final]]
    return Level(level.line, starts, stops), origin[which]


def evaluated(
    predicate: Predicate, rows: Level, columns: Level, i: Numbers, j: Numbers, member: Numbers | None = None
) -> tuple[Kinds, Any]:
    """Kinds of boxes (OPEN where none is certain), and their states."""
    state = predicate.over(rows, columns, i, j, member)
    return kinds_of(state), state


__all__ = ["EMPTY", "FULL", "OPEN", "PARTIAL", "Predicate", "evaluated", "halved", "settle", "tiles_of"]
