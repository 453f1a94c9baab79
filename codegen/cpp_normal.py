"""Kernel IR as statements that do one thing each: a load, a product, a fold, or arithmetic on named values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from attnlang.ir.kernel import (
    Assign,
    Const,
    Dot,
    Expr,
    Fold,
    Full,
    Kernel,
    Lanes,
    Load,
    Loop,
    Op,
    Remark,
    Shape,
    Statement,
    Store,
    Var,
    children,
    names,
    operands,
    walk,
)  # fmt: skip


def rebuilt(expr: Expr, change: Callable[[Expr], Expr]) -> Expr:
    """The expression with its direct subexpressions changed."""
    match expr:
        case Op(op, args, kind, shape):
            return Op(op, tuple(change(arg) for arg in args), kind, shape)
        case Load(_, base, offset, _, _, mask, _):
            return replace(
                expr, base=change(base), offset=change(offset), mask=None if mask is None else change(mask)
            )
        case Dot(left, right, _, _, _, accumulator):
            added = None if accumulator is None else change(accumulator)
            return replace(expr, left=change(left), right=change(right), accumulator=added)
        case Fold(_, value, _, _, _):
            return replace(expr, value=change(value))
        case Const() | Var() | Lanes() | Full():
            return expr


def parts(expr: Expr) -> Iterator[Expr]:
    """The expression and all below it."""
    yield expr
    for child in children(expr):
        yield from parts(child)


def reads(statement: Statement) -> frozenset[str]:
    """The names of values that a statement reads; a loop's are those of everything in it."""
    own = (part for value in operands(statement) for part in parts(value))
    found = {part.name for part in own if isinstance(part, Var)}
    if isinstance(statement, Loop):
        for inner in statement.body:
            found |= reads(inner)
    return frozenset(found)


def writes(statement: Statement) -> frozenset[str]:
    """The names of values that a statement assigns; a loop's are those of everything in it."""
    match statement:
        case Assign(name, _):
            return frozenset((name,))
        case Loop(variable, _, _, body, _, _):
            return frozenset((variable,)).union(*(writes(inner) for inner in body))
        case Store() | Remark():
            return frozenset()


def exact_lengths(kernel: Kernel) -> dict[str, int]:
    """The length of each dimension; one that was padded ends where its masks do."""
    lengths = dict(kernel.dims)
    for statement in walk(kernel.body):
        for value in operands(statement):
            for part in parts(value):
                match part:
                    case Op("lt", (Lanes(dim, _), Const(int(size), _, ())), _, _):
                        lengths[dim] = min(lengths[dim], size)
                    case _:
                        pass
    return lengths


class Normal:
    """Takes statements apart; the names it makes up are new in the kernel."""

    def __init__(self, kernel: Kernel, lengths: dict[str, int]) -> None:
        self._taken = set(names(kernel.body))
        self._lengths = lengths

    def statements(self, body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        """The same statements, each of one kind."""
        made: list[Statement] = []
        for statement in body:
            match statement:
                case Assign(name, value):
                    made.append(Assign(name, self._root(self._simple(value), made)))
                case Store(_, base, offset, value, mask):
                    changed = replace(
                        statement,
                        base=self._apart(base, made),
                        offset=self._apart(self._simple(offset), made),
                        value=self._apart(self._simple(value), made),
                        mask=None if mask is None else self._condition(mask, made),
                    )
                    made.append(changed)
                case Loop(_, start, stop, inner, _, _):
                    begin, end = self._apart(start, made), self._apart(stop, made)
                    made.append(replace(statement, start=begin, stop=end, body=self.statements(inner)))
                case Remark():
                    made.append(statement)
        return tuple(made)

    def _condition(self, mask: Expr, made: list[Statement]) -> Expr | None:
        simple = self._apart(self._simple(mask), made)
        return None if simple == Const(True, "i1") else simple

    def _simple(self, expr: Expr) -> Expr:
        """Without masks that always hold because a dimension ends there."""
        expr = rebuilt(expr, self._simple)
        match expr:
            case Op("lt", (Lanes(dim, _), Const(int(size), _, ())), _, _) if size >= self._lengths[dim]:
                return Const(True, "i1")
            case Op("and", (x, Const(True, "i1", ())), _, _) if x.shape == expr.shape:
                return x
            case Op("and", (Const(True, "i1", ()), x), _, _):
                return x
            case Op("and", (x, Const(True, "i1", ())), _, _):
                return x
            case Op("where", (Const(True, "i1", ()), x, _), kind, _) if x.type == kind:
                return x
            case Load(_, _, _, _, _, Const(True, "i1", ()), _):
                return replace(expr, mask=None)
            case _:
                return expr

    def _root(self, expr: Expr, made: list[Statement]) -> Expr:
        """An expression that may stay as the whole of an assignment."""
        match expr:
            case Dot(left, right, _, _, _, accumulator):
                added = None if accumulator is None else self._apart(accumulator, made)
                return replace(
                    expr,
                    left=self._operand(left, made),
                    right=self._operand(right, made),
                    accumulator=added,
                )
            case Load() | Fold():
                return rebuilt(expr, lambda child: self._apart(child, made))
            case _:
                return self._apart(expr, made)

    def _operand(self, expr: Expr, made: list[Statement]) -> Var:
        """An operand of a product, by name. Whether it is rounded to two bytes is for the product to say."""
        match expr:
            case Op("cast", (inner,), "fp16" | "bf16", _) if (
                inner.type == "fp32" and inner.shape == expr.shape
            ):
                expr = inner
            case _:
                pass
        return expr if isinstance(expr, Var) else self._named(self._root(expr, made), "operand", made)

    def _apart(self, expr: Expr, made: list[Statement]) -> Expr:
        """Arithmetic on names: what must be computed by itself has become one."""
        match expr:
            case Dot():
                return self._named(self._root(expr, made), "product", made)
            case Fold(op, _, _, _, _):
                return self._named(self._root(expr, made), f"row_{op}", made)
            case Load() if expr.shape:
                return self._named(self._root(expr, made), "loaded", made)
            case _:
                return rebuilt(expr, lambda child: self._apart(child, made))

    def _named(self, expr: Expr, hint: str, made: list[Statement]) -> Var:
        number, name = 1, hint
        while name in self._taken:
            number += 1
            name = f"{hint}_{number}"
        self._taken.add(name)
        made.append(Assign(name, expr))
        return Var(name, expr.type, expr.shape)


def dimensions(statement: Statement) -> Shape:
    """The dimensions of the points at which a statement computes something."""
    match statement:
        case Assign(_, Fold(_, value, _, _, _)):
            return value.shape
        case Assign(_, value):
            return value.shape
        case Store(_, _, _, value, _):
            return value.shape
        case Loop() | Remark():
            return ()
