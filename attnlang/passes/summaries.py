"""Arrays of which only the least and greatest value of each block are at hand, in place of the arrays themselves.

What runs on a device hands over such summaries (`extremes` of runtime/summaries.py makes them there), so that a
predicate over ids, flags or lengths is classified from N / block numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes_tables import Plane, Table

Array = NDArray[Any]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Summary:
    """`low` and `high`: least and greatest value of every block of an array of this `shape`, for bools whether all and
    whether any hold; `block`: the length of blocks along each axis, 1 where there is an entry for each element. The
    last block of an axis may be shorter."""

    low: Array
    high: Array
    block: tuple[int, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        blocks = tuple(-(-size // block) for size, block in zip(self.shape, self.block, strict=True))
        if self.low.shape != blocks or self.high.shape != blocks:
            raise ValueError(f"{self.low.shape} blocks of {self.block} do not cover an array of {self.shape}")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The kind of its elements."""
        return self.low.dtype

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    def at(self, offsets: Sequence[int | None]) -> Summary:
        """The part at some offsets; None leaves an axis as it is."""
        axes = list(zip(offsets, self.block, self.shape, strict=True))
        place = tuple(slice(None) if offset is None else offset // block for offset, block, _ in axes)
        block = tuple(block for offset, block, _ in axes if offset is None)
        shape = tuple(size for offset, _, size in axes if offset is None)
        return Summary(np.asarray(self.low[place]), np.asarray(self.high[place]), block, shape)

    def cast(self, kind: type[np.generic]) -> Summary:
        """With elements of another kind."""
        low, high = (part.astype(kind, copy=False) for part in (self.low, self.high))
        return Summary(low, high, self.block, self.shape)


def summary_of(array: Array, block: Sequence[int]) -> Summary:
    """The summary of an array at hand."""
    low = high = array
    for axis, length in enumerate(block):
        if length > 1:
            starts = np.arange(0, int(array.shape[axis]), length, dtype=np.int64)
            low, high = np.minimum.reduceat(low, starts, axis), np.maximum.reduceat(high, starts, axis)
    return Summary(low, high, tuple(block), array.shape)


def table_of(part: Summary) -> Table:
    """A summary of one axis, to be asked for stretches."""
    return _BlockTable(0, part.low, part.high, part.block[0], part.shape[0])


def plane_of(part: Summary) -> Plane:
    """A summary of two axes, to be asked for rectangles."""
    return _BlockPlane(part.low, part.high, (part.block[0], part.block[1]), (part.shape[0], part.shape[1]))


def _whole(first: Numbers, last: Numbers, block: int, length: int) -> Any:
    """Where first … last are whole blocks."""
    return (first % block == 0) & (((last + 1) % block == 0) | (last + 1 == length))


@dataclass(frozen=True, eq=False)
class _BlockTable(Table):
    """Blocks of one axis; both ends occur over stretches of whole blocks."""

    block: int
    length: int

    def over(self, first: Numbers, last: Numbers) -> tuple[Array, Array, Any]:
        low, high, _ = super().over(first // self.block, last // self.block)
        return low, high, _whole(first, last, self.block, self.length)


@dataclass(frozen=True, eq=False)
class _BlockPlane(Plane):
    """Blocks of two axes: the least are the `array`."""

    high: Array
    block: tuple[int, int]
    shape: tuple[int, int]

    def over(
        self, first: tuple[Numbers, Numbers], last: tuple[Numbers, Numbers]
    ) -> tuple[Array, Array, Any] | None:
        begin = first[0] // self.block[0], first[1] // self.block[1]
        end = last[0] // self.block[0], last[1] // self.block[1]
        least, most = Plane(self.array).over(begin, end), Plane(self.high).over(begin, end)
        if least is None or most is None:
            return None
        whole = [_whole(*ends) for ends in zip(first, last, self.block, self.shape, strict=True)]
        return least[0], most[1], whole[0] & whole[1]
