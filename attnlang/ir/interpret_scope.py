"""What an expression is evaluated for, and where it finds the stages it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from attnlang.ir.interpret_values import Range, Value
from attnlang.ir.pattern import Axis, Expr

Key = tuple[int, tuple[tuple[Axis, Range], ...], bool]


@dataclass(frozen=True)
class Scope:
    """What an expression is evaluated for: a range per index (all of it where none is given), the values before the
    current token of the recurrences around it, and the axes that are walked one by one."""

    ranges: Mapping[Axis, Range]
    previous: Mapping[str, Value] = field(default_factory=dict[str, Value])
    walked: frozenset[Axis] = frozenset()
    memo: dict[Key, tuple[Expr, Value]] = field(default_factory=dict["Key", "tuple[Expr, Value]"])

    def inside(self, axes: tuple[Axis, ...]) -> Scope:
        """The scope of a reduction: its own axes run over all their values."""
        if not any(axis in self.ranges for axis in axes):
            return self
        ranges = {axis: range_ for axis, range_ in self.ranges.items() if axis not in axes}
        return Scope(ranges, self.previous, self.walked, self.memo)


class Stages(Protocol):
    """Where an expression finds the stages of its pattern."""

    def axes_of(self, source: str) -> tuple[Axis, ...] | None:
        """The axes a stage (or part of one) is read by; None: no stage is called so."""
        ...

    def value(self, source: str, demand: tuple[Range, ...]) -> Value:
        """The stage over its own axes, for the demanded ranges."""
        ...
