"""Which statements are computed together, point by point, in one pass over their dimensions.

A pass may hold a product (its sums are handed on while they are in registers), arithmetic on the same points, and folds
of what it computes. A statement goes into the first pass of its dimensions behind everything that it needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attnlang.ir.kernel import (
    Assign,
    Dot,
    Expr,
    Fold,
    Full,
    Lanes,
    Load,
    Loop,
    Op,
    Remark,
    Shape,
    Statement,
    Var,
)

from .cpp_normal import dimensions, parts, reads, writes


@dataclass
class Pass:
    """Statements over the same dimensions, in order. A loop or a remark is alone in its pass, with `dims` empty."""

    dims: Shape
    statements: list[Statement] = field(default_factory=list[Statement])

    @property
    def products(self) -> list[Assign]:
        """Its matrix products."""
        return [s for s in self.statements if isinstance(s, Assign) and isinstance(s.value, Dot)]

    @property
    def folds(self) -> list[Assign]:
        """Its folds."""
        return [s for s in self.statements if isinstance(s, Assign) and isinstance(s.value, Fold)]


def passes(statements: tuple[Statement, ...], lazy: Mapping[str, Expr]) -> list[Pass]:
    """The statements of one body in passes; running the passes one after the other does what the statements do.

    `lazy`: values that are computed where they are used, so that their users need what they read.
    """
    made: list[Pass] = []
    for statement in statements:
        place = _place(statement, made, lazy)
        if place is None:
            made.append(Pass(dimensions(statement), [statement]))
        else:
            made[place].statements.append(statement)
    return made


def reads_through(statement: Statement, lazy: Mapping[str, Expr]) -> frozenset[str]:
    """The names that a statement reads, also through values that are computed where they are used."""
    found = set(reads(statement))
    queue = [name for name in found if name in lazy]
    while queue:
        more = {part.name for part in parts(lazy[queue.pop()]) if isinstance(part, Var)} - found
        found |= more
        queue += [name for name in more if name in lazy]
    return frozenset(found)


def _place(statement: Statement, made: list[Pass], lazy: Mapping[str, Expr]) -> int | None:
    """The pass that a statement can join; None: it needs one of its own, behind all others."""
    if isinstance(statement, Loop | Remark):
        return None
    dims, first = dimensions(statement), 0
    for number, group in enumerate(made):
        for before in group.statements:
            distance = _distance(before, statement, dims == group.dims, lazy)
            first = first if distance is None else max(first, number + distance)
    for number in range(first, len(made)):
        if (
            made[number].dims == dims
            and not _is_alone(made[number])
            and _folds_alike(statement, made[number])
        ):
            return number
    return None


def _is_alone(group: Pass) -> bool:
    return isinstance(group.statements[0], Loop | Remark)


def _folds_alike(statement: Statement, group: Pass) -> bool:
    """One pass folds over one dimension only."""
    over = {fold.value.over for fold in group.folds if isinstance(fold.value, Fold)}
    match statement:
        case Assign(_, Fold(_, _, dim, _, _)):
            return over <= {dim}
        case _:
            return True


def _distance(before: Statement, after: Statement, alike: bool, lazy: Mapping[str, Expr]) -> int | None:
    """How many passes `after` must stand behind `before`: 0 or 1; None: neither needs the other."""
    if isinstance(before, Loop | Remark):
        return 1
    own, other = writes(before), writes(after)
    needs = own & reads_through(after, lazy)
    if isinstance(before, Assign) and isinstance(after, Assign):
        whole = _whole(after.value)
        if needs & whole or (needs and isinstance(before.value, Fold)) or (_whole(before.value) & other):
            return 1
    elif needs and isinstance(before, Assign) and isinstance(before.value, Fold):
        return 1
    if needs or (other & (reads_through(before, lazy) | own)):
        return 0 if alike else 1
    return None


def _whole(value: Expr) -> frozenset[str]:
    """Names whose other points a value needs too: the operands of a product."""
    if not isinstance(value, Dot):
        return frozenset()
    return frozenset(x.name for x in (value.left, value.right) if isinstance(x, Var))


def is_lazy(statement: Statement, lane: str, changing: frozenset[str]) -> bool:
    """Whether a value is cheap and free of the lanes of a vector: it is computed where it is used."""
    match statement:
        case Assign(name, Op() | Lanes() | Full() as value) if (
            len(value.shape) == 1 and lane not in value.shape and name not in changing
        ):
            return not any(isinstance(part, Load | Dot | Fold) or _is_choice(part) for part in parts(value))
        case _:
            return False


def _is_choice(expr: Expr) -> bool:
    """Whether an expression is one of two numbers, which it takes longer to choose again than to read again."""
    return isinstance(expr, Op) and expr.op == "where" and expr.type in ("fp32", "fp64")
