"""Tiles that are visited when tokens stand in the order that the compiler finds, beside those of row-major order.

    python benchmarks/sparsity.py order

Tensors are random: labels and flags scattered over all tokens, or in runs where it says so. Times are of processor.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from attnlang.ir.pattern import Attention
from attnlang.passes.classify import classify
from attnlang.passes.order import find_order
from benchmarks.sparsity_tiles import Tensors, load

TILES = ((128, 64), (64, 64))
THIRD = 1 / 3
IMAGE = {"height": 128, "width": 128}
FILM = {"frames": 16, "tokens": 1024}
VIDEO = {"frames": 12, "height": 30, "width": 52}
TOKENS = 1 << 14


@dataclass(frozen=True)
class Call:
    """A call of a pattern; `bar`: the largest share of row-major order's tiles that it may visit."""

    name: str
    tokens: int
    given: dict[str, Any]
    tensors: Tensors
    heads: int = 1
    bar: float | None = None
    note: str = ""


def _calls(draw: np.random.Generator) -> Iterator[Call]:
    def plain(name: str, tokens: int = TOKENS, bar: float | None = None, **given: Any) -> Call:
        return Call(name, tokens, given, {}, bar=bar)

    def flags(share: float, *shape: int) -> np.ndarray:
        return draw.random((*shape, TOKENS)) < share

    yield plain("neighborhood_2d", 1 << 16, THIRD, height=256, width=256, window_y=13, window_x=13)
    yield plain("dilated_window", TOKENS, THIRD, window=512, dilation=8)
    yield plain("dilated_window")
    yield plain("dilated_window", 16000, window=512, dilation=7)
    yield plain("neighborhood_1d", length=TOKENS, window=65, dilation=16)
    yield plain("neighborhood_2d", 64 * 64, height=64, width=64)
    yield plain("neighborhood_2d", 45 * 80, height=45, width=80, window_y=13, window_x=13)
    yield plain("neighborhood_2d", **IMAGE, window_y=13, window_x=13, dilation_y=4, dilation_x=4)
    yield plain("neighborhood_3d", 1 << 16, frames=16, height=64, width=64)
    yield plain("neighborhood_3d", 12 * 30 * 52, **VIDEO, window_t=6, window_y=10, window_x=13)
    yield plain("inward_window", frames=4, height=64, width=64)
    yield plain("halo", **IMAGE)
    yield plain("swin", **IMAGE)
    yield plain("swin", 56 * 56, height=56, width=56, window=7, shift=3)
    yield plain("cosine", **IMAGE)
    yield plain("unidirectional_blocks", **IMAGE)
    yield Call("radial", TOKENS, FILM, {})
    yield Call("time", TOKENS, FILM, {})
    yield Call("space", 16000, {"frames": 16, "tokens": 1000}, {})
    yield Call("spatial_temporal_heads", TOKENS, FILM, {"is_temporal": np.arange(4) % 2 == 1}, 4)
    yield Call("hash_buckets", TOKENS, {}, {"bucket": draw.integers(0, 32, (1, 2, TOKENS))}, 2)
    yield Call("region", TOKENS, {}, {"ids": draw.integers(0, 20, (1, TOKENS))})
    runs = np.sort(draw.integers(0, 64, (1, TOKENS)))
    yield Call("document", TOKENS, {}, {"ids": runs}, note="in runs")
    yield Call("document", TOKENS, {}, {"ids": draw.permuted(runs, axis=1)})
    yield Call("longformer", TOKENS, {}, {"is_global": flags(0.004, 1)})
    yield Call("visual_isolated", TOKENS, {}, {"is_visual": flags(0.7, 1)})
    yield Call("dropped", TOKENS, {}, {"keep_q": flags(0.5, 1, 1), "keep_k": flags(0.5, 1, 1)})
    yield plain("temporal_latent", stride=4)
    yield plain("chunk_recurrent")
    yield plain("strided_blocks")
    yield plain("local_block", block=100)
    for name in ("sliding_window", "streaming", "causal", "local_block"):
        yield plain(name)


def order(repetitions: int = 3) -> list[dict[str, Any]]:
    """One row for each call and tile."""
    return [_row(call, tile, repetitions) for call in _calls(np.random.default_rng(0)) for tile in TILES]


def _row(call: Call, tile: tuple[int, int], repetitions: int) -> dict[str, Any]:
    pattern = load(call.name)
    (attention,) = (stage for stage in pattern.ir.stages if isinstance(stage, Attention))
    symbols: dict[str, Any] = {
        "B": 1,
        "H": call.heads,
        "HK": call.heads,
        "NQ": call.tokens,
        "NK": call.tokens,
    }
    symbols |= {"q_offset": 0, **{name: parameter.default for name, parameter in pattern.params.items()}}
    arguments = attention, {**symbols, **call.given}, call.tensors, *tile, pattern.ir.stages
    natural = classify(*arguments)
    times: list[float] = []
    ordered = None
    for _ in range(repetitions):
        start = time.process_time()
        ordered = find_order(*arguments, natural)
        times.append(time.process_time() - start)
    before = natural.counts.full + natural.counts.partial
    counts = natural.counts if ordered is None else ordered.tiles.counts
    share = (counts.full + counts.partial) / before
    row = {
        "pattern": call.name,
        "tokens": call.tokens,
        "heads": call.heads,
        "given": call.given,
        "tile": f"{tile[0]} × {tile[1]}",
        "note": call.note,
        "row_major_visited": before,
        "row_major_full": natural.counts.full,
        "visited": counts.full + counts.partial,
        "full": counts.full,
        "share": round(share, 3),
        "choice": "tokens as they are stored" if ordered is None else ordered.choice,
        "milliseconds": round(1000 * min(times), 1),
        "bar": call.bar,
        "met": call.bar is None or share <= call.bar,
    }
    shown = (
        f"{call.name:24s} {call.tokens:6d} tokens, {row['tile']:8s} {before:7d} → {row['visited']:6d} tiles"
    )
    print(f"{shown} ({share:.2f}) in {row['milliseconds']:6.1f} ms: {row['choice'][:90]}", flush=True)
    return row
