"""Arrays that a predicate reads, or that are made of it, and their range over stretches and rectangles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Numbers = NDArray[np.int64]
SPARSE_TABLE = 1 << 16
"""Up to this length every stretch is looked up in two steps."""
MOST_READ = 1 << 21
"""Longer tables are read over all stretches, if these have no more elements in all, else block by block."""
BLOCK = 64
FAR = 1 << 60
MOST_OFFSETS = 64
"""An array with two dimensions is looked at over stretches of at most so many elements."""


@dataclass(frozen=True, eq=False)
class Table:
    """Values low … high (the same where nothing is rounded) at base … base + n − 1."""

    base: int
    low: Array
    high: Array

    @cached_property
    def direction(self) -> int:
        """1 nowhere falling, −1 nowhere rising, 0 neither or not known."""
        if self.low is not self.high:
            return 0
        before, after = self.low[:-1], self.low[1:]
        return 1 if bool((before <= after).all()) else -1 if bool((before >= after).all()) else 0

    @cached_property
    def dense(self) -> bool:
        """Whether neighbours differ by at most 1: then no whole number between two values is left out."""
        if self.low is not self.high or self.low.dtype.kind == "f":
            return False
        if self.low.dtype == np.bool_ or len(self.low) < 2:
            return True
        if max(abs(int(self.low.min())), abs(int(self.low.max()))) > FAR:
            return False
        steps = np.diff(self.low)
        return bool(steps.max() <= 1 and steps.min() >= -1)

    @cached_property
    def _sparse(self) -> tuple[Array, Array]:
        """Least and greatest of every 2^i neighbours."""
        least, most = [self.low], [self.high]
        width = 1
        while 2 * width <= len(self.low):
            for rows, pick in ((least, np.minimum), (most, np.maximum)):
                before = rows[-1]
                rows.append(np.concatenate([pick(before[:-width], before[width:]), before[-width:]]))
            width *= 2
        return np.stack(least), np.stack(most)

    @cached_property
    def _blocks(self) -> Table:
        """The least and greatest of every BLOCK neighbours."""
        starts = np.arange(0, len(self.low), BLOCK)
        return Table(0, np.minimum.reduceat(self.low, starts), np.maximum.reduceat(self.high, starts))

    def over(self, first: Numbers, last: Numbers) -> tuple[Array, Array, Any]:
        """Least and greatest value at offsets first … last, and whether both occur."""
        if self.direction:
            if self.direction < 0:
                first, last = last, first
            return self.low[first], self.low[last], True
        tight = self.low is self.high
        if len(self.low) <= SPARSE_TABLE:
            return (*self._by_powers(first, last), tight)
        first, last = np.atleast_1d(first), np.atleast_1d(last)
        if int((last - first).sum()) <= max(MOST_READ, len(self.low)):
            return (*self._one_by_one(first, last), tight)
        whole = (first % BLOCK == 0) & (((last + 1) % BLOCK == 0) | (last + 1 == len(self.low)))
        low, high, _ = self._blocks.over(first // BLOCK, last // BLOCK)
        return low, high, whole & tight

    def _one_by_one(self, first: Numbers, last: Numbers) -> tuple[Array, Array]:
        """By going over the stretches; between them over each element of the table once at most."""
        order = np.argsort(first, kind="stable")
        cuts = np.stack([first[order], last[order] + 1], axis=-1).reshape(-1)
        result: list[Array] = []
        for values, pick in ((self.low, np.minimum), (self.high, np.maximum)):
            found = pick.reduceat(np.append(values, values[-1]), cuts)[::2]
            result.append(np.empty_like(found))
            result[-1][order] = found
        return result[0], result[1]

    def _by_powers(self, first: Numbers, last: Numbers) -> tuple[Array, Array]:
        power = np.frexp((last - first + 1).astype(np.float64))[1] - 1
        least, most = self._sparse
        second = last + 1 - (np.int64(1) << power.astype(np.int64))
        return (
            np.minimum(least[power, first], least[power, second]),
            np.maximum(most[power, first], most[power, second]),
        )


@dataclass(frozen=True, eq=False)
class Plane:
    """An array with two dimensions, whose range over a rectangle is asked for."""

    array: Array

    @cached_property
    def _sums(self) -> Array:
        """Trues above and left of every place."""
        rows, columns = self.array.shape
        result = np.zeros((rows + 1, columns + 1), np.int64)
        np.cumsum(np.cumsum(self.array, axis=0, dtype=np.int64), axis=1, out=result[1:, 1:])
        return result

    def over(
        self, first: tuple[Numbers, Numbers], last: tuple[Numbers, Numbers]
    ) -> tuple[Array, Array, Any] | None:
        """Least and greatest value of rectangles of offsets, and whether both occur; None where too many elements would
        be looked at."""
        (top, left), (bottom, right) = first, last
        if self.array.dtype == np.bool_:
            sums = self._sums
            found = (
                sums[bottom + 1, right + 1] - sums[top, right + 1] - sums[bottom + 1, left] + sums[top, left]
            )
            return found == (bottom + 1 - top) * (right + 1 - left), found > 0, True
        height, width = int(np.max(bottom - top)) + 1, int(np.max(right - left)) + 1
        if height * width > MOST_OFFSETS:
            return None
        places = [(down, across) for down in range(height) for across in range(width)]
        values = [
            self.array[np.minimum(top + down, bottom), np.minimum(left + across, right)]
            for down, across in places
        ]
        return np.minimum.reduce(values), np.maximum.reduce(values), True
