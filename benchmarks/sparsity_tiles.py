"""Tiles as they are classified beside tiles as every pair says they are: what all parts of sparsity.py measure with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import attnlang
from attnlang.ir.pattern import Attention
from attnlang.passes.classify import Tiles, classify

ROOT = Path(__file__).resolve().parent.parent
EMPTY, PARTIAL, FULL = 0, 1, 2
COUNTED = ("visited", "truly_nonempty", "full", "truly_full", "unsound")
Tensors = Mapping[str, NDArray[Any]]
Mask = NDArray[Any]
GRIDS = {"neighborhood_1d": ("length",), "neighborhood_2d": ("height", "width"), "swin": ("height", "width"),
         "halo": ("height", "width"), "unidirectional_blocks": ("height", "width"),
         "neighborhood_3d": ("frames", "height", "width"), "inward_window": ("frames", "height", "width"),
         "space": ("frames", "tokens"), "time": ("frames", "tokens"), "radial": ("frames", "tokens"),
         "spatial_temporal_heads": ("frames", "tokens"), "cosine": ("height", "width"),
         "region_routing": ("height", "width")}  # fmt: skip
"""The parameters that say how the tokens of a pattern lie on a grid."""


def load(name: str) -> attnlang.Pattern:
    """A pattern of the catalogue."""
    return attnlang.load(ROOT / "examples" / f"{name}.attn", name)


def tiles_of(
    pattern: attnlang.Pattern,
    NQ: int,
    NK: int,
    heads: int,
    tile: tuple[int, int],
    tensors: Mapping[str, Any],
    **given: Any,
) -> Tiles:
    """The tiles of a pattern; the last query sees the last key."""
    (attention,) = (stage for stage in pattern.ir.stages if isinstance(stage, Attention))
    symbols: dict[str, Any] = {"B": 1, "H": heads, "HK": heads, "NQ": NQ, "NK": NK, "q_offset": NK - NQ}
    symbols |= {name: given.get(name, parameter.default) for name, parameter in pattern.params.items()}
    return classify(attention, symbols, tensors, *tile, pattern.ir.stages)


def seen_by(pattern: attnlang.Pattern, NQ: int, NK: int, heads: int, tensors: Tensors, **given: Any) -> Mask:
    """Every pair, by the interpreter: [1, H or 1, NQ, NK]."""
    found = {name: torch.from_numpy(array) for name, array in tensors.items()}
    return pattern.mask(NQ, NK, heads=heads, **found, **given).numpy()


def kinds(some: Mask, every: Mask, rows: int, columns: int) -> NDArray[np.int64]:
    """EMPTY, PARTIAL or FULL for every tile of bool arrays [NQ, NK], pair by pair: EMPTY where no pair is of `some`,
    FULL where all are of `every`."""
    tops, lefts = np.arange(0, some.shape[0], rows), np.arange(0, some.shape[1], columns)
    visible = np.logical_or.reduceat(np.logical_or.reduceat(some, tops, 0), lefts, 1)
    hidden = np.logical_or.reduceat(np.logical_or.reduceat(~every, tops, 0), lefts, 1)
    return np.where(~visible, EMPTY, np.where(~hidden, FULL, PARTIAL))


def compared(tiles: Tiles, some: Mask, every: Mask | None = None) -> dict[str, int]:
    """Tiles visited and full as classified and in truth, and those where the classification is wrong."""
    result: dict[str, int] = dict.fromkeys(COUNTED, 0)
    every = some if every is None else every
    for b in range(some.shape[0]):
        for h in range(some.shape[1]):
            found, true = tiles.map(h, b).dense(), kinds(some[b, h], every[b, h], tiles.rows, tiles.columns)
            wrong = ((found == FULL) & (true != FULL)) | ((found == EMPTY) & (true != EMPTY))
            counts = ((found != EMPTY), (true != EMPTY), (found == FULL), (true == FULL), wrong)
            for key, places in zip(result, counts, strict=True):
                result[key] += int(places.sum())
    return result


def timed(action: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long it takes, in milliseconds; with `time.process_time` as the clock, how long processors work for it."""
    start = clock()
    action()
    return (clock() - start) * 1e3
