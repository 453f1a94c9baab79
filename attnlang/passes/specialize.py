"""A pattern for one specialization: static parameters and head sizes become numbers, and what they decide goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from attnlang.ir.memo import Memo
from attnlang.ir.pattern import (
    DV,
    Attention,
    Axis,
    D,
    Expr,
    Formula,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Stage,
    Step,
    Symbol,
    TensorAxis,
    Threshold,
    children,
    dtype_of,
)  # fmt: skip
from attnlang.ir.rewrite import simplify, substitute

_Change = Callable[[Expr], Expr]
_AxisChange = Callable[[Axis], Axis]


def static_parameters(pattern: Pattern) -> tuple[str, ...]:
    """Parameters that shape the code: bools, and those in the length of a summed axis of a score or value."""
    return _shaping.get(pattern, None, lambda: _find_static(pattern))


def reads_lse(pattern: Pattern) -> bool:
    """Whether the output is made of an attention's lse, so that its kernel must store it."""
    return _lse.get(pattern, None, lambda: any(name.endswith(".lse") for name in reads(pattern.output)))


_shaping: Memo[None, tuple[str, ...]] = Memo(1024)
_lse: Memo[None, bool] = Memo(1024)


def _find_static(pattern: Pattern) -> tuple[str, ...]:
    shaping: set[str] = {parameter.name for parameter in pattern.parameters if parameter.dtype == "bool"}
    names = {parameter.name for parameter in pattern.parameters}
    for stage in pattern.stages:
        if isinstance(stage, Attention):
            for expr in (stage.score, stage.value, *([stage.reweight] if stage.reweight else [])):
                shaping |= _lengths(expr) & names
    return tuple(parameter.name for parameter in pattern.parameters if parameter.name in shaping)


def _lengths(expr: Expr) -> set[str]:
    found: set[str] = set()
    if isinstance(expr, Reduce) and expr.op == "sum" and dtype_of(expr.body) == "float":
        for axis in expr.axes:
            found |= _symbols(axis.size)
    for child in children(expr):
        found |= _lengths(child)
    return found


def _symbols(expr: Expr) -> set[str]:
    match expr:
        case Symbol(name, _):
            return {name}
        case _:
            return set[str]().union(*map(_symbols, children(expr)))


def specialize(
    pattern: Pattern, head_dim: int, value_dim: int, statics: Mapping[str, bool | int | float]
) -> Pattern:
    """The pattern with these numbers in place of their symbols, simplified."""
    values: dict[Expr, Expr] = {D: Literal(head_dim), DV: Literal(value_dim)}
    for parameter in pattern.parameters:
        if parameter.name in statics:
            values[Symbol(parameter.name, parameter.dtype)] = Literal(statics[parameter.name])

    def change(expr: Expr) -> Expr:
        return simplify(substitute(expr, values))

    def axis(old: Axis) -> Axis:
        return replace(old, size=change(old.size), start=change(old.start))

    def tensor_axis(old: TensorAxis) -> TensorAxis:
        return replace(old, size=change(old.size))

    batch, head, query, feature = (axis(old) for old in pattern.axes)
    return replace(
        pattern,
        tensors=tuple(replace(t, axes=tuple(map(tensor_axis, t.axes))) for t in pattern.tensors),
        requirements=tuple(replace(r, condition=change(r.condition)) for r in pattern.requirements),
        axes=(batch, head, query, feature),
        stages=tuple(_stage(stage, change, axis) for stage in pattern.stages),
        output=change(pattern.output),
    )


def _stage(stage: Stage, change: _Change, axis: _AxisChange) -> Stage:
    def axes(old: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(axis(item) for item in old)

    def maybe(expr: Expr | None) -> Expr | None:
        return None if expr is None else change(expr)

    match stage:
        case Let():
            return replace(stage, axes=axes(stage.axes), body=change(stage.body))
        case Select():
            return replace(
                stage, rows=axes(stage.rows), candidates=axes(stage.candidates), amount=change(stage.amount),
                by=change(stage.by), where=change(stage.where), always=change(stage.always), total=maybe(stage.total),
            )  # fmt: skip
        case Attention():
            return replace(
                stage, rows=axes(stage.rows), over=axis(stage.over), feature=axis(stage.feature),
                mask=change(stage.mask), sparsity=change(stage.sparsity), score=change(stage.score),
                normalize=tuple(_step(step, change) for step in stage.normalize),
                reweight=maybe(stage.reweight), value=change(stage.value),
            )  # fmt: skip
        case Merge():
            return stage
        case Recurrence():
            return replace(
                stage,
                axes=axes(stage.axes),
                token=axis(stage.token),
                step=change(stage.step),
                restart=maybe(stage.restart),
            )


def _step(step: Step, change: _Change) -> Step:
    match step:
        case Formula(body, kind):
            return Formula(change(body), kind)
        case Threshold(kind, amount):
            return Threshold(kind, change(amount))


def reads(expr: Expr) -> frozenset[str]:
    """The tensors and stages an expression reads, statistics included as written (`a.lse`)."""
    own = frozenset((expr.source,)) if isinstance(expr, Read) else frozenset[str]()
    return own.union(*map(reads, children(expr)))
