"""Walks over expressions: what they read, and the same reading something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attnlang.ir.pattern import Expr, Read, children
from attnlang.ir.rewrite import map_children


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
