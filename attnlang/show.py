"""Pictures of a pattern: who sees whom, the tiles that a kernel computes, and what one query sees, on its grid.

from attnlang.show import draw_mask
draw_mask(pattern.mask(256, 256, heads=4), "mask.png", title="my pattern", tile=32)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from attnlang.show_colours import (
    COLOURS,
    EMPTY,
    FULL,
    MOST_PIXELS,
    OF_KEYS,
    OF_PAIRS,
    OF_TILES,
    PARTIAL,
    Bools,
    Legend,
    TileCounts,
    parts,
    pixels_of_pairs,
    rgb,
    tile_counts,
    tile_kinds,
)
from attnlang.show_figure import Panel, PictureNotWritten, WrongPictureFormat, check_format, write_panels
from attnlang.show_grid import Grid, grid_text
from attnlang.show_tiles import TilePicture

__all__ = (
    "COLOURS", "EMPTY", "FULL", "MOST_PANELS", "PARTIAL", "Keys", "Pairs", "PictureNotWritten", "TileCounts",
    "TilesAtScale", "WrongPictureFormat", "check_format", "draw_keys", "draw_mask", "draw_views", "tile_counts",
    "tile_kinds",
)  # fmt: skip

MOST_PANELS = 16
MOST_FRAMES = 36
"""Panels of a picture with one for each frame."""
MOST_CELLS = 512
"""Sides of the picture of one query's keys; beyond, a pixel stands for several keys."""
LONGEST_STRIP = 512
"""More keys than these are written like lines of a text."""


@dataclass(frozen=True)
class Pairs:
    """Every pair of some heads of a branch: a bool array [rows, columns]; what the axes and the panel are called, and
    the position of the first row."""

    name: str
    mask: Bools
    x: str = "key k"
    y: str = "query q"
    top: int = 0


@dataclass(frozen=True)
class TilesAtScale:
    """The tiles of some heads of a branch with `rows` × `columns` pairs, from their classification."""

    name: str
    picture: TilePicture
    rows: int
    columns: int
    x: str = "key k"
    y: str = "query q"
    top: int = 0


@dataclass(frozen=True)
class Keys:
    """What one query sees of the keys: a bool array [columns], and the grid they stand on; `query`: which place of
    the grid is the query's own, where there is one."""

    name: str
    seen: Bools
    grid: Grid
    query: int | None
    x: str = "key k"


def draw_mask(
    mask: Any,
    path: str | Path,
    *,
    title: str = "",
    tile: int = 64,
    head_names: Sequence[str] = (),
    q_offset: int = 0,
) -> list[TileCounts]:
    """Write the picture of `mask`, a bool tensor or array [NQ, NK] or [heads, NQ, NK], and count its tiles.

    The format follows from the suffix of `path`: .png, .svg or .pdf. `q_offset` is the position of the first query.
    At most MOST_PANELS heads are drawn; the counts are of all. Raises WrongPictureFormat, PictureNotWritten.
    """
    masks: Bools = np.asarray(mask, dtype=np.bool_)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or not masks.size or tile < 1:
        raise ValueError(
            "a mask to draw is [NQ, NK] or [heads, NQ, NK], not empty, with tiles of at least one pair"
        )
    names = head_names or ([""] if len(masks) == 1 else [f"head {head}" for head in range(len(masks))])
    views = [Pairs(name, each, top=q_offset) for name, each in zip(names, masks, strict=True)]
    return draw_views(views, path, title=title, tile=tile)


def draw_views(
    views: Sequence[Pairs | TilesAtScale],
    path: str | Path,
    *,
    title: str = "",
    tile: int = 64,
    across: int | None = None,
    notes: Sequence[str] = (),
) -> list[TileCounts]:
    """Write the panels of some heads and branches, `across` in a row, and count the tiles of each.

    `notes` are said below the picture. At most MOST_PANELS are drawn; the counts are of all.
    Raises WrongPictureFormat, PictureNotWritten.
    """
    path = check_format(path)
    counts = [
        tile_counts(view.mask, tile) if isinstance(view, Pairs) else view.picture.counts for view in views
    ]
    drawn = views[:MOST_PANELS]
    sizes = {_shape(view) for view in views}
    panels = [
        _panel(view, count, tile, with_size=len(sizes) > 1)
        for view, count in zip(drawn, counts, strict=False)
    ]
    rows, columns = _shape(views[0])
    size = (
        f"{rows:,} × {columns:,} pairs, tiles of {tile} × {tile}"
        if len(sizes) == 1
        else f"tiles of {tile} × {tile}"
    )
    some = f", the first {len(drawn)} of {len(views)} panels" if len(views) > len(drawn) else ""
    heading = f"{title}\n{size}{some}" if title else size + some
    write_panels(
        panels,
        path,
        title=heading,
        legend=_legend(views),
        caption=" ".join([*notes, *_scale_notes(drawn)]),
        across=across,
    )
    return counts


def _shape(view: Pairs | TilesAtScale) -> tuple[int, int]:
    return (view.mask.shape[0], view.mask.shape[1]) if isinstance(view, Pairs) else (view.rows, view.columns)


def _legend(views: Sequence[Pairs | TilesAtScale]) -> Legend:
    if not any(isinstance(view, TilesAtScale) for view in views):
        return OF_PAIRS
    if all(isinstance(view, TilesAtScale) for view in views):
        return OF_TILES
    return OF_PAIRS


def _scale_notes(views: Sequence[Pairs | TilesAtScale]) -> list[str]:
    """What must be known to read a picture whose pixels are more than a pair."""
    pictures = [view.picture for view in views if isinstance(view, TilesAtScale)]
    notes = ["Tiles are classified from the predicate, not drawn from its pairs."] if pictures else []
    steps = sorted({picture.step for picture in pictures if picture.step > 1})
    if steps:
        boxes = " or ".join(f"{step} × {step}" for step in steps)
        notes.append(f"A pixel is {boxes} tiles: the mean of their colours, at least half as strong.")
    longest = max((max(view.mask.shape) for view in views if isinstance(view, Pairs)), default=0)
    if longest > MOST_PIXELS:
        step = ceil(longest / MOST_PIXELS)
        notes.append(f"A pixel is {step} × {step} pairs: the mean of their colours.")
    return notes


def _panel(view: Pairs | TilesAtScale, counts: TileCounts, tile: int, *, with_size: bool) -> Panel:
    rows, columns = _shape(view)
    name = f"{view.name}: {rows:,} × {columns:,}" if with_size else view.name
    about = f"{counts} tiles\n{counts.visible}"
    pixels = pixels_of_pairs(view.mask, tile) if isinstance(view, Pairs) else view.picture.pixels
    heading = f"{name}\n{about}" if name else about
    return Panel(heading, pixels, rows, columns, view.x, view.y, view.top, tile=tile)


# ------------------------------------------------------------------------------------------ keys of one query


def draw_keys(views: Sequence[Keys], path: str | Path, *, title: str = "") -> None:
    """Write what one query sees, a panel for each view; a grid of three extents has a panel for each frame.

    Raises WrongPictureFormat, PictureNotWritten.
    """
    path = check_format(path)
    frames = max((view.grid[0] for view in views if len(view.grid) == 3), default=1)
    most = max(1, min(frames, MOST_FRAMES // len(views)))
    drawn: list[Panel] = []
    notes: list[str] = []
    for view in views:
        found, note = _key_panels(view, most)
        drawn += found
        notes += [note] if note and note not in notes else []
    across = None if frames == 1 or len(views) == 1 else min(most, 8)
    write_panels(drawn, path, title=title, legend=OF_KEYS, caption=" ".join(notes), across=across)


def _key_panels(view: Keys, most: int) -> tuple[list[Panel], str]:
    """The panels of one view, and what must be said of them."""
    seen, total = int(view.seen.sum()), len(view.seen)
    about = f"{seen:,} of {total:,} visible"
    heading = f"{view.name}\n{about}" if view.name else about
    match view.grid:
        case (length,) if length <= LONGEST_STRIP:
            mark = None if view.query is None else (0, view.query)
            return [
                Panel(heading, _coloured(view.seen[None]), 1, length, view.x, "", mark=mark, row_labels=())
            ], ""
        case (length,):
            width = 1 << ((length - 1).bit_length() + 1) // 2
            lines = _folded(view, (ceil(length / width), width), heading, written=True)
            return [lines[0]], f"The sequence runs like lines of {width:,}. {lines[1]}".strip()
        case (height, width):
            panel, note = _folded(view, (height, width), f"{heading}, on a grid of {grid_text(view.grid)}")
            return [panel], note
        case _:
            return _frames(view, most)


def _folded(view: Keys, grid: tuple[int, int], heading: str, *, written: bool = False) -> tuple[Panel, str]:
    """Keys on rows of a grid, and a note where a pixel stands for several; `written`: rows are labelled with the
    position of their first key."""
    height, width = grid
    cells = np.zeros(height * width, np.bool_)
    cells[: len(view.seen)] = view.seen
    step = max(1, ceil(max(height, width) / MOST_CELLS))
    pixels = _coloured(_any(cells.reshape(height, width), step), len(view.seen) - (height - 1) * width, step)
    mark = None if view.query is None else divmod(view.query, width)
    labels = _written(height, width) if written else None
    x = f"{view.x} mod {width:,}" if written else f"{view.x}: column"
    y = "first of the line" if written else "row"
    note = f"A pixel is {step} × {step} keys, coloured where any is visible." if step > 1 else ""
    return Panel(heading, pixels, height, width, x, y, mark=mark, row_labels=labels), note


def _written(height: int, width: int) -> tuple[tuple[int, str], ...]:
    step = ceil(height / 8)
    return tuple((row, f"{row * width:,}") for row in range(0, height, step))


def _frames(view: Keys, most: int) -> tuple[list[Panel], str]:
    """A panel for each frame; where there are too many, for those nearest to the query."""
    frames, height, width = view.grid
    cells = np.zeros(frames * height * width, np.bool_)
    cells[: len(view.seen)] = view.seen
    at = None if view.query is None else divmod(view.query, height * width)
    middle = 0 if at is None else at[0]
    first = min(max(middle - most // 2, 0), max(frames - most, 0))
    shown = range(first, min(first + most, frames))
    panels: list[Panel] = []
    for frame in shown:
        image = cells.reshape(view.grid)[frame]
        mark = divmod(at[1], width) if at is not None and frame == at[0] else None
        name = f"{view.name} · frame {frame}" if view.name else f"frame {frame}"
        heading = f"{name}\n{int(image.sum()):,} visible"
        panels.append(Panel(heading, _coloured(image), height, width, "", "", mark=mark))
    note = f"{int(view.seen.sum()):,} of {len(view.seen):,} visible, on a grid of {grid_text(view.grid)}."
    if len(shown) < frames:
        around = view.seen[first * height * width : shown.stop * height * width]
        outside = int(view.seen.sum()) - int(around.sum())
        note += (
            f" Frames {shown.start} to {shown.stop - 1} of {frames}; {outside:,} visible keys lie outside."
        )
    return panels, f"{view.name}: {note}" if view.name else note


def _any(cells: Bools, step: int) -> Bools:
    """Whether any of `step` × `step` places is set."""
    (rows, _), (columns, _) = (parts(length, step) for length in cells.shape)
    down: Bools = np.logical_or.reduceat(cells, rows, axis=0)
    return np.logical_or.reduceat(down, columns, axis=1)


def _coloured(cells: Bools, last: int | None = None, step: int = 1) -> Any:
    """Visible and hidden in their colours; in the last row only the first `last` places are keys."""
    pixels = np.where(cells[..., None], np.array(rgb(COLOURS[5])), np.array(rgb(COLOURS[0]))).astype(np.uint8)
    if last is not None and step == 1:
        pixels[-1, last:] = 255
    return pixels
