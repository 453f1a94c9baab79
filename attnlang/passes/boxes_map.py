"""What is found out about the tiles of one head, as runs of key tiles for each row of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes_axis import Level
from attnlang.passes.boxes_runs import EMPTY, FULL, OPEN, PARTIAL, Kinds, Runs, ramps

Numbers = NDArray[np.int64]


def summed(numbers: Numbers) -> Numbers:
    """The sum of what stands before each place, and of all."""
    result = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(numbers, out=result[1:])
    return result


def pointers_of(row: Numbers, rows: int) -> Numbers:
    """Where the entries of each row begin, when they stand in order of rows."""
    return summed(np.bincount(row, minlength=rows).astype(np.int64))


@dataclass(frozen=True)
class Counts:
    """Tiles by kind."""

    full: int
    partial: int
    empty: int


@dataclass(frozen=True, eq=False)
class TileMap:
    """The tiles of one head: rows of tiles in runs.

    Run i of `row_pointers[r] … row_pointers[r + 1] − 1` says of the key tiles `first[i] … stop[i] − 1` of row r that
    they are of kind `kind[i]`; where `vector[i] ≥ 0`, that each is of its kind in `vectors[vector[i]]`. Runs of a row
    do not claim a tile twice; what no run claims is EMPTY.
    """

    row_pointers: Numbers
    first: NDArray[np.int32]
    stop: NDArray[np.int32]
    kind: Kinds
    vector: NDArray[np.int32]
    vectors: Kinds
    heights: Numbers
    widths: Numbers

    @property
    def nbytes(self) -> int:
        """Memory of the index structures."""
        parts = (self.row_pointers, self.first, self.stop, self.kind, self.vector, self.vectors)
        return sum(part.nbytes for part in parts)

    @cached_property
    def counts(self) -> Counts:
        """Full, partial and empty tiles."""
        ones = np.ones(len(self.widths), np.int64)
        full, partial = (int(self._by_row(kind, ones).sum()) for kind in (FULL, PARTIAL))
        return Counts(full, partial, len(self.heights) * len(self.widths) - full - partial)

    @cached_property
    def pairs(self) -> tuple[int, int]:
        """Pairs in full tiles, and in full or partial tiles: bounds of the visible ones."""
        full, partial = (
            int((self._by_row(kind, self.widths) * self.heights).sum()) for kind in (FULL, PARTIAL)
        )
        return full, full + partial

    def _by_row(self, kind: int, weights: Numbers) -> Numbers:
        """The weights of the tiles of a kind, summed over each row."""
        before = summed(weights)
        found = np.where(self.kind == kind, before[self.stop] - before[self.first], 0)
        listed = np.flatnonzero(self.vector >= 0)
        if len(listed):
            sums = np.zeros((len(self.vectors), len(weights) + 1), np.int64)
            np.cumsum((self.vectors == kind) * weights, axis=1, out=sums[:, 1:])
            which = self.vector[listed]
            found[listed] = sums[which, self.stop[listed]] - sums[which, self.first[listed]]
        total = summed(found)
        return total[self.row_pointers[1:]] - total[self.row_pointers[:-1]]

    def csr(self) -> tuple[Numbers, NDArray[np.int32], Kinds]:
        """The visited tiles written out: row pointers, key tiles in order, and the kind of each."""
        lengths = (self.stop - self.first).astype(np.int64)
        columns = ramps(self.first.astype(np.int64), lengths)
        row = np.repeat(np.repeat(np.arange(len(self.heights)), np.diff(self.row_pointers)), lengths)
        kinds: Kinds = np.repeat(self.kind, lengths)
        vector = np.repeat(self.vector, lengths)
        listed = vector >= 0
        if listed.any():
            kinds[listed] = self.vectors[vector[listed], columns[listed]]
        kept = np.flatnonzero(kinds != EMPTY)
        row, columns = row[kept], columns[kept]
        order = np.argsort(row * len(self.widths) + columns, kind="stable")
        pointers = pointers_of(row, len(self.heights))
        return pointers, columns[order].astype(np.int32), kinds[kept[order]]

    def dense(self) -> Kinds:
        """The kind of every tile: [row tiles, key tiles]."""
        pointers, columns, kinds = self.csr()
        result = np.zeros((len(self.heights), len(self.widths)), np.uint8)
        result[np.repeat(np.arange(len(self.heights)), np.diff(pointers)), columns] = kinds
        return result


class Found:
    """Collects runs of one map."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows = rows
        self.columns = columns
        self.parts: list[tuple[Numbers, Numbers, Numbers, Numbers, Numbers]] = []
        self.vectors: Kinds = np.zeros((0, columns), np.uint8)

    def _add(self, row: Numbers, first: Numbers, stop: Numbers, kind: Numbers, vector: Numbers) -> None:
        self.parts.append((row, first, stop, kind, vector))

    def runs(self, found: Runs) -> None:
        """What the first look settled."""
        none = np.full(len(found.row), -1)
        if found.vectors.shape[1] == 1:
            kind: Numbers = found.vectors[found.vector, 0].astype(np.int64)
            keep = np.flatnonzero((kind == FULL) | (kind == PARTIAL))
            self._add(found.row[keep], found.first[keep], found.stop[keep], kind[keep], none[keep])
        else:
            self.vectors = np.where(found.vectors == OPEN, EMPTY, found.vectors).astype(np.uint8)
            visited: Any = self.vectors.any(axis=1)
            keep = np.flatnonzero(visited[found.vector])
            parts = (found.row[keep], found.first[keep], found.stop[keep])
            self._add(*parts, np.zeros(len(keep), np.int64), found.vector[keep])

    def boxes(self, i: Numbers, j: Numbers, level: int, kind: int) -> None:
        """Boxes of 2^level × 2^level tiles of one kind."""
        tops = np.minimum((i + 1) << level, self.rows) - (i << level)
        row = ramps(i << level, tops)
        first, stop = (
            np.repeat(part, tops) for part in (j << level, np.minimum((j + 1) << level, self.columns))
        )
        self._add(row, first, stop, np.full(len(row), kind), np.full(len(row), -1))

    def cells(self, i: Numbers, j: Numbers, kinds: Kinds) -> None:
        """Single tiles."""
        keep = kinds != EMPTY
        i, j = i[keep], j[keep]
        self._add(i, j, j + 1, kinds[keep].astype(np.int64), np.full(len(i), -1))

    def map(self, across: Level, down: Level) -> TileMap:
        """The collected runs in order, neighbours of one kind joined."""
        empty = np.zeros((0,), np.int64)
        parts = self.parts or [(empty,) * 5]
        row, first, stop, kind, vector = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(row * (self.columns + 1) + first, kind="stable")
        row, first, stop, kind, vector = (part[order] for part in (row, first, stop, kind, vector))
        joined = (row[1:] == row[:-1]) & (first[1:] == stop[:-1]) & (kind[1:] == kind[:-1])
        joined &= vector[1:] == vector[:-1]
        begins = np.concatenate([np.ones(min(len(row), 1), np.bool_), ~joined])
        ends = np.concatenate([~joined, np.ones(min(len(row), 1), np.bool_)])
        pointers = pointers_of(row[begins], self.rows)
        return TileMap(
            pointers, first[begins].astype(np.int32), stop[ends].astype(np.int32), kind[begins].astype(np.uint8),
            vector[begins].astype(np.int32), self.vectors, across.last - across.first + 1, down.last - down.first + 1,
        )  # fmt: skip
