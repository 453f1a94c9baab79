"""Evaluation of stages: tables, choices, attentions with their statistics, merges, recurrences.

A stage is computed for the ranges that its reader demands, and kept while they are in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce as fold
from typing import assert_never

import torch
from torch import Tensor

from attnlang.ir import thresholds
from attnlang.ir.interpret_expr import Expressions, Scope
from attnlang.ir.interpret_operations import operate
from attnlang.ir.interpret_values import Range, Value, both, expand, narrow, rename, union, where
from attnlang.ir.pattern import (
    Apply,
    Attention,
    Axis,
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
    storage,
)
from attnlang.ir.stabilize import stabilize

Ranges = dict[Axis, Range]
_ROW_PARTS = ("lse", "max", "count")


def replace_reads(expr: Expr, sources: Mapping[str, str]) -> Expr:
    """The expression with reads of some sources turned to others."""
    match expr:
        case Read(source, at, dtype):
            return Read(sources.get(source, source), tuple(replace_reads(one, sources) for one in at), dtype)
        case Apply(op, args):
            return Apply(op, tuple(replace_reads(arg, sources) for arg in args))
        case Reduce(op, axes, body, condition):
            hidden = None if condition is None else replace_reads(condition, sources)
            return Reduce(op, axes, replace_reads(body, sources), hidden)
        case _:
            return expr


def reads_of(expr: Expr) -> list[Read]:
    """All reads in an expression, those inside indices included."""
    found = [expr] if isinstance(expr, Read) else []
    return found + [read for child in children(expr) for read in reads_of(child)]


def token_axes(stage: Recurrence) -> tuple[Axis, ...]:
    """The axes a recurrence is read by: its own with the token inserted."""
    return (*stage.axes[: stage.position], stage.token, *stage.axes[stage.position :])


class StageValues:
    """The stages of a pattern over given inputs. Visibilities inside a normalizer are called `name.visible@i`: what
    is left after the first i steps."""

    def __init__(self, pattern: Pattern, expressions: Expressions) -> None:
        self.stages: dict[str, Stage] = {stage.name: stage for stage in pattern.stages}
        self.expressions = expressions
        expressions.stages = self
        self._kept: dict[tuple[str, tuple[Range, ...], bool], Value] = {}
        self._formulas: dict[tuple[str, int], Expr] = {}
        self._reached: dict[tuple[str, tuple[Range, ...]], tuple[int, Value]] = {}

    # ---------------------------------------------------------------------------------------- the store

    def axes_of(self, source: str) -> tuple[Axis, ...] | None:
        """The axes a stage or part of a stage is read by, in order; None: no stage of that name."""
        name, _, part = source.partition(".")
        stage = self.stages.get(name)
        match stage:
            case None:
                return None
            case Let():
                return stage.axes
            case Select():
                return stage.rows + stage.candidates
            case Recurrence():
                return stage.axes if part == "previous" else token_axes(stage)
            case Merge():
                axes = self.axes_of(stage.parts[0])
                return axes[:-1] if axes is not None and part == "lse" else axes
            case Attention():
                if not part:
                    return (*stage.rows, stage.feature)
                statistic = part.partition("@")[0] in _ROW_PARTS
                return stage.rows if statistic else (*stage.rows, stage.over)
            case _:
                assert_never(stage)

    def value(self, source: str, demand: tuple[Range, ...]) -> Value:
        """The stage over its axes for the demanded ranges."""
        key = (source, demand, torch.is_grad_enabled())
        if key not in self._kept:
            self._kept[key] = self._compute(source, demand)
        return self._kept[key]

    def forget(self, current: Mapping[Axis, Range]) -> None:
        """Drops what belongs to other ranges than the current ones of their axes, or to parts of other axes."""

        def in_use(source: str, demand: tuple[Range, ...]) -> bool:
            axes = self.axes_of(source) or ()
            return all(
                range_ == current.get(axis, (0, self.expressions.size(axis)))
                or range_ == (0, self.expressions.size(axis))
                for axis, range_ in zip(axes, demand, strict=True)
            )

        self._kept = {key: value for key, value in self._kept.items() if in_use(key[0], key[1])}

    def _compute(self, source: str, demand: tuple[Range, ...]) -> Value:
        name, _, part = source.partition(".")
        stage = self.stages[name]
        ranges = dict(zip(self.axes_of(source) or (), demand, strict=True))
        match stage:
            case Let():
                return self.expressions.evaluate(stage.body, Scope(ranges))
            case Select():
                return self._select(stage, ranges)
            case Recurrence():
                return self._recurrence(stage, ranges)
            case Merge():
                return self._merge(stage, part, demand)
            case Attention():
                return self._attention(stage, part, ranges)
            case _:
                assert_never(stage)

    def _rows(self, value: Value, axes: tuple[Axis, ...], scope: Scope, last: tuple[Axis, ...]) -> Tensor:
        """A value over `axes` (some may be left out where all agree), the axes `last` at the end as one dimension."""
        free = tuple(axis for axis in axes if axis not in last)
        shape = [self.expressions.length(axis, scope) for axis in free + last]
        return expand(value, free + last, shape).flatten(len(free))

    # ------------------------------------------------------------------------------------------ choices

    def _select(self, stage: Select, ranges: Ranges) -> Value:
        full = {axis: range_ for axis, range_ in ranges.items() if axis in stage.rows}
        scope = Scope(full)
        with torch.no_grad():
            by = self.expressions.evaluate(stage.by, scope)
            visible = self.expressions.condition(stage.where, scope)
            always = self.expressions.condition(stage.always, scope)
            amount = self.expressions.evaluate(stage.amount, scope)
            total = None if stage.total is None else self.expressions.evaluate(stage.total, scope)
            values = [by, visible, always, amount] if total is None else [by, visible, always, amount, total]
            rows = tuple(axis for axis in stage.rows if axis in union(values))
            axes = rows + stage.candidates
            by_, visible_, always_ = (
                self._rows(one, axes, scope, stage.candidates) for one in (by, visible, always)
            )
            limit = self._beside(amount, rows)
            sums = None if total is None else self._beside(total, rows)
            chosen = _choose(stage, by_, visible_, always_, limit, sums)
            sizes = [self.expressions.size(axis) for axis in stage.candidates]
            chosen = chosen.reshape((*chosen.shape[:-1], *sizes))
        value = Value(chosen, axes)
        for axis in stage.candidates:
            low, high = ranges[axis]
            value = narrow(value, axis, low, high)
        return value

    def _beside(self, value: Value, rows: tuple[Axis, ...]) -> Tensor:
        """A value of rows, shaped to stand beside their entries: [..., 1]."""
        lengths = dict(zip(value.axes, value.tensor.shape, strict=True))
        return expand(value, rows, [lengths.get(axis, 1) for axis in rows]).unsqueeze(-1)

    # --------------------------------------------------------------------------------------- attentions

    def _attention(self, stage: Attention, part: str, ranges: Ranges) -> Value:
        rows = {axis: ranges[axis] for axis in stage.rows}
        if part in ("", *_ROW_PARTS) or part.startswith("count@"):
            return self._row_part(stage, part, rows, ranges)
        pointwise = part in ("scores", "step0", "visible@0") or (part == "visible" and not narrows(stage))
        whole = (0, self.expressions.size(stage.over))
        if ranges[stage.over] != whole and not pointwise:
            value = self.value(f"{stage.name}.{part}", (*rows.values(), whole))
            return narrow(value, stage.over, *ranges[stage.over])
        return self._pair_part(stage, part, rows, ranges)

    def _part(self, stage: Attention, part: str, rows: Ranges) -> Value:
        """A part over the given rows and all of `over`."""
        return self.value(f"{stage.name}.{part}", (*rows.values(), (0, self.expressions.size(stage.over))))

    def _row_part(self, stage: Attention, part: str, rows: Ranges, ranges: Ranges) -> Value:
        if part == "":
            return self._result(stage, rows, ranges)
        suffix = part.partition("@")[2] or str(len(stage.normalize))
        visible = self._part(stage, f"visible@{suffix}", rows)
        scope = Scope(rows)
        if part.startswith("count"):
            size = self.expressions.length(stage.over, scope)
            if stage.over not in visible.axes:
                return Value(visible.tensor.to(torch.int64) * size, visible.axes)
            dim = visible.axes.index(stage.over)
            return Value(visible.tensor.sum(dim), tuple(axis for axis in visible.axes if axis != stage.over))
        scores = self._part(stage, "scores", rows)
        axes = tuple(
            axis for axis in (*stage.rows, stage.over) if axis in (*union((scores, visible)), stage.over)
        )
        score, seen = (self._rows(value, axes, scope, (stage.over,)) for value in (scores, visible))
        if part == "lse":
            return Value(thresholds.masked_logsumexp(score, seen).squeeze(-1), axes[:-1])
        if score.shape[-1] == 0:
            return Value(
                torch.full(score.shape[:-1], -torch.inf, dtype=score.dtype, device=score.device), axes[:-1]
            )
        return Value(torch.where(seen, score, -torch.inf).amax(-1), axes[:-1])

    def _result(self, stage: Attention, rows: Ranges, ranges: Ranges) -> Value:
        weights = self._part(stage, "weights", rows)
        visible = self._part(stage, f"visible@{len(stage.normalize)}", rows)
        scope = Scope({**rows, stage.feature: ranges[stage.feature]})
        return self.expressions.weighted_sum((stage.value,), (weights,), visible, (stage.over,), scope)

    def _pair_part(self, stage: Attention, part: str, rows: Ranges, ranges: Ranges) -> Value:
        scope = Scope({**rows, stage.over: ranges[stage.over]})
        last = len(stage.normalize)
        if part in ("scores", "step0"):
            return self.expressions.floats(stage.score, scope)
        if part == "visible":
            return self._part(stage, f"visible@{last}", rows) if narrows(stage) else self._seen(stage, scope)
        if part.startswith("visible@"):
            return self._visible(stage, int(part.removeprefix("visible@")), rows, scope)
        if part.startswith("step"):
            return self._step(stage, int(part.removeprefix("step")), rows, scope)
        if part == "normalized":
            return self._part(stage, f"step{last}", rows)
        if part == "weights":
            return self._weights(stage, rows, scope)
        raise ValueError(f"an attention has no part called {part}")

    def _seen(self, stage: Attention, scope: Scope) -> Value:
        mask = self.expressions.condition(stage.mask, scope)
        return both(mask, self.expressions.condition(stage.sparsity, scope))

    def _visible(self, stage: Attention, steps: int, rows: Ranges, scope: Scope) -> Value:
        """What is seen after the first steps: `top` hides all but the largest."""
        if steps == 0:
            return self._seen(stage, scope)
        before = self._part(stage, f"visible@{steps - 1}", rows)
        step = stage.normalize[steps - 1]
        if not (isinstance(step, Threshold) and step.kind == "top"):
            return before
        scores = self._part(stage, f"step{steps - 1}", rows)
        amount = self.expressions.evaluate(step.amount, Scope(rows))
        axes = self._row_axes(stage, (scores, before, amount))
        by, seen = (self._rows(value, axes, scope, (stage.over,)) for value in (scores, before))
        limit = self._beside(amount, axes[:-1])
        with torch.no_grad():
            return Value(thresholds.top(by, seen, torch.zeros_like(seen), limit), axes)

    def _row_axes(self, stage: Attention, values: tuple[Value, ...]) -> tuple[Axis, ...]:
        found = union(values)
        return (*(axis for axis in stage.rows if axis in found), stage.over)

    def _step(self, stage: Attention, steps: int, rows: Ranges, scope: Scope) -> Value:
        """The values after the first `steps` steps."""
        step = stage.normalize[steps - 1]
        before = self._part(stage, f"step{steps - 1}", rows)
        seen = self._part(stage, f"visible@{steps - 1}", rows)
        match step:
            case Threshold("top"):
                return before
            case Threshold("sinkhorn"):
                return self._sinkhorn(stage, step, steps, rows)
            case Formula(_, "softmax"):
                axes = self._row_axes(stage, (before, seen))
                score, visible = (self._rows(value, axes, scope, (stage.over,)) for value in (before, seen))
                return Value(thresholds.masked_softmax(score, visible), axes)
            case Formula():
                return self.expressions.floats(self._formula(stage, steps - 1), scope)
            case Threshold():
                return self._entmax(stage, step, before, seen, rows)

    def _formula(self, stage: Attention, index: int) -> Expr:
        """The body of a formula, with exponentials that cannot overflow."""
        key = (stage.name, index)
        if key not in self._formulas:
            step = stage.normalize[index]
            assert isinstance(step, Formula)
            names = {f"{stage.name}.{part}": f"{stage.name}.{part}@{index}" for part in ("visible", "count")}
            body = replace_reads(step.body, names)
            at = tuple(storage(axis) for axis in (*stage.rows, stage.over))
            visible = Read(f"{stage.name}.visible@{index}", at, "bool")
            self._formulas[key] = stabilize(body, stage.over, visible) or body
        return self._formulas[key]

    def _entmax(self, stage: Attention, step: Threshold, before: Value, seen: Value, rows: Ranges) -> Value:
        scope = Scope(rows)
        one = Value(torch.tensor(2.0, dtype=before.tensor.dtype, device=before.tensor.device))
        amount = one if step.kind == "sparsemax" else self.expressions.floats(step.amount, scope)
        axes = self._row_axes(stage, (before, seen, amount))
        score, visible = (self._rows(value, axes, scope, (stage.over,)) for value in (before, seen))
        return Value(thresholds.entmax(score, visible, self._beside(amount, axes[:-1])), axes)

    def _sinkhorn(self, stage: Attention, step: Threshold, steps: int, rows: Ranges) -> Value:
        """Over all queries at once: their sums take part."""
        query = stage.rows[-1]
        every = {**rows, query: (0, self.expressions.size(query))}
        if every != rows:
            value = self.value(
                f"{stage.name}.step{steps}", (*every.values(), (0, self.expressions.size(stage.over)))
            )
            return narrow(value, query, *rows[query])
        scope = Scope(rows)
        before, seen = (self._part(stage, f"{part}{steps - 1}", rows) for part in ("step", "visible@"))
        found = union((before, seen))
        axes = (*(axis for axis in stage.rows[:-1] if axis in found), query, stage.over)
        score, visible = (self._rows(value, axes, scope, (stage.over,)) for value in (before, seen))
        return Value(thresholds.sinkhorn(score, visible, self.expressions.number(step.amount)), axes)

    def _weights(self, stage: Attention, rows: Ranges, scope: Scope) -> Value:
        last = len(stage.normalize)
        if stage.reweight is None:
            weights = self._part(stage, f"step{last}", rows)
        else:
            weights = self.expressions.floats(stage.reweight, scope)
        return where(self._part(stage, f"visible@{last}", rows), weights, 0)

    # -------------------------------------------------------------------------- merges and recurrences

    def _merge(self, stage: Merge, part: str, demand: tuple[Range, ...]) -> Value:
        """Σ over parts of exp(lse − lse of all) × result."""
        axes = self.axes_of(stage.name)
        assert axes is not None
        rows, ranges = axes[:-1], demand[: len(axes) - 1]
        sums = [self._part_of(name, ".lse", rows, ranges) for name in stage.parts]
        scope = Scope(dict(zip(rows, ranges, strict=True)))
        shape = [self.expressions.length(axis, scope) for axis in rows]
        stacked = torch.stack([expand(value, rows, shape) for value in sums], -1)
        seen = stacked > -torch.inf
        if part == "lse":
            return Value(thresholds.masked_logsumexp(stacked, seen).squeeze(-1), rows)
        shares = thresholds.masked_softmax(stacked, seen).unbind(-1)
        results = [self._part_of(name, "", axes, demand) for name in stage.parts]
        terms = [
            operate("mul", (Value(share, rows), result), self.expressions.compute)
            for share, result in zip(shares, results, strict=True)
        ]
        return fold(lambda first, second: operate("add", (first, second), self.expressions.compute), terms)

    def _part_of(self, name: str, part: str, axes: tuple[Axis, ...], demand: tuple[Range, ...]) -> Value:
        own = self.axes_of(name + part)
        assert own is not None
        return rename(self.value(name + part, demand), dict(zip(own, axes, strict=True)))

    def _recurrence(self, stage: Recurrence, ranges: Ranges) -> Value:
        """Token after token, from the first to the last that is demanded."""
        token, (first, last) = stage.token, ranges[stage.token]
        wide = {axis: ranges[axis] for axis in stage.axes if self._diagonal(stage, axis)}
        every = {axis: wide.get(axis, (0, self.expressions.size(axis))) for axis in stage.axes}
        shape = [high - low for low, high in every.values()]
        begin, state = self._start(stage, tuple(every.values()), first)
        kept: list[Tensor] = []
        for offset in range(begin, last):
            state = self._advance(stage, state, {**every, token: (offset, offset + 1)}, shape)
            if offset >= first:
                kept.append(state.tensor)
        if not torch.is_grad_enabled():
            self._reached[stage.name, tuple(every.values())] = (last, state)
        dim = stage.position
        stacked = torch.stack(kept, dim) if kept else state.tensor.unsqueeze(dim).narrow(dim, 0, 0)
        value = Value(stacked, token_axes(stage))
        for axis in stage.axes:
            if axis not in wide:
                value = narrow(value, axis, *ranges[axis])
        return value

    def _start(self, stage: Recurrence, ranges: tuple[Range, ...], first: int) -> tuple[int, Value]:
        """Where an earlier demand for the same axes stopped, if it did before `first`, else the state 0."""
        reached = self._reached.get((stage.name, ranges))
        if reached is not None and reached[0] <= first and not torch.is_grad_enabled():
            return reached
        shape = [high - low for low, high in ranges]
        zero = torch.zeros(shape, dtype=self.expressions.compute, device=self.expressions.device)
        return 0, Value(zero, stage.axes)

    def _diagonal(self, stage: Recurrence, axis: Axis) -> bool:
        """Whether the state at a value of the axis depends on the state at the same value only."""
        place = stage.axes.index(axis)
        return all(
            axis_of(read.at[place]) == axis
            for read in reads_of(stage.step)
            if read.source == f"{stage.name}.previous"
        )

    def _advance(self, stage: Recurrence, state: Value, ranges: Ranges, shape: list[int]) -> Value:
        walked = frozenset((stage.token,))
        if stage.restart is not None:
            restart = self.expressions.condition(stage.restart, Scope(ranges, walked=walked))
            stays = Value(~restart.tensor, restart.axes)
            state = self._at_token(where(stays, state, 0), stage)
        scope = Scope(ranges, {f"{stage.name}.previous": state}, walked)
        found = self._at_token(self.expressions.floats(stage.step, scope), stage)
        return Value(expand(found, stage.axes, shape), stage.axes)

    def _at_token(self, value: Value, stage: Recurrence) -> Value:
        if stage.token not in value.axes:
            return value
        dim = value.axes.index(stage.token)
        return Value(value.tensor.squeeze(dim), tuple(axis for axis in value.axes if axis != stage.token))


def narrows(stage: Attention) -> bool:
    """Whether the normalizer hides entries: then the visibility depends on the scores."""
    return any(isinstance(step, Threshold) and step.kind == "top" for step in stage.normalize)


def _choose(
    stage: Select, by: Tensor, visible: Tensor, always: Tensor, amount: Tensor, total: Tensor | None
) -> Tensor:
    match stage.rule:
        case "top":
            return thresholds.top(by, visible, always, amount)
        case "mass":
            return thresholds.mass(by, visible, always, amount, total)
        case "above":
            return visible & ((by > amount) | always)
        case _:
            assert_never(stage.rule)
