"""Columns of a tile that may be left out: where a condition is false for all rows, they change no result.

A loop over tiles asks for scores that are −∞ where a condition fails. If then everything that the loop folds or
contracts over the columns takes in a neutral element from such a column, it need not be computed at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal as OneOf

from attnlang.ir.kernel import (
    Assign,
    Const,
    Dot,
    Expr,
    Fold,
    Full,
    Load,
    Loop,
    Op,
    Remark,
    Statement,
    Store,
    Var,
)

from .cpp_normal import parts, reads, rebuilt

Known = OneOf["-inf", "0"] | None


@dataclass(frozen=True)
class Visible:
    """The condition on pairs without which a column changes nothing, and the part of it that is cheap to ask first."""

    whole: Expr
    cheap: Expr


def visible(statements: tuple[Statement, ...], pair: tuple[str, str], stream: str) -> Visible | None:
    """What must hold of some pair of a column of `stream`, so that it counts; None: every column does."""
    for part in (part for s in statements if isinstance(s, Assign) for part in parts(s.value)):
        match part:
            case Op("where", (condition, _, Const(value)), _, shape) if (
                shape == pair and value == -math.inf and _is_neutral(statements, condition, stream)
            ):
                cheap = _cheap(condition, statements)
                return None if cheap is None else Visible(condition, cheap)
            case _:
                pass
    return None


def _is_neutral(statements: tuple[Statement, ...], condition: Expr, stream: str) -> bool:
    known: dict[str, Known] = {}
    for statement in statements:
        match statement:
            case Assign(name, Fold(op, value, over, _, _)) if over == stream:
                found = _value(value, condition, known)
                if (op, found) not in (("sum", "0"), ("max", "-inf")):
                    return False
                known[name] = None
            case Assign(name, Dot(left, right, over, _, _, added)):
                zero = "0" in (_value(left, condition, known), _value(right, condition, known))
                if over == stream and not zero:
                    return False
                known[name] = "0" if zero and added is None else None
            case Assign(name, value):
                known[name] = _value(value, condition, known)
            case Store(_, _, offset, value, _, accumulate):
                added = accumulate and _value(value, condition, known) == "0"
                if stream in (*offset.shape, *value.shape) and not added:
                    return False
            case Loop(_, _, _, body, _, _):
                if not _is_neutral_inside(body, stream):
                    return False
            case Remark():
                pass
    return True


def _is_neutral_inside(body: Iterable[Statement], stream: str) -> bool:
    """A loop inside is harmless where it only computes columns one by one."""
    for statement in body:
        match statement:
            case Assign(_, Fold(_, _, over, _, _) | Dot(_, _, over, _, _, _)) if over == stream:
                return False
            case Store():
                return False
            case Loop(_, _, _, inner, _, _) if not _is_neutral_inside(inner, stream):
                return False
            case _:
                pass
    return True


def _value(expr: Expr, condition: Expr, known: dict[str, Known]) -> Known:
    """What an expression is where the condition fails."""

    def of(part: Expr) -> Known:
        return _value(part, condition, known)

    match expr:
        case Const(value) | Full(value, _, _):
            return "0" if value == 0 else "-inf" if value == -math.inf else None
        case Var(name, _, _):
            return known.get(name)
        case Op("where", (asked, _, no), _, _) if asked == condition:
            return of(no)
        case Op("where", (_, yes, no), _, _):
            return of(yes) if of(yes) == of(no) else None
        case Op("spread" | "cast", (value,), _, _):
            return of(value)
        case Op("sub", (x, _), _, _) if of(x) == "-inf":
            return "-inf"
        case Op("exp2" | "exp", (x,), _, _) if of(x) == "-inf":
            return "0"
        case Op("mul", args, _, _) if "0" in map(of, args):
            return "0"
        case Op("div", (x, _), _, _) if of(x) == "0":
            return "0"
        case Op("neg", (x,), _, _) if of(x) == "0":
            return "0"
        case _:
            return None


def _cheap(condition: Expr, statements: tuple[Statement, ...]) -> Expr | None:
    """The part of a conjunction that neither a product nor a load for every pair decides."""
    values = {s.name: s.value for s in statements if isinstance(s, Assign)}
    inner = {name for s in statements if isinstance(s, Loop) for name in _assigned(s)}

    def is_cheap(expr: Expr) -> bool:
        for part in parts(expr):
            match part:
                case Dot() | Fold():
                    return False
                case Load() if len(part.shape) > 1:
                    return False
                case Var(name, _, _) if name in inner:
                    return False
                case Var(name, _, _) if name in values and not is_cheap(values[name]):
                    return False
                case _:
                    pass
        return True

    if is_cheap(condition):
        return condition
    match condition:
        case Op("and", (x, y), kind, shape):
            kept = [part for part in (_cheap(x, statements), _cheap(y, statements)) if part is not None]
            return Op("and", (kept[0], kept[1]), kind, shape) if len(kept) == 2 else kept[0] if kept else None
        case Var(name, _, _) if name in values:
            return _cheap(values[name], statements)
        case _:
            return None


def _assigned(loop: Loop) -> set[str]:
    found: set[str] = set()
    for statement in loop.body:
        match statement:
            case Assign(name, _):
                found.add(name)
            case Loop():
                found |= _assigned(statement)
            case Store() | Remark():
                pass
    return found


def needed(condition: Expr, statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements that the condition reads, in order."""
    wanted = {part.name for part in parts(condition) if isinstance(part, Var)}
    kept: list[Statement] = []
    for statement in reversed(statements):
        if isinstance(statement, Assign) and statement.name in wanted:
            kept.append(statement)
            wanted |= {part.name for part in parts(statement.value) if isinstance(part, Var)}
    return tuple(reversed(kept))


def by_flags(
    statements: tuple[Statement, ...], condition: Expr, flags: Var, kept: frozenset[str]
) -> tuple[Statement, ...]:
    """The statements with a condition asked as `flags`, without those that nothing reads any more (`kept`: names that
    are read elsewhere)."""

    def asked(expr: Expr) -> Expr:
        match expr:
            case Op("where", (found, yes, no), kind, shape) if found == condition:
                return Op("where", (flags, asked(yes), asked(no)), kind, shape)
            case _:
                return rebuilt(expr, asked)

    changed = tuple(replace(s, value=asked(s.value)) if isinstance(s, Assign) else s for s in statements)
    while True:
        read = kept.union(*(reads(s) for s in changed))
        left = tuple(s for s in changed if not isinstance(s, Assign) or s.name in read)
        if len(left) == len(changed):
            return changed
        changed = left
