"""The rules that pattern IR keeps, checked after every pass; the pass that broke one is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    OPERATIONS,
    SIZES,
    Apply,
    Attention,
    Axis,
    DType,
    Expr,
    Formula,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Stage,
    Symbol,
    dtype_of,
)
from attnlang.ir.text import expression_text

_LOGICAL = ("and", "or", "not")
_ANY_KIND = ("eq", "ne", "int", "float", "where")


class VerificationError(Exception):
    """A pass has left pattern IR that breaks its rules: a mistake of the compiler, never of its user."""

    def __init__(self, after: str, place: str, problem: str) -> None:
        super().__init__(f"after {after}: {place}: {problem}")
        self.after = after


@dataclass(frozen=True)
class Readable:
    """What may be read: how many indices it takes and what kind of number it gives."""

    arity: int
    dtype: DType


@dataclass(frozen=True)
class Scope:
    """What an expression may use: the sources it reads, the symbols and the index variables that have a value."""

    after: str
    place: str
    sources: dict[str, Readable]
    symbols: dict[str, DType]
    axes: frozenset[Axis] = frozenset()

    def fail(self, problem: str) -> VerificationError:
        """The error at this place."""
        return VerificationError(self.after, self.place, problem)

    def at(self, place: str, axes: Iterable[Axis], more: dict[str, Readable] | None = None) -> Scope:
        """Another place, with its index variables and what can be read there only."""
        return replace(self, place=place, axes=frozenset(axes), sources={**self.sources, **(more or {})})


def verify(pattern: Pattern, after: str) -> None:
    """Raises `VerificationError`, naming the pass `after`, where the pattern breaks a rule of its IR."""
    symbols: dict[str, DType] = {name: size.dtype for name, size in SIZES.items()}
    symbols |= {"q_offset": "int", "scale": "float"}
    symbols |= {parameter.name: parameter.dtype for parameter in pattern.parameters}
    sources = {"Q": Readable(4, "float"), "K": Readable(4, "float"), "V": Readable(4, "float")}
    scope = Scope(after, "the pattern", sources, symbols)
    names = [tensor.name for tensor in pattern.tensors] + [stage.name for stage in pattern.stages]
    for name in names:
        if names.count(name) > 1 or name in ("Q", "K", "V"):
            raise scope.fail(f"'{name}' is defined twice")
    for tensor in pattern.tensors:
        sources[tensor.name] = Readable(len(tensor.axes), tensor.dtype)
        for axis in tensor.axes:
            check(scope.at(f"tensor {tensor.name}", ()), axis.size, "int")
    for requirement in pattern.requirements:
        check(scope.at(f"requirement '{requirement.written}'", ()), requirement.condition, "bool")
    stages: dict[str, Stage] = {}
    for stage in pattern.stages:
        _stage(scope, stage, stages)
        stages[stage.name] = stage
        scope = replace(scope, sources={**scope.sources, **_defined(stage, stages)})
    check(scope.at("the output", _distinct(scope, pattern.axes)), pattern.output, "float")
    for claim in pattern.claims:
        if claim.bound is not None:
            check(scope.at("a claim", ()), claim.bound, "float")
    if pattern.result and not isinstance(stages.get(pattern.result), Attention | Merge):
        raise scope.fail(f"the result '{pattern.result}' is no attention and no merge")


def _distinct(scope: Scope, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    if len({axis.name for axis in axes}) < len(axes):
        raise scope.fail(f"two of the axes {', '.join(axis.name for axis in axes)} have one name")
    for axis in axes:
        closed = replace(scope, axes=frozenset[Axis]())
        check(closed, axis.size, "int")
        check(closed, axis.start, "int")
    return axes


def _stage(scope: Scope, stage: Stage, earlier: dict[str, Stage]) -> None:
    place = f"stage '{stage.name}'"
    match stage:
        case Let():
            inside = scope.at(place, _distinct(scope, stage.axes))
            check(inside, stage.body, stage.dtype)
        case Select():
            axes = _distinct(scope, (*stage.rows, *stage.candidates))
            rows = scope.at(place, stage.rows)
            check(rows, stage.amount, "float")
            if stage.total is not None:
                check(rows, stage.total, "float")
            inside = scope.at(place, axes)
            check(inside, stage.by, "float")
            check(inside, stage.where, "bool")
            check(inside, stage.always, "bool")
        case Attention():
            _attention(scope, stage, place)
        case Merge():
            _merge(scope.at(place, ()), stage, earlier)
        case Recurrence():
            axes = _distinct(scope, (*stage.axes, stage.token))
            if not 0 <= stage.position <= len(stage.axes):
                raise scope.at(place, ()).fail(f"the token stands at {stage.position}")
            before = {f"{stage.name}.previous": Readable(len(stage.axes), "float")}
            check(scope.at(place, axes, before), stage.step, "float")
            if stage.restart is not None:
                check(scope.at(place, axes), stage.restart, "bool")
        case _:
            assert_never(stage)


def _attention(scope: Scope, stage: Attention, place: str) -> None:
    if stage.rows[:2] != (BATCH, HEAD):
        raise scope.at(place, ()).fail("its rows do not begin with batch and head")
    pairs = _distinct(scope, (*stage.rows, stage.over))
    inside = scope.at(place, pairs)
    check(inside, stage.mask, "bool")
    check(inside, stage.sparsity, "bool")
    check(inside, stage.score, "float")
    kept = {f"{stage.name}.visible": Readable(len(pairs), "bool")}
    for number, step in enumerate(stage.normalize):
        kept[f"{stage.name}.step{number}"] = Readable(len(pairs), "float")
        expr = step.body if isinstance(step, Formula) else step.amount
        check(scope.at(f"{place}, step {number}", pairs, kept), expr, "float")
    if stage.reweight is not None:
        before = {
            f"{stage.name}.normalized": Readable(len(pairs), "float"),
            f"{stage.name}.visible": Readable(len(pairs), "bool"),
        }
        check(scope.at(f"{place}, reweight", pairs, before), stage.reweight, "float")
    check(scope.at(f"{place}, value", _distinct(scope, (*pairs, stage.feature))), stage.value, "float")


def _merge(scope: Scope, stage: Merge, earlier: dict[str, Stage]) -> None:
    parts = [earlier.get(name) for name in stage.parts]
    attentions = [part for part in parts if isinstance(part, Attention)]
    if len(attentions) < len(parts) or len(parts) < 2:
        raise scope.fail("it does not merge two or more attentions")
    first = attentions[0]
    for part in attentions[1:]:
        if part.rows != first.rows or part.feature != first.feature:
            raise scope.fail(f"'{part.name}' and '{first.name}' differ in their rows or features")


def _defined(stage: Stage, earlier: dict[str, Stage]) -> dict[str, Readable]:
    """What can be read once a stage is there."""
    name = stage.name
    match stage:
        case Let():
            return {name: Readable(len(stage.axes), stage.dtype)}
        case Select():
            return {name: Readable(len(stage.rows) + len(stage.candidates), "bool")}
        case Recurrence():
            return {name: Readable(len(stage.axes) + 1, "float")}
        case Merge():
            rows = len(_rows_of(stage, earlier))
            return {name: Readable(rows + 1, "float"), f"{name}.lse": Readable(rows, "float")}
        case Attention():
            rows = len(stage.rows)
            per_row: dict[str, Readable] = {
                f"{name}.max": Readable(rows, "float"),
                f"{name}.count": Readable(rows, "int"),
            }
            if stage.has_lse:
                per_row[f"{name}.lse"] = Readable(rows, "float")
            pairs: dict[str, Readable] = {
                f"{name}.scores": Readable(rows + 1, "float"),
                f"{name}.weights": Readable(rows + 1, "float"),
                f"{name}.visible": Readable(rows + 1, "bool"),
            }
            return {name: Readable(rows + 1, "float"), **per_row, **pairs}
        case _:
            assert_never(stage)


def _rows_of(stage: Merge, earlier: dict[str, Stage]) -> tuple[Axis, ...]:
    part = earlier[stage.parts[0]]
    return part.rows if isinstance(part, Attention) else ()


# --------------------------------------------------------------------------------------------- expressions


def check(scope: Scope, expr: Expr, wanted: DType) -> None:
    """One expression: operations known, operands of the right kind, indices bound, reads complete."""
    found = _kind(scope, expr)
    if (found == "bool") != (wanted == "bool") or (wanted == "int" and found == "float"):
        raise scope.fail(f"{expression_text(expr)} is {found}, not {wanted}")


def _kind(scope: Scope, expr: Expr) -> DType:
    match expr:
        case Literal():
            return dtype_of(expr)
        case Symbol(name, dtype):
            if scope.symbols.get(name) != dtype:
                raise scope.fail(f"the symbol '{name}' is not known as {dtype}")
            return dtype
        case Index(axis):
            if axis not in scope.axes:
                raise scope.fail(f"the index '{axis.name}' has no value")
            return "int"
        case Read():
            return _read(scope, expr)
        case Apply(op, args):
            return _operation(scope, op, args)
        case Reduce():
            return _reduce(scope, expr)
        case _:
            assert_never(expr)


def _read(scope: Scope, expr: Read) -> DType:
    known = scope.sources.get(expr.source)
    if known is None:
        raise scope.fail(f"'{expr.source}' cannot be read here")
    if known.arity != len(expr.at):
        raise scope.fail(f"'{expr.source}' takes {known.arity} indices, not {len(expr.at)}")
    if known.dtype != expr.dtype:
        raise scope.fail(f"'{expr.source}' is {known.dtype}, read as {expr.dtype}")
    for index in expr.at:
        check(scope, index, "int")
    return expr.dtype


def _operation(scope: Scope, op: str, args: tuple[Expr, ...]) -> DType:
    if op not in OPERATIONS:
        raise scope.fail(f"unknown operation '{op}'")
    if OPERATIONS[op][0] != len(args):
        raise scope.fail(f"'{op}' has {len(args)} operands")
    kinds = [_kind(scope, arg) for arg in args]
    for number, kind in enumerate(kinds):
        condition = op in _LOGICAL or (op == "where" and number == 0)
        if (kind == "bool") != condition and (condition or op not in _ANY_KIND):
            raise scope.fail(f"operand {number + 1} of '{op}' is {kind}")
    pair = kinds[1:] if op == "where" else kinds
    if op in ("eq", "ne", "where") and len({kind == "bool" for kind in pair}) > 1:
        raise scope.fail(f"'{op}' of {' and '.join(pair)}")
    result = OPERATIONS[op][1]
    if result != "same":
        return result
    return "float" if "float" in pair else "int" if op != "where" or "int" in pair else "bool"


def _reduce(scope: Scope, expr: Reduce) -> DType:
    if not expr.axes:
        raise scope.fail(f"{expr.op} over nothing")
    for axis in _distinct(scope, expr.axes):
        if any(axis.name == bound.name for bound in scope.axes):
            raise scope.fail(f"the index '{axis.name}' is bound twice")
    inside = replace(scope, axes=scope.axes | frozenset(expr.axes))
    kind = _kind(inside, expr.body)
    if (kind == "bool") != (expr.op in ("any", "all")):
        raise scope.fail(f"{expr.op} of {kind}")
    if expr.where is not None:
        check(inside, expr.where, "bool")
    return "float" if expr.op in ("mean", "logsumexp") else kind
