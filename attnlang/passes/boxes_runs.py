"""The first look at all tiles, without a look at each: runs of key tiles on which a predicate is known alike.

A range `a ≤ f(q) + g(k) ≤ b` whose g rises or falls along the key tiles changes its state at four places of a row of
tiles at most; a condition on k alone is one vector for all rows. So a row falls into few intervals, and the rows share
few vectors; what is left open is listed tile by tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes import boxes_values as known
from attnlang.passes.boxes import BIG, BOTH, COLUMN, ROW, Graph, Node
from attnlang.passes.boxes_axis import Level
from attnlang.passes.boxes_evaluate import Evaluation, Value
from attnlang.passes.boxes_values import Bits, Interval

Numbers = NDArray[np.int64]
Small = NDArray[np.int32]
Kinds = NDArray[np.uint8]
Flags = NDArray[np.bool_]
EMPTY, PARTIAL, FULL, OPEN = 0, 1, 2, 3
MOST_CELLS = 1 << 26
_HUGE = 1 << 58


def kinds_of(bits: Bits) -> Kinds:
    """EMPTY, PARTIAL, FULL, or OPEN where none of them is certain."""
    return _KINDS[bits]


_KINDS: Kinds = np.array(
    [
        EMPTY if not code & known.CAN_TRUE else FULL if not code & known.CAN_FALSE
        else PARTIAL if code == known.MIXED else OPEN
        for code in range(16)
    ],
    dtype=np.uint8,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Intervals:
    """Rows of tiles in intervals, in order: in `row[i]` the key tiles `first[i] … stop[i] − 1` have vector `vector[i]`
    of `amount`; `columns` key tiles in all."""

    row: Small
    first: Small
    stop: Small
    vector: Small
    amount: int
    columns: int

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.row.nbytes + self.first.nbytes + self.stop.nbytes + self.vector.nbytes

    def cells(self, wanted: Flags) -> tuple[Numbers, Numbers, Numbers]:
        """Row, column and vector of every tile whose place in its vector is wanted: [amount, columns or 1]."""
        used = np.any(wanted, axis=1)
        some = np.flatnonzero(used[self.vector])
        row, first, stop, vector = (
            part[some].astype(np.int64) for part in (self.row, self.first, self.stop, self.vector)
        )
        if wanted.shape[1] == 1:
            lengths = stop - first
            return np.repeat(row, lengths), ramps(first, lengths), np.repeat(vector, lengths)
        flat = wanted[used].reshape(-1)
        before = np.zeros(len(flat) + 1, np.int32)
        np.cumsum(flat, out=before[1:])
        base = (np.cumsum(used) - 1)[vector] * self.columns
        begin = before[base + first].astype(np.int64)
        lengths = before[base + stop] - begin
        column = np.flatnonzero(flat)[ramps(begin, lengths)] % self.columns
        return np.repeat(row, lengths), column, np.repeat(vector, lengths)

    @cached_property
    def lengths(self) -> Numbers:
        """How many tiles have each vector."""
        return np.bincount(self.vector, self.stop - self.first, self.amount).astype(np.int64)

    @cached_property
    def amounts(self) -> Numbers:
        """How many rows have each key tile in each vector: [amount, columns]."""
        return self._spread(None)

    def weighted(self, heights: Numbers) -> Numbers:
        """The heights of these rows, summed."""
        return self._spread(heights[self.row].astype(np.float64))

    def _spread(self, weights: NDArray[np.float64] | None) -> Numbers:
        width = self.columns + 1
        begins, ends = (
            np.bincount(self.vector * np.int64(width) + ends, weights, self.amount * width)
            for ends in (self.first, self.stop)
        )
        return np.cumsum((begins - ends).reshape(self.amount, width), axis=1)[:, :-1].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Runs:
    """Rows of tiles in intervals, and the kind of each place in their vectors (one entry: that of all its places)."""

    intervals: Intervals
    vectors: Kinds

    def cells(self, kind: int) -> tuple[Numbers, Numbers]:
        """Row and column of every tile of a kind."""
        row, column, _ = self.intervals.cells(self.vectors == kind)
        return row, column

    def amount(self, kind: int) -> int:
        """How many tiles are of a kind."""
        of_kind = self.vectors == kind
        if of_kind.shape[1] == 1:
            return int(self.intervals.lengths[of_kind[:, 0]].sum())
        return int(self.intervals.amounts[of_kind].sum())


def ramps(first: Numbers, lengths: Numbers) -> Numbers:
    """first[0], first[0] + 1, … (lengths[0] numbers), first[1], …"""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total, dtype=np.int64) + np.repeat(first - (ends - lengths), lengths)


class FirstLook:
    """Finds runs of tiles of two levels, for any number of predicates over them."""

    def __init__(self, graph: Graph, rows: Level, columns: Level) -> None:
        self.graph = graph
        self.rows = rows
        self.columns = columns
        self._parts: dict[tuple[Node, ...], _Parts] = {}

    def runs(self, root: Node) -> Runs | None:
        """The runs of a predicate; None where more vectors would be needed than is reasonable."""
        leaves = _leaves(root)
        parts = self._fallen_apart(tuple(leaf for leaf in leaves if leaf.side != COLUMN))
        by_column = {leaf for leaf in leaves if leaf.side == COLUMN}
        amount, width = len(parts.codes), len(self.columns) if by_column else 1
        if amount * width > MOST_CELLS:
            return None
        of_states = dict(zip(parts.known, parts.codes.T, strict=True))

        def leaf_value(node: Node) -> Value | None:
            if node in of_states:
                return of_states[node][:, None]
            if node in by_column:
                return self.columns.condition(node)[None, :]
            return self._everywhere(node) if node in leaves else None

        bits = Evaluation(self.graph, leaf_value).condition(root)
        vectors = kinds_of(np.broadcast_to(bits, (amount, width)))
        return Runs(parts.intervals, vectors)

    def _everywhere(self, leaf: Node) -> Bits:
        """Of what is neither cut nor a vector: a remainder of q and k takes every value in tiles that are large."""
        form = leaf.args[0] if leaf.op == "range" else leaf
        if form.op == "mod" and form.args[0].op == "sum" and form.args[1].op == "const":
            inner = form.args[0]
            parts = [self._side(arg) for arg in inner.args]
            unit = all(abs(factor) == 1 for factor in inner.data[:-1])
            if unit and all(part is not None and bool(np.all(part.dense)) for part in parts):
                width = sum(int((part.high - part.low).min()) for part in parts if part is not None)
                if width >= form.args[1].value - 1 > 0:
                    return np.asarray(known.in_range(_all_below(int(form.args[1].value)), *leaf.data))
        return np.asarray(known.UNKNOWN, np.uint8)

    def _side(self, node: Node) -> Interval | None:
        if node.side == BOTH:
            return None
        return (self.rows if node.side == ROW else self.columns).interval(node)

    def _fallen_apart(self, leaves: tuple[Node, ...]) -> _Parts:
        """The rows cut where a range changes its state, with the states of what is known by row."""
        if leaves in self._parts:
            return self._parts[leaves]
        steps = {
            leaf: found for leaf in leaves if (found := _steps(leaf, self.rows, self.columns)) is not None
        }
        rows, amount = len(self.rows), len(self.columns)
        cuts = [np.zeros(rows, np.int64), np.full(rows, amount, np.int64)]
        cuts += [cut for step in steps.values() for cut in step.cuts]
        borders = np.sort(np.stack(cuts, axis=1), axis=1)
        first, stop = borders[:, :-1], borders[:, 1:]
        row, place = np.nonzero(stop > first)
        first, stop = first[row, place], stop[row, place]
        states: dict[Node, Bits] = {leaf: step.at(row, first) for leaf, step in steps.items()}
        states |= {leaf: self.rows.condition(leaf)[row] for leaf in leaves if leaf.side == ROW}
        codes, vector = _distinct(list(states.values()), len(row))
        row, first, stop, vector = (part.astype(np.int32) for part in (row, first, stop, vector))
        found = _Parts(Intervals(row, first, stop, vector, len(codes), amount), tuple(states), codes)
        self._parts[leaves] = found
        return found


@dataclass(frozen=True, eq=False)
class _Parts:
    """Intervals of rows, and the combination of states (`codes`, one column for each of `known`) of each vector."""

    intervals: Intervals
    known: tuple[Node, ...]
    codes: Bits


def _all_below(number: int) -> Interval:
    return Interval(np.asarray(0), np.asarray(number - 1), True, True)


def _leaves(root: Node) -> dict[Node, None]:
    """The conditions that a predicate over both sides is made of."""
    found: dict[Node, None] = {}
    seen: set[Node] = set()

    def visit(node: Node) -> None:
        if node in seen:
            return
        seen.add(node)
        if (node.side == BOTH and node.op in ("and", "or", "not", "same")) or _chooses(node):
            for arg in node.args:
                visit(arg)
        elif node.op != "const":
            found[node] = None

    visit(root)
    return found


def _chooses(node: Node) -> bool:
    return node.side == BOTH and node.op == "where" and node.dtype == "bool"


def _distinct(states: list[Bits], length: int) -> tuple[Bits, Numbers]:
    """The different combinations of states, and which one stands where."""
    vector = np.zeros(length, np.int64)
    amount = min(length, 1)
    for state in states:
        vector = vector * 16 + state
        present = np.zeros(amount * 16, np.bool_)
        present[vector] = True
        places = np.cumsum(present)
        vector, amount = places[vector] - 1, int(places[-1]) if amount else 0
    where = np.zeros(amount, np.int64)
    where[vector] = np.arange(length)
    return np.stack([state[where] for state in states], axis=1) if states else np.zeros(
        (amount, 0), np.uint8
    ), vector


# ---------------------------------------------------------------------------------------- monotone ranges


@dataclass(frozen=True, eq=False)
class _Steps:
    """A range over each row of tiles: possible from can_first to can_stop, certain from all_first to all_stop."""

    cuts: tuple[Numbers, Numbers, Numbers, Numbers]
    has_true: bool
    has_false: bool

    def at(self, row: Numbers, column: Numbers) -> Bits:
        """The state in tiles of which none crosses a cut."""
        can_first, can_stop, all_first, all_stop = (cut[row] for cut in self.cuts)
        can_true = (can_first <= column) & (column < can_stop)
        can_false = ~((all_first <= column) & (column < all_stop))
        return known.bits(can_true, can_false, self.has_true & can_true, self.has_false & can_false)


def _steps(leaf: Node, rows: Level, columns: Level) -> _Steps | None:
    """The cuts of a range f(q) + g(k); None where g goes up and down, or the leaf is something else."""
    if leaf.op != "range" or leaf.side != BOTH:
        return None
    form = leaf.args[0]
    if form.op != "sum" or [arg.side for arg in form.args] != [ROW, COLUMN]:
        return None
    f, g = rows.interval(form.args[0]), columns.interval(form.args[1])
    low, high = leaf.data
    if max(_size(f), _size(g)) > _HUGE:
        return None
    if not (_rises(g.low) and _rises(g.high)):
        f, g = _negative(f), _negative(g)
        low, high = -high, -low
        if not (_rises(g.low) and _rises(g.high)):
            return None
    begin: Numbers = np.zeros(len(rows), np.int64)
    end: Numbers = np.full(len(rows), len(columns), np.int64)
    can_first, all_first, can_stop, all_stop = begin, begin, end, end
    if low > -BIG:
        can_first = _place(g.high, low - f.high)
        all_first = _place(g.low, low - f.low)
    if high < BIG:
        can_stop = _place(g.low, high - f.low + 1)
        all_stop = _place(g.high, high - f.high + 1)
    tight = bool(np.all(f.tight)) and bool(np.all(g.tight))
    dense = bool(np.all(f.dense)) and bool(np.all(g.dense))
    has_true = dense or (tight and (low <= -BIG or high >= BIG))
    return _Steps((can_first, can_stop, all_first, all_stop), has_true, tight)


def _place(rising: Any, numbers: Any) -> Numbers:
    """The first place where a rising array is at least as large, for each number."""
    return np.asarray(np.searchsorted(rising, numbers), np.int64)


def _size(x: Interval) -> int:
    return max(abs(int(x.low.min())), abs(int(x.high.max())))


def _rises(x: Any) -> bool:
    return bool((x[1:] >= x[:-1]).all())


def _negative(x: Interval) -> Interval:
    return Interval(-x.high, -x.low, x.tight, x.dense)
