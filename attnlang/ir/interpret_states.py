"""What queries see of the keys through states: every key up to the one after which a state is read."""

from __future__ import annotations

from collections.abc import Iterator

from attnlang.ir.pattern import (
    KEY,
    QUERY,
    TRUE,
    Apply,
    Axis,
    Expr,
    Index,
    Let,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    free_axes,
)
from attnlang.ir.walk import parts_of, reads_of

_TOKENS = ("key", "position", "query")


def seen_through_states(pattern: Pattern) -> tuple[Expr, ...] | None:
    """Conditions over `QUERY` and `KEY` of which one holds where a query sees a key; None where the output reads more
    than states that take in one token after the other."""
    stages = {stage.name: stage for stage in pattern.stages}
    found: list[Expr] = []
    for read, held in _reads_where(pattern.output, TRUE):
        stage = stages.get(read.source)
        if isinstance(stage, Recurrence):
            at = read.at[stage.position]
            if not _follows_queries(at) or not _takes_in_its_token(pattern, stage):
                return None
            found.append(Apply("and", (held, Apply("le", (Index(KEY), at)))))
        elif stage is not None or read.source in ("K", "V"):
            return None
    return tuple(found) or None


def _reads_where(expr: Expr, held: Expr) -> Iterator[tuple[Read, Expr]]:
    """Every read of the output with a condition on the query under which alone it counts."""
    match expr:
        case Apply("where", (condition, then, otherwise)) if _follows_queries(condition):
            yield from _reads_where(then, Apply("and", (held, condition)))
            yield from _reads_where(otherwise, Apply("and", (held, Apply("not", (condition,)))))
        case Read():
            yield expr, held
            for at in expr.at:
                yield from _reads_where(at, held)
        case Apply(_, args):
            for arg in args:
                yield from _reads_where(arg, held)
        case Reduce(_, _, body, where):
            for part in (body,) if where is None else (body, where):
                yield from _reads_where(part, held)
        case _:
            pass


def _follows_queries(expr: Expr) -> bool:
    """Whether the query alone, and what is known of the call, decide it."""
    return free_axes(expr) <= {QUERY} and not reads_of(expr)


def _takes_in_its_token(pattern: Pattern, stage: Recurrence) -> bool:
    """Whether a step reads nothing of other tokens than its own, besides the value before it."""
    exprs = (stage.step,) if stage.restart is None else (stage.step, stage.restart)
    return all(_is_local(pattern, expr, frozenset((stage.token,)), stage.name) for expr in exprs)


def _is_local(pattern: Pattern, expr: Expr, tokens: frozenset[Axis], name: str) -> bool:
    tables = {stage.name: stage for stage in pattern.stages if isinstance(stage, Let)}
    axes = {
        tensor.name: [axis.index in ("n", "k", "q") for axis in tensor.axes] for tensor in pattern.tensors
    }
    axes |= {table.name: [axis.role in _TOKENS for axis in table.axes] for table in tables.values()}
    axes |= {"K": [False, False, True, False], "V": [False, False, True, False]}
    for part in parts_of(expr):
        if isinstance(part, Reduce) and any(axis.role in _TOKENS for axis in part.axes):
            return False
        if not isinstance(part, Read) or part.source == f"{name}.previous":
            continue
        if part.source not in axes:
            return False
        for at, over_tokens in zip(part.at, axes[part.source], strict=True):
            if over_tokens and not (isinstance(at, Index) and at.axis in tokens):
                return False
        table = tables.get(part.source)
        if table is not None:
            own = frozenset(axis for axis in table.axes if axis.role in _TOKENS)
            if not _is_local(pattern, table.body, own, name):
                return False
    return True
