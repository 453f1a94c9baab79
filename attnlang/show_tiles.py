"""Tiles of long sequences as pictures, from their classification: the pairs themselves are never looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from attnlang.passes.boxes_map import TileMap
from attnlang.passes.boxes_runs import FULL, PARTIAL
from attnlang.show_colours import MOST_PIXELS, Pixels, TileCounts, parts, pixels_of_shares

Shares = NDArray[np.float64]
MOST_LISTED = 1 << 23
"""Where more tiles are visited, the pixels are classified in their place."""


@dataclass(frozen=True)
class TilePicture:
    """The pixels of a map of tiles; each stands for `step` × `step` tiles."""

    pixels: Pixels
    step: int
    counts: TileCounts


def tile_picture(
    tiles: TileMap, classified: Callable[[int], TileMap], most: int = MOST_PIXELS
) -> TilePicture:
    """The picture of a map, at most `most` pixels high and wide. `classified(n)` is the map of the same queries and
    keys whose tiles are n times as high and wide."""
    step = max(ceil(len(tiles.heights) / most), ceil(len(tiles.widths) / most), 1)
    found, (low, high) = tiles.counts, tiles.pairs
    pairs = max(int(tiles.heights.sum()) * int(tiles.widths.sum()), 1)
    counts = TileCounts(found.full, found.partial, found.empty, low / pairs, high / pairs)
    if found.full + found.partial <= MOST_LISTED:
        full, partial = tile_shares(tiles, step)
    else:
        full, partial = tile_shares(classified(step), 1)
    return TilePicture(pixels_of_shares(full, partial), step, counts)


def tile_shares(tiles: TileMap, step: int) -> tuple[Shares, Shares]:
    """For every `step` × `step` tiles the share of full and of partial ones."""
    _, heights = parts(len(tiles.heights), step)
    _, widths = parts(len(tiles.widths), step)
    pointers, columns, kinds = tiles.csr()
    rows = np.repeat(np.arange(len(tiles.heights)), np.diff(pointers))
    pixel = (rows // step) * len(widths) + columns // step
    area = heights[:, None] * widths[None, :]
    full, partial = (
        np.bincount(pixel[kinds == kind], minlength=area.size).reshape(area.shape) / area
        for kind in (FULL, PARTIAL)
    )
    return full, partial
