"""Tokens in closed form, one by one: all visible stretches laid end to end, and cut into tiles of nearly equal width.

For targets whose tiles may have any width. No tile reaches beyond what some of its pairs see, several short stretches
share a tile, and no tile is much narrower than the others.
"""

from __future__ import annotations

from attnlang.ir import kernel as ir
from attnlang.ir.kernel import Const, Var
from attnlang.ir.plan import Tile
from attnlang.passes.lower_walk import Keys, Lanes, RangeWalk, Run
from attnlang.passes.scopes import Scope
from attnlang.passes.typed import binary, elementwise

STEP = 12
"""Widths are multiples of it, but for the last one: rows that register tiles take at a time (4 or 6) divide it."""


ALWAYS = Const(True, "i1")


def any_width(target: str, tile: Tile, few: int = 8) -> bool:
    """Whether tiles need not be as wide as the others; those of up to `few` rows have their keys along vectors."""
    return target.partition(":")[0] == "cpu" and tile.rows >= 16 and tile.rows > few


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


def _parts(length: ir.Expr, part: ir.Expr) -> ir.Expr:
    """How many parts a length has."""
    up = binary("add", length, binary("sub", part, Const(1, "i32")))
    return binary("floordiv", up, part)
