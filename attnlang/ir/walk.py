"""Walks over stages and expressions: what they consist of, what they read, and the same reading something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import assert_never

from attnlang.ir.pattern import (
    Attention,
    Expr,
    Formula,
    Let,
    Merge,
    Read,
    Recurrence,
    Select,
    Stage,
    children,
)
from attnlang.ir.rewrite import map_children


def stage_expressions(stage: Stage) -> tuple[Expr, ...]:
    """Every expression of a stage, in the order in which it is evaluated."""
    match stage:
        case Let():
            return (stage.body,)
        case Select():
            total = () if stage.total is None else (stage.total,)
            return (stage.amount, stage.by, stage.where, stage.always, *total)
        case Attention():
            steps = tuple(step.body if isinstance(step, Formula) else step.amount for step in stage.normalize)
            reweight = () if stage.reweight is None else (stage.reweight,)
            return (stage.mask, stage.sparsity, stage.score, *steps, *reweight, stage.value)
        case Merge():
            return ()
        case Recurrence():
            return (stage.step,) if stage.restart is None else (stage.step, stage.restart)
        case _:
            assert_never(stage)


def parts_of(expr: Expr) -> Iterator[Expr]:
    """The expression and everything in it."""
    yield expr
    for child in children(expr):
        yield from parts_of(child)


def reads_of(expr: Expr) -> list[Read]:
    """All reads in an expression, those inside indices included."""
    return [part for part in parts_of(expr) if isinstance(part, Read)]


def replace_reads(expr: Expr, sources: Mapping[str, str]) -> Expr:
    """The expression with reads of some sources turned to others."""
    new = map_children(expr, lambda part: replace_reads(part, sources))
    return Read(sources.get(new.source, new.source), new.at, new.dtype) if isinstance(new, Read) else new
