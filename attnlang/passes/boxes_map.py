"""What is found out about the tiles of one head, as runs of key tiles for each row of tiles.

What heads have in common is kept once: the intervals into which the rows of tiles fall, and how many tiles they hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes_axis import Level
from attnlang.passes.boxes_runs import EMPTY, FULL, OPEN, PARTIAL, Intervals, Kinds, Runs, ramps

Numbers = NDArray[np.int64]
Small = NDArray[np.int32]


def summed(numbers: Numbers) -> Numbers:
    """The sum of what stands before each place, and of all."""
    result = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=result[1:])
    return result


def pointers_of(row: Numbers | Small, rows: int) -> Numbers:
    """Where the entries of each row begin, when they stand in order of rows."""
    return summed(np.bincount(row, minlength=rows).astype(np.int64))


@dataclass(frozen=True)
class Counts:
    """Tiles by kind."""

    full: int
    partial: int
    empty: int


@dataclass(frozen=True, eq=False)
class Plain:
    """Runs in order: run i of `pointers[r] … pointers[r + 1] − 1` says of the key tiles `first[i] … stop[i] − 1` of row
    r that they are of kind `kind[i]`."""

    pointers: Numbers
    first: Small
    stop: Small
    kind: Kinds

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.pointers.nbytes + self.first.nbytes + self.stop.nbytes + self.kind.nbytes

    def by_row(self, kind: int, weights: Numbers) -> Numbers:
        """The weights of the tiles of a kind, summed over each row."""
        before = summed(weights)
        total = summed(np.where(self.kind == kind, before[self.stop] - before[self.first], 0))
        return total[self.pointers[1:]] - total[self.pointers[:-1]]


def plain(row: Numbers, first: Numbers, stop: Numbers, kind: Kinds, rows: int) -> Plain:
    """Runs in order, neighbours of one kind made one."""
    alike = (row[1:] == row[:-1]) & (first[1:] == stop[:-1]) & (kind[1:] == kind[:-1])
    edge = np.ones(min(len(row), 1), np.bool_)
    begins, ends = np.concatenate([edge, ~alike]), np.concatenate([~alike, edge])
    parts = first[begins].astype(np.int32), stop[ends].astype(np.int32), kind[begins]
    return Plain(pointers_of(row[begins], rows), *parts)


@dataclass(frozen=True, eq=False)
class TileMap:
    """The tiles of one head: `runs` of one kind, and `intervals`, shared with other heads, in which each key tile c is
    of kind `vectors[v, c]`, v the vector of the interval. Nothing is claimed twice; what nothing claims is EMPTY."""

    runs: Plain
    intervals: Intervals | None
    vectors: Kinds
    heights: Numbers
    widths: Numbers

    @property
    def nbytes(self) -> int:
        """Memory of what this head has of its own."""
        return self.runs.nbytes + self.vectors.nbytes

    @cached_property
    def counts(self) -> Counts:
        """Full, partial and empty tiles."""
        ones = np.ones(len(self.widths), np.int64)
        full, partial = (int(self.runs.by_row(kind, ones).sum()) for kind in (FULL, PARTIAL))
        if self.intervals is not None:
            amounts = self.intervals.amounts
            full += int(amounts[self.vectors == FULL].sum())
            partial += int(amounts[self.vectors == PARTIAL].sum())
        return Counts(full, partial, len(self.heights) * len(self.widths) - full - partial)

    @cached_property
    def pairs(self) -> tuple[int, int]:
        """Pairs in full tiles, and in full or partial tiles: bounds of the visible ones."""
        full, partial = (
            int((self.runs.by_row(kind, self.widths) * self.heights).sum()) for kind in (FULL, PARTIAL)
        )
        if self.intervals is not None:
            pairs = self.intervals.weighted(self.heights) * self.widths
            full += int(pairs[self.vectors == FULL].sum())
            partial += int(pairs[self.vectors == PARTIAL].sum())
        return full, full + partial

    def csr(self) -> tuple[Numbers, Small, Kinds]:
        """The visited tiles written out: row pointers, key tiles in order, and the kind of each."""
        lengths = (self.runs.stop - self.runs.first).astype(np.int64)
        columns = ramps(self.runs.first.astype(np.int64), lengths)
        row = np.repeat(np.repeat(np.arange(len(self.heights)), np.diff(self.runs.pointers)), lengths)
        kinds = np.repeat(self.runs.kind, lengths)
        if self.intervals is not None:
            of_row, column, vector = self.intervals.cells(self.vectors != EMPTY)
            row, columns = np.concatenate([row, of_row]), np.concatenate([columns, column])
            kinds = np.concatenate([kinds, self.vectors[vector, column]])
            order = np.argsort(row * len(self.widths) + columns, kind="stable")
            row, columns, kinds = row[order], columns[order], kinds[order]
        return pointers_of(row, len(self.heights)), columns.astype(np.int32), kinds

    def csc(self) -> tuple[Numbers, Small, Kinds]:
        """The visited tiles by key tile: pointers, row tiles in order, and the kind of each."""
        pointers, columns, kinds = self.csr()
        width = len(self.widths)
        # numbers of 16 bits are sorted in linear time
        order = np.argsort(columns.astype(np.uint16) if width <= 1 << 16 else columns, kind="stable")
        row = np.repeat(np.arange(len(self.heights), dtype=np.int32), np.diff(pointers))
        return pointers_of(columns, width), row[order], kinds[order]

    def transposed(self) -> TileMap:
        """Rows and columns swapped: for each key tile the runs of query tiles that visit it."""
        pointers, columns, kinds = self.csc()
        row, first = np.repeat(np.arange(len(self.widths)), np.diff(pointers)), columns.astype(np.int64)
        runs = plain(row, first, first + 1, kinds, len(self.widths))
        return TileMap(runs, None, np.zeros((0, len(self.heights)), np.uint8), self.widths, self.heights)

    def dense(self) -> Kinds:
        """The kind of every tile: [row tiles, key tiles]."""
        pointers, columns, kinds = self.csr()
        result = np.zeros((len(self.heights), len(self.widths)), np.uint8)
        result[np.repeat(np.arange(len(self.heights)), np.diff(pointers)), columns] = kinds
        return result


class Found:
    """Collects what is known of one map."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.parts: list[tuple[Numbers, Numbers, Numbers, Kinds]] = []
        self.intervals: Intervals | None = None
        self.vectors: Kinds = np.zeros((0, columns), np.uint8)

    def first_look(self, found: Runs) -> None:
        """What the first look settled."""
        intervals = found.intervals
        if found.vectors.shape[1] == 1:
            kind: Kinds = found.vectors[intervals.vector, 0]
            keep = np.flatnonzero((kind == FULL) | (kind == PARTIAL))
            row, first, stop = (
                part[keep].astype(np.int64) for part in (intervals.row, intervals.first, intervals.stop)
            )
            self.parts.append((row, first, stop, kind[keep]))
        else:
            self.intervals = intervals
            self.vectors = np.where(found.vectors == OPEN, EMPTY, found.vectors).astype(np.uint8)

    def boxes(self, i: Numbers, j: Numbers, level: int, kind: int) -> None:
        """Boxes of 2^level × 2^level tiles of one kind."""
        tops = np.minimum((i + 1) << level, self.rows) - (i << level)
        row = ramps(i << level, tops)
        first, stop = (
            np.repeat(part, tops) for part in (j << level, np.minimum((j + 1) << level, self.columns))
        )
        self.parts.append((row, first, stop, np.full(len(row), kind, np.uint8)))

    def cells(self, i: Numbers, j: Numbers, kinds: Kinds) -> None:
        """Single tiles."""
        keep = kinds != EMPTY
        self.parts.append((i[keep], j[keep], j[keep] + 1, kinds[keep]))

    def map(self, across: Level, down: Level) -> TileMap:
        """All of it in order."""
        empty = np.zeros(0, np.int64)
        parts = [*self.parts, (empty, empty, empty, empty.astype(np.uint8))]
        rows, firsts, stops, kinds = zip(*parts, strict=True)
        row, first, stop = np.concatenate(rows), np.concatenate(firsts), np.concatenate(stops)
        kind = np.concatenate(kinds)
        order = np.argsort(row * (self.columns + 1) + first, kind="stable")
        runs = plain(row[order], first[order], stop[order], kind[order], self.rows)
        heights, widths = (level.last - level.first + 1 for level in (across, down))
        return TileMap(runs, self.intervals, self.vectors, heights, widths)
