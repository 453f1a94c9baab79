"""Grouped heads in decoding: query heads that share a key/value head are rows of one tile, which reads it once"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from attnlang.ir.bounds import Facts
from attnlang.ir.memo import Memo
from attnlang.ir.pattern import (
    HEAD,
    KV_HEAD,
    Attention,
    Expr,
    Index,
    Pattern,
    Reduce,
    children,
    free_axes,
    kv_head_of,
)  # fmt: skip
from attnlang.ir.plan import Decision, Specialization
from attnlang.ir.rewrite import conjunction, substitute
from attnlang.passes.algebra import factors
from attnlang.passes.ranges import bands
from attnlang.passes.specialize import specialize
from attnlang.passes.tiling import FEWEST_QUERIES

PACKED = Decision(
    "heads",
    "packed",
    "few queries: the heads that share a key/value head are rows of one tile, which reads it once",
    "one by one",
)


def packed(attention: Attention) -> Attention:
    """The same attention with the key/value head as an index of its own, where it is that of the query head."""

    def changed(expr: Expr) -> Expr:
        return substitute(expr, {kv_head_of(Index(HEAD)): Index(KV_HEAD)})

    return replace(
        attention, mask=changed(attention.mask), sparsity=changed(attention.sparsity),
        score=changed(attention.score), value=changed(attention.value),
        reweight=None if attention.reweight is None else changed(attention.reweight),
    )  # fmt: skip


def packs(pattern: Pattern, specialization: Specialization, sizes: Mapping[str, int]) -> bool:
    """Whether the heads of a call should be packed: the rows of one head do not fill a tile, nor are there lists."""
    grouped = sizes["HK"] < sizes["H"] and sizes["NQ"] < FEWEST_QUERIES
    cpu = specialization.target.partition(":")[0] == "cpu"
    return grouped and cpu and not why_apart(pattern, specialization)


def rows_of(queries: int, sizes: Mapping[str, int]) -> int:
    """Rows that share a key/value head."""
    return queries * sizes["H"] // max(1, sizes["HK"])


def why_apart(pattern: Pattern, specialization: Specialization) -> str:
    """Why the heads of a group cannot be rows of one tile; empty: they can."""
    width, values, statics = specialization.head_dim, specialization.value_dim, specialization.statics

    def find() -> str:
        return reason_apart(specialize(pattern, width, values, dict(statics)))

    return _reasons.get(pattern, (width, values, statics), find)


_reasons: Memo[object, str] = Memo(1024)


def reason_apart(pattern: Pattern) -> str:
    """The same of a pattern that is specialized."""
    facts = Facts.of(pattern.parameters, (float("-inf"), float("inf")))
    for stage in pattern.stages:
        if not isinstance(stage, Attention):
            continue
        alike = packed(stage)
        if HEAD in free_axes(alike.value):
            return "values differ between the heads of a group"
        visible = conjunction(alike.mask, alike.sparsity)
        for band in bands(visible, stage.rows[-1], stage.over, facts):
            if any(HEAD in free_axes(part) for part in (*band.lower, *band.upper, band.guard)):
                return "ranges of keys differ between the heads of a group"
        exprs = [visible, alike.score, *([alike.reweight] if alike.reweight is not None else [])]
        both = {HEAD, stage.over}
        for reduction in (each for expr in exprs for each in _reductions(expr)):
            if any(both <= set(free_axes(part)) for part in factors(reduction.body)):
                return "a sum has factors that belong to a key and to a query head"
    return ""


def _reductions(expr: Expr) -> Iterator[Reduce]:
    if isinstance(expr, Reduce):
        yield expr
    for child in children(expr):
        yield from _reductions(child)
