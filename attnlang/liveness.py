"""Which keys a decoder may still need: what the queries from a position on can see, by classes of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from attnlang.call_arrays import arrays_read
from attnlang.ir.live_keys import LiveKeys, Ranges
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KEY,
    QUERY,
    Attention,
    Axis,
    Expr,
    Formula,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    kv_head_of,
    storage,
)  # fmt: skip
from attnlang.ir.rewrite import substitute
from attnlang.ir.walk import parts_of
from attnlang.passes.boxes_lower import MissingNumber
from attnlang.passes.boxes_runs import FULL
from attnlang.passes.classify import classify
from attnlang.passes.tiling import read_by

if TYPE_CHECKING:
    from attnlang.call import Binding

Flags = NDArray[np.bool_]
SIDE = 256
"""Sides of the tiles that are looked at first."""
MOST_STRETCHES = 8
"""Stretches of keys that are looked at one by one."""
MOST_KEYS = 1 << 17
"""How many keys are looked at one by one."""
BORDER = 1 << 12
"""Keys at each end of a longer stretch that are looked at one by one."""
BUDGET = 100_000
"""How many boxes inside of tiles are looked at for one head."""


def live_keys(pattern: Pattern, binding: Binding, position: int) -> tuple[LiveKeys, ...]:
    """What the queries at `position … NK − 1` of any batch entry may read of K and V, by classes of heads.

    Never leaves out a key that one of them can see; queries at NK and beyond are not asked about. What cannot be
    decided stays: tensors that were not given may hold anything. Where K or V enters anything but scores and values
    of visible pairs (pooled keys, choices by content, recurrences, normalizers over hidden pairs) everything stays.
    """
    heads, keys, groups = (binding.sizes[name] for name in ("H", "NK", "HK"))
    attentions = _plain_attentions(pattern)
    if position >= keys:
        return (LiveKeys(tuple(range(groups)), ()),)
    seen: Flags | None = None
    if attentions is not None:
        seen = _seen(attentions, pattern, binding, position)
    if seen is None:
        return (LiveKeys(tuple(range(groups)), ((0, keys),)),)
    share = max(1, heads // groups)
    by_head = np.broadcast_to(seen, (heads, keys)) if len(seen) == 1 else seen
    classes: dict[Ranges, list[int]] = {}
    for group in range(groups):
        members = by_head[:1] if len(seen) == 1 else by_head[group * share : (group + 1) * share]
        classes.setdefault(_ranges(_any(members)), []).append(group)
    return tuple(LiveKeys(tuple(members), ranges) for ranges, members in classes.items())


# ------------------------------------------------------------------------------------------------- what is seen


def _seen(attentions: list[Attention], pattern: Pattern, binding: Binding, position: int) -> Flags | None:
    """Which keys the query heads may see from the position on, over all attentions and batch entries: [H or 1, NK].
    None where a number is missing that visibility depends on."""
    total: Flags = np.zeros((1, binding.sizes["NK"]), np.bool_)
    try:
        for attention in attentions:
            total = total | _Later(attention, pattern, binding, position).seen()
    except MissingNumber:
        return None
    return total


class _Later:
    """The queries of an attention from a position on, and all keys."""

    def __init__(self, attention: Attention, pattern: Pattern, binding: Binding, position: int) -> None:
        self.keys = binding.sizes["NK"]
        self.queries = self.keys - position
        self.later = replace(QUERY, size=Literal(self.queries), start=Literal(position))
        self.attention = _over(attention, {QUERY: self.later})
        self.symbols = {**binding.sizes, **binding.scalars}
        self.stages = pattern.stages
        self.arrays = arrays_read(binding.tensors, read_by(attention, pattern.stages)[0])

    def seen(self) -> Flags:
        """[H or 1, NK]: tiles first, then one by one the keys of tiles that none of the queries sees as a whole."""
        some, every = self._columns(self.attention, SIDE, SIDE)
        found = np.repeat(some, SIDE, axis=1)[:, : self.keys]
        unsure = _any(some & ~every)
        for first, stop in _stretches(unsure, self.keys):
            near = replace(KEY, size=Literal(stop - first), start=Literal(first))
            exact, _ = self._columns(_over(self.attention, {KEY: near}), self.queries, 1)
            found[:, first:stop] &= exact
        return found

    def _columns(self, attention: Attention, rows: int, columns: int) -> tuple[Flags, Flags]:
        """[H or 1, tiles of keys]: where any query may see any key of a tile, and where a tile of queries sees all."""
        tiles = classify(attention, self.symbols, self.arrays, rows, columns, self.stages, budget=BUDGET)
        width = len(tiles.maps[0].widths)
        some, every = np.zeros((2, tiles.classes.shape[1], width), np.bool_)
        for number, found in enumerate(tiles.maps):
            _, column, kinds = found.csr()
            heads = np.flatnonzero((tiles.classes == number).any(axis=0))
            some[heads[:, None], column] = True
            every[heads[:, None], column[kinds == FULL]] = True
        return some, every


def _any(flags: Flags) -> Flags:
    """Over the heads: [keys]."""
    return np.logical_or.reduce(flags, axis=0)


def _over(attention: Attention, axes: Mapping[Axis, Axis]) -> Attention:
    """The visibility of an attention over stretches of its axes."""
    changes: dict[Expr, Expr] = {Index(old): Index(new) for old, new in axes.items()}
    rows = tuple(axes.get(axis, axis) for axis in attention.rows)
    mask, sparsity = (substitute(expr, changes) for expr in (attention.mask, attention.sparsity))
    over = axes.get(attention.over, attention.over)
    return replace(attention, rows=rows, over=over, mask=mask, sparsity=sparsity)


def _stretches(unsure: Flags, keys: int) -> Ranges:
    """The keys of the marked tiles in a few stretches, those between them included where they are nearest; of what is
    too long, both ends."""
    ends = [(first * SIDE, min(stop * SIDE, keys)) for first, stop in _ranges(unsure)]
    gaps = sorted(range(1, len(ends)), key=lambda place: ends[place][0] - ends[place - 1][1], reverse=True)
    cuts = sorted(gaps[: MOST_STRETCHES - 1])
    merged = [
        (ends[first][0], ends[stop - 1][1])
        for first, stop in zip([0, *cuts], [*cuts, len(ends)], strict=True)
        if first < stop
    ]
    chosen: list[tuple[int, int]] = []
    left = MOST_KEYS
    for first, stop in sorted(merged, key=lambda stretch: stretch[1] - stretch[0]):
        if stop - first <= left:
            chosen.append((first, stop))
            left -= stop - first
        else:
            chosen += [(first, min(first + BORDER, stop)), (max(stop - BORDER, first), stop)]
    return tuple(sorted(chosen))


def _ranges(flags: Flags) -> Ranges:
    """Where flags are set, as ascending ranges."""
    steps = np.diff(np.concatenate([[0], flags.view(np.int8), [0]]))
    firsts, stops = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    return tuple((int(first), int(stop)) for first, stop in zip(firsts, stops, strict=True))


# -------------------------------------------------------------------------------- where visibility says everything


def _plain_attentions(pattern: Pattern) -> list[Attention] | None:
    """The attentions of queries over keys, where nothing else reads keys, values or hidden pairs; else None."""
    attentions = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    names = {attention.name for attention in attentions}
    elsewhere = [pattern.output, *(each.condition for each in pattern.requirements)]
    for stage in pattern.stages:
        match stage:
            case Attention():
                if not _is_plain(stage):
                    return None
                elsewhere += [stage.mask, stage.sparsity, *([stage.reweight] if stage.reweight else [])]
                elsewhere += [step.body for step in stage.normalize if isinstance(step, Formula)]
                if not all(_harmless(expr, names, in_pair=True) for expr in (stage.score, stage.value)):
                    return None
            case Let(body=body):
                elsewhere.append(body)
            case Merge():
                pass
            case Select() | Recurrence():
                return None
    return attentions if all(_harmless(expr, names, in_pair=False) for expr in elsewhere) else None


def _is_plain(attention: Attention) -> bool:
    """Whether queries attend to keys, row by row, and no step of the normalizer looks at hidden pairs."""
    if attention.rows != (BATCH, HEAD, QUERY) or attention.over != KEY:
        return False
    steps = [step.body for step in attention.normalize if isinstance(step, Formula)]
    sums = [part for body in steps for part in parts_of(body) if isinstance(part, Reduce)]
    shown = all(part.where is not None and _reads_visible(part.where) for part in sums)
    return shown and len(steps) == len(attention.normalize)


def _reads_visible(expr: Expr) -> bool:
    return any(isinstance(part, Read) and part.source.endswith(".visible") for part in parts_of(expr))


def _harmless(expr: Expr, attentions: set[str], *, in_pair: bool) -> bool:
    """Whether K and V are read at the key and the head of a visible pair only, and attentions at their own row."""
    for part in parts_of(expr):
        if isinstance(part, Reduce) and {KEY, HEAD, BATCH} & set(part.axes):
            return False
        if not isinstance(part, Read):
            continue
        if part.source in ("K", "V") and not (in_pair and _of_the_pair(part)):
            return False
        base, _, field = part.source.partition(".")
        if base in attentions and (field == "scores" or part.at[2:3] != (storage(QUERY),)):
            return False
    return True


def _of_the_pair(read: Read) -> bool:
    return read.at[:3] == (Index(BATCH), kv_head_of(Index(HEAD)), Index(KEY))
