"""Evaluation of recurrences: a loop over tokens, all rows and features at once."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlang.ir.interpret_expr import Expressions
from attnlang.ir.interpret_scope import Scope
from attnlang.ir.interpret_values import Range, Ranges, Value, expand, narrow, where
from attnlang.ir.pattern import Axis, Recurrence, axis_of
from attnlang.ir.walk import reads_of


def token_axes(stage: Recurrence) -> tuple[Axis, ...]:
    """The axes a recurrence is read by: its own with the token inserted."""
    return (*stage.axes[: stage.position], stage.token, *stage.axes[stage.position :])


class Recurrences:
    """The states of recurrences. Without gradients, a demand for later tokens goes on where the last one stopped."""

    def __init__(self, expressions: Expressions) -> None:
        self.expressions = expressions
        self._reached: dict[tuple[str, tuple[Range, ...]], tuple[int, Value]] = {}

    def value(self, stage: Recurrence, ranges: Ranges) -> Value:
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
