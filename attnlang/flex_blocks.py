"""A BlockMask from the bands of a predicate: blocks are classified as ranges, never by looking at the pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask

from attnlang.ir.pattern import KEY, QUERY, Expr
from attnlang.passes.concrete import KnownCall, Runs, heads_differ, known_bands, resolve, runs_of

EMPTY, PARTIAL, FULL = 0, 1, 2
Kinds = NDArray[np.uint8]


def block_mask(
    visible: Expr, call: KnownCall, block: int, device: torch.device, mask_mod: Callable[..., torch.Tensor]
) -> BlockMask:
    """The blocks that a predicate may make visible, over [B or 1, H or 1] heads; those without a hidden pair are full.

    Where a closed form is not exact, the blocks in question are partial.
    """
    by_batch, by_head = heads_differ(visible)
    kinds = np.stack([
        np.stack([
            _kinds(resolve(visible, call, batch, head), call, block)
            for head in range(call.number("H") if by_head else 1)
        ])
        for batch in range(call.number("B") if by_batch else 1)
    ])  # fmt: skip
    partial, full = (_lists(kinds == kind, device) for kind in (PARTIAL, FULL))
    lengths = (call.number("NQ"), call.number("NK"))
    return BlockMask.from_kv_blocks(*partial, *full, block, mask_mod, lengths)


def _kinds(predicate: Expr, call: KnownCall, block: int) -> Kinds:
    """EMPTY, PARTIAL or FULL for every block of one head. Blocks beyond the last query or key are never full."""
    queries, keys = call.number("NQ"), call.number("NK")
    rows = np.arange(0, queries, block, dtype=np.int64)
    offset = call.number("q_offset")
    first, last = rows + offset, np.minimum(rows + block, queries) - 1 + offset
    kinds = np.full((len(rows), -(-keys // block)), EMPTY, dtype=np.uint8)
    for band in known_bands(predicate, QUERY, KEY, call):
        _mark(kinds, runs_of(band, QUERY, KEY, call, first, last), block)
    if queries % block:
        kinds[-1] = np.minimum(kinds[-1], PARTIAL)
    return kinds


def _mark(kinds: Kinds, runs: Runs, block: int) -> None:
    """Adds the keys of one alternative: its blocks become visible, those inside its full range full."""
    columns = np.arange(kinds.shape[1], dtype=np.int64)[None, :]
    some = runs.first < runs.stop
    first, stop = runs.first // block, -(-runs.stop // block)
    visited = (columns >= first[:, None]) & (columns < np.where(some, stop, first)[:, None])
    np.maximum(kinds, PARTIAL, out=kinds, where=visited)
    full_first, full_stop = -(-runs.full_first // block), runs.full_stop // block
    full = (columns >= full_first[:, None]) & (columns < full_stop[:, None])
    np.maximum(kinds, FULL, out=kinds, where=full)


def _lists(chosen: NDArray[np.bool_], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Number [B, H, rows] and ascending indices [B, H, rows, columns] of the chosen blocks; the rest is 0."""
    counts = chosen.sum(-1, dtype=np.int32)
    indices = np.zeros(chosen.shape, dtype=np.int32)
    *place, columns = np.nonzero(chosen)
    starts = np.cumsum(counts.ravel(), dtype=np.int64) - counts.ravel()
    rank = np.arange(len(columns), dtype=np.int64) - np.repeat(starts, counts.ravel())
    indices[(*place, rank)] = columns
    return torch.as_tensor(counts, device=device), torch.as_tensor(indices, device=device)
