"""Where a pattern reads its tensors: which are needed at all, which are read at the queries, which rows see nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from attnlang.call_numbers import Number
from attnlang.ir.bounds import Facts, Interval, direction, interval
from attnlang.ir.pattern import (
    NK,
    NQ,
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Role,
    Select,
    Stage,
    Symbol,
    children,
    free_axes,
)
from attnlang.ir.rewrite import map_children
from attnlang.ir.walk import stage_expressions


@dataclass(frozen=True)
class RowRead:
    """A tensor or stage whose axis of length `length` is read at `at`, which depends on `axis` alone and follows it
    monotonically: a query where a position is meant, or a position where a query is meant. `shown`: the output may
    depend on it where no key is seen."""

    tensor: str
    written: str
    length: Symbol
    at: Expr
    axis: Axis
    shown: bool = False


_INPUT_AXES = {
    name: tuple((index, index) for index in indices)
    for name, indices in (("Q", "bhqd"), ("K", "bgnd"), ("V", "bgne"))
}


def reads(pattern: Pattern) -> Iterator[Read]:
    """Every read of a pattern, those inside other reads included."""
    return _reads_in(
        [pattern.output, *(expr for stage in pattern.stages for expr in stage_expressions(stage))]
    )


def _reads_in(queue: list[Expr]) -> Iterator[Read]:
    seen: set[int] = set()
    while queue:
        expr = queue.pop()
        if id(expr) in seen:
            continue
        seen.add(id(expr))
        if isinstance(expr, Read):
            yield expr
        queue += children(expr)


def row_reads(pattern: Pattern) -> tuple[RowRead, ...]:
    """What is over positions and read at a query, and what is over queries and read at a position."""
    stages = {stage.name: stage for stage in pattern.stages}
    tensors = {
        tensor.name: tuple((axis.index, axis.written) for axis in tensor.axes) for tensor in pattern.tensors
    }
    facts = Facts.of(pattern.parameters)
    shown = {id(read) for read in _reads_in(_outside_of_attentions(pattern))}
    found: dict[RowRead, None] = {}
    for read in reads(pattern):
        named = tensors.get(read.source) or _INPUT_AXES.get(read.source) or _stage_axes(read.source, stages)
        for at, (index, name) in zip(read.at, named, strict=False):
            free = free_axes(at)
            if len(free) != 1:
                continue
            (axis,) = free
            crosses = (index in ("n", "k") and axis.role == "query") or (
                index == "q" and axis.role in ("key", "position")
            )
            if crosses and direction(at, axis, facts) is not None:
                length = NQ if index == "q" else NK
                found[RowRead(read.source, name, length, at, axis, id(read) in shown)] = None
    return tuple(found)


def _stage_axes(source: str, stages: Mapping[str, Stage]) -> tuple[tuple[str, str], ...]:
    """What the axes of a stage are indexed by ('n' and 'q' where they are over all positions or queries, else '')
    and called; none for a part that is not over them."""
    name, _, part = source.partition(".")
    if name not in stages or part == "previous":
        return ()
    kinds: dict[tuple[Role, Expr], str] = {("key", NK): "n", ("position", NK): "n", ("query", NQ): "q"}
    return tuple(
        (kinds.get((axis.role, axis.size), ""), axis.name) for axis in _axes_of(stages[name], stages)
    )


def _axes_of(stage: Stage, stages: Mapping[str, Stage]) -> tuple[Axis, ...]:
    """The axes a stage is read by, without features; those of an attention's weights."""
    match stage:
        case Let():
            return stage.axes
        case Select():
            return stage.rows + stage.candidates
        case Attention():
            return (*stage.rows, stage.over)
        case Merge():
            return _axes_of(stages[stage.parts[0]], stages)[:-1]
        case Recurrence():
            return (*stage.axes[: stage.position], stage.token, *stage.axes[stage.position :])
        case _:
            assert_never(stage)


# ----------------------------------------------------------------------------------- rows that see nothing


def _outside_of_attentions(pattern: Pattern) -> list[Expr]:
    """What the output reads by other ways than attentions; nothing where it is 0 once all of their results are."""
    stages = {stage.name: stage for stage in pattern.stages}
    results = frozenset(name for name, stage in stages.items() if isinstance(stage, Attention | Merge))
    if _vanishes(pattern.output, results):
        return []
    found = [pattern.output]
    followed = set(results)
    for expr in found:
        for name in {read.source.split(".")[0] for read in _reads_in([expr])} & stages.keys() - followed:
            followed.add(name)
            found += stage_expressions(stages[name])
    return found


def _vanishes(expr: Expr, results: frozenset[str]) -> bool:
    """Whether an expression is 0 where the results of attentions are, as far as can be told."""
    match expr:
        case Literal(value):
            return value == 0
        case Read(source, _, _):
            return source in results
        case Apply("add" | "sub" | "min" | "max", (left, right)):
            return _vanishes(left, results) and _vanishes(right, results)
        case Apply("where", (_, then, otherwise)):
            return _vanishes(then, results) and _vanishes(otherwise, results)
        case Apply("mul", (left, right)):
            return _vanishes(left, results) or _vanishes(right, results)
        case Apply("div", (left, _)):
            return _vanishes(left, results)
        case Apply("neg" | "abs" | "float" | "detach", (inner,)):
            return _vanishes(inner, results)
        case Reduce("sum" | "mean", _, body, _):
            return _vanishes(body, results)
        case _:
            return False


def negative_rows_are_empty(pattern: Pattern, symbols: Mapping[str, Number]) -> bool:
    """Whether no attention of the pattern shows anything to a query before the first position, in this call."""
    attentions = [stage for stage in pattern.stages if isinstance(stage, Attention)]
    rows = [stage for stage in attentions if any(axis.role == "query" for axis in stage.rows)]
    if not rows or any(stage.over.role == "query" for stage in attentions):
        return False
    known: dict[str, Interval] = {name: (float(value), float(value)) for name, value in symbols.items()}
    known[_BEFORE.name] = (float(min(symbols["q_offset"], -1)), -1.0)
    facts = Facts(known)
    return all(
        not (_possible(stage.mask, facts)[0] and _possible(stage.sparsity, facts)[0]) for stage in rows
    )


_BEFORE = Symbol("query before position 0", "int")


def _before(expr: Expr) -> Expr:
    """The expression at such a query."""
    if isinstance(expr, Index) and expr.axis.role == "query":
        return _BEFORE
    return map_children(expr, _before)


def _possible(expr: Expr, facts: Facts) -> tuple[bool, bool]:
    """Whether the condition can be true, and whether it can be false, at such a query."""
    match expr:
        case Literal(value):
            return bool(value), not value
        case Apply("and", (a, b)):
            (a_true, a_false), (b_true, b_false) = _possible(a, facts), _possible(b, facts)
            return a_true and b_true, a_false or b_false
        case Apply("or", (a, b)):
            (a_true, a_false), (b_true, b_false) = _possible(a, facts), _possible(b, facts)
            return a_true or b_true, a_false and b_false
        case Apply("not", (a,)):
            can_be_true, can_be_false = _possible(a, facts)
            return can_be_false, can_be_true
        case Apply("where", (condition, a, b)):
            first, second = _possible(condition, facts)
            branches = [_possible(part, facts) for part, reached in ((a, first), (b, second)) if reached]
            return any(part[0] for part in branches), any(part[1] for part in branches)
        case Apply("lt" | "le" | "gt" | "ge" as op, (a, b)):
            low, high = interval(_before(Apply("sub", (a, b))), facts)
            return _compared(op, low, high)
        case Symbol(name, "bool") if name in facts.symbols:
            return facts.symbols[name][1] > 0, facts.symbols[name][0] < 1
        case _:
            return True, True


def _compared(op: str, low: float, high: float) -> tuple[bool, bool]:
    """Whether `difference op 0` can be true and can be false; a bound that is no number (∞ − ∞) excludes nothing."""
    match op:
        case "lt":
            return not low >= 0, not high < 0
        case "le":
            return not low > 0, not high <= 0
        case "gt":
            return not high <= 0, not low > 0
        case _:
            return not high < 0, not low >= 0
