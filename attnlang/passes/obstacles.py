"""What of a pattern has no kernel yet: each construct by name, with its place and the reason."""

from __future__ import annotations

from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    NK,
    NQ,
    Q_OFFSET,
    Attention,
    Expr,
    Formula,
    Let,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Stage,
    Threshold,
    axis_of,
    children,
    free_axes,
)  # fmt: skip
from attnlang.ir.plan import Obstacle, Specialization
from attnlang.passes.reweight import is_product
from attnlang.passes.specialize import reads
from attnlang.source import NOWHERE, Span

LARGEST_HEAD = 256


def obstacles(pattern: Pattern, specialization: Specialization) -> tuple[Obstacle, ...]:
    """Every reason why the pattern cannot run as kernels; none when it can."""
    found: list[Obstacle] = []
    attentions = {stage.name for stage in pattern.stages if isinstance(stage, Attention)}
    for stage in pattern.stages:
        found += _of_stage(stage, attentions)
    for name in sorted(reads(pattern.output)):
        if _stage_of(name) in attentions and name.partition(".")[2] not in ("", "lse"):
            found.append(Obstacle("output", f"kernels do not keep {_spelled(name)}"))
    if not attentions:
        found.append(Obstacle("output", "nothing is attended to"))
    if specialization.dtype == "fp64" and not specialization.target.startswith("cpu"):
        found.append(Obstacle("dtype", "kernels compute in float16, bfloat16 and float32, not fp64"))
    for what, size in (("head size", specialization.head_dim), ("value size", specialization.value_dim)):
        if size > LARGEST_HEAD:
            found.append(Obstacle(what, f"{size} is more than {LARGEST_HEAD}"))
    return tuple(found)


def _of_stage(stage: Stage, attentions: set[str]) -> list[Obstacle]:
    match stage:
        case Attention():
            return _of_attention(stage, attentions)
        case Let():
            sizes = [axis.size for axis in stage.axes]
            if any(_stage_of(name) in attentions for name in reads(stage.body)):
                return [_obstacle("let", f"{stage.name} reads the result of an attention", stage.span)]
            if (NQ in sizes and NK in sizes) or sizes.count(NK) > 1:
                return [_obstacle("let", f"{stage.name} has an entry for every pair of tokens", stage.span)]
            return []
        case Select():
            return [_obstacle("select", "choosing keys by content", stage.span)]
        case Merge():
            return [_obstacle("merge", "one softmax over several key sequences", stage.span)]
        case Recurrence():
            return [_obstacle("scan, state", "recurrences", stage.span)]


def _of_attention(attention: Attention, attentions: set[str]) -> list[Obstacle]:
    found: list[Obstacle] = []
    span = attention.span
    rows = attention.rows
    if len(rows) != 3 or rows[:2] != (BATCH, HEAD) or rows[2].size != NQ or rows[2].start != Q_OFFSET:
        found.append(_obstacle("branch", f"the rows of {attention.name} are not the queries", span))
    if attention.over.size != NK or attention.over.role != "key":
        found.append(
            _obstacle("branch … over", f"{attention.name} sums over something else than the keys", span)
        )
    match attention.normalize:
        case (Formula(_, "softmax"),):
            pass
        case (Threshold(kind, _), *_):
            found.append(_obstacle("normalize", f"{kind} finds its threshold by search", span))
        case ():
            found.append(_obstacle("weight", "weights without a softmax", span))
        case _:
            found.append(_obstacle("normalize", "normalizers other than softmax", span))
    if not is_product(attention):
        found.append(_obstacle("reweight", "reweighting that is not a product with a factor", span))
    used = reads(attention.score) | reads(attention.value) | reads(attention.mask) | reads(attention.sparsity)
    if any(_stage_of(name) in attentions for name in used):
        found.append(_obstacle("branch", f"{attention.name} reads the result of another attention", span))
    if rows and rows[-1] in free_axes(attention.value):
        found.append(_obstacle("value", "values that depend on the query", span))
    if _reduces_over_tokens(attention.score) or _reduces_over_tokens(attention.value):
        found.append(_obstacle("score", "a sum over all keys or queries for every pair", span))
    return found


def _stage_of(name: str) -> str:
    return name.split(".", 1)[0]


def _spelled(name: str) -> str:
    """A part of an attention as the language writes it."""
    return f"{_stage_of(name)}.w" if name.endswith(".weights") else name


def _reduces_over_tokens(expr: Expr) -> bool:
    if isinstance(expr, Reduce) and any(axis.size in (NK, NQ) for axis in expr.axes):
        return True
    return any(_reduces_over_tokens(child) for child in children(expr))


def _obstacle(construct: str, reason: str, span: Span) -> Obstacle:
    place = "" if span == NOWHERE else span.location()
    return Obstacle(construct, reason, place)


def plain_output(expr: Expr, name: str) -> bool:
    """Whether the output is the result of one attention as it is."""
    return isinstance(expr, Read) and expr.source == name and all(axis_of(at) is not None for at in expr.at)
