"""That two patterns give the same output, for every call: their formulas are alike, part by part.

Conditions are alike when each implies the other, whole numbers when the prover finds them equal, formulas over real
numbers when they apply the same operations to what is alike, sums and products in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from attnlang.ir.pattern import (
    Apply,
    Attention,
    Axis,
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
    Threshold,
    dtype_of,
)
from attnlang.ir.rewrite import simplify
from attnlang.ir.walk import reads_of, replace_reads, stage_expressions
from attnlang.passes.prove import EFFORT, Prover
from attnlang.passes.prove_formula import ALWAYS, NEVER, same
from attnlang.passes.prove_formula import Formula as Condition
from attnlang.passes.prove_terms import Place

Given = tuple[Condition, ...]
_COMMUTE = ("add", "mul", "min", "max")
_PARTS = ("", ".scores", ".visible", ".weights", ".normalized", ".lse", ".max", ".count", ".previous")
_STEPS = 9


def equal(pattern: Pattern, other: Pattern, fixed: Mapping[str, Expr], effort: int = EFFORT) -> str | None:
    """Why two patterns give the same output in every call that both accept, or None where that is not proved. `fixed`:
    sizes and parameters that are given, those that only one of the patterns has among them."""
    other = _apart(other)
    together = replace(
        pattern,
        parameters=(*pattern.parameters, *other.parameters),
        tensors=tuple({tensor.name: tensor for tensor in (*pattern.tensors, *other.tensors)}.values()),
        requirements=(*pattern.requirements, *other.requirements),
        stages=(*pattern.stages, *other.stages),
    )
    prover = Prover(together, inside=False, fixed=fixed, effort=effort)
    if prover.valid(NEVER):
        return None
    comparison = _Comparison(pattern, (pattern.output, other.output), prover)
    for stage in other.stages:
        comparison.find(stage)
    alike = comparison.alike(pattern.output, {}, other.output, {}, ())
    return "both see the same keys, and their formulas are the same" if alike else None


def _apart(pattern: Pattern) -> Pattern:
    """The pattern with names for its stages that no other pattern has."""
    names = {stage.name: f"{stage.name}'" for stage in pattern.stages}
    sources = {f"{old}{part}": f"{new}{part}" for old, new in names.items() for part in _all_parts()}
    stages = tuple(_renamed(stage, names[stage.name], sources, names) for stage in pattern.stages)
    return replace(pattern, stages=stages, output=replace_reads(pattern.output, sources))


def _all_parts() -> tuple[str, ...]:
    return (*_PARTS, *(f".step{step}" for step in range(_STEPS)))


def _renamed(stage: Stage, name: str, sources: Mapping[str, str], names: Mapping[str, str]) -> Stage:
    """The stage under another name, reading others under theirs."""

    def change(expr: Expr) -> Expr:
        return replace_reads(expr, sources)

    def step_of(step: Step) -> Step:
        return replace(step, body=change(step.body)) if isinstance(step, Formula) else step

    match stage:
        case Let():
            return replace(stage, name=name, body=change(stage.body))
        case Select():
            changed = replace(stage, name=name, amount=change(stage.amount), by=change(stage.by))
            total = None if stage.total is None else change(stage.total)
            return replace(changed, where=change(stage.where), always=change(stage.always), total=total)
        case Attention():
            reweight = None if stage.reweight is None else change(stage.reweight)
            changed = replace(stage, name=name, mask=change(stage.mask), sparsity=change(stage.sparsity))
            steps = tuple(map(step_of, stage.normalize))
            changed = replace(changed, score=change(stage.score), normalize=steps, reweight=reweight)
            return replace(changed, value=change(stage.value))
        case Merge():
            return replace(stage, name=name, parts=tuple(names[part] for part in stage.parts))
        case Recurrence():
            restart = None if stage.restart is None else change(stage.restart)
            return replace(stage, name=name, step=change(stage.step), restart=restart)
        case _:
            assert_never(stage)


class _Comparison:
    def __init__(self, pattern: Pattern, outputs: tuple[Expr, Expr], prover: Prover) -> None:
        self.pattern = pattern
        self.outputs = outputs
        self.prover = prover
        self.terms = prover.terms
        self.names: dict[str, str] = {}

    def find(self, stage: Stage) -> None:
        """Notes the stage of the first pattern that a stage of the other one is like."""
        for own in self.pattern.stages:
            self.names[stage.name] = own.name
            if self._stages(own, stage):
                return
            del self.names[stage.name]

    # ----------------------------------------------------------------------------------------- expressions

    def alike(self, one: Expr, here: Place, other: Expr, there: Place, given: Given) -> bool:
        """Whether two expressions have the same value, where the given conditions hold."""
        one, other = simplify(one), simplify(other)
        kinds = {dtype_of(one), dtype_of(other)}
        if kinds == {"bool"}:
            return self._conditions(one, here, other, there, given) is not None
        if kinds == {"int"}:
            equal = same(self.terms.integer(one, here), self._integer(other, there))
            return self.prover.valid(equal, given)
        if isinstance(one, Read) and isinstance(self.terms.stages.get(one.source), Let):
            body, place = self._table(one, here)
            return self.alike(body, place, other, there, given)
        if isinstance(other, Read) and isinstance(self.terms.stages.get(other.source), Let):
            body, place = self._table(other, there)
            return self.alike(one, here, body, place, given)
        match one, other:
            case Literal(a), Literal(b):
                return a == b
            case Symbol(), Symbol():
                return one == other
            case Read(source, at, _), Read(found, places, _):
                named = source == self._called(found) and len(at) == len(places)
                return named and self._all(at, here, places, there, given)
            case Reduce(), Reduce():
                return self._reductions(one, here, other, there, given)
            case Apply("where", (c, x, y)), Apply("where", (c2, x2, y2)):
                known = self._conditions(c, here, c2, there, given)
                if known is None:
                    return False
                opposite = self.terms.formula(Apply("not", (c,)), here)
                return self.alike(x, here, x2, there, (*given, known)) and self.alike(
                    y, here, y2, there, (*given, opposite)
                )
            case Apply(op, _), Apply(op2, _) if op == op2 and op in _COMMUTE:
                return self._in_any_order(_flat(op, one), here, _flat(op, other), there, given)
            case Apply(op, args), Apply(op2, args2) if op == op2:
                return self._all(args, here, args2, there, given)
            case _:
                return False

    def _called(self, source: str) -> str:
        name, dot, part = source.partition(".")
        return self.names.get(name, name) + dot + part

    def _integer(self, expr: Expr, place: Place) -> tuple[tuple[tuple[int, ...], int], ...]:
        return self.terms.integer(self._translated(expr), place)

    def _translated(self, expr: Expr) -> Expr:
        """An expression of the other pattern, reading the stages of the first that are like its own."""
        sources = {read.source: self._called(read.source) for read in reads_of(expr)}
        return replace_reads(expr, sources)

    def _all(
        self, ones: tuple[Expr, ...], here: Place, others: tuple[Expr, ...], there: Place, given: Given
    ) -> bool:
        return all(self.alike(a, here, b, there, given) for a, b in zip(ones, others, strict=True))

    def _in_any_order(
        self, ones: list[Expr], here: Place, others: list[Expr], there: Place, given: Given
    ) -> bool:
        if len(ones) != len(others):
            return False
        left = list(others)
        for one in ones:
            found = next((other for other in left if self.alike(one, here, other, there, given)), None)
            if found is None:
                return False
            left.remove(found)
        return True

    def _conditions(
        self, one: Expr, here: Place, other: Expr, there: Place, given: Given
    ) -> Condition | None:
        """What two conditions come to, where each implies the other."""
        first, second = self.terms.formula(one, here), self.terms.formula(self._translated(other), there)
        if self.prover.valid(second, (*given, first)) and self.prover.valid(first, (*given, second)):
            return first
        return None

    def _table(self, read: Read, place: Place) -> tuple[Expr, Place]:
        stage = self.terms.stages[read.source]
        assert isinstance(stage, Let)
        return stage.body, self.terms.rows(stage.axes, tuple(self.terms.integer(at, place) for at in read.at))

    def _reductions(self, one: Reduce, here: Place, other: Reduce, there: Place, given: Given) -> bool:
        shared = self._shared(one.axes, other.axes, here, there)
        if one.op != other.op or shared is None or (one.where is None) != (other.where is None):
            return False
        here, there = shared
        if one.where is not None and other.where is not None:
            known = self._conditions(one.where, here, other.where, there, given)
            if known is None:
                return False
            given = (*given, known)
        return self.alike(one.body, here, other.body, there, given)

    def _shared(
        self, ones: tuple[Axis, ...], others: tuple[Axis, ...], here: Place, there: Place
    ) -> tuple[Place, Place] | None:
        """The same new values for axes of the same lengths; None where they differ."""
        if len(ones) != len(others):
            return None
        for one, other in zip(ones, others, strict=True):
            for own, its in ((one.size, other.size), (one.start, other.start)):
                if not self.prover.valid(same(self.terms.integer(own, {}), self._integer(its, {}))):
                    return None
            value = self.terms.fresh(one)
            here, there = {**here, one: value}, {**there, other: value}
        return here, there

    # ---------------------------------------------------------------------------------------------- stages

    def _stages(self, one: Stage, other: Stage) -> bool:
        match one, other:
            case Select(), Select():
                return self._selects(one, other)
            case Attention(), Attention():
                return self._attentions(one, other)
            case Merge(), Merge():
                return sorted(one.parts) == sorted(map(self._called, other.parts))
            case Recurrence(), Recurrence():
                return self._recurrences(one, other)
            case _:
                return False

    def _selects(self, one: Select, other: Select) -> bool:
        shared = self._shared((*one.rows, *one.candidates), (*other.rows, *other.candidates), {}, {})
        if shared is None or len(one.rows) != len(other.rows) or one.rule != other.rule:
            return False
        here, there = shared
        known = self._conditions(one.where, here, other.where, there, ())
        if known is None or (one.total is None) != (other.total is None):
            return False
        totals = (
            one.total is None or other.total is None or self.alike(one.total, here, other.total, there, ())
        )
        return (
            totals
            and self._conditions(one.always, here, other.always, there, (known,)) is not None
            and self.alike(one.amount, here, other.amount, there, ())
            and self.alike(one.by, here, other.by, there, (known,))
        )

    def _attentions(self, one: Attention, other: Attention) -> bool:
        axes = ((*one.rows, one.over, one.feature), (*other.rows, other.over, other.feature))
        shared = self._shared(*axes, {}, {})
        if shared is None or len(one.rows) != len(other.rows) or len(one.normalize) != len(other.normalize):
            return False
        here, there = shared
        visible = [Apply("and", (stage.mask, stage.sparsity)) for stage in (one, other)]
        seen = self._conditions(visible[0], here, visible[1], there, ())
        if seen is None or (one.reweight is None) != (other.reweight is None):
            return False
        given: Given = () if seen == ALWAYS else (seen,)
        everywhere = self._is_read_hidden(one) or self._is_read_hidden(other)
        steps = zip(one.normalize, other.normalize, strict=True)
        return (
            self.alike(one.score, here, other.score, there, () if everywhere else given)
            and all(self._steps(a, here, b, there, given) for a, b in steps)
            and (
                one.reweight is None
                or other.reweight is None
                or self.alike(one.reweight, here, other.reweight, there, given)
            )
            and self.alike(one.value, here, other.value, there, given)
        )

    def _is_read_hidden(self, stage: Attention) -> bool:
        """Whether scores of hidden pairs may be read by others."""
        scores = {f"{stage.name}.scores", f"{stage.name}.step0"}
        others = [own for own in self.terms.stages.values() if own.name != stage.name]
        exprs = [expr for own in others for expr in stage_expressions(own)]
        return any(read.source in scores for expr in (*exprs, *self.outputs) for read in reads_of(expr))

    def _steps(self, one: Step, here: Place, other: Step, there: Place, given: Given) -> bool:
        match one, other:
            case Formula(body, _), Formula(found, _):
                return self.alike(body, here, found, there, given)
            case Threshold(kind, amount), Threshold(found, much):
                return kind == found and self.alike(amount, here, much, there, ())
            case _:
                return False

    def _recurrences(self, one: Recurrence, other: Recurrence) -> bool:
        shared = self._shared((*one.axes, one.token), (*other.axes, other.token), {}, {})
        if (
            shared is None
            or one.position != other.position
            or (one.restart is None) != (other.restart is None)
        ):
            return False
        here, there = shared
        restarts = (
            one.restart is None
            or other.restart is None
            or self._conditions(one.restart, here, other.restart, there, ()) is not None
        )
        return restarts and self.alike(one.step, here, other.step, there, ())


def _flat(op: str, expr: Expr) -> list[Expr]:
    match expr:
        case Apply(own, args) if own == op:
            return [part for arg in args for part in _flat(op, arg)]
        case _:
            return [expr]
