"""The decision record of a pattern at a size: what `Pattern.plan` returns and `attnlang explain` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attnlang.ir.kernel import Type
from attnlang.ir.pattern import Attention, Pattern
from attnlang.ir.plan import Decision, Plan, Report, Specialization, TileCount
from attnlang.targets import target_of

if TYPE_CHECKING:
    from attnlang.call import Binding

ELEMENT_BYTES = {"fp16": 2, "bf16": 2, "fp32": 4, "fp64": 8}


def report(pattern: Pattern, binding: Binding, target: str, dtype: Type) -> Report:
    """The plan of a pattern at the sizes of a binding, with its tiles, FLOPs, bytes and predicted time counted."""
    from attnlang.execute_programs import plan_for
    from attnlang.passes.counting import count_tiles, visible_pairs
    from attnlang.passes.magnitude import needs_long
    from attnlang.passes.planning import facts_of
    from attnlang.passes.specialize import static_parameters
    from attnlang.passes.tiles import rows_class

    sizes = dict(binding.sizes)
    sizes.setdefault("D", 64)
    sizes.setdefault("DV", sizes["D"])
    statics = tuple((name, binding.parameters[name]) for name in static_parameters(pattern))
    specialization = Specialization(
        target,
        dtype,
        sizes["D"],
        sizes["DV"],
        statics,
        nonnegative=binding.q_offset >= 0,
        long=needs_long(pattern, {**sizes, **binding.scalars}),
    )
    plan = plan_for(pattern, specialization, rows_class(sizes["NQ"]))
    symbols: dict[str, Any] = {**sizes, **binding.scalars}
    facts = facts_of(plan.pattern, specialization)
    tiles = tuple(count_tiles(branch, symbols, facts) for branch in plan.branches)
    pairs = [visible_pairs(branch, symbols) for branch in plan.branches]
    total = sizes["NQ"] * sizes["NK"] * sizes["H"]
    known = [pair for pair in pairs if pair is not None]
    density = sum(known) / (total * len(pairs)) if pairs and len(known) == len(pairs) else None
    flops, moved = _work(plan, tiles, sizes, dtype)
    return Report(
        pattern=pattern.name,
        target=target,
        sizes=sizes,
        parameters=dict(binding.parameters),
        algorithm="kernels: online softmax" if plan.branches else "dense PyTorch (eager)",
        tiles=tiles,
        density=density,
        flops=flops,
        bytes=moved,
        seconds=_seconds(target, dtype, flops, moved) if plan.branches else None,
        decisions=(*plan.decisions, *_unused_sparsity(plan, tiles, {**symbols, "B": 1})),
        obstacles=plan.obstacles,
        recompiles_with=(
            "dtype",
            "D",
            "DV",
            *(name for name, _ in statics),
            "class of NQ (16, 32, 64, more)",
            "return_lse",
            "types of tensors",
            "innermost strides other than 1",
            "negative q_offset",
            "sizes or numbers beyond 32 bits",
        ),
    )


def _unused_sparsity(plan: Plan, tiles: tuple[TileCount, ...], symbols: dict[str, Any]) -> list[Decision]:
    """Of each kernel that visits tiles without a visible pair: how many, by interval analysis of its predicate."""
    from attnlang.passes.classify import classify

    found: list[Decision] = []
    for branch, count in zip(plan.branches, tiles, strict=True):
        if all(band.exact for band in branch.bands):
            continue
        seen = classify(
            branch.attention, symbols, None, count.rows, count.columns, stages=plan.pattern.stages
        ).counts
        needed = seen.full + seen.partial
        if needed < count.visited:
            choice = f"{count.visited:,} tiles visited, {needed:,} may hold visible pairs"
            reason = "the kernel walks closed-form ranges of keys and masks the rest"
            found.append(
                Decision("sparsity", choice, reason, "lists of tiles, which kernels do not read yet")
            )
    return found


def _work(plan: Plan, tiles: tuple[TileCount, ...], sizes: dict[str, int], dtype: str) -> tuple[int, int]:
    """FLOPs of the two products over visited tiles (dense: over all pairs), and bytes read and written once."""
    batch, width = sizes["B"], ELEMENT_BYTES[dtype]
    features = sizes["D"] + sizes["DV"]
    if plan.branches:
        flops = sum(2 * features * count.visited * count.rows * count.columns * batch for count in tiles)
        repeats = len(plan.branches)
    else:
        repeats = max(1, sum(isinstance(stage, Attention) for stage in plan.pattern.stages))
        flops = 2 * features * sizes["NQ"] * sizes["NK"] * sizes["H"] * batch * repeats
    queries = batch * sizes["H"] * sizes["NQ"] * features
    keys = batch * sizes["HK"] * sizes["NK"] * features
    moved = (queries + keys) * width * repeats
    if not plan.branches:
        moved += 2 * batch * sizes["H"] * sizes["NQ"] * sizes["NK"] * width * repeats
    return flops, moved


def _seconds(target: str, dtype: str, flops: int, moved: int) -> float | None:
    """The longer of computing and moving at the target's sustained throughputs; None where they are not known."""
    facts = target_of(target)
    rate = facts.single_flops if dtype == "fp32" else facts.half_flops
    if rate is None or facts.bandwidth is None:
        return None
    return max(flops / rate, moved / facts.bandwidth)
