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
from attnlang.ir.interpret_attention import ROW_PARTS, Attentions
from attnlang.ir.interpret_expr import Expressions
from attnlang.ir.interpret_operations import operate
from attnlang.ir.interpret_recurrence import Recurrences, token_axes
from attnlang.ir.interpret_scope import Scope
from attnlang.ir.interpret_values import Range, Ranges, Value, beside, expand, narrow, rename, union
from attnlang.ir.pattern import Attention, Axis, Let, Merge, Pattern, Recurrence, Select, Stage


class StageValues:
    """The stages of a pattern over given inputs. Visibilities inside a normalizer are called `name.visible@i`: what
    is left after the first i steps."""

    def __init__(self, pattern: Pattern, expressions: Expressions) -> None:
        self.stages: dict[str, Stage] = {stage.name: stage for stage in pattern.stages}
        self.expressions = expressions
        expressions.stages = self
        self._kept: dict[tuple[str, tuple[Range, ...], bool], Value] = {}
        self._attentions = Attentions(expressions, self)
        self._recurrences = Recurrences(expressions)

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
                statistic = part.partition("@")[0] in ROW_PARTS
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
                return self._recurrences.value(stage, ranges)
            case Merge():
                return self._merge(stage, part, demand)
            case Attention():
                return self._attentions.value(stage, part, ranges)
            case _:
                assert_never(stage)

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
                self.expressions.spread(one, axes, scope, stage.candidates) for one in (by, visible, always)
            )
            limit = beside(amount, rows)
            sums = None if total is None else beside(total, rows)
            chosen = _choose(stage, by_, visible_, always_, limit, sums)
            sizes = [self.expressions.size(axis) for axis in stage.candidates]
            chosen = chosen.reshape((*chosen.shape[:-1], *sizes))
        value = Value(chosen, axes)
        for axis in stage.candidates:
            low, high = ranges[axis]
            value = narrow(value, axis, low, high)
        return value

    # ------------------------------------------------------------------------------------------- merges

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
