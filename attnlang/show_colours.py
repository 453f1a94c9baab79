"""What the colours of a picture say, and tiles by what a kernel does with them: computed, masked inside, or skipped."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]
"""Red, green and blue, row by row: [height, width, 3]."""

MOST_PIXELS = 1024
"""Sides of a panel's picture; what is longer is shown as averages."""

# A pair is visible or hidden, its tile full, partial or empty: row 2·kind + visible.
COLOURS = ("#f2f4f7", "#f2f4f7", "#fde6c8", "#e07b1a", "#2b6cb0", "#2b6cb0")
EMPTY, PARTIAL, FULL = 0, 1, 2
INK, PAPER, LINE, QUERY = "#1f2933", "#ffffff", "#8593a3", "#c2255c"
FAINTEST = 0.5
"""How strongly a pixel of many tiles is coloured at least, where one of them is visited."""

Legend = tuple[tuple[str, str], ...]
"""Colour and what it says."""

OF_PAIRS: Legend = (
    (COLOURS[5], "full tile: no mask needed"),
    (COLOURS[3], "partial tile: visible pair"),
    (COLOURS[2], "partial tile: hidden pair"),
    (COLOURS[0], "empty tile: never computed"),
)
OF_TILES: Legend = (
    (COLOURS[5], "full tile: no mask needed"),
    (COLOURS[3], "partial tile: a mask inside"),
    (COLOURS[0], "empty tile: never computed"),
)
OF_KEYS: Legend = ((COLOURS[5], "visible"), (COLOURS[0], "hidden"))


def rgb(colour: str) -> tuple[int, int, int]:
    """`#2b6cb0` as three numbers."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue


PALETTE: Pixels = np.array([rgb(colour) for colour in COLOURS], dtype=np.uint8)


@dataclass(frozen=True)
class TileCounts:
    """Tiles of one head by what a kernel does with them, and the share of visible pairs.

    `most`: where the share is not counted but bounded, it lies between `density` and this.
    """

    full: int
    partial: int
    empty: int
    density: float
    most: float | None = None

    def __str__(self) -> str:
        return f"{self.full:,} full, {self.partial:,} partial, {self.empty:,} empty"

    @property
    def visible(self) -> str:
        """`12.5% of the pairs visible`, or between which bounds."""
        least, most = percent(self.density), percent(self.density if self.most is None else self.most)
        return f"{least if least == most else f'{least} to {most}'} of the pairs visible"


def percent(share: float) -> str:
    """`12.5%`; small shares keep two digits, and what is not 0% or 100% is not called so."""
    if share in (0, 1) or 0.001 <= share <= 0.999:
        return f"{share:.1%}"
    return (
        f"{share:.2%}" if 0.0001 <= share <= 0.9999 else f"{100 * share:.2g}%" if share < 0.5 else ">99.99%"
    )


def parts(length: int, step: int) -> tuple[Ints, Ints]:
    """Where the parts of at most `step` begin, and how long each is."""
    starts = np.arange(0, length, step, dtype=np.int64)
    return starts, np.minimum(starts + step, length) - starts


def tile_kinds(mask: Bools, tile: int) -> Ints:
    """EMPTY, PARTIAL or FULL for every tile of `tile` × `tile` pairs of a bool array [NQ, NK]; borders may be cut."""
    row_starts, heights = parts(mask.shape[0], tile)
    column_starts, widths = parts(mask.shape[1], tile)
    seen = np.add.reduceat(np.add.reduceat(mask, row_starts, axis=0, dtype=np.int64), column_starts, axis=1)
    whole = seen == heights[:, None] * widths[None, :]
    return np.where(seen == 0, EMPTY, np.where(whole, FULL, PARTIAL)).astype(np.int64)


def tile_counts(mask: Bools, tile: int) -> TileCounts:
    """The number of tiles of each kind in a bool array [NQ, NK]."""
    kinds = tile_kinds(mask, tile)
    full, partial, empty = (int((kinds == kind).sum()) for kind in (FULL, PARTIAL, EMPTY))
    return TileCounts(full, partial, empty, float(mask.mean()))


def pixels_of_pairs(mask: Bools, tile: int) -> Pixels:
    """The colour of every pair, or the averages where the mask has more pairs than a panel has pixels."""
    rows, columns = mask.shape
    kinds = tile_kinds(mask, tile)
    row_step = ceil(rows / MOST_PIXELS)
    starts, widths = parts(columns, ceil(columns / MOST_PIXELS))
    lines: list[Pixels] = []
    for start in range(0, rows, row_step):
        part = mask[start : start + row_step]
        row_kinds = kinds[np.arange(start, start + len(part)) // tile]
        colours = PALETTE[2 * np.repeat(row_kinds, tile, axis=1)[:, :columns] + part]
        sums = np.add.reduceat(colours.sum(axis=0, dtype=np.int64), starts, axis=0)
        lines.append((sums // (widths[:, None] * len(part))).astype(np.uint8))
    return np.stack(lines)


def pixels_of_shares(full: NDArray[np.float64], partial: NDArray[np.float64]) -> Pixels:
    """The colours of pixels that stand for many tiles, from the shares [height, width] of them that are full and
    partial: never so faint that a thin line is lost."""
    visited = full + partial
    strength = np.where(visited > 0, np.maximum(visited, FAINTEST), 0.0)[..., None]
    blue, orange, paper = (np.array(rgb(COLOURS[row]), dtype=np.float64) for row in (5, 3, 0))
    shade = (full[..., None] * blue + partial[..., None] * orange) / np.maximum(visited, 1e-12)[..., None]
    return np.rint(strength * shade + (1 - strength) * paper).astype(np.uint8)
