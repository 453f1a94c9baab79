"""Tiles of any width, for targets that have them: what is visible is laid end to end and cut into nearly equal parts.

By closed forms these are single tokens, by lists units of a few. No tile reaches beyond what some of its pairs see,
several short stretches share a tile, and no tile is much narrower than the others.
"""

from __future__ import annotations

from attnlang.ir import kernel as ir
from attnlang.ir.kernel import Const, Var
from attnlang.ir.plan import Tile
from attnlang.passes.lower_expr import Lowering
from attnlang.passes.lower_walk import Keys, Lanes, ListWalk, RangeWalk, Run
from attnlang.passes.scopes import Scope
from attnlang.passes.typed import binary, cast, elementwise

STEP = 12
"""Widths are multiples of it, but for the last one: rows that register tiles take at a time (4 or 6) divide it."""


UNIT = 24
"""Tokens behind a number of a list: few, as what a unit holds besides visible pairs is computed; a multiple of STEP."""

ALWAYS = Const(True, "i1")


def any_width(target: str, rows: int, few: int = 8) -> bool:
    """Whether tiles need not be as wide as the others; those of up to `few` rows have their keys along vectors."""
    return target.partition(":")[0] == "cpu" and rows >= 16 and rows > few


def listed_columns(target: str, rows: int, columns: int, few: int = 8) -> int:
    """The width of tiles in lists: that of the kernel's own, where these have one width."""
    return min(UNIT, columns) if any_width(target, rows, few) else columns


class ColumnWalk(RangeWalk):
    """Tiles of up to `tile.columns` tokens, which need not lie side by side."""

    each = True

    def keys(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """All of them exist."""
        return Lanes(super().keys(lanes, scope).at, ALWAYS)

    def _in_turn(self, runs: list[Run], masked: bool) -> Keys:
        lowering, kind = self.lowering, "partial" if masked else "full"
        ends = self._ends(runs, kind)
        limit, one = Const(self.tile.columns, "i32"), Const(1, "i32")
        tiles = lowering.assign(self.scope, f"{kind}_tiles", _parts(ends[-1], limit))
        share = _parts(ends[-1], binary("max", tiles, one))
        width = binary("mul", _parts(share, Const(STEP, "i32")), Const(STEP, "i32"))
        width = width if self.tile.columns % STEP == 0 else binary("min", width, limit)
        width = lowering.assign(self.scope, f"{kind}_width", width)

        def first(number: Var) -> ir.Expr:
            return binary("mul", number, width)

        def lanes(scope: Scope, number: Var) -> ir.Expr:
            if len(runs) == 1:
                start = lowering.assign(scope, self.first, binary("add", runs[0].first, first(number)))
                return binary("add", start, ir.Lanes("N"))
            start = lowering.assign(scope, "place", first(number))
            place = lowering.assign(scope, "place", binary("add", start, ir.Lanes("N")))
            chosen = binary("add", runs[0].first, place)
            for run, end in zip(runs[1:], ends[1:], strict=False):
                here = binary("add", binary("sub", run.first, end), place)
                chosen = elementwise("where", [binary("lt", place, end), chosen, here], "i32")
            return chosen

        def columns(number: Var) -> ir.Expr:
            return binary("min", binary("sub", ends[-1], first(number)), width)

        return Keys(masked, ends[0], tiles, lanes, columns)


class UnitWalk(ListWalk):
    """Tiles of as many listed units as fit. Full ones that would need a tile of their own, and find room in the last of
    the partial ones, go there."""

    def __init__(self, lowering: Lowering, scope: Scope, tile: Tile, *rest: bool, **named: bool) -> None:
        super().__init__(lowering, scope, tile, *rest, **named)
        self.listed = min(UNIT, tile.columns)
        self.most = Const(tile.columns // self.listed, "i32")

    def _ends(self) -> tuple[ir.Expr, ir.Expr, ir.Expr]:
        first, middle, end = super()._ends()
        if middle == first:
            return first, middle, end
        left = binary("mod", binary("sub", middle, first), self.most)
        last = binary("sub", self.most, Const(1, "i32"))
        room = binary("sub", last, binary("mod", binary("add", binary("sub", end, middle), last), self.most))
        moved = elementwise("where", [binary("le", left, room), left, Const(0, "i32")], "i32")
        middle = self.lowering.assign(self.scope, "full_stop", binary("sub", middle, moved))
        return first, middle, end

    def _between(self, start: ir.Expr, stop: ir.Expr, masked: bool) -> Keys:
        lowering, scope, kind = self.lowering, self.scope, "partial" if masked else "full"
        units = lowering.assign(scope, f"{kind}_units", binary("sub", stop, start))
        tiles = lowering.assign(scope, f"{kind}_tiles", _parts(units, self.most))
        share = _parts(units, binary("max", tiles, Const(1, "i32")))
        share = lowering.assign(scope, f"{kind}_share", share)
        unit = Const(self.listed, "i32")

        def lanes(scope: Scope, number: Var) -> ir.Expr:
            first = lowering.assign(scope, "unit_first", binary("add", start, binary("mul", number, share)))
            place = ir.Lanes("N")
            listed = ir.Load(
                "tile_columns", cast(first, "i64"), binary("floordiv", place, unit), "i32", ("N",)
            )
            return binary("add", binary("mul", listed, unit), binary("mod", place, unit))

        def columns(number: Var) -> ir.Expr:
            left = binary("sub", units, binary("mul", number, share))
            return binary("mul", binary("min", left, share), unit)

        return Keys(masked, Const(0, "i32"), tiles, lanes, columns)


def _parts(length: ir.Expr, part: ir.Expr) -> ir.Expr:
    """How many parts a length has."""
    up = binary("add", length, binary("sub", part, Const(1, "i32")))
    return binary("floordiv", up, part)
