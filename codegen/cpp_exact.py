"""Values of a tile at one pair, written out: from the definitions of their parts, in float or all in double."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from attnlang.ir.kernel import (
    Assign,
    Const,
    Dot,
    Expr,
    Fold,
    Full,
    Lanes,
    Load,
    Loop,
    Op,
    Statement,
    Type,
    Var,
)

from .cpp_normal import rebuilt, writes
from .cpp_points import Scene


def definitions(outer: tuple[Statement, ...], body: tuple[Statement, ...]) -> dict[str, Expr]:
    """What each name stands for in the body of a loop: names that are assigned once, by it or outside of all loops."""
    found: dict[str, Expr] = {}
    again: set[str] = set()
    for statement in (*outer, *body):
        if isinstance(statement, Assign):
            if statement.name in found:
                again.add(statement.name)
            found[statement.name] = statement.value
    for statement in body:
        if isinstance(statement, Loop):
            again |= writes(statement)
    for statement in outer:
        if isinstance(statement, Loop):
            again |= writes(statement) & {s.name for s in outer if isinstance(s, Assign)}
    return {name: value for name, value in found.items() if name not in again}


class Written:
    """Writes out expressions. `readable`: names of single numbers that can be read anywhere; `gone`: those of tiles
    whose memory others have taken. `dots`: the products that were met on the way, each of which is a number of its own;
    `whole`: whether everything could be written out."""

    def __init__(
        self, known: Mapping[str, Expr], scene: Scene, readable: frozenset[str], gone: frozenset[str]
    ) -> None:
        self.known, self.scene, self.readable, self.gone = known, scene, readable, gone
        self.dots: dict[str, Dot] = {}
        self.whole = True

    def visible(self, expr: Expr) -> Expr:
        """A score in double, at a pair where it is not −∞: what it is where a condition fails is left out."""
        return self.at_pair(self._without_hidden(expr), wide=True)

    def _without_hidden(self, expr: Expr) -> Expr:
        match expr:
            case Op("where", (_, yes, Const(value) | Full(value)), _, _) if value == -math.inf:
                return self._without_hidden(yes)
            case Op("add" | "spread", args, _, _):
                return replace(expr, args=tuple(self._without_hidden(arg) for arg in args))
            case Var(name, "fp32", (_, _)) if isinstance(self.known.get(name), Op):
                return self._without_hidden(self.known[name])
            case _:
                return expr

    def at_pair(self, expr: Expr, *, wide: bool) -> Expr:
        """The expression in names that can be read at a pair. `wide`: in double, products summed in double too."""
        kind: Type = "fp64" if wide and expr.type == "fp32" else expr.type
        match expr:
            case Var():
                return self._name(expr, kind, wide)
            case Const(value) | Full(value):
                return Const(value, kind)
            case Lanes():
                return expr
            case Load():
                whole = rebuilt(expr, lambda part: self.at_pair(part, wide=False))
                return whole if kind == expr.type else Op("cast", (whole,), kind, ())
            case Op("cast", (value,), to, shape) if to.startswith("i"):
                return Op("cast", (self.at_pair(value, wide=False),), to, shape)
            case Op(op, args, _, shape):
                return Op(op, tuple(self.at_pair(arg, wide=wide) for arg in args), kind, shape)
            case Dot() | Fold():
                raise AssertionError("products and folds are statements of their own")

    def _name(self, expr: Var, kind: Type, wide: bool) -> Expr:
        value = self.known.get(expr.name)
        if isinstance(value, Dot) and wide:
            self.dots[expr.name] = value
            return Var(expr.name, "fp64")
        rounded = wide and kind != expr.type
        if isinstance(value, Op | Const | Full | Lanes | Load) and (rounded or not self._is_readable(expr)):
            return self.at_pair(value, wide=wide)
        self.whole &= self._is_readable(expr)
        return Op("cast", (expr,), kind, expr.shape) if rounded else expr

    def _is_readable(self, expr: Var) -> bool:
        name, scene = expr.name, self.scene
        if name in scene.locals or name in scene.numbers or name in self.readable:
            return True
        return name in set(scene.tiles) - self.gone and expr.type != "i1" and not scene.tiles[name].rows
