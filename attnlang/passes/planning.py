"""Pattern + specialization → plan: what runs as kernels and how, or why it runs as dense PyTorch instead."""

from __future__ import annotations

from attnlang.ir.bounds import Facts, direction
from attnlang.ir.kernel import Kernel, Loop
from attnlang.ir.pattern import (
    Attention,
    Let,
    Pattern,
)  # fmt: skip
from attnlang.ir.plan import Band, BranchPlan, Decision, Obstacle, Plan, Specialization, Tile, WalkKind
from attnlang.ir.rewrite import conjunction
from attnlang.ir.verify import verify
from attnlang.passes.arguments import kernel_arguments
from attnlang.passes.lower_attention import Arguments, lower_attention
from attnlang.passes.lower_columns import listed_columns
from attnlang.passes.lower_combine import lower_combine
from attnlang.passes.lower_expr import padded
from attnlang.passes.obstacles import obstacles, plain_output
from attnlang.passes.packing import PACKED, packed, reason_apart
from attnlang.passes.ranges import bands
from attnlang.passes.specialize import reads, specialize
from attnlang.passes.tiles import PairWork, choose_tile, few_rows, last_loop, pair_work
from attnlang.passes.tiling import FEWEST_QUERIES
from attnlang.passes.verify_kernel import verify_kernel
from attnlang.passes.widen import in_double
from attnlang.targets import target_of

LISTED_ORDER = Decision(
    "order", "heavy tiles first", "rows of tiles stand by falling number of visited tiles", "as they stand"
)
SPLIT = Decision(
    "keys",
    "split among programs",
    "few queries and many keys; a second kernel combines the shares",
    "one program each",
)
ALL_PAIRS = Decision(
    "memory",
    "every pair of query and key",
    "dense PyTorch holds the scores and the weights",
    "kernels, which hold tiles",
)


def make_plan(
    pattern: Pattern, specialization: Specialization, rows_limit: int, banner: tuple[str, ...]
) -> Plan:
    """Every decision for one specialization; `rows_limit`: the class of the number of queries (`tiles.rows_class`)."""
    target = target_of(specialization.target)
    if target.kind == "eager":
        return _eager(
            pattern,
            specialization,
            Decision("algorithm", "dense PyTorch", f"target {target.name} was asked for"),
        )
    special = specialize(
        pattern, specialization.head_dim, specialization.value_dim, dict(specialization.statics)
    )
    verify(special, after="specialize")
    blocked = obstacles(special, specialization)
    if blocked:
        first = blocked[0]
        why = f"no kernel yet for {first.construct}: {first.reason}" + (
            f" ({first.place})" if first.place else ""
        )
        return _eager(pattern, specialization, Decision("algorithm", "dense PyTorch", why), blocked)
    return _kernels(special, specialization, rows_limit, banner)


def _eager(
    pattern: Pattern, specialization: Specialization, decision: Decision, blocked: tuple[Obstacle, ...] = ()
) -> Plan:
    return Plan(pattern, specialization, "eager", obstacles=blocked, decisions=(decision, ALL_PAIRS))


def facts_of(pattern: Pattern, specialization: Specialization) -> Facts:
    """What is known of every call of a kernel."""
    low = 0.0 if specialization.nonnegative else float("-inf")
    return Facts.of(pattern.parameters, (low, float("inf")))


def _kernels(
    pattern: Pattern, specialization: Specialization, rows_limit: int, banner: tuple[str, ...]
) -> Plan:
    facts = facts_of(pattern, specialization)
    attentions = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    needed = _needed_tables(pattern, attentions)
    arguments = kernel_arguments(pattern, needed, specialization)
    decisions = [
        Decision(
            "algorithm",
            "online softmax",
            "softmax over keys; one pass, base 2, float32 accumulators",
            "two passes over keys",
        )
    ]
    branches: list[BranchPlan] = []
    walks = specialization.walks or ("ranges",) * len(attentions)
    for attention, kind in zip(attentions, walks, strict=True):
        branch, made = _branch(pattern, attention, arguments, facts, specialization, rows_limit, banner, kind)
        branches.append(branch)
        decisions += made
    alone = len(attentions) == 1 and plain_output(pattern.output, attentions[0].name)
    if not alone:
        decisions.append(
            Decision(
                "output",
                "combined by PyTorch",
                f"{len(attentions)} attention(s) and an output expression",
                "fusing it",
            )
        )
    if needed:
        names = ", ".join(let.name for let in needed)
        decisions.append(
            Decision(
                "tables",
                names,
                "looked up by the kernel, evaluated by PyTorch before it",
                "computed for every pair",
            )
        )
    if specialization.split:
        decisions.append(SPLIT)
    if specialization.packed:
        decisions.append(PACKED)
    elif (
        target_of(specialization.target).kind == "cpu"
        and rows_limit < FEWEST_QUERIES
        and (reason := reason_apart(pattern))
    ):
        decisions.append(Decision("heads", "one by one", reason, "packed, where they share keys"))
    decisions += _specialized(specialization)
    combine = None if alone else pattern.output
    return Plan(pattern, specialization, "kernels", tuple(branches), needed, combine, (), tuple(decisions))


def _specialized(specialization: Specialization) -> list[Decision]:
    """What the code was shaped by: another value is another kernel."""
    shaped = [f"{specialization.dtype}", f"D={specialization.head_dim}", f"DV={specialization.value_dim}"]
    shaped += [f"{name}={value}" for name, value in specialization.statics]
    offsets, span = ("64-bit", "at least") if specialization.wide else ("32-bit", "less than")
    other = "32-bit, for smaller tensors" if specialization.wide else "64-bit, for larger tensors"
    whole = (
        [
            Decision(
                "whole numbers",
                "64-bit",
                "sums and products of positions and parameters may leave 32 bits",
                "32-bit",
            )
        ]
        if specialization.long
        else []
    )
    result = [
        *whole,
        Decision(
            "compiled for",
            ", ".join(shaped),
            "these shape the code; lengths, heads, strides and the rest do not",
        ),
        Decision("offsets", f"{offsets} within a head", f"a head's rows span {span} 2^31 elements", other),
    ]
    for what, size in (("head size", specialization.head_dim), ("value size", specialization.value_dim)):
        if padded(size) != size:
            result.append(Decision(what, f"{size} padded to {padded(size)}", "tile sides are powers of two"))
    return result


def _branch(
    pattern: Pattern,
    attention: Attention,
    arguments: Arguments,
    facts: Facts,
    specialization: Specialization,
    rows_limit: int,
    banner: tuple[str, ...],
    walk: WalkKind,
) -> tuple[BranchPlan, list[Decision]]:
    query, key = attention.rows[-1], attention.over
    lowered_as, found = attention, bands(conjunction(attention.mask, attention.sparsity), query, key, facts)
    walked = found
    if specialization.packed:
        lowered_as = packed(attention)
        walked = bands(conjunction(lowered_as.mask, lowered_as.sparsity), query, key, facts)
    features = max(padded(specialization.head_dim), padded(specialization.value_dim))
    heavy_first = any(
        direction(bound, query, facts) == 1 for band in found for bound in band.upper
    ) and not any(direction(bound, query, facts) == 1 for band in found for bound in band.lower)
    name = (
        f"{pattern.name}_forward"
        if attention.name == "attention"
        else f"{pattern.name}_{attention.name}_forward"
    )
    name += "_packed" if specialization.packed else ""
    name += ("" if walk == "ranges" else f"_{walk}") + ("_split" if specialization.split else "")
    target = target_of(specialization.target)

    def lowered(tile: Tile) -> Kernel:
        made = lower_attention(
            name, banner, lowered_as, walked, tile, heavy_first, arguments, facts, specialization, walk
        )
        return in_double(made) if specialization.dtype == "fp64" else made

    exact = all(band.exact for band in found)

    def tiled(pairs: PairWork) -> tuple[Tile, Decision]:
        listed = walk != "ranges"
        return choose_tile(target, specialization.dtype, features, rows_limit, pairs, exact, listed)

    tile, _ = tiled(PairWork())
    tile, tile_decision = tiled(pair_work(lowered(tile)))
    kernel = lowered(tile)
    verify_kernel(kernel, "lower_attention")
    made = [tile_decision, *(_range_decisions(found, heavy_first) if walk == "ranges" else [LISTED_ORDER])]
    if loops := sum(isinstance(inner, Loop) for inner in last_loop(kernel)):
        why = "their terms mix query and key, so that no matrix product gives them"
        made.append(Decision("sums", f"{loops} loop(s) for every tile of pairs", why))
    combine = lower_combine(f"{name}_combine", banner, specialization) if specialization.split else None
    listed = listed_columns(target.name, tile.rows, tile.columns, few_rows(specialization.dtype))
    packs = specialization.packed
    return BranchPlan(attention, found, tile, heavy_first, kernel, walk, combine, packs, listed), made


def _range_decisions(found: tuple[Band, ...], heavy_first: bool) -> list[Decision]:
    bounded = [band for band in found if band.lower or band.upper]
    exact = all(band.exact for band in found)
    if len(bounded) < len(found):
        ranges = Decision("key ranges", "all keys", "the predicate bounds no range of keys in closed form")
    elif exact:
        ranges = Decision(
            "key ranges",
            f"{len(found)} closed-form range(s) per query tile",
            "the predicate is affine in q and k",
            "lists of tiles, made for each call",
        )
    else:
        ranges = Decision(
            "key ranges",
            f"{len(found)} closed-form range(s) per query tile, masked inside",
            "part of the predicate is not affine",
        )
    order = (
        Decision("order", "heavy tiles first", "later queries see more keys", "as they stand")
        if heavy_first
        else None
    )
    return [ranges, order] if order else [ranges]


def _needed_tables(pattern: Pattern, attentions: list[Attention]) -> tuple[Let, ...]:
    """The tables that kernels read themselves."""
    read: set[str] = set()
    for attention in attentions:
        for expr in (
            attention.mask,
            attention.sparsity,
            attention.score,
            attention.value,
            attention.reweight,
        ):
            read |= reads(expr) if expr is not None else set()
    return tuple(stage for stage in pattern.stages if isinstance(stage, Let) and stage.name in read)
