"""The walk of a program that owns a tile of keys: its keys, and the tiles of queries that see some of them.

The closed-form ranges are those of the forward pass with the roles of the axes exchanged: the predicate is solved for
the row of the query in terms of the key.
"""

from __future__ import annotations

from dataclasses import replace

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts, direction
from attnlang.ir.kernel import Const, Var
from attnlang.ir.pattern import (
    NQ,
    ONE,
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Literal,
    dtype_of,
    free_axes,
)  # fmt: skip
from attnlang.ir.plan import Band, Tile
from attnlang.ir.rewrite import conjunction, map_children, substitute
from attnlang.passes.lower_columns import ColumnWalk, UnitWalk
from attnlang.passes.lower_expr import Lowering
from attnlang.passes.lower_walk import FIRST, LAST, Keys, Lanes, ListWalk, RangeWalk
from attnlang.passes.ranges import bands
from attnlang.passes.scopes import Scope
from attnlang.passes.typed import binary, cast, elementwise

ROW = Axis("row", NQ, "query")
"""The storage index of a query: 0 … NQ − 1."""
_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


def query_bands(attention: Attention, facts: Facts) -> tuple[Band, ...]:
    """The rows that see a key, as bands lower(k) ≤ row ≤ upper(k)."""
    query, key = attention.rows[-1], attention.over
    visible = conjunction(attention.mask, attention.sparsity)
    by_row = substitute(visible, {Index(query): Apply("add", (Index(ROW), query.start))})
    return bands(_as_ranges(by_row, key), key, ROW, facts)


def _as_ranges(expr: Expr, key: Axis) -> Expr:
    """E(k) ≥ 0  ->  row ≥ NQ · min(max(−E(k), 0), 1): all rows or none, as a bound that is as monotone as E"""
    match expr:
        case Apply(op, (x, y)) if op in _COMPARISONS and dtype_of(x) == dtype_of(y) == "int":
            if key not in free_axes(expr) or ROW in free_axes(expr):
                return expr
            return _all_or_none(op, x, y)
        case Apply("and" | "or" | "not" | "where", _) if dtype_of(expr) == "bool":
            return map_children(expr, lambda part: _as_ranges(part, key))
        case _:
            return expr


def _all_or_none(op: str, x: Expr, y: Expr) -> Expr:
    def holds(greater: Expr, less: Expr, slack: int) -> Expr:
        missing = Apply("add", (Apply("sub", (less, greater)), Literal(slack)))
        step = Apply("min", (Apply("max", (missing, Literal(0))), ONE))
        return Apply("ge", (Index(ROW), Apply("mul", (NQ, step))))

    match op:
        case "ge":
            return holds(x, y, 0)
        case "gt":
            return holds(x, y, 1)
        case "le":
            return holds(y, x, 0)
        case "lt":
            return holds(y, x, 1)
        case "eq":
            return Apply("and", (holds(x, y, 0), holds(y, x, 0)))
        case _:
            return Apply("or", (holds(x, y, 1), holds(y, x, 1)))


def heavy_last(found: tuple[Band, ...], along: Axis, facts: Facts) -> bool:
    """Whether later tiles of this axis have more to visit: their ranges end later and do not begin later."""
    ends = any(direction(bound, along, facts) == 1 for band in found for bound in band.upper)
    starts = any(direction(bound, along, facts) == 1 for band in found for bound in band.lower)
    return ends and not starts


class QueryWalk(RangeWalk):
    """Tiles in closed form: the program's number is its tile of keys, its tiles of queries follow from the bands.

    `whole`: a tile with keys beyond the last has no full tiles, so that these keys are masked.
    """

    first = "row_first"

    def __init__(
        self, lowering: Lowering, scope: Scope, attention: Attention, tile: Tile, facts: Facts, whole: bool
    ) -> None:
        self.whole = whole
        found = query_bands(attention, facts)
        key = attention.over
        mirrored = replace(attention, rows=(*attention.rows[:-1], key), over=ROW)
        super().__init__(lowering, scope, mirrored, found, tile, heavy_last(found, key, facts), facts)

    def tiles(self) -> ir.Expr:
        """How many tiles of keys a head has."""
        rows = self.tile.rows
        up = binary("add", Var("NK", "i32"), Const(rows - 1, "i32"))
        return binary("floordiv", up, Const(rows, "i32"))

    def place(self, number: ir.Expr, tiles: ir.Expr, pair: ir.Expr) -> ir.Expr:
        """The first key of the program's tile of keys, from its number among the `tiles` of its head."""
        lowering, scope = self.lowering, self.scope
        if self.heavy_first:
            last = binary("sub", tiles, Const(1, "i32"))
            number = lowering.assign(scope, "tile", binary("sub", last, number))
        rows = Const(self.tile.rows, "i32")
        self.key_first = first = lowering.assign(scope, "key_first", binary("mul", number, rows))
        stop = binary("min", binary("add", first, rows), Var("NK", "i32"))
        scope.known[FIRST, ()] = lowering.lengthen(first)
        last = lowering.assign(scope, "key_last", binary("sub", stop, Const(1, "i32")))
        scope.known[LAST, ()] = lowering.lengthen(last)
        return first

    def queries(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """The program's own tokens: keys beyond the last are copies of it."""
        exists = binary("lt", lanes, Var("NK", "i32"))
        return Lanes(binary("min", lanes, _last("NK")), exists)

    def keys(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """The tokens it walks over: queries beyond the last are in tiles that are masked."""
        lanes = self.lowering.assign(scope, "row", lanes)
        return Lanes(lanes, binary("lt", lanes, Var("NQ", "i32")))

    def _piece(self, band: Band):
        piece = super()._piece(band)
        if not self.whole or piece.full_stop == piece.full_first:
            return piece
        beyond = binary("add", self.key_first, Const(self.tile.rows, "i32"))
        ragged = binary("lt", Var("NK", "i32"), beyond)
        stop = elementwise("where", [ragged, piece.full_first, piece.full_stop], "i32")
        return replace(piece, full_stop=self.lowering.assign(self.scope, "full_stop", stop))

    def _scalar(self, expr: Expr) -> ir.Expr:
        """A number of queries; one that is computed in 64 bits is cut off before it becomes a short one."""
        value = self.lowering.lower(expr, self.scope)
        if value.type == "i64":
            value = binary("min", binary("max", value, Const(0, "i64")), cast(Var("NQ", "i32"), "i64"))
        return cast(value, "i32")


class ColumnQueryWalk(ColumnWalk, QueryWalk):
    """Tiles of queries that begin and end where visible queries do."""


class ListQueryWalk(ListWalk):
    """Tiles from lists: for each tile of keys the tiles of queries that visit it, full ones first; heavy tiles of keys
    first. `row_tiles` counts tiles of keys and `key_tiles` tiles of queries here.

    `whole`: a tile with places without keys has no full tiles, so that these are masked.
    """

    first = "row_first"

    def __init__(self, lowering: Lowering, scope: Scope, tile: Tile, ordered: bool, whole: bool) -> None:
        super().__init__(lowering, scope, tile, ordered)
        self.whole = whole
        self.ragged: ir.Expr | None = None

    def queries(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """The program's own tokens: keys that do not exist are copies of one that does."""
        zero = Const(0, "i32")
        found = Lanes(binary("min", lanes, _last("NK")), binary("lt", lanes, Var("NK", "i32")))
        if self.ordered:
            key = ir.Load("key_order", self.first_place, lanes, "i32", lanes.shape)
            token = self.lowering.assign(scope, "token", key)
            found = Lanes(binary("max", token, zero), binary("ge", token, zero))
        if self.whole and not self.ordered:
            every = ir.Fold("min", cast(found.exists, "i32"), "M", "i32", ())
            self.ragged = self.lowering.assign(scope, "ragged", binary("eq", every, zero))
            self.scope = scope  # where the ends of the lists, too, are to be found out
        return found

    def keys(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """The tokens it walks over: in the natural order, every query of a full tile exists."""
        if not self.ordered:
            lanes = self.lowering.assign(scope, "row", lanes)
            return Lanes(lanes, binary("lt", lanes, Var("NQ", "i32")))
        query = ir.Load("query_order", self.places, lanes, "i32", lanes.shape)
        token = self.lowering.assign(scope, "token", query)
        at = self.lowering.assign(scope, "row", binary("max", token, Const(0, "i32")))
        return Lanes(at, binary("ge", token, Const(0, "i32")))

    def loops(self) -> list[Keys]:
        """Full tiles, then partial ones; in another order all are masked, for a full one may lack queries."""
        return super().loops()[1:] if self.ordered else super().loops()

    def _ends(self) -> tuple[ir.Expr, ir.Expr, ir.Expr]:
        first, middle, end = super()._ends()
        if self.ordered:
            return first, first, end
        if self.ragged is not None:
            middle = elementwise("where", [self.ragged, first, middle], "i32")
        return first, middle, end


class UnitQueryWalk(UnitWalk, ListQueryWalk):
    """Tiles of as many listed units of queries as fit."""


def _last(size: str) -> ir.Expr:
    return binary("sub", Var(size, "i32"), Const(1, "i32"))
