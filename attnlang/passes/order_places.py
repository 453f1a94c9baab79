"""Orders of tokens: which query and which key stands at each place of the tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Numbers = NDArray[np.int64]
Places = NDArray[np.int32]
FREE = -1
_DIGIT = 16
_MANY = 1 << 31


@dataclass(frozen=True, eq=False)
class Order:
    """Of one map: `queries[p]` is the storage row (0 … NQ − 1) and `keys[p]` the storage key (0 … NK − 1) at place p,
    −1 at a place that is left free so that what follows begins with a tile. Each query and each key stands once.

    int32; the lengths are multiples of the tile's rows and columns.
    """

    queries: Places
    keys: Places


@dataclass(frozen=True, eq=False)
class Cells:
    """Tokens dealt out to cells: `of[token]` is one of 0 … amount − 1, as an int32 where it can be."""

    of: Places | Numbers
    amount: int


def ranks(values: Array) -> Cells:
    """Cells of equal values, in their order."""
    if values.dtype == np.bool_:
        return Cells(values.astype(np.int32), 2)
    if values.dtype.kind == "i" and len(values):
        low, high = int(values.min()), int(values.max())
        if high - low < 2 * len(values):
            return Cells((values - low).astype(np.int32), high - low + 1)
    distinct, of = np.unique(values, return_inverse=True)
    return Cells(of.reshape(-1).astype(np.int32), len(distinct))


def coarser(cells: Cells, amount: int) -> Cells:
    """The same, neighbouring cells joined into `amount` of about equal size."""
    if amount >= cells.amount:
        return cells
    joined = (np.arange(cells.amount) * amount // cells.amount).astype(np.int32)
    return Cells(joined[cells.of], amount)


def crossed(cells: tuple[Cells, ...], tokens: int) -> Cells:
    """Cells of tokens that share all of some cells, those of the first slowest."""
    if not cells:
        return Cells(np.zeros(tokens, np.int32), 1)
    found, *others = cells
    for each in others:
        if found.amount > tokens and found.amount * each.amount >= _MANY:
            distinct, of = np.unique(found.of, return_inverse=True)
            found = Cells(of.reshape(-1), len(distinct))
        amount = found.amount * each.amount
        kind = np.int32 if amount < _MANY else np.int64
        found = Cells(found.of.astype(kind, copy=False) * kind(each.amount) + each.of, amount)
    return found


def in_a_row(cells: Cells, side: int) -> Places:
    """The tokens cell by cell, in a cell as they stood; free places at the end up to a multiple of `side`."""
    order = _sorted(cells)
    result = np.full(-(-len(order) // side) * side, FREE, np.int32)
    result[: len(order)] = order
    return result


def room(cells: Cells, side: int) -> int:
    """How many places `from_borders` takes."""
    amounts = (
        np.bincount(cells.of)
        if cells.amount <= 4 * len(cells.of)
        else np.unique(cells.of, return_counts=True)[1]
    )
    return int((-(-amounts // side) * side).sum())


def from_borders(cells: Cells, side: int) -> Places:
    """The tokens cell by cell, each cell beginning at a multiple of `side`."""
    order = _sorted(cells)
    of = cells.of[order]
    begins = np.concatenate([[0], np.flatnonzero(of[1:] != of[:-1]) + 1, [len(of)]])
    amounts = np.diff(begins)
    taken = -(-amounts // side) * side
    shift = (np.cumsum(taken) - taken) - begins[:-1]
    result = np.full(int(taken.sum()), FREE, np.int32)
    result[np.arange(len(order)) + np.repeat(shift, amounts)] = order
    return result


def lengthened(places: Places, length: int) -> Places:
    """With free places behind, up to a length."""
    return np.concatenate([places, np.full(length - len(places), FREE, np.int32)])


def _sorted(cells: Cells) -> Numbers:
    """The tokens by cell; digit by digit, which is faster than by comparison (a cast keeps the last digit)."""
    order = np.argsort(cells.of.astype(np.uint16), kind="stable")
    for shift in range(_DIGIT, cells.amount.bit_length(), _DIGIT):
        digit = (cells.of >> shift).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order
