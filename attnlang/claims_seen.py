"""Which pairs a claim is about: what queries see, as conditions over (b, h, q) and what attentions go over."""

from __future__ import annotations

from functools import reduce

from attnlang.call_interface import Interface
from attnlang.claims import not_meant
from attnlang.ir.pattern import (
    SIZES,
    Apply,
    Attention,
    Axis,
    Claim,
    Expr,
    Merge,
    Pattern,
    Read,
    Reduce,
    children,
)
from attnlang.ir.walk import parts_of, stage_expressions


def at_size(claim: Claim) -> bool:
    """Whether a claim gives its sizes as numbers, so that pairs can be counted."""
    given = [expr for name, expr in claim.where if name in ("NQ", "NK")]
    return bool(given) and not any(part in SIZES.values() for expr in given for part in parts_of(expr))


def visibilities(interface: Interface, claim: Claim) -> list[tuple[Axis, Expr]]:
    """What makes up the result: conditions over rows (b, h, q) and one axis each, those over the keys as one; where an
    attention has more rows (a cluster, a level), what any of them sees.

    Raises ClaimNotMeant where no attention of queries enters the output.
    """
    pattern = interface.pattern
    found: dict[Axis, list[Expr]] = {}
    for stage in _result_attentions(pattern):
        if pattern.axes[2] in stage.rows:
            seen: Expr = Apply("and", (stage.mask, stage.sparsity))
            more = tuple(axis for axis in stage.rows if axis not in pattern.axes[:3])
            found.setdefault(stage.over, []).append(Reduce("any", more, seen) if more else seen)
    if not found:
        raise not_meant(interface, claim, "no attention of queries enters its output")
    return [(axis, reduce(lambda a, b: Apply("or", (a, b)), seen)) for axis, seen in found.items()]


def key_visibility(interface: Interface, claim: Claim) -> tuple[Axis, Expr]:
    """Which keys are visible to which rows (b, h, q). Raises ClaimNotMeant where no attention goes over the keys."""
    for over, seen in visibilities(interface, claim):
        if over.role == "key":
            return over, seen
    raise not_meant(interface, claim, "no attention over the keys enters its output")


def _result_attentions(pattern: Pattern) -> list[Attention]:
    """The attentions whose results the output reads, through merges and tables too."""
    stages = {stage.name: stage for stage in pattern.stages}
    found: list[Attention] = []
    queue = _sources(pattern.output)
    seen: set[str] = set()
    while queue:
        name = queue.pop(0)
        if name in seen or name not in stages:
            continue
        seen.add(name)
        match stages[name]:
            case Attention() as stage:
                found.append(stage)
            case Merge(_, parts):
                queue += list(parts)
            case _:
                pass
    return found


def sources_of(pattern: Pattern) -> frozenset[str]:
    """All that the output depends on: stages, tensors, Q, K and V."""
    stages = {stage.name: stage for stage in pattern.stages}
    found: set[str] = set()
    queue = _sources(pattern.output)
    while queue:
        name = queue.pop()
        if name in found:
            continue
        found.add(name)
        match stages.get(name):
            case None:
                pass
            case Merge(_, parts):
                queue += list(parts)
            case stage:
                queue += [source for expr in stage_expressions(stage) for source in _sources(expr)]
    return frozenset(found)


def _sources(expr: Expr) -> list[str]:
    """The stages an expression reads, without what they are read by."""
    own = [expr.source.partition(".")[0]] if isinstance(expr, Read) else []
    return own + [name for child in children(expr) for name in _sources(child)]
