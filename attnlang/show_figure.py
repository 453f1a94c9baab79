"""Panels on a page: pictures with axes and titles, a legend below, written as PNG, SVG or PDF."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from pathlib import Path
from typing import Any, cast

import matplotlib
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from attnlang.errors import Diagnostic, nearest
from attnlang.show_colours import INK, LINE, PAPER, QUERY, Legend, Pixels

FORMATS = ("png", "svg", "pdf")
STEEPEST = 4.0
"""A panel whose sides differ by more than this factor is stretched."""
MOST_LINES = 64
"""Tiles along a side between which lines are drawn."""
MOST_SHARP = 400
"""Larger pictures may have more pixels than there is room for: then neighbours are mixed, so that no line is lost."""
STRIP = 0.1
"""Height of a single row of places, as a share of its width."""
_settings: Any = cast(Any, matplotlib).rc_context


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
class Panel:
    """One picture: `rows` × `columns` places, the first of them at `top` and `left`, under axes with names.

    `tile`: thin lines are drawn every so many places, where there are few. `mark`: the row and column of a place that
    is framed. `row_labels`: what is written at some rows, in place of their numbers.
    """

    title: str
    pixels: Pixels
    rows: int
    columns: int
    x: str
    y: str
    top: int = 0
    left: int = 0
    tile: int = 0
    mark: tuple[int, int] | None = None
    row_labels: tuple[tuple[int, str], ...] | None = None


def check_format(path: str | Path) -> Path:
    """The path, if its suffix is that of a format that is written; else WrongPictureFormat."""
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix in FORMATS:
        return Path(path)
    near = nearest(suffix, list(FORMATS))
    raise WrongPictureFormat(file=str(path), hint=f"did you mean .{near}?" if near else None)


def write_panels(
    panels: Sequence[Panel],
    path: Path,
    *,
    title: str,
    legend: Legend,
    caption: str = "",
    across: int | None = None,
) -> None:
    """Write a page of panels, `across` in a row. Raises PictureNotWritten."""
    across = min(across or (3 if len(panels) == 3 else ceil(sqrt(len(panels)))), len(panels))
    down = ceil(len(panels) / across)
    longer = 6.4 if len(panels) == 1 else 4.4 if across <= 2 else 3.6 if len(panels) <= 16 else 2.6
    sizes = [_inches(panel, longer) for panel in panels]
    width, height = (max(size[place] for size in sizes) for place in (0, 1))
    titles = [_wrapped(panel.title, int((width + 0.3) * 13)) for panel in panels]
    headings = max(text.count("\n") + 1 for text in titles)
    wide = max(across * (width + 0.3) + 0.3, 5.6)
    letters = int(wide * 13)
    lines = textwrap.wrap(caption, letters)
    heading = _wrapped(title, int(wide * 10.5))
    tall = down * (height + 0.35 + 0.17 * headings) + 0.75 + 0.17 * (len(lines) + heading.count("\n"))
    figure: Any = Figure(figsize=(wide, tall), facecolor=PAPER, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for place, axis in enumerate(axes):
        if place >= len(panels):
            axis.set_axis_off()
            continue
        _draw(axis, panels[place], width)
        axis.set_title(titles[place], fontsize=9, color=INK)
    figure.suptitle(heading, fontsize=11.5, color=INK)
    handles = [Patch(facecolor=c, edgecolor=LINE, linewidth=0.5, label=label) for c, label in legend]
    if any(panel.mark for panel in panels):
        handles.append(Patch(facecolor="none", edgecolor=QUERY, linewidth=1.6, label="the query itself"))
    columns = len(handles) if wide > 2 * len(handles) else 2
    below = figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK,
        title="\n".join(lines) or None, title_fontsize=8.5,
    )  # fmt: skip
    below.get_title().set_color(INK)
    _save(figure, path)


def _wrapped(text: str, letters: int) -> str:
    """The lines of a text, none longer than so many letters."""
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, letters))


def _inches(panel: Panel, longer: float) -> tuple[float, float]:
    """Inches of a panel: the longer side is fixed, the shorter follows the shape of the picture, within reason."""
    shape = panel.rows / panel.columns
    if panel.rows == 1:
        return longer, 0.7
    shape = min(max(shape, 1 / STEEPEST), STEEPEST)
    return (longer, max(longer * shape, 1.5)) if shape <= 1 else (max(longer / shape, 2.2), longer)


def _draw(axis: Any, panel: Panel, inches: float) -> None:
    rows, columns, left, top = panel.rows, panel.columns, panel.left - 0.5, panel.top - 0.5
    edges = (left, left + columns, top + rows, top)
    smooth = "auto" if max(panel.pixels.shape) > MOST_SHARP else "nearest"
    axis.imshow(panel.pixels, extent=edges, interpolation=smooth, aspect="auto", zorder=1)
    equal = rows <= STEEPEST * columns and columns <= STEEPEST * rows
    if equal:
        axis.set_aspect("equal")
    elif rows == 1:
        axis.set_box_aspect(STRIP)
    if panel.tile and max(rows, columns) / panel.tile <= MOST_LINES:
        axis.add_collection(_lines(panel))
    if panel.mark is not None:
        _frame(axis, panel, panel.mark)
    axis.set_xlabel(panel.x, color=INK, fontsize=9)
    axis.set_ylabel(panel.y, color=INK, fontsize=9)
    across, down = min(9, max(2, int(inches / (0.07 * len(f"{columns:,}") + 0.12)))), 9
    if equal:  # the shorter side has room for fewer numbers
        across, down = min(across, 1 + ceil(8 * columns / rows)), min(down, 1 + ceil(8 * rows / columns))
    axis.set_xticks([panel.left + tick for tick in _ticks(columns, panel.tile, across)])
    if panel.row_labels is not None:
        kept = panel.row_labels[:: max(1, ceil(len(panel.row_labels) / down))]
        axis.set_yticks([place for place, _ in kept], [text for _, text in kept])
    else:
        axis.set_yticks([panel.top + tick for tick in _ticks(rows, panel.tile, down)])
    axis.xaxis.set_major_formatter("{x:,.0f}")
    if panel.row_labels is None:
        axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.tick_params(colors=INK, labelsize=8)
    if columns > 9999:
        axis.tick_params(axis="x", labelsize=7)
    for spine in axis.spines.values():
        spine.set_color(LINE)


def _frame(axis: Any, panel: Panel, mark: tuple[int, int]) -> None:
    """The place of the query, framed; where places are tiny, a frame around it."""
    row, column = mark
    room = max(1.0, panel.columns / 60) if panel.rows > 1 else max(1.0, panel.columns / 150)
    tall = room if panel.rows > 1 else 1.0
    corner = (panel.left + column - room / 2, panel.top + row - tall / 2)
    for colour, width in ((PAPER, 3.4), (QUERY, 1.6)):  # with a rim, on every ground
        frame = Rectangle(corner, room, tall, facecolor="none", edgecolor=colour, linewidth=width, zorder=3)
        frame.set_clip_on(False)
        axis.add_patch(frame)


def _ticks(length: int, tile: int, most: int) -> list[int]:
    """The first positions of tiles, at most `most`; plain steps where there are fewer than three tiles."""
    if not tile or length < 3 * tile:
        tile = 1
    step = tile * next(size for size in _round_steps() if length / (size * tile) <= most)
    return list(range(0, length, step))


def _round_steps() -> Iterator[int]:
    """1, 2, 4, 5, 8, 10, 16, 20, 32, …"""
    yield from (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 64, 100)
    yield from (1 << power for power in range(7, 62))


def _lines(panel: Panel) -> Any:
    """Thin lines between tiles."""
    left, top = panel.left - 0.5, panel.top - 0.5
    right, bottom = left + panel.columns, top + panel.rows
    upright = [[(left + x, top), (left + x, bottom)] for x in range(panel.tile, panel.columns, panel.tile)]
    level = [[(left, top + y), (right, top + y)] for y in range(panel.tile, panel.rows, panel.tile)]
    return LineCollection(upright + level, colors=LINE, linewidths=0.5, alpha=0.7, zorder=2)


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
