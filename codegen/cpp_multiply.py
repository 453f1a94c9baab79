"""Matrix products in printed C++, and at each of their results what follows on it."""

from __future__ import annotations

from dataclasses import replace

from attnlang.ir.kernel import Assign, Dot, Fold, Op, Type, Var

from .cpp_crossed import Crossed
from .cpp_few import Few
from .cpp_groups import Pass
from .cpp_isa import AHEAD, MOST_ROWS
from .cpp_layout import Product
from .cpp_page import COMBINED, Page, Work, neutral
from .cpp_points import Scene, Tile
from .cpp_products import Hands, Shape, columns_name, rows_name
from .cpp_tiles import Tiles

ASKED = 256
"""Bytes of a row that are asked for beforehand. Longer rows of another tile are left alone: they would take the place
of the packed operand in the first cache."""

PART = 2
"""Vectors whose lanes are asked together whether they see anything of some columns."""


def _asked(kind: Type) -> int:
    """How many numbers of a row are asked for beforehand at most."""
    return ASKED // {"fp16": 2, "bf16": 2, "fp64": 8}.get(kind, 4)


class Products:
    """Prints products; `rows` and `columns` are the register tiles that were called for, `followed`: the packed tiles
    whose next rows are asked for."""

    def __init__(self, page: Page, tiles: Tiles) -> None:
        self.page = page
        self.lines, self.layout, self.memory = page.lines, page.layout, page.memory
        self.lane, self.sizes = page.lane, page.sizes
        self.tiles = tiles
        self.crossed = Crossed(page)
        self.rows: dict[Shape, None] = {}
        self.columns: dict[Shape, None] = {}
        self.few = Few(page)
        self.followed: set[str] = set()

    def product_of(self, statement: Assign) -> Product:
        assert isinstance(statement.value, Dot)
        return self.layout.product(statement.value)

    def multiply(
        self, statement: Assign, group: Pass, work: Work, scene: Scene, pairing: Assign | None = None
    ) -> None:
        """A product, and at each of its results the other statements of the pass; `pairing` is stored in pairs."""
        assert isinstance(statement.value, Dot)
        product, dot = self.product_of(statement), statement.value
        if product.kind == "loops":
            self._product_by_loops(statement, dot, scene)
            return
        if product.kind == "weighted":
            self.few.weighted(statement, product, scene)
            return
        inner = scene.inside()
        inner.lane = lane = dot.shape[-1] if product.crossed else self.lane
        inner.coarse = pairing is not None
        (column,) = (dim for dim in dot.shape if dim != lane)
        bfloat = product.kind == "bfloat"
        folds = self._row_folds(group, inner)
        joined = None if pairing is not None else self._joined(product, dot, group)
        place = "" if joined is None else folds[joined]
        if joined is not None:
            folds[joined] = ""
        done, isa = self.page.fresh(f"take_{scene.name(statement.name)}"), self.layout.isa
        self.page.taken.discard(done)
        kind = "doubles" if product.kind == "double" else "floats"
        head = f"const auto {done} = [&](int64_t in_{column}, int64_t in_{lane}, {kind} sum) INLINED {{"
        with self.lines.block(head):
            shown = "sum"
            if dot.accumulator is not None:
                self.page.lazies((dot.accumulator,), inner)
                shown = f"{inner.vector(dot.accumulator)} + sum"
            name = inner.name(statement.name)
            if len(group.statements) == 1 and statement.name in inner.tiles:
                self.page.keep(statement, shown, inner)
            else:
                self.lines.add(f"const {kind} {name} = {shown};")
                inner.locals[statement.name] = name
                self.page.point(group, inner, folds)
            if pairing is not None:
                self.lines.add(f"return {inner.locals[pairing.name]};")
            if joined is not None:
                self.lines.add(f"return {inner.name(joined)};")
        self.lines.add("};")
        if product.kind == "dots":
            self.few.dots(product, column, done, scene)
            return
        width = self.layout.width(lane)
        vectors = width // self.layout.lanes
        seen = None if product.crossed else scene.parts.get(column if product.along else product.over)
        most = isa.across if seen is None else PART
        across = next(n for n in (most, 2, 1) if n <= most and vectors % n == 0)
        down = isa.tile_down(across) * (2 if bfloat and product.along else 3) // 3
        down = min(down, MOST_ROWS) if product.along and not product.crossed else down
        hands: Hands = "one" if pairing is None else "two"
        for fold in group.folds:
            if fold.name == joined and isinstance(fold.value, Fold):
                hands = fold.value.op
        shape = Shape(product.kind, across, down, self.layout.lanes, hands, seen is not None)
        if product.crossed:
            packed = self.crossed.packed(product.packed, scene)
            row = self.crossed.row(product, group, column, down, scene)
        else:
            packed = scene.tiles[f"{product.packed} pairs" if bfloat else product.packed].array
            row = self._row(product, scene)
        length = self._length(product.over, bfloat, scene)
        if pairing is not None:
            done = self._by_two(pairing, done, scene)
        if hands in COMBINED:
            combined = COMBINED[hands].format(f"load({place})", "folded")
            done += f", [&](int64_t in_{lane}, {kind} folded) INLINED {{ store({place}, {combined}); }}"
        if product.along and seen is not None:
            done += f", {seen}"
        if product.along:
            self.rows[shape] = None
            self.lines.add(
                f"{rows_name(shape)}({packed}, {width}, {length}, {row}, {scene.lengths[column]}, {done});"
            )
        else:
            self._columns(shape, column, f"{packed}, {width}, {seen or length}, {row}", done)

    def _joined(self, product: Product, dot: Dot, group: Pass) -> str | None:
        """The one fold over the rows of a product, which is made of several rows while their sums are in registers."""
        if not product.along or product.crossed or product.kind == "dots" or len(group.folds) != 1:
            return None
        fold = group.folds[0].value
        assert isinstance(fold, Fold)
        fits = fold.over != self.lane and fold.value.shape == dot.shape and fold.type == dot.type
        return group.folds[0].name if fits else None

    def by_two(self, statement: Assign, group: Pass) -> Assign | None:
        """The value that is made from the sums of a product of bfloat and wanted in pairs of its rows."""
        product, dot = self.product_of(statement), statement.value
        if product.kind != "bfloat" or not product.along or product.crossed:
            return None
        wanted = [
            other
            for other in group.statements
            if isinstance(other, Assign) and other is not statement and other.name in self.layout.paired
        ]
        fits = (
            len(wanted) == 1 and not isinstance(wanted[0].value, Fold) and wanted[0].value.shape == dot.shape
        )
        return wanted[0] if fits else None

    def _by_two(self, pairing: Assign, done: str, scene: Scene) -> str:
        """Functions for two rows and for a last one, that store in pairs what `done` gives for each row."""
        array, width = self.tiles.pairs_of(pairing, scene).array, self.sizes[self.lane]
        narrow = self.crossed.narrow_of(pairing, scene) if pairing.name in self.layout.narrowed else None
        two, last = (self.page.fresh(f"{done}_{kind}") for kind in ("two", "last"))
        self.page.taken -= {two, last}
        for name, more, high in (
            (two, ", floats second", f"{done}(n + 1, m, second)"),
            (last, "", "floats{}"),
        ):
            with self.lines.block(
                f"const auto {name} = [&](int64_t n, int64_t m, floats first{more}) INLINED {{"
            ):
                self.lines.add(f"const floats low = {done}(n, m, first), high = {high};")
                self.lines.add("const ints both = narrowed(low, high);")
                if narrow is not None:
                    self.lines.add(f"put_two({narrow} + n * {width} + m, {width}, both);")
                self.lines.add(f"store({array} + n / 2 * {width} + m, paired(both));")
            self.lines.add("};")
        return f"{two}, {last}"

    def _columns(self, shape: Shape, column: str, operands: str, done: str) -> None:
        """All columns, `down` at a time, and what is left over."""
        size = self.sizes[column]
        whole, rest = size - size % shape.down, size % shape.down
        if whole:
            self.columns[shape] = None
            self.lines.add(
                f"for (int64_t e = 0; e < {whole}; e += {shape.down}) {columns_name(shape)}({operands}, e, {done});"
            )
        if rest:
            last = replace(shape, down=rest)
            self.columns[last] = None
            self.lines.add(f"{columns_name(last)}({operands}, {whole}, {done});")

    def _length(self, over: str, bfloat: bool, scene: Scene) -> str:
        length = scene.lengths[over]
        if not bfloat:
            return length
        return str((int(length) + 1) // 2) if length.isdecimal() else f"({length} + 1) / 2"

    def _row(self, product: Product, scene: Scene) -> str:
        """A function from the number of a row to where it lies. The first product along rows that are read where they
        lie asks for them before it comes to them, and for those that are read after it."""
        tile = scene.tiles[product.rows]
        size = self.sizes[tile.shape[-1]]
        if product.kind == "bfloat" and not product.along:
            tile = scene.tiles[f"{product.rows} pairs"]
        elif f"{product.rows} copy" in scene.tiles and product.kind != "bfloat":
            tile = scene.tiles[f"{product.rows} copy"]
        if tile.rows and product.along:
            return self._row_asked_for(tile, product.packed, scene)
        if tile.rows:
            return f"[&](int64_t n) INLINED {{ return {tile.array}[n]; }}"
        return f"[&](int64_t n) INLINED {{ return {tile.array} + n * {size}; }}"

    def _row_asked_for(self, tile: Tile, packed: str, scene: Scene) -> str:
        asked = {
            name: other
            for name, other in scene.tiles.items()
            if other.rows and other.shape[0] == tile.shape[0] and other.array not in scene.asked
        }
        scene.asked |= {other.array for other in asked.values()}
        if tile not in asked.values():
            return f"[&](int64_t n) INLINED {{ return {tile.array}[n]; }}"
        name = self.page.fresh(f"{tile.array.removesuffix('_rows')}_row")
        self.page.taken.discard(name)
        pairs = {other: self.tiles.pairs_on_the_way(other, scene) for other in asked}
        with self.lines.block(f"const auto {name} = [&](int64_t n) INLINED {{"):
            for other, rows in asked.items():
                size, most = self.sizes[rows.shape[-1]], _asked(rows.type)
                if rows is tile or pairs[other] or size <= most:
                    self.lines.add(f"ahead({rows.array}[n + {AHEAD}], 0, {min(size, most)});")
                self.lines.add(*pairs[other])
            if scene.last and packed in scene.turned and packed not in self.followed:
                self.followed.add(packed)
                self.lines.add(f"if ({scene.last}) {self._next_rows(packed, scene)}")
            self.lines.add(f"return {tile.array}[n];")
        self.lines.add("};")
        return name

    def _next_rows(self, packed: str, scene: Scene) -> str:
        """Asks for what the next program will pack: most often the rows behind those of this one."""
        place, at, load = scene.turned[packed]
        (column,) = (dim for dim in load.shape if dim != self.lane)
        rows = self.sizes[self.lane]
        behind = f"{place} + {at}[n % {rows}] + (int64_t){rows} * ({at}[1] - {at}[0])"
        return f"ahead({behind}, 0, {min(self.sizes[column], _asked(load.type))});"

    def _row_folds(self, group: Pass, scene: Scene) -> dict[str, str]:
        """Folds beside a product are kept in memory: all registers are the sums'."""
        found: dict[str, str] = {}
        for fold in group.folds:
            assert isinstance(fold.value, Fold)
            array, start = scene.tiles[fold.name].array, neutral(fold.value.op, fold.value.type)
            head = f"for (int64_t in_{self.lane} = 0; {self.page.step(self.lane)})"
            self.lines.add(
                f"{head} store({array} + in_{self.lane}, spread({start}));", f"in_memory({array});"
            )
            found[fold.name] = f"{array} + in_{self.lane}"
        return found

    def _product_by_loops(self, statement: Assign, dot: Dot, scene: Scene) -> None:
        """A product whose sum runs along the lanes, or that has none: number by number, or lanes added at the end."""
        left, right = dot.left, dot.right
        assert isinstance(left, Var) and isinstance(right, Var)
        inner = scene.inside()
        for operand in (left, right):
            if f"{operand.name} copy" in inner.tiles:
                inner.tiles[operand.name] = inner.tiles[f"{operand.name} copy"]
        wide: Type = dot.type
        product = Op("mul", (left, right), wide, (*dot.shape, dot.over))
        fold = Assign(statement.name, Fold("sum", product, dot.over, wide, dot.shape))
        if dot.accumulator is not None:
            partial = Assign(self.page.fresh("sum"), fold.value)
            self.page.declare(partial, Work(Pass(dot.shape), frozenset()), inner)
            self.page.nest(Pass(product.shape, [partial]), Work(Pass(product.shape), frozenset()), inner)
            added = Op("add", (dot.accumulator, Var(partial.name, wide, dot.shape)), wide, dot.shape)
            total = Pass(dot.shape, [Assign(statement.name, added)])
            self.page.nest(total, Work(total, frozenset((statement.name,))), inner)
            return
        self.page.nest(Pass(product.shape, [fold]), Work(Pass(product.shape), frozenset()), inner)
