"""A BlockMask from the classified tiles of a predicate: no pair of query and key is looked at one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask

from attnlang.call_arrays import arrays_read
from attnlang.errors_flex import NoFlexForm
from attnlang.ir.pattern import Attention
from attnlang.passes.boxes_runs import FULL
from attnlang.passes.classify import classify
from attnlang.passes.tiling import read_by

Numbers = NDArray[np.int64]
MOST_BYTES = 1 << 32
"""What the index lists of a BlockMask may take."""


def block_mask(
    name: str,
    attention: Attention,
    symbols: Mapping[str, bool | int | float],
    tensors: Mapping[str, torch.Tensor],
    block: int,
    device: torch.device,
    mask_mod: Callable[..., torch.Tensor],
) -> BlockMask:
    """The blocks that hold a visible pair, over [B or 1, H or 1] heads; those without a hidden pair are full, those
    that reach beyond the last query or key never are.

    `name`: of the pattern; `tensors`: all that its visibility reads, tables included. A block that cannot be decided
    is partial: visited and masked. Raises NoFlexForm where the lists would not fit into memory.
    """
    queries, keys = int(symbols["NQ"]), int(symbols["NK"])
    rows, columns = -(-queries // block), -(-keys // block)
    _check_memory(name, 1, rows * columns, block)
    arrays = arrays_read(tensors, read_by(attention, ())[0])
    tiles = classify(attention, symbols, arrays, block, block)
    classes = _shared(tiles.classes)
    _check_memory(name, classes.size, rows * columns, block)
    by_row, by_column = _Lists(classes.shape, rows, columns), _Lists(classes.shape, columns, rows)
    for number, found in enumerate(tiles.maps):
        places = [(int(entry), int(head)) for entry, head in np.argwhere(classes == number)]
        by_row.fill(places, *found.csr(), (queries, keys), block)
        by_column.fill(places, *found.csc(), (keys, queries), block)
    partial, partial_at, full, full_at = by_row.tensors(device)
    return BlockMask(
        (queries, keys),
        partial,
        partial_at,
        full,
        full_at,
        *by_column.tensors(device),
        (block, block),
        mask_mod,
    )


def _check_memory(name: str, heads: int, blocks: int, block: int) -> None:
    """A BlockMask has a place for every block of every head, in each of four index tensors."""
    needed = 4 * 4 * heads * blocks
    if needed <= MOST_BYTES:
        return
    larger = block
    while 4 * 4 * heads * blocks * block**2 > MOST_BYTES * larger**2:
        larger *= 2
    masks = "one mask" if heads == 1 else f"{heads:,} different masks"
    reason = f"the block indices of {masks} would take {needed / 2**30:,.1f} GiB"
    raise NoFlexForm(None, f"block_size={larger} takes less", pattern=name, reason=reason)


def _shared(classes: Numbers) -> Numbers:
    """The same classes, with one entry along an axis on which they are all the same."""
    for axis in (0, 1):
        first = classes.take([0], axis)
        if bool((classes == first).all()):
            classes = first
    return classes


class _Lists:
    """Of each row of blocks [B, H, rows]: how many are partial and how many full, and where they are, ascending
    [B, H, rows, columns]; the rest is 0."""

    def __init__(self, heads: tuple[int, ...], rows: int, columns: int) -> None:
        self.parts = [
            (np.zeros((*heads, rows), np.int32), np.zeros((*heads, rows, columns), np.int32))
            for _ in ("partial", "full")
        ]

    def fill(
        self,
        places: list[tuple[int, int]],
        pointers: Numbers,
        column: NDArray[np.int32],
        kinds: NDArray[np.uint8],
        lengths: tuple[int, int],
        block: int,
    ) -> None:
        """The same blocks for several heads, listed row by row; what reaches beyond the lengths is partial."""
        row = np.repeat(np.arange(len(pointers) - 1, dtype=np.int32), np.diff(pointers))
        whole = (row < lengths[0] // block) & (column < lengths[1] // block)
        full = (kinds == FULL) & whole
        for chosen, (counts, indices) in zip((~full, full), self.parts, strict=True):
            at, to = row[chosen], column[chosen]
            in_row = np.bincount(at, minlength=len(pointers) - 1)
            rank = np.arange(len(at)) - np.repeat(np.cumsum(in_row) - in_row, in_row)
            for entry, head in places:
                counts[entry, head] = in_row
                indices[entry, head, at, rank] = to

    def tensors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Counts and indices of the partial blocks, then of the full ones."""
        (counts, indices), (full_counts, full_indices) = self.parts
        return (
            torch.as_tensor(counts, device=device),
            torch.as_tensor(indices, device=device),
            torch.as_tensor(full_counts, device=device),
            torch.as_tensor(full_indices, device=device),
        )
