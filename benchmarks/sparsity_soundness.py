"""Is a tile ever called full or empty that is not? Every size up to 64 × 64, and random programs, against every pair.

`every_size`: for each attention of sections A to F that hides anything, each pair of numbers of queries and keys up to
64 (or each n-th) that the pattern allows: parameters at and near their ends, in the middle and far too large, extents
of grids in every factorization, one to four heads, one or two batch entries, offsets from 0 to 2·NK, tensors in order
or not, known, summarized or not, tiles from 1 × 1 to 64 × 16, all drawn anew for each pair of lengths. The interpreter
says the pairs.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attnlang.call import Binding, bind_sizes
from attnlang.call_interface import Interface
from attnlang.errors import AttnlangError
from attnlang.ir.interpret import Inputs, table
from attnlang.ir.pattern import Apply, Attention, Let, Literal, Parameter, Pattern
from attnlang.passes.classify import classify
from attnlang.passes.summaries import Summary, summary_of
from attnlang.samples import random_inputs, random_tensors
from benchmarks.sparsity_tiles import COUNTED, GRIDS, compared, load
from tests.definitions import DEFINITIONS

LONGEST = 64
TILES = ((1, 1), (2, 3), (4, 4), (5, 8), (8, 5), (8, 8), (16, 16), (16, 64), (64, 16))
ATTEMPTS = 24
"""Draws of a legal call of given sizes; with each, more parameters are at their least."""
FEWEST = 2048
"""Calls of each attention, even where few sizes are allowed."""
Draw = np.random.Generator


@dataclass
class Report:
    """What was covered of one attention of a pattern, and what came out."""

    pattern: str
    attention: str
    calls: int = 0
    refused: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    tiles: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    corners: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])
    offsets: set[int] = field(default_factory=set[int])
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    wrong: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def row(self) -> dict[str, Any]:
        """As it is written down."""
        return {
            "pattern": self.pattern, "attention": self.attention, "calls": self.calls, "refused": self.refused,
            "sizes": len(self.sizes), "tile_sizes": len(self.tiles), "corners": len(self.corners),
            "offsets": len(self.offsets), **self.counts, "wrong": self.wrong[:5],
        }  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A legal call, its tensors, and the tiles it is looked at by."""

    binding: Binding
    symbols: dict[str, Any]
    inputs: Inputs
    tile: tuple[int, int]
    told: int
    """What the classification knows of the tensors: nothing (0), all (1), or the summaries of blocks of this length."""


def masked(sections: str = "ABCDEF") -> Iterator[tuple[str, str]]:
    """Every attention of some sections with a mask or a sparsity: pattern and stage."""
    for name, definition in DEFINITIONS.items():
        if definition.section in sections:
            for stage in attentions(load(name).ir):
                if not (isinstance(stage.mask, Literal) and isinstance(stage.sparsity, Literal)):
                    yield name, stage.name


def attentions(pattern: Pattern) -> list[Attention]:
    """The attentions of a pattern."""
    return [stage for stage in pattern.stages if isinstance(stage, Attention)]


def every_size(seed: int, every: int, jobs: int, sections: str = "ABCDEF") -> list[dict[str, Any]]:
    """All attentions, at each `every`-th pair of lengths up to LONGEST."""
    tasks = [(name, attention, seed, every) for name, attention in masked(sections)]
    rows: list[dict[str, Any]] = []
    with get_context("spawn").Pool(jobs) as pool:
        for row in pool.imap_unordered(_row, tasks):
            rows.append(row)
            print(row, flush=True)
    return sorted(
        rows, key=lambda row: [task[:2] for task in tasks].index((row["pattern"], row["attention"]))
    )


def _row(task: tuple[str, str, int, int]) -> dict[str, Any]:
    return sizes_of(*task).row()


def sizes_of(name: str, attention: str, seed: int, every: int = 1, longest: int = LONGEST) -> Report:
    """One attention, at each `every`-th pair of lengths up to `longest`."""
    pattern = load(name).ir
    (stage,) = (each for each in attentions(pattern) if each.name == attention)
    seen = Apply("and", (stage.mask, stage.sparsity))
    watched = replace(
        pattern, stages=(*pattern.stages, Let("seen here", (*stage.rows, stage.over), seen, "bool"))
    )
    draw = np.random.default_rng([seed, zlib.crc32(f"{name}.{attention}".encode())])
    interface = Interface(pattern)
    report = Report(name, attention)
    lengths = range(1, longest + 1)
    sizes = [(queries, keys) for queries in lengths for keys in lengths if (queries + 3 * keys) % every == 0]
    fewest = min(FEWEST, len(sizes))
    for size in sizes:
        _call(interface, watched, stage, size, draw, report)
    allowed = sorted(report.sizes)
    while allowed and report.calls < fewest:
        for size in allowed:
            _call(interface, watched, stage, size, draw, report)
    return report


def _call(
    interface: Interface,
    watched: Pattern,
    stage: Attention,
    size: tuple[int, int],
    draw: Draw,
    report: Report,
) -> None:
    """One call of a size, where the pattern allows one."""
    case = _legal(interface, *size, draw)
    if case is None:
        report.refused += 1
    else:
        _look(watched, stage, case, report)


def _look(watched: Pattern, stage: Attention, case: Case, report: Report) -> None:
    """Tiles of one call against its pairs; axes between head and query are merged: seen by some, seen by all."""
    pairs: NDArray[np.bool_] = table(watched, "seen here", case.inputs).numpy()
    between = tuple(range(2, pairs.ndim - 2))
    tensors = {
        key: _told(value.numpy(), case.told) for key, value in case.inputs.tensors.items() if case.told
    }
    tiles = classify(stage, case.symbols, tensors, *case.tile, watched.stages)
    found = compared(tiles, np.any(pairs, axis=between), np.all(pairs, axis=between))
    report.calls += 1
    sizes = case.binding.sizes
    report.sizes.add((sizes["NQ"], sizes["NK"]))
    report.tiles.add(case.tile)
    report.corners.add(tuple(case.binding.parameters.values()))
    report.offsets.add(case.binding.q_offset)
    for key, amount in found.items():
        report.counts[key] += amount
    if found["unsound"]:
        report.wrong.append({"sizes": dict(sizes), "numbers": dict(case.binding.scalars), "tile": case.tile})


def _legal(interface: Interface, queries: int, keys: int, draw: Draw) -> Case | None:
    """A call that the pattern allows, with corner parameters; None where no attempt finds one."""
    pattern = interface.pattern
    for attempt in range(ATTEMPTS):
        heads = int(draw.choice((1, 2, 4)))
        shared = heads if draw.integers(3) else 1
        given: dict[str, object] = _corners(pattern, keys, attempt / ATTEMPTS, draw)
        offset = [None, 0, int(draw.integers(0, 2 * keys + 1))][int(draw.integers(3))]
        try:
            binding = bind_sizes(
                interface, queries, keys, heads=heads, kv_heads=shared, batch=int(draw.integers(1, 3)),
                head_dim=4, value_dim=4, q_offset=offset, arguments=given,
            )  # fmt: skip
            tensors = random_tensors(
                pattern, {**binding.sizes, **binding.scalars}, int(draw.integers(1 << 30))
            )
            if draw.integers(2):
                tensors = {name: _shuffled(tensor, draw) for name, tensor in tensors.items()}
            binding = bind_sizes(
                interface, queries, keys, heads=heads, kv_heads=shared, batch=binding.sizes["B"],
                head_dim=4, value_dim=4, q_offset=offset, arguments={**given, **tensors},
            )  # fmt: skip
        except AttnlangError:
            continue
        made = random_inputs(pattern, binding.sizes, torch.float64, int(draw.integers(1 << 30)))
        inputs = Inputs(made["q"], made["k"], made["v"], binding.sizes, binding.scalars, binding.tensors)
        tile = TILES[int(draw.integers(len(TILES)))]
        return Case(
            binding,
            {**binding.sizes, **binding.scalars},
            inputs,
            tile,
            int(draw.choice((0, 1, 1, 1, 2, 4, 7, 16))),
        )
    return None


def _told(array: NDArray[Any], block: int) -> NDArray[Any] | Summary:
    """An array, or the summary of its blocks along the last two axes."""
    if block == 1 or array.ndim == 0:
        return array
    return summary_of(array, (*(1,) * (array.ndim - 2), *(block,) * min(array.ndim, 2)))


def _shuffled(tensor: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Its values in another order along the last axis: ids that do not rise."""
    if tensor.ndim == 0:
        return tensor
    return tensor[..., torch.from_numpy(draw.permutation(tensor.shape[-1]))].contiguous()


def _corners(pattern: Pattern, keys: int, tame: float, draw: Draw) -> dict[str, object]:
    """Parameters at and near the ends of their ranges, in the middle, or far too large; extents of a grid of keys.
    `tame`: how likely one is at its least."""
    grid = GRIDS.get(pattern.name, ())
    extents = _extents(keys, len(grid), draw)
    given: dict[str, object] = dict(zip(grid, extents, strict=True))
    for parameter in pattern.parameters:
        if parameter.name not in given:
            given[parameter.name] = _corner(parameter, [*extents, keys - 1, keys, keys + 1], tame, draw)
    return given


def _corner(parameter: Parameter, lengths: list[int], tame: float, draw: Draw) -> bool | int | float:
    if parameter.dtype == "bool":
        return bool(draw.integers(2))
    if parameter.dtype == "float":
        return float(parameter.default or 0.5)
    least = max(
        [0, *(int(bound) + (sign == "gt") for sign, bound in parameter.bounds if sign in ("ge", "gt"))]
    )
    most = min(
        [1000, *(int(bound) - (sign == "lt") for sign, bound in parameter.bounds if sign in ("le", "lt"))]
    )
    near = [least, least + 1, least + 2, least + 3, least + 4]
    choices = [*near, 7, 8, 16, 31, *lengths, 1000] if draw.random() < 0.5 else near
    return least if draw.random() < tame else max(least, min(int(draw.choice(choices)), most))


def _extents(keys: int, axes: int, draw: Draw) -> list[int]:
    """Lengths whose product is the number of keys."""
    lengths: list[int] = []
    for _ in range(axes - 1):
        divisors = [number for number in range(1, keys + 1) if keys % number == 0]
        lengths.append(int(draw.choice(divisors)))
        keys //= lengths[-1]
    return [int(length) for length in draw.permutation([*lengths, keys])] if axes else []


# ------------------------------------------------------------------------------------------- random programs


def programs(amount: int) -> dict[str, int]:
    """Random predicates of the tests, half of them of whole numbers of q and k alone, half of everything else: how many
    were compared with every pair; fails at the first that is unsound."""
    from hypothesis import HealthCheck, Phase, given, settings

    from tests import test_classify_random as random

    many = settings(
        max_examples=amount // 2, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )  # fmt: skip
    counts = {"whole_numbers": 0, "everything_else": 0, "unsound": 0}

    @many
    @given(call=random.WHOLE_CALLS)
    def whole(call: random.WholeCall) -> None:
        random.check_whole(call)
        counts["whole_numbers"] += 1

    @many
    @given(call=random.CALLS)
    def everything(call: random.Call) -> None:
        random.check_everything(call)
        counts["everything_else"] += 1

    whole()
    everything()
    return counts
