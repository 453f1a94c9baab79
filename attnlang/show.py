"""Pictures of a pattern: who sees whom, the tiles that a kernel computes, a panel for each head.

from attnlang.show import draw_mask
draw_mask(pattern.mask(256, 256, heads=4), "mask.png", title="my pattern", tile=32)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from attnlang.errors import Diagnostic, nearest

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

FORMATS = ("png", "svg", "pdf")
MOST_PANELS = 16
MOST_PIXELS = 1024
"""Sides of a panel's picture; a longer mask is shown as the average of its pairs."""

# A pair is visible or hidden, its tile full, partial or empty: row 2·kind + visible.
COLOURS = ("#f2f4f7", "#f2f4f7", "#fde6c8", "#e07b1a", "#2b6cb0", "#2b6cb0")
PALETTE: NDArray[np.uint8] = np.array(
    [[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in COLOURS], dtype=np.uint8
)
_settings: Any = cast(Any, matplotlib).rc_context

EMPTY, PARTIAL, FULL = 0, 1, 2
INK, PAPER, LINE = "#1f2933", "#ffffff", "#8593a3"


class WrongPictureFormat(Diagnostic):
    """The suffix of a picture's file names no format that is written."""

    code = "E601"
    message = "'{file}' has no suffix of a picture"
    hint = "pictures are written as .png, .svg or .pdf"


class PictureNotWritten(Diagnostic):
    """The file of a picture cannot be written."""

    code = "E602"
    message = "the picture '{file}' cannot be written: {reason}"


@dataclass(frozen=True)
class TileCounts:
    """Tiles of one head by what a kernel does with them, and the share of visible pairs."""

    full: int
    partial: int
    empty: int
    density: float

    def __str__(self) -> str:
        return f"{self.full} full, {self.partial} partial, {self.empty} empty"


def tile_kinds(mask: Bools, tile: int) -> Ints:
    """EMPTY, PARTIAL or FULL for every tile of `tile` × `tile` pairs of a bool array [NQ, NK]; borders may be cut."""
    row_starts, heights = _parts(mask.shape[0], tile)
    column_starts, widths = _parts(mask.shape[1], tile)
    seen = np.add.reduceat(np.add.reduceat(mask, row_starts, axis=0, dtype=np.int64), column_starts, axis=1)
    whole = seen == heights[:, None] * widths[None, :]
    return np.where(seen == 0, EMPTY, np.where(whole, FULL, PARTIAL)).astype(np.int64)


def _parts(length: int, step: int) -> tuple[Ints, Ints]:
    """Where the parts of at most `step` begin, and how long each is."""
    starts = np.arange(0, length, step, dtype=np.int64)
    return starts, np.minimum(starts + step, length) - starts


def tile_counts(mask: Bools, tile: int) -> TileCounts:
    """The number of tiles of each kind in a bool array [NQ, NK]."""
    kinds = tile_kinds(mask, tile)
    full, partial, empty = (int((kinds == kind).sum()) for kind in (FULL, PARTIAL, EMPTY))
    return TileCounts(full, partial, empty, float(mask.mean()))


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
    path = check_format(path)
    masks: Bools = np.asarray(mask, dtype=np.bool_)
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.ndim != 3 or not masks.size or tile < 1:
        raise ValueError(
            "a mask to draw is [NQ, NK] or [heads, NQ, NK], not empty, with tiles of at least one pair"
        )
    counts = [tile_counts(each, tile) for each in masks]
    names = head_names or ([""] if len(masks) == 1 else [f"head {head}" for head in range(len(masks))])
    figure = _figure(masks[:MOST_PANELS], title, tile, names, q_offset, counts)
    _save(figure, path)
    return counts


def check_format(path: str | Path) -> Path:
    """The path, if its suffix is that of a format that is written; else WrongPictureFormat."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix in FORMATS:
        return Path(path)
    near = nearest(suffix, list(FORMATS))
    raise WrongPictureFormat(file=str(path), hint=f"did you mean .{near}?" if near else None)


# -------------------------------------------------------------------------------------------------------- drawing


def _figure(
    masks: Bools, title: str, tile: int, names: Sequence[str], q_offset: int, counts: Sequence[TileCounts]
) -> Any:
    panels, rows, columns = masks.shape
    across = ceil(sqrt(panels))
    down = ceil(panels / across)
    width, height = _panel_size(rows, columns, panels)
    inches = (across * width + 0.3, down * (height + 0.3) + 1.1)
    figure: Any = Figure(figsize=inches, facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for place, panel in enumerate(axes):
        if place >= panels:
            panel.set_axis_off()
            continue
        _draw_panel(panel, masks[place], tile, q_offset)
        name = f"{names[place]}\n" if names[place] else ""
        about = f"{counts[place]} tiles · {_percent(counts[place].density)} of the pairs visible"
        panel.set_title(name + about, fontsize=9, color=INK)
    figure.suptitle(_title(title, rows, columns, tile, panels, len(counts)), fontsize=11.5, color=INK)
    across = 4 if figure.get_figwidth() > 8 else 2
    figure.legend(
        handles=_legend(), loc="outside lower center", ncols=across, frameon=False, fontsize=9, labelcolor=INK
    )
    return figure


def _panel_size(rows: int, columns: int, panels: int) -> tuple[float, float]:
    """Inches of a panel: the longer side is fixed, the shorter follows the shape of the mask, within reason."""
    longer = 6.4 if panels == 1 else 4.4 if panels <= 4 else 3.6
    shape = min(max(rows / columns, 0.25), 4.0)
    return (longer, max(longer * shape, 1.5)) if shape <= 1 else (max(longer / shape, 3.2), longer)


def _title(title: str, rows: int, columns: int, tile: int, panels: int, heads: int) -> str:
    size = f"{rows} × {columns} pairs, tiles of {tile} × {tile}"
    some = f", the first {panels} of {heads} heads" if heads > panels else ""
    return f"{title}\n{size}{some}" if title else size + some


def _percent(share: float) -> str:
    return f"{share:.1%}" if share in (0, 1) or 0.001 <= share <= 0.999 else f"{share:.2%}"


def _draw_panel(panel: Any, mask: Bools, tile: int, q_offset: int) -> None:
    rows, columns = mask.shape
    edges = (-0.5, columns - 0.5, q_offset + rows - 0.5, q_offset - 0.5)
    panel.imshow(_pixels(mask, tile), extent=edges, interpolation="nearest", aspect="auto", zorder=1)
    if rows / columns <= 4 and columns / rows <= 4:
        panel.set_aspect("equal")
    if max(rows, columns) / tile <= 128:
        panel.add_collection(_tile_lines(rows, columns, tile, q_offset))
    panel.set_xlabel("key k", color=INK)
    panel.set_ylabel("query q", color=INK)
    panel.set_xticks(_ticks(columns, tile))
    panel.set_yticks([q_offset + tick for tick in _ticks(rows, tile)])
    panel.tick_params(colors=INK, labelsize=8)
    for spine in panel.spines.values():
        spine.set_color(LINE)


def _ticks(length: int, tile: int) -> list[int]:
    """The first positions of tiles, at most nine; plain steps where there are fewer than three tiles."""
    tiles = ceil(length / tile)
    step = tile * ceil(tiles / 8) if tiles >= 3 else max(1, ceil(length / 8))
    return list(range(0, length, step))


def _tile_lines(rows: int, columns: int, tile: int, q_offset: int) -> Any:
    """Thin lines between tiles."""
    left, right, top, bottom = -0.5, columns - 0.5, q_offset - 0.5, q_offset + rows - 0.5
    upright = [[(left + x, top), (left + x, bottom)] for x in range(tile, columns, tile)]
    level = [[(left, top + y), (right, top + y)] for y in range(tile, rows, tile)]
    return LineCollection(upright + level, colors=LINE, linewidths=0.5, alpha=0.7, zorder=2)


def _pixels(mask: Bools, tile: int) -> NDArray[np.uint8]:
    """RGB of every pair, or of the averages where the mask has more pairs than a panel has pixels."""
    rows, columns = mask.shape
    kinds = tile_kinds(mask, tile)
    row_step = ceil(rows / MOST_PIXELS)
    starts, widths = _parts(columns, ceil(columns / MOST_PIXELS))
    lines: list[NDArray[np.uint8]] = []
    for start in range(0, rows, row_step):
        part = mask[start : start + row_step]
        row_kinds = kinds[np.arange(start, start + len(part)) // tile]
        colours = PALETTE[2 * np.repeat(row_kinds, tile, axis=1)[:, :columns] + part]
        sums = np.add.reduceat(colours.sum(axis=0, dtype=np.int64), starts, axis=0)
        lines.append((sums // (widths[:, None] * len(part))).astype(np.uint8))
    return np.stack(lines)


def _legend() -> list[Any]:
    entries = (
        (COLOURS[5], "full tile: no mask needed"),
        (COLOURS[3], "partial tile: visible pair"),
        (COLOURS[2], "partial tile: hidden pair"),
        (COLOURS[0], "empty tile: never computed"),
    )
    return [Patch(facecolor=colour, edgecolor=LINE, linewidth=0.5, label=label) for colour, label in entries]


def _save(figure: Any, path: Path) -> None:
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(
        path.suffix.lower().removeprefix("."), {}
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _settings({"svg.hashsalt": "attnlang"}):  # the same picture is the same file
            figure.savefig(path, dpi=160, metadata=metadata)
    except OSError as error:
        raise PictureNotWritten(file=str(path), reason=error.strerror or str(error)) from None
