"""The decision record of a pattern at a size: what `Pattern.plan` returns and `attnlang explain` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from attnlang.ir.kernel import Type
from attnlang.ir.live_keys import LiveKeys
from attnlang.ir.pattern import Attention, Pattern, Tensor
from attnlang.ir.plan import Decision, Plan, Report, Specialization, TileCount
from attnlang.ir.walk import parts_of
from attnlang.targets import target_of

if TYPE_CHECKING:
    from attnlang.call import Binding

Number = bool | int | float
ELEMENT_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4, "fp64": 8}
STORED_BYTES = {"int": 4, "bool": 1}
BUDGET = 100_000
"""How many boxes inside of tiles are looked at for one head."""
RECOMPILES_WITH = (
    "class of NQ (16, 32, 64, more; on a CPU also 1, 2, 4, 8)", "return_lse", "types of tensors",
    "innermost strides other than 1", "negative q_offset", "sizes or numbers beyond 32 bits",
    "grouped heads with few queries, on a CPU",
)  # fmt: skip


@dataclass(frozen=True)
class Visits:
    """What the kernel of one attention visits at a call; `index_bytes`: the lists that it reads for that."""

    count: TileCount
    index_bytes: int = 0
    decisions: tuple[Decision, ...] = ()


def report(pattern: Pattern, binding: Binding, target: str, dtype: Type) -> Report:
    """The plan of a pattern at the sizes of a binding, with its tiles, FLOPs, bytes and predicted time counted."""
    from attnlang.call_arrays import arrays_read
    from attnlang.execute_programs import plan_for
    from attnlang.passes.magnitude import needs_long
    from attnlang.passes.packing import packs, rows_of
    from attnlang.passes.specialize import static_parameters
    from attnlang.passes.tiles import rows_class

    sizes = dict(binding.sizes)
    sizes.setdefault("D", 64)
    sizes.setdefault("DV", sizes["D"])
    symbols: dict[str, Number] = {**sizes, **binding.scalars}
    statics = tuple((name, binding.parameters[name]) for name in static_parameters(pattern))
    specialization = Specialization(
        target, dtype, sizes["D"], sizes["DV"], statics,
        nonnegative=binding.q_offset >= 0, long=needs_long(pattern, symbols),
    )  # fmt: skip
    specialization = replace(specialization, packed=packs(pattern, specialization, sizes))
    rows = rows_of(sizes["NQ"], sizes) if specialization.packed else sizes["NQ"]
    read = _read_by_visibility(pattern)
    arrays = arrays_read(binding.tensors, read)
    plan = plan_for(pattern, specialization, rows_class(rows, target))
    plan, visits = _tiles_of(pattern, plan, symbols, arrays)
    tiles = tuple(each.count for each in visits)
    listed = sum(each.index_bytes for each in visits)
    low, high = _density(pattern, symbols, arrays, tiles)
    flops, moved = _work(pattern, plan, tiles, symbols, dtype)
    computing, moving = _seconds(target, dtype, flops, moved + listed) if plan.branches else (None, None)
    return Report(
        pattern=pattern.name,
        target=target,
        sizes=sizes,
        parameters=dict(binding.parameters),
        algorithm="kernels: online softmax" if plan.branches else "dense PyTorch (eager)",
        tiles=tiles,
        density=low if low == high else None,
        density_bounds=(low, high),
        missing=tuple(each.name for each in pattern.tensors if each.name in read and each.name not in arrays),
        flops=flops,
        bytes=moved,
        index_bytes=listed,
        compute_seconds=computing,
        memory_seconds=moving,
        decisions=(
            *plan.decisions[:1],
            *(made for each in visits for made in each.decisions),
            *plan.decisions[1:],
            *_backward(pattern, plan),
        ),
        obstacles=plan.obstacles,
        recompiles_with=("dtype", "D", "DV", *(name for name, _ in statics), *RECOMPILES_WITH),
        live=partial(_live, pattern, binding),
    )


def _backward(pattern: Pattern, plan: Plan) -> tuple[Decision, ...]:
    """Where the gradients by Q, K and V come from."""
    from attnlang.execute_backward import no_backward

    if not plan.branches:
        return ()
    if reason := no_backward(pattern, plan.specialization):
        return (Decision("backward", "dense PyTorch", reason, "kernels"),)
    why = "weights computed again from the scores and the saved lse; other tensors' gradients are dense"
    return (Decision("backward", "kernels for dQ, dK and dV", why, "dense PyTorch"),)


def _read_by_visibility(pattern: Pattern) -> frozenset[str]:
    """The tensors that decide what an attention sees, also through tables."""
    from attnlang.passes.tiling import read_by

    attentions = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    return frozenset[str]().union(*(read_by(each, pattern.stages)[0] for each in attentions))


# ------------------------------------------------------------------------------------------------- tiles


def _tiles_of(
    pattern: Pattern, plan: Plan, symbols: Mapping[str, Number], arrays: Mapping[str, Any]
) -> tuple[Plan, tuple[Visits, ...]]:
    """The tiles that this call's kernels would visit, and the plan whose kernels walk them: closed-form ranges where
    these are exact, else the lists that a call would make."""
    from attnlang.execute_programs import plan_for
    from attnlang.execute_tilings import tilings_of
    from attnlang.passes.counting import count_tiles
    from attnlang.passes.planning import facts_of
    from attnlang.passes.tiles import rows_class

    specialization = plan.specialization
    facts = facts_of(plan.pattern, specialization)
    if all(band.exact for branch in plan.branches for band in branch.bands):
        return plan, tuple(Visits(count_tiles(branch, symbols, facts)) for branch in plan.branches)
    sides = [(branch.tile.rows, branch.listed) for branch in plan.branches]
    tilings = tilings_of(plan.pattern, specialization, sides, symbols, arrays)
    if any(tilings):
        walks = tuple(tiling.walk if tiling else "ranges" for tiling in tilings)
        plan = plan_for(
            pattern,
            replace(specialization, walks=walks),
            rows_class(int(symbols["NQ"]), specialization.target),
        )
    visits: list[Visits] = []
    for branch, tiling in zip(plan.branches, tilings, strict=True):
        if tiling is None:
            count = count_tiles(branch, symbols, facts)
            unused = () if branch.packed else _unused(plan, branch.attention, count, symbols, arrays)
            visits.append(Visits(count, decisions=unused))
        else:
            visits.append(Visits(tiling.count(branch.attention.name), tiling.nbytes, tiling.decisions))
    return plan, tuple(visits)


def _unused(
    plan: Plan,
    attention: Attention,
    count: TileCount,
    symbols: Mapping[str, Number],
    arrays: Mapping[str, Any],
) -> tuple[Decision, ...]:
    """How many of the tiles that a kernel visits by ranges hold nothing, where there are any; of an average entry of
    the batch."""
    from attnlang.passes.classify import classify

    found = classify(
        attention, symbols, arrays, count.rows, count.columns, stages=plan.pattern.stages, budget=BUDGET
    )
    needed = -(-(found.counts.full + found.counts.partial) // found.batch)
    if needed >= count.visited:
        return ()
    choice = f"{count.visited:,} tiles visited, {needed:,} may hold visible pairs"
    reason = "the kernel walks closed-form ranges of keys and masks the rest"
    return (Decision("sparsity", choice, reason, "lists of tiles, made where they save more than they cost"),)


def _density(
    pattern: Pattern,
    symbols: Mapping[str, Number],
    arrays: Mapping[str, Any],
    tiles: tuple[TileCount, ...],
) -> tuple[float, float]:
    """Bounds of the share of visible pairs, over all attentions."""
    from attnlang.ir.bounds import Facts
    from attnlang.passes.density import share_of_pairs

    facts = Facts.of(pattern.parameters, (float(symbols["q_offset"]), float("inf")))
    shares = [
        share_of_pairs(stage, symbols, arrays, pattern.stages, facts)
        for stage in pattern.stages
        if isinstance(stage, Attention)
    ]
    if not shares:
        return 0.0, 1.0
    low, high = (sum(ends) / len(shares) for ends in zip(*shares, strict=True))
    if len(shares) == 1 and tiles:
        pairs = int(symbols["NQ"]) * int(symbols["NK"]) * int(symbols["H"])
        high = max(low, min(high, tiles[0].visited * tiles[0].rows * tiles[0].columns / max(1, pairs)))
    return low, high


# -------------------------------------------------------------------------------------------------- cost


def _work(
    pattern: Pattern, plan: Plan, tiles: tuple[TileCount, ...], symbols: Mapping[str, Number], dtype: Type
) -> tuple[int, int]:
    """FLOPs of the two products over visited tiles (dense: over all pairs), and bytes read and written once."""
    batch, heads, groups, queries, keys, features, values = (
        int(symbols[name]) for name in ("B", "H", "HK", "NQ", "NK", "D", "DV")
    )
    width = ELEMENT_BYTES[dtype]
    attentions = [stage for stage in plan.pattern.stages if isinstance(stage, Attention)]
    repeats = max(1, len(plan.branches or attentions))
    if plan.branches:
        pairs = sum(each.visited * each.rows * each.columns * batch for each in tiles)
    else:
        pairs = sum(_all_pairs(each, symbols) for each in attentions)
    flops = 2 * (features + values) * pairs
    rows = batch * (heads * queries + groups * keys)
    moved = rows * (features + values) * width * repeats
    moved += sum(_bytes_of(tensor, symbols, width) for tensor in pattern.tensors)
    if not plan.branches:
        moved += 2 * pairs * width
    return flops, moved


def _all_pairs(attention: Attention, symbols: Mapping[str, Number]) -> int:
    """Rows times what they attend to, over all batch entries and heads."""
    from attnlang.passes.counting import value_of

    return prod(int(value_of(axis.size, symbols, {})) for axis in (*attention.rows, attention.over))


def _bytes_of(tensor: Tensor, symbols: Mapping[str, Number], width: int) -> int:
    """The memory of a declared tensor."""
    from attnlang.passes.counting import value_of

    sides = [int(value_of(axis.size, symbols, {})) for axis in tensor.axes]
    return STORED_BYTES.get(tensor.dtype, width) * prod(sides)


def _seconds(target: str, dtype: Type, flops: int, moved: int) -> tuple[float | None, float | None]:
    """Computing and moving at the target's sustained throughputs; None where they are not known."""
    facts = target_of(target)
    rate = facts.single_flops if dtype == "fp32" else facts.half_flops
    return (flops / rate if rate else None), (moved / facts.bandwidth if facts.bandwidth else None)


# ------------------------------------------------------------------------------------------------- decoding


def _live(pattern: Pattern, binding: Binding, position: int) -> tuple[LiveKeys, ...]:
    """Pattern.kv_live with what the plan was made for: a query for each key. Tensors with an entry for each of other
    queries say nothing of these."""
    from attnlang.call import check_position
    from attnlang.call_interface import Interface
    from attnlang.liveness import live_keys

    place = check_position(Interface(pattern), position)
    keys = binding.sizes["NK"]
    tensors = binding.tensors
    if (binding.sizes["NQ"], binding.q_offset) != (keys, 0):
        by_query = {each.name for each in pattern.tensors if _has_queries(each)}
        tensors = {name: tensor for name, tensor in tensors.items() if name not in by_query}
    later = replace(binding, sizes={**binding.sizes, "NQ": keys}, q_offset=0, tensors=tensors)
    return live_keys(pattern, later, place)


def _has_queries(tensor: Tensor) -> bool:
    sizes = [part for axis in tensor.axes for part in parts_of(axis.size)]
    return any(getattr(part, "name", "") == "NQ" for part in sizes)
