"""Which tiles a program of a kernel walks over: its tile of queries, its keys, and the loops over tiles of keys.

A `RangeWalk` computes its tiles of keys from closed-form key ranges; a `ListWalk` reads them from lists that were made
for the call, and may find its queries and keys through an order of the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attnlang.ir import kernel as ir
from attnlang.ir.bounds import Facts
from attnlang.ir.kernel import LISTED, ORDERED, Const, Var
from attnlang.ir.pattern import Attention, Expr, Symbol
from attnlang.ir.plan import Band, Tile
from attnlang.passes.lower_expr import Lowering
from attnlang.passes.ranges import key_range
from attnlang.passes.scopes import Scope
from attnlang.passes.typed import binary, cast, elementwise

FIRST, LAST = Symbol("q_first", "int"), Symbol("q_last", "int")


@dataclass(frozen=True)
class Keys:
    """One loop over tiles of keys, `start … stop − 1`; `lanes` places the keys of the tile at a number of the loop.
    `masked`: pairs may be hidden; else every pair of every tile is visible. `columns`: how many keys the tile at a
    number has, where that differs."""

    masked: bool
    start: ir.Expr
    stop: ir.Expr
    lanes: Callable[[Scope, Var], ir.Expr]
    columns: Callable[[Var], ir.Expr] | None = None


@dataclass(frozen=True)
class Lanes:
    """The tokens of a tile: their storage index (one that exists, always), and which of them there are."""

    at: ir.Expr
    exists: ir.Expr


class RangeWalk:
    """Tiles in closed form: the program's number is its tile of queries, its keys follow from the bands."""

    pointers: tuple[ir.Pointer, ...] = ()
    scalars: tuple[ir.Scalar, ...] = ()
    in_order = True  # rows are stored where they stand
    first = "k_first"
    each = False  # a tile may begin at each key

    def __init__(
        self, lowering: Lowering, scope: Scope, attention: Attention, bands: tuple[Band, ...], tile: Tile,
        heavy_first: bool, facts: Facts, packed: bool = False,
    ) -> None:  # fmt: skip
        self.lowering = lowering
        self.scope = scope
        self.attention = attention
        self.bands = bands
        self.tile = tile
        self.heavy_first = heavy_first
        self.facts = facts
        self.step = 1 if self.each else tile.columns  # from one place where a tile may begin to the next
        self.packed = packed
        self.group: ir.Expr = Const(1, "i32")
        self.rows: ir.Expr = Var("NQ", "i32")

    def tiles(self) -> ir.Expr:
        """How many tiles of queries a head has; packed: a key/value head, whose rows are those of all its heads."""
        if self.packed:
            group = binary("floordiv", Var("H", "i32"), Var("HK", "i32"))
            self.group = self.lowering.assign(self.scope, "group", group)
            self.rows = self.lowering.assign(self.scope, "rows", binary("mul", self.rows, self.group))
        rows = self.tile.rows
        up = binary("add", self.rows, Const(rows - 1, "i32"))
        return binary("floordiv", up, Const(rows, "i32"))

    def query_of(self, row: ir.Expr) -> ir.Expr:
        """The query that a row of a head's tiles belongs to."""
        return binary("floordiv", row, self.group) if self.packed else row

    def place(self, number: ir.Expr, tiles: ir.Expr, pair: ir.Expr) -> ir.Expr:
        """The first row of the program's tile of queries, from its number among the `tiles` of its head."""
        lowering, scope = self.lowering, self.scope
        if self.heavy_first:
            last = binary("sub", tiles, Const(1, "i32"))
            number = lowering.assign(scope, "tile", binary("sub", last, number))
        rows = Const(self.tile.rows, "i32")
        first_row = lowering.assign(scope, "row_first", binary("mul", number, rows))
        offset = Var("q_offset", "i32")
        last_row = binary("min", binary("add", first_row, rows), self.rows)
        first = lowering.assign(scope, "q_first", binary("add", self.query_of(first_row), offset))
        scope.known[FIRST, ()] = lowering.lengthen(first)
        if self.packed:
            last = binary("add", self.query_of(binary("sub", last_row, Const(1, "i32"))), offset)
        else:
            last = binary("sub", binary("add", last_row, offset), Const(1, "i32"))
        scope.known[LAST, ()] = lowering.lengthen(lowering.assign(scope, "q_last", last))
        return first_row

    def queries(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """Rows beyond the last are copies of it."""
        exists = binary("lt", lanes, self.rows)
        return Lanes(binary("min", lanes, binary("sub", self.rows, Const(1, "i32"))), exists)

    def keys(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """Keys beyond the last are in tiles that are masked."""
        lanes = self.lowering.assign(scope, "k", lanes)
        return Lanes(lanes, binary("lt", lanes, Var("NK", "i32")))

    def loops(self) -> list[Keys]:
        """Full tiles, where a band has any, and partial ones."""
        pieces = self._disjoint([self._piece(band) for band in self.bands])
        full = [Run(piece.full_first, piece.full_stop) for piece in pieces]
        around = [
            run
            for piece in pieces
            for run in (Run(piece.first, piece.full_first), Run(piece.full_stop, piece.stop))
        ]
        partial = [run for run in around if run.first != run.stop]  # one name at both ends: nothing
        result = [self._in_turn(full, masked=False)] if any(band.exact for band in self.bands) else []
        return [*result, *([self._in_turn(partial, masked=True)] if partial else [])]

    def _ends(self, runs: list[Run], kind: str) -> list[ir.Expr]:
        """Where each run ends, and the next begins, when all are laid end to end; 0 first."""
        ends: list[ir.Expr] = [Const(0, "i32")]
        for run in runs:
            longer = binary("add", ends[-1], binary("sub", run.stop, run.first))
            ends.append(self.lowering.assign(self.scope, f"{kind}_end", longer))
        return ends

    def _in_turn(self, runs: list[Run], masked: bool) -> Keys:
        """One loop that goes through all runs one after the other."""
        ends = self._ends(runs, "partial" if masked else "full")

        def tile(number: Var) -> ir.Expr:
            chosen: ir.Expr = number
            for position, (run, end) in enumerate(zip(runs, ends, strict=False)):
                if not position:
                    chosen = binary("add", run.first, number)
                    continue
                here = binary("add", run.first, binary("sub", number, end))
                chosen = elementwise("where", [binary("lt", number, end), chosen, here], "i32")
            return chosen

        def lanes(scope: Scope, number: Var) -> ir.Expr:
            return lanes_of(self, scope, tile(number))

        return Keys(masked, ends[0], ends[-1], lanes)

    def _piece(self, band: Band) -> _Piece:
        lowering, scope = self.lowering, self.scope
        keys = key_range(band, self.attention.rows[-1], self.attention.over, FIRST, LAST, self.facts)
        first = self._floor(self._scalar(keys.first))
        stop = self._ceiling(binary("max", self._scalar(keys.stop), Const(0, "i32")))
        first = lowering.assign(scope, "first", first)
        stop = lowering.assign(
            scope, "stop", stop if first == Const(0, "i32") else binary("max", stop, first)
        )
        if keys.full_first is None or keys.full_stop is None:
            return _Piece(first, stop, first, first)
        least = first if self.step == 1 and keys.full_first == keys.first else None
        full_first = least or binary("max", self._ceiling(self._scalar(keys.full_first)), first)
        if full_first != first:
            full_first = lowering.assign(scope, "full_first", binary("min", full_first, stop))
        if self.step == 1 and keys.full_stop == keys.stop:
            return _Piece(first, stop, full_first, stop)
        full_stop = self._floor(binary("max", self._scalar(keys.full_stop), Const(0, "i32")))
        if full_first != Const(0, "i32"):
            full_stop = binary("max", full_stop, full_first)
        full_stop = lowering.assign(scope, "full_stop", binary("min", full_stop, stop))
        return _Piece(first, stop, full_first, full_stop)

    def _scalar(self, expr: Expr) -> ir.Expr:
        """A number of keys; one that is computed in 64 bits is cut off before it becomes a short one."""
        value = self.lowering.lower(expr, self.scope)
        if value.type == "i64":
            value = binary("min", binary("max", value, Const(0, "i64")), cast(Var("NK", "i32"), "i64"))
        return cast(value, "i32")

    def _ceiling(self, value: ir.Expr) -> ir.Expr:
        """Tiles that hold the first `value` keys; at most 0 where there are none."""
        return self._floor(binary("add", value, Const(self.step - 1, "i32")) if self.step > 1 else value)

    def _floor(self, value: ir.Expr) -> ir.Expr:
        """Whole tiles of the first `value` keys."""
        return value if self.step == 1 else binary("floordiv", value, Const(self.step, "i32"))

    def _disjoint(self, pieces: list[_Piece]) -> list[_Piece]:
        """Sorts the bands' tile ranges by their first tile and cuts what an earlier one has covered."""
        lowering, scope = self.lowering, self.scope
        for end in range(len(pieces) - 1, 0, -1):
            for i in range(end):
                swap = lowering.assign(scope, "swap", binary("lt", pieces[i + 1].first, pieces[i].first))
                pieces[i], pieces[i + 1] = (
                    self._choose(swap, pieces[i + 1], pieces[i]),
                    self._choose(swap, pieces[i], pieces[i + 1]),
                )
        result: list[_Piece] = []
        for piece in pieces:
            if result:
                first = lowering.assign(scope, "first", binary("max", piece.first, result[-1].stop))
                stop = lowering.assign(scope, "stop", binary("max", piece.stop, first))
                full_first = binary("min", binary("max", piece.full_first, first), stop)
                full_first = lowering.assign(scope, "full_first", full_first)
                full_stop = lowering.assign(scope, "full_stop", binary("max", piece.full_stop, full_first))
                piece = _Piece(first, stop, full_first, full_stop)
            result.append(piece)
        return result

    def _choose(self, swap: ir.Expr, yes: _Piece, no: _Piece) -> _Piece:
        def pick(name: str, x: ir.Expr, y: ir.Expr) -> ir.Expr:
            return self.lowering.assign(self.scope, name, elementwise("where", [swap, x, y], "i32"))

        return _Piece(
            pick("first", yes.first, no.first),
            pick("stop", yes.stop, no.stop),
            pick("full_first", yes.full_first, no.full_first),
            pick("full_stop", yes.full_stop, no.full_stop),
        )


@dataclass(frozen=True)
class _Piece:
    """Tile numbers of one band: first ≤ full_first ≤ full_stop ≤ stop."""

    first: ir.Expr
    stop: ir.Expr
    full_first: ir.Expr
    full_stop: ir.Expr


@dataclass(frozen=True)
class Run:
    """Tile numbers first … stop − 1."""

    first: ir.Expr
    stop: ir.Expr


class ListWalk:
    """Tiles from lists: full ones, then partial ones; heavy rows of tiles first. `ordered`: tokens by an order."""

    first = "k_first"

    def __init__(self, lowering: Lowering, scope: Scope, tile: Tile, ordered: bool) -> None:
        self.lowering = lowering
        self.scope = scope
        self.tile = tile
        self.listed = tile.columns  # tokens behind a number of a list
        self.ordered = ordered
        self.in_order = not ordered
        names = (*LISTED, *(ORDERED if ordered else ()))
        self.pointers = tuple(ir.Pointer(name, "i32", ()) for name in names)
        counts = ("row_tiles", "key_tiles") if ordered else ("row_tiles",)
        self.scalars = tuple(ir.Scalar(name, "i32") for name in counts)
        self.map: ir.Expr = Const(0, "i64")
        self.starts: ir.Expr = Const(0, "i64")
        self.first_place: ir.Expr = Const(0, "i64")
        self.places: ir.Expr = Const(0, "i64")

    def _long(self, value: ir.Expr) -> ir.Expr:
        return cast(value, "i64")

    def _number(self, pointer: str, base: ir.Expr, offset: int = 0) -> ir.Load:
        return ir.Load(pointer, base, Const(offset, "i32"), "i32", ())

    def tiles(self) -> ir.Expr:
        """How many tiles of queries a head has."""
        return Var("row_tiles", "i32")

    def place(self, number: ir.Expr, tiles: ir.Expr, pair: ir.Expr) -> ir.Expr:
        """The first place of the program's tile of queries."""
        lowering, scope = self.lowering, self.scope
        self.map = self._long(lowering.assign(scope, "map", self._number("tile_class", self._long(pair))))
        before = lowering.assign(scope, "map_rows", binary("mul", self.map, self._long(tiles)))
        heavy = self._number("tile_heavy", binary("add", before, self._long(number)))
        number = lowering.assign(scope, "tile", heavy)
        start = binary("mul", binary("add", before, self._long(number)), Const(3, "i64"))
        self.starts = lowering.assign(scope, "starts", start)
        if self.ordered:
            rows = binary("mul", before, Const(self.tile.rows, "i64"))
            self.first_place = lowering.assign(scope, "row_places", rows)
            width = binary("mul", self._long(Var("key_tiles", "i32")), Const(self.listed, "i64"))
            self.places = lowering.assign(scope, "key_places", binary("mul", self.map, width))
        return lowering.assign(scope, "row_first", binary("mul", number, Const(self.tile.rows, "i32")))

    def queries(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """Rows that do not exist are copies of one that does."""
        zero = Const(0, "i32")
        if not self.ordered:
            exists = binary("lt", lanes, Var("NQ", "i32"))
            return Lanes(binary("min", lanes, binary("sub", Var("NQ", "i32"), Const(1, "i32"))), exists)
        token = self.lowering.assign(
            scope, "token", ir.Load("query_order", self.first_place, lanes, "i32", lanes.shape)
        )
        return Lanes(binary("max", token, zero), binary("ge", token, zero))

    def keys(self, lanes: ir.Expr, scope: Scope) -> Lanes:
        """Every key of a full tile exists."""
        if not self.ordered:
            lanes = self.lowering.assign(scope, "k", lanes)
            return Lanes(lanes, binary("lt", lanes, Var("NK", "i32")))
        token = self.lowering.assign(
            scope, "token", ir.Load("key_order", self.places, lanes, "i32", lanes.shape)
        )
        at = self.lowering.assign(scope, "k", binary("max", token, Const(0, "i32")))
        return Lanes(at, binary("ge", token, Const(0, "i32")))

    def loops(self) -> list[Keys]:
        """Full tiles, then partial ones."""
        first, middle, end = self._ends()
        return [self._between(first, middle, masked=False), self._between(middle, end, masked=True)]

    def _ends(self) -> tuple[ir.Expr, ir.Expr, ir.Expr]:
        """Where the list of the program's full tiles begins, where its partial ones begin, and where they end."""
        first, middle, end = (
            self.lowering.assign(self.scope, name, self._number("tile_starts", self.starts, place))
            for place, name in enumerate(("full_first", "full_stop", "partial_stop"))
        )
        return first, middle, end

    def _between(self, start: ir.Expr, stop: ir.Expr, masked: bool) -> Keys:
        """The loop over a part of the list."""

        def lanes(scope: Scope, number: Var) -> ir.Expr:
            return lanes_of(self, scope, self._number("tile_columns", self._long(number)))

        return Keys(masked, start, stop, lanes)


Walk = RangeWalk | ListWalk


def lanes_of(walk: Walk, scope: Scope, tile: ir.Expr) -> ir.Expr:
    """The places of a tile on the axis that is walked over, from its number."""
    start = binary("mul", tile, Const(walk.tile.columns, "i32"))
    return binary("add", walk.lowering.assign(scope, walk.first, start), ir.Lanes("N"))
