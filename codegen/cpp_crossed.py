"""Products over the lanes in printed C++: the tile of pairs is read by rows, the other one has features as lanes."""

from __future__ import annotations

from attnlang.ir.kernel import Assign, Dot, Expr, Load, Op, Statement, Store, Var

from .cpp_groups import Pass
from .cpp_layout import Product, without_unit
from .cpp_normal import parts, writes
from .cpp_page import Page, size_of
from .cpp_points import Scene, Tile
from .ops import CPP_NUMBERS, SUM


class Crossed:
    """Prints the operands of such products in the form in which they are read."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines, self.layout, self.memory = page.lines, page.layout, page.memory
        self.lane, self.sizes = page.lane, page.sizes

    def operands(self, statement: Statement, scene: Scene) -> None:
        """The forms of a value that products over the lanes want, once it is there in its own."""
        if not isinstance(statement, Assign):
            return
        if statement.name in self.layout.crossed:
            self._features(statement, scene)
        if statement.name in self.layout.narrowed:
            self._narrow(statement, scene)

    def _features(self, statement: Assign, scene: Scene) -> None:
        """One row of features for each lane, or for two of them in pairs of bfloat."""
        name, value = statement.name, statement.value
        (feature,) = (dim for dim in value.shape if dim != self.lane)
        width, length, size = self.layout.width(feature), self.sizes[self.lane], self.sizes[feature]
        bfloat, offset = self.layout.crossed[name].kind == "bfloat", self.layout.turned(statement)
        kind = "int32_t" if bfloat else CPP_NUMBERS[value.type]
        array, key = self.page.array(scene, name, "_crossed"), f"{name} crossed"
        if key not in scene.tiles:
            place = self.memory.take(length * width * size_of(value.type) // (2 if bfloat else 1))
            self.lines.add(f"{kind}* const {array} = ({kind}*)(scratch + {place});")
            scene.tiles[key] = Tile(array, "i32" if bfloat else value.type, value.shape)
        array = scene.tiles[key].array
        with self.lines.block("{"):
            if offset is None or not isinstance(value, Load):
                self.lines.add(f"turn({array}, {width}, {scene.tiles[name].array}, {length}, {size});")
            else:
                at, place = self.page.offsets(offset, name, scene), scene.address(value.pointer, value.base)
                with self.lines.block(
                    f"for (int64_t m = 0; m < {length}; {'m += 2' if bfloat else '++m'}) {{"
                ):
                    row = f"{place} + {at}[m]"
                    if bfloat:
                        row += f", {place} + {at}[m + 1]"
                    call = "interleave" if bfloat else "copy"
                    self.lines.add(f"{call}({array} + m{' / 2' if bfloat else ''} * {width}, {row}, {size});")
                self.lines.add("}")
        self.lines.add("}")

    def _narrow(self, statement: Assign, scene: Scene) -> None:
        """The rows of a tile of pairs as bfloat."""
        name, width = statement.name, self.sizes[self.lane]
        (over,) = (dim for dim in statement.value.shape if dim != self.lane)
        array, tile = self.narrow_of(statement, scene), scene.tiles[name]
        with self.lines.block(self.page.over(over, scene)):
            at = f"in_{over} * {width}"
            self.lines.add(f"narrow_row({array} + {at}, {tile.array} + {at}, {width});")
        self.lines.add("}")

    def narrow_of(self, statement: Assign, scene: Scene) -> str:
        """The memory of rows as bfloat, an even number of them."""
        key = f"{statement.name} narrow"
        if key not in scene.tiles:
            (over,) = (dim for dim in statement.value.shape if dim != self.lane)
            array = self.page.array(scene, statement.name, "_narrow")
            place = self.memory.take((self.sizes[over] + self.sizes[over] % 2) * self.sizes[self.lane] * 2)
            self.lines.add(f"bfloat* const {array} = (bfloat*)(scratch + {place});")
            scene.tiles[key] = Tile(array, "bf16", statement.value.shape)
        return scene.tiles[key].array

    def packed(self, name: str, scene: Scene) -> str:
        """The operand with features as lanes."""
        return scene.tiles[f"{name} crossed"].array

    def row(self, product: Product, group: Pass, over: str, down: int, scene: Scene) -> str:
        """A function from the number of a row of pairs to where it lies; behind the last one it is the first. Of
        bfloat it asks for the row of a tensor that the sums of the row are added to, which is far away."""
        name, narrow = product.rows, f"{product.rows} narrow"
        array = scene.tiles[narrow if narrow in scene.tiles else name].array
        count, place = scene.lengths[over], "n"
        if not count.isdecimal() or int(count) % down:
            place = f"(n < {count} ? n : 0)"
        size = self.sizes[self.lane]
        added = [s for s in group.statements if isinstance(s, Store)] if product.kind == "bfloat" else []
        if not added:
            return f"[&](int64_t n) INLINED {{ return {array} + {place} * {size}; }}"
        taken = self.page.fresh(f"row_of_{scene.name(name)}")
        self.page.taken.discard(taken)
        inner = scene.inside()
        (inner.lane,) = (dim for dim in group.dims if dim != over)
        with self.lines.block(f"const auto {taken} = [&](int64_t n) INLINED {{"):
            self.lines.add(f"const int64_t in_{over} = {place.strip('()')};")
            for store in added:
                row = without_unit(store.offset, inner.lane)[0]
                self.page.lazies((store.base, row), inner)
                start = f"{inner.address(store.pointer, store.base)} + {inner.tight(row, SUM)}"
                self.lines.add(f"ahead({start}, 0, {self.sizes[inner.lane]});")
            self.lines.add(f"return {array} + in_{over} * {size};")
        self.lines.add("};")
        return taken

    def takes(self, group: Pass, feature: str, scene: Scene) -> bool:
        """Whether all of a pass can be computed at vectors of features, while the sums are in registers."""
        own = frozenset[str]().union(*(writes(s) for s in group.statements))

        def is_plain(expr: Expr) -> bool:
            for part in parts(expr):
                if isinstance(part, Var) and feature in part.shape and part.name not in own:
                    return False
                if isinstance(part, Load | Dot):
                    return False
            return True

        for statement in group.statements:
            match statement:
                case Assign(_, Dot()):
                    pass
                case Assign(name, Op() as value) if name not in scene.tiles and is_plain(value):
                    pass
                case Store(_, _, offset, value, mask, True) if is_plain(value):
                    rest, unit = without_unit(offset, feature)
                    if not unit or feature in rest.shape or (mask is not None and feature in mask.shape):
                        return False
                    if value.type not in ("fp32", "fp64"):
                        return False
                case _:
                    return False
        return True
