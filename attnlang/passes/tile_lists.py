"""The visited tiles of all maps of a classification as lists for kernels: full tiles first, then partial ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes_map import Kinds
from attnlang.passes.boxes_runs import FULL, PARTIAL, ramps
from attnlang.passes.classify import Tiles

Numbers = NDArray[np.int64]
Listed = tuple[Numbers, NDArray[np.int32], Kinds]
MOST = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Lists:
    """What every row of tiles visits.

    `starts`: [maps, row tiles, 3]; row r of map m has its full tiles at `columns[starts[m, r, 0] : starts[m, r, 1]]`
    and its partial ones at `columns[starts[m, r, 1] : starts[m, r, 2]]`, ascending in each part. `heavy`: [maps, row
    tiles], the row tiles by falling number of visited tiles, equal ones in order.
    """

    starts: NDArray[np.int32]
    columns: NDArray[np.int32]
    heavy: NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        return self.starts.nbytes + self.columns.nbytes + self.heavy.nbytes


def lists(tiles: Tiles) -> Lists:
    """For each row of query tiles the key tiles that it visits; a full one that is cut off by the last key counts as
    partial, since its places beyond must be masked. Raises ValueError beyond 2^31 − 1 visited tiles."""
    return _together([_masked_ends(*each.csr(), each.widths < tiles.columns) for each in tiles.maps])


def transposed_lists(tiles: Tiles) -> Lists:
    """For each key tile the query tiles that visit it; one that is cut off by the last query counts as partial. Raises
    ValueError beyond 2^31 − 1 visited tiles."""
    return _together([_masked_ends(*each.csc(), each.heights < tiles.rows) for each in tiles.maps])


def _masked_ends(
    pointers: Numbers, columns: NDArray[np.int32], kinds: Kinds, cut: NDArray[np.bool_]
) -> Listed:
    """The same with PARTIAL for the tiles that are cut off."""
    return pointers, columns, np.where(cut[columns], PARTIAL, kinds).astype(kinds.dtype)


def _together(maps: Sequence[Listed]) -> Lists:
    """Lists of maps, one behind another."""
    visited = sum(len(columns) for _, columns, _ in maps)
    if visited > MOST:
        raise ValueError(f"{visited} visited tiles do not fit into lists of 32-bit numbers")
    rows = len(maps[0][0]) - 1 if maps else 0
    starts = np.zeros((len(maps), rows, 3), np.int32)
    heavy = np.zeros((len(maps), rows), np.int32)
    columns = np.zeros(visited, np.int32)
    begin = 0
    for place, (pointers, listed, kinds) in enumerate(maps):
        part = slice(begin, begin + len(listed))
        ends, columns[part] = _full_first(pointers, listed, kinds)
        starts[place] = ends + begin
        heavy[place] = np.argsort(-np.diff(pointers), kind="stable")
        begin += len(listed)
    return Lists(starts, columns, heavy)


def _full_first(
    pointers: Numbers, columns: NDArray[np.int32], kinds: Kinds
) -> tuple[Numbers, NDArray[np.int32]]:
    """Begin of the full tiles, of the partial ones, and end of both in each row; the tiles in that order."""
    full = kinds == FULL
    before = np.zeros(len(full) + 1, np.int64)
    np.cumsum(full, out=before[1:])
    amount = np.diff(before[pointers])
    begin, end = pointers[:-1], pointers[1:]
    middle = begin + amount
    result = np.empty_like(columns)
    result[ramps(begin, amount)] = columns[full]
    result[ramps(middle, end - middle)] = columns[~full]
    return np.stack([begin, middle, end], axis=-1), result
