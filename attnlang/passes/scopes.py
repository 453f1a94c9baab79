"""Places for statements of a kernel: the program, the rows of its tile, a tile of keys, a loop inside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from attnlang.ir import kernel as ir
from attnlang.ir.kernel import Var
from attnlang.ir.pattern import Axis, TensorAxis
from attnlang.passes.typed import walk


@dataclass
class Scope:
    """A place for statements. `axes` are the indices that are known here and were not outside."""

    axes: frozenset[Axis]
    parent: Scope | None = None
    statements: list[ir.Statement] = field(default_factory=list[ir.Statement])
    known: dict[object, ir.Expr] = field(default_factory=dict[object, ir.Expr])

    def is_inner(self) -> bool:
        """Whether it lies in a loop over keys."""
        return len(self.chain()) > 2

    def chain(self) -> list[Scope]:
        """From the outermost scope to this one."""
        return [*(self.parent.chain() if self.parent else []), self]


@dataclass(frozen=True)
class Source:
    """A tensor a kernel reads: its argument, its element type, its axes."""

    pointer: ir.Pointer
    axes: tuple[TensorAxis, ...]


def moving(scope: Scope) -> set[Axis]:
    """The indices that are known inside the outermost scope only."""
    return {axis for place in scope.chain()[1:] for axis in place.axes}


def is_outer(base: ir.Expr, scope: Scope) -> bool:
    """Whether a scalar offset only uses names of the outermost scope or arguments."""
    inner = {
        statement.name
        for place in scope.chain()[1:]
        for statement in place.statements
        if isinstance(statement, ir.Assign)
    }
    loops = {
        value.name for place in scope.chain()[1:] for value in place.known.values() if isinstance(value, Var)
    }
    return not ({part.name for part in walk(base) if isinstance(part, Var)} & (inner | loops))
