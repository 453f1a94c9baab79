"""Drops assignments that nothing reads."""

from __future__ import annotations

from dataclasses import replace

from attnlang.ir.kernel import Assign, Expr, Loop, Statement, Var, children, operands, walk


def prune(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements without those that assign a name which no other statement reads."""
    read: set[str] = set()
    for statement in walk(body):
        own = statement.name if isinstance(statement, Assign) else None
        for expr in operands(statement):
            read |= _variables(expr) - {own}
    kept = _kept(body, read)
    return kept if kept == body else prune(kept)


def _variables(expr: Expr) -> set[str]:
    own = {expr.name} if isinstance(expr, Var) else set[str]()
    return own.union(*map(_variables, children(expr)))


def _kept(body: tuple[Statement, ...], read: set[str]) -> tuple[Statement, ...]:
    kept: list[Statement] = []
    for statement in body:
        match statement:
            case Assign(name, _) if name not in read:
                pass
            case Loop(body=inner):
                kept.append(replace(statement, body=_kept(inner, read)))
            case _:
                kept.append(statement)
    return tuple(kept)
