"""Tiles of printed C++ that come from tensors or go there: rows read where they lie, turned, copied, or in pairs."""

from __future__ import annotations

from attnlang.ir.kernel import Assign, Expr, Load, Op, Store, Var

from .cpp_groups import Pass
from .cpp_page import Page, Work, size_of
from .cpp_points import Scene, Tile
from .ops import CPP_NUMBERS, CPP_STORED


class Tiles:
    """Prints what brings tiles into the form in which they are used."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines, self.layout, self.memory = page.lines, page.layout, page.memory
        self.lane, self.sizes = page.lane, page.sizes

    def pairing(self, group: Pass, over: list[str]) -> Assign | None:
        """The value of a pass that is wanted in pairs, if the pass can make them as it goes."""
        asked = self.layout.paired - self.layout.narrowed
        wanted = [s for s in group.statements if isinstance(s, Assign) and s.name in asked]
        if len(wanted) != 1 or group.products or set(over) - (set(group.dims) - {self.lane}):
            return None
        return wanted[0] if len(group.dims) == 2 and wanted[0].value.shape == group.dims else None

    def nest_of_pairs(self, wanted: Assign, group: Pass, scene: Scene) -> None:
        """Loops over the points of a pass that stores one of its values in pairs."""
        (over,) = (dim for dim in group.dims if dim != self.lane)
        count, array = scene.lengths[over], self.pairs_of(wanted, scene).array
        take = self.page.array(scene, wanted.name, "_of")
        lane, inner, lines = self.lane, scene.inside(), self.lines
        two = self.page.takes_two(group, over)
        with lines.block(self.page.over_two() if two else self.page.over(lane, scene)):
            parameters, vectors = "", [(f"in_{lane}", "")]
            if two:
                parameters, low, high = self.page.accumulators_of_two(group, inner)
                vectors = [(f"in_{lane}", low), (f"in_{lane} + LANES", high)]
            else:
                self.page.accumulators(group, inner)
            at_point = inner.inside()
            at_point.coarse = True
            head = f"const auto {take} = [&](int64_t in_{over}, int64_t in_{lane}{parameters}) INLINED {{"
            with lines.block(head):
                self.page.point(group, at_point)
                lines.add(f"return {at_point.locals[wanted.name]};")
            lines.add("};", f"int64_t in_{over} = 0;")
            place = f"{array} + in_{over} / 2 * {self.sizes[lane]}"
            with lines.block(f"for (; in_{over} + 1 < {count}; in_{over} += 2) {{"):
                for number, (vector, folds) in enumerate(vectors):
                    first, second = f"low_{number}", f"high_{number}"
                    lines.add(
                        f"const floats {first} = {take}(in_{over}, {vector}{folds});",
                        f"const floats {second} = {take}(in_{over} + 1, {vector}{folds});",
                        f"store({place} + {vector}, pair({first}, {second}));",
                    )
            lines.add("}")
            if not count.isdecimal() or int(count) % 2:
                with lines.block(f"if (in_{over} < {count}) {{"):
                    for vector, folds in vectors:
                        last = f"pair({take}(in_{over}, {vector}{folds}), floats{{}})"
                        lines.add(f"store({place} + {vector}, {last});")
                lines.add("}")
            if two:
                self.page.keep_two(group, inner)
            else:
                for fold in group.folds:
                    self.page.keep(fold, inner.name(fold.name), inner)
        lines.add("}")

    def pack(self, statement: Assign, scene: Scene) -> None:
        load, offset = statement.value, self.layout.turned(statement)
        assert isinstance(load, Load) and offset is not None
        array, tile = self.page.offsets(offset, statement.name, scene), scene.tiles[statement.name]
        (column,) = (dim for dim in load.shape if dim != self.lane)
        place = scene.address(load.pointer, load.base)
        scene.turned[statement.name] = place, array, load
        if load.type == "fp32":
            scene.origins[statement.name] = f"{place} + {array}"
        self.lines.add(
            f"pack({tile.array}, {self.sizes[self.lane]}, {place}, {array}, {self.sizes[column]});"
        )

    def pack_pairs(self, statement: Assign, scene: Scene) -> bool:
        """The same in pairs of bfloat, if nothing else is wanted of it."""
        load, offset = statement.value, self.layout.turned(statement)
        assert isinstance(load, Load) and offset is not None
        (column,) = (dim for dim in load.shape if dim != self.lane)
        name, length = statement.name, self.sizes[column]
        if name not in self.layout.paired or name in self.layout.used or load.type != "bf16" or length % 2:
            return False
        products = self.layout.products.values()
        if any(p.kind != "bfloat" for p in products if name in (p.packed, p.rows)):
            return False
        array, place = self.page.offsets(offset, name, scene), scene.address(load.pointer, load.base)
        scene.turned[name] = place, array, load
        pairs = self.pairs_of(statement, scene).array
        self.lines.add(f"pack_pairs({pairs}, {self.sizes[self.lane]}, {place}, {array}, {length // 2});")
        return True

    def unpack(self, store: Store, scene: Scene) -> None:
        offset, value = self.layout.turned(store), store.value
        assert offset is not None
        (column,) = (dim for dim in value.shape if dim != self.lane)
        name = self.page.fresh(f"{store.pointer}_rows")
        width, mark = self.sizes[self.lane], self.memory.used
        inner, unrounded = scene.inside(), _unrounded(value)
        there = scene.tiles.get(unrounded.name) if isinstance(unrounded, Var) else None
        if there is not None and there.type == "fp32" and not there.rows:
            inner.tiles[name] = there
        else:
            cast = Op("cast", (value,), "fp32", value.shape) if value.type == "fp32" else unrounded
            whole, work = Assign(name, cast), Work(Pass(value.shape), frozenset())
            self.page.declare(whole, work, inner)
            self.page.nest(Pass(value.shape, [whole]), work, inner)
        array = self.page.offsets(offset, name, inner)
        where = self.page.array(inner, name, "_exist")
        mask = "spread(true)" if store.mask is None else inner.vector(store.mask)
        self.lines.add(f"alignas(64) int32_t {where}[{width}];")
        head = f"for (int64_t in_{self.lane} = 0; {self.page.step(self.lane)})"
        self.lines.add(f"{head} store({where} + in_{self.lane}, {mask});")
        place = inner.address(store.pointer, store.base)
        self.lines.add(
            f"unpack({place}, {array}, {where}, {inner.tiles[name].array}, {width}, {self.sizes[column]});"
        )
        self.memory.used = mark

    def point_at_rows(self, statement: Assign, scene: Scene) -> None:
        """A tile that is read where it lies: a pointer to each of its rows."""
        if statement.name in scene.tiles and scene.tiles[statement.name].rows:
            return
        assert isinstance(statement.value, Load)
        lines, found = self.lines, self.layout.direct_of(statement.value)
        load, row = found.load, found.row
        stored, array = CPP_STORED[load.type], self.page.array(scene, statement.name, "_rows")
        lines.add(f"const {stored}* {array}[{self.sizes[row] + self.layout.isa.most_down}];")
        inner = scene.inside()
        if row == self.lane:
            inner.lane = ""
        with lines.block(f"for (int64_t in_{row} = 0; in_{row} < {scene.lengths[row]}; ++in_{row}) {{"):
            exprs = (load.base, found.offset) if load.mask is None else (load.base, found.offset, load.mask)
            self.page.lazies(exprs, inner)
            place = f"{inner.address(load.pointer, load.base)} + {inner.tight(found.offset, 5)}"
            if load.mask is not None:
                self.page.zeros = True
                place = f"{inner.tight(load.mask)} ? {place} : (const {stored}*)zeros"
            lines.add(f"{array}[in_{row}] = {place};")
        lines.add("}")
        scene.tiles[statement.name] = Tile(array, load.type, load.shape, rows=True)
        if statement.name in {p.rows for p in self.layout.products.values()}:
            self.page.zeros = True
            behind = f"{array}[{scene.lengths[row]} + i]"
            lines.add(
                f"for (int i = 0; i < {self.layout.isa.most_down}; ++i) {behind} = (const {stored}*)zeros;"
            )

    def copy_rows(self, statement: Assign, scene: Scene) -> None:
        """Such a tile in the forms in which products need it otherwise."""
        assert isinstance(statement.value, Load)
        lines, found = self.lines, self.layout.direct_of(statement.value)
        load, row, size = found.load, found.row, self.sizes[found.column]
        stored, array = CPP_STORED[load.type], scene.tiles[statement.name].array
        kinds = {p.kind for p in self.layout.products.values() if p.rows == statement.name}
        count = scene.lengths[row]
        if statement.name in self.layout.paired and f"{statement.name} pairs" not in scene.tiles:
            pairs = self._pairs_of_rows(statement.name, scene)
            with lines.block(f"for (int64_t in_{row} = 0; in_{row} < {count}; in_{row} += 2) {{"):
                odd = f"in_{row} + 1 < {count} ? {array}[in_{row} + 1] : (const {stored}*)zeros"
                lines.add(f"interleave({pairs} + in_{row} / 2 * {size}, {array}[in_{row}], {odd}, {size});")
            lines.add("}")
        if (kinds & {"float", "dots"} and load.type in ("fp16", "bf16")) or "loops" in kinds:
            tile = self.page.array(scene, statement.name, "_tile")
            kind = CPP_NUMBERS[load.type]
            place = self.memory.take(
                (self.sizes[row] + self.layout.isa.most_down) * size * size_of(load.type)
            )
            lines.add(f"{kind}* const {tile} = ({kind}*)(scratch + {place});")
            with lines.block(self.page.over(row, scene)):
                lines.add(f"copy({tile} + in_{row} * {size}, {array}[in_{row}], {size});")
            lines.add("}")
            scene.tiles[f"{statement.name} copy"] = Tile(tile, load.type, load.shape)

    def pairs_on_the_way(self, name: str, scene: Scene) -> tuple[str, ...]:
        """What puts rows in pairs while a product takes row n of others: beside its sums this costs next to nothing."""
        tile = scene.tiles[name]
        if name not in self.layout.paired or f"{name} pairs" in scene.tiles:
            return ()
        pairs, size = self._pairs_of_rows(name, scene), self.sizes[tile.shape[-1]]
        rows = f"{tile.array}[n], {tile.array}[n + 1], {size}"
        return (f"if (n % 2 == 0) interleave({pairs} + n / 2 * {size}, {rows});",)

    def _pairs_of_rows(self, name: str, scene: Scene) -> str:
        """Memory for the pairs of a tile whose rows are read where they lie, and of those that may be read behind."""
        tile = scene.tiles[name]
        pairs, size = self.page.array(scene, name, "_pairs"), self.sizes[tile.shape[-1]]
        rows = self.sizes[tile.shape[0]] + self.layout.isa.most_down
        place = self.memory.take((rows // 2 + 1) * size * 4)
        self.page.zeros = True
        self.lines.add(f"int32_t* const {pairs} = (int32_t*)(scratch + {place});")
        scene.tiles[f"{name} pairs"] = Tile(pairs, "i32", tile.shape)
        return pairs

    def pairs(self, statement: Assign, scene: Scene) -> None:
        """The packed operand of a product of bfloat: two numbers to a lane, one above the other in the sum."""
        tile, pairs = scene.tiles[statement.name], self.pairs_of(statement, scene).array
        (over,) = (dim for dim in tile.shape if dim != self.lane)
        width, count = self.sizes[self.lane], scene.lengths[over]
        with self.lines.block(f"for (int64_t in_{over} = 0; in_{over} < {count}; in_{over} += 2) {{"):
            with self.lines.block(self.page.over(self.lane, scene)):
                low = f"{tile.array} + in_{over} * {width} + in_{self.lane}"
                high = f"in_{over} + 1 < {count} ? load({low} + {width}) : floats{{}}"
                self.lines.add(
                    f"store({pairs} + in_{over} / 2 * {width} + in_{self.lane}, pair(load({low}), {high}));"
                )
            self.lines.add("}")
        self.lines.add("}")

    def pairs_of(self, statement: Assign, scene: Scene) -> Tile:
        """The memory of a value in pairs."""
        key, shape = f"{statement.name} pairs", statement.value.shape
        if key not in scene.tiles:
            (over,) = (dim for dim in shape if dim != self.lane)
            place = self.memory.take((self.sizes[over] // 2 + 1) * self.sizes[self.lane] * 4)
            pairs = self.page.array(scene, statement.name, "_pairs")
            self.lines.add(f"int32_t* const {pairs} = (int32_t*)(scratch + {place});")
            scene.tiles[key] = Tile(pairs, "i32", shape)
        return scene.tiles[key]


def _unrounded(value: Expr) -> Expr:
    """A value before it is rounded to two bytes, which storing it does too."""
    match value:
        case Op("cast", (inner,), "fp16" | "bf16", _) if inner.type == "fp32" and inner.shape == value.shape:
            return inner
        case _:
            return Op("cast", (value,), "fp32", value.shape)
