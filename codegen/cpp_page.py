"""A page of printed C++: memory for values, and loops over points with arithmetic, folds and stores at each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import assert_never

from attnlang.ir.kernel import Assign, Dot, Expr, Fold, Loop, Remark, Store, Type, Var

from .cpp_groups import Pass
from .cpp_layout import Layout, without_unit
from .cpp_normal import parts
from .cpp_points import Scene, Tile, constant
from .ops import CPP_NUMBERS, CPP_VECTORS, SUM
from .printer import Lines

NEUTRAL: dict[str, float] = {"sum": 0.0, "max": float("-inf"), "min": float("inf")}
COMBINED = {"sum": "{0} + {1}", "max": "maximum({0}, {1})", "min": "minimum({0}, {1})"}


@dataclass
class Memory:
    """Scratch memory of one thread, in bytes: blocks end with the loop that they serve."""

    used: int = 0
    most: int = 0

    def take(self, size: int) -> int:
        """The place of a new block."""
        place = self.used
        self.used += -(-size // 64) * 64
        self.most = max(self.most, self.used)
        return place


@dataclass
class Work:
    """A pass being printed: the names that others read, those that they read otherwise than as an operand of a product,
    and where its values lie."""

    group: Pass
    outside: frozenset[str]
    plainly: frozenset[str] = frozenset()
    places: dict[str, int] = field(default_factory=dict[str, int])


class Page:
    """Prints into `lines`. `zeros`: whether the printed code reads a row of zeros."""

    def __init__(self, layout: Layout, lines: Lines, taken: set[str]) -> None:
        self.layout, self.lines, self.taken = layout, lines, taken
        self.memory = Memory()
        self.lane, self.sizes = layout.lane, layout.sizes
        self.zeros = False

    def fresh(self, name: str) -> str:
        """A name of the printer's own."""
        number, shown = 1, name
        while shown in self.taken:
            number += 1
            shown = f"{name}_{number}"
        self.taken.add(shown)
        return shown

    def step(self, dim: str) -> str:
        """The rest of the head of a loop over the lanes, or over a dimension."""
        return f"in_{dim} < {self.sizes[dim]}; in_{dim} += LANES"

    def over(self, dim: str, scene: Scene) -> str:
        if dim == self.lane:
            return f"for (int64_t in_{dim} = 0; {self.step(dim)}) {{"
        return f"for (int64_t in_{dim} = 0; in_{dim} < {scene.lengths[dim]}; ++in_{dim}) {{"

    def declare(self, statement: Assign, work: Work, scene: Scene) -> None:
        """Memory for a value: a small array of its own, or a part of the scratch memory."""
        name, value = statement.name, statement.value
        kind = CPP_NUMBERS[value.type] if self.lane not in value.shape or value.type != "i1" else "int32_t"
        array = self.fresh(scene.name(name) if name.endswith("_tile") else f"{scene.name(name)}_tile")
        self.taken.discard(array)
        size = 1
        for dim in value.shape:
            size *= self.sizes[dim]
        if len(value.shape) == 1:
            self.lines.add(f"alignas(64) {kind} {array}[{size}];")
        else:
            place = work.places.get(name)
            if place is None:
                place = self.memory.take(
                    (size + self.layout.isa.most_down * self._longest(value)) * size_of(value.type)
                )
                work.places[name] = place
            self.lines.add(f"{kind}* const {array} = ({kind}*)(scratch + {place});")
        scene.tiles[name] = Tile(array, value.type, value.shape)

    def _longest(self, value: Expr) -> int:
        """The length of a row of a tile, some of which may be read behind its end."""
        return self.sizes[value.shape[-1]] if self.lane not in value.shape else 0

    def nest(self, group: Pass, work: Work, scene: Scene) -> None:
        """Loops over the dimensions, folded ones innermost; the lanes innermost where nothing is folded."""
        folds = group.folds
        over = folds[0].value.over if folds and isinstance(folds[0].value, Fold) else None
        if over is not None and self.takes_two(group, over):
            self._nest_of_two(group, over, scene.inside())
            return
        outer = [dim for dim in group.dims if dim != over]
        if over is None and self.lane in outer:
            outer = [dim for dim in outer if dim != self.lane] + [self.lane]
        self._loops(outer, over, group, work, scene.inside())

    def _loops(self, dims: list[str], over: str | None, group: Pass, work: Work, scene: Scene) -> None:
        if dims:
            with self.lines.block(self.over(dims[0], scene)):
                self._loops(dims[1:], over, group, work, scene)
            self.lines.add("}")
            return
        if over is None:
            self.point(group, scene)
            return
        self.accumulators(group, scene)
        with self.lines.block(self.over(over, scene)):
            self.point(group, scene.inside())
        self.lines.add("}")
        for fold in group.folds:
            assert isinstance(fold.value, Fold)
            shown = self._running(fold, scene)
            if over == self.lane:
                shown = f"across_{fold.value.op}({shown})"
            if over == self.lane and not fold.value.shape:
                self.lines.add(f"const {CPP_NUMBERS[fold.value.type]} {scene.name(fold.name)} = {shown};")
            self.keep(fold, shown, scene)

    def takes_two(self, group: Pass, over: str | None) -> bool:
        """Whether two vectors of lanes are taken along what is folded at a time: they lie side by side in memory."""
        folds = [fold.value for fold in group.folds if isinstance(fold.value, Fold)]
        flat = set(group.dims) == {self.lane, over} and over != self.lane
        even = self.sizes[self.lane] % (2 * self.layout.lanes) == 0
        return flat and even and bool(folds) and all(fold.shape == (self.lane,) for fold in folds)

    def over_two(self) -> str:
        """The head of a loop over the lanes, two vectors at a time."""
        at, size = f"in_{self.lane}", self.sizes[self.lane]
        return f"for (int64_t {at} = 0; {at} < {size}; {at} += 2 * LANES) {{"

    def accumulators_of_two(self, group: Pass, scene: Scene) -> tuple[str, str, str]:
        """Declares the variables of folds for two vectors; gives them as parameters, and as arguments for either."""
        self.accumulators(group, scene)
        parameters = ""
        for fold in group.folds:
            kind, name = CPP_VECTORS[fold.value.type], scene.name(fold.name)
            self.lines.add(f"{kind} {name}_high = {name};")
            parameters += f", {kind}& {name}"
        names = [scene.name(fold.name) for fold in group.folds]
        return parameters, "".join(f", {n}" for n in names), "".join(f", {n}_high" for n in names)

    def keep_two(self, group: Pass, scene: Scene) -> None:
        """Writes the folds of two vectors into their memory."""
        for fold in group.folds:
            place, name = f"{scene.tiles[fold.name].array} + in_{self.lane}", scene.name(fold.name)
            self.lines.add(f"store({place}, {name});", f"store({place} + LANES, {name}_high);")

    def _nest_of_two(self, group: Pass, over: str, scene: Scene) -> None:
        at, lane = self.fresh("at"), self.lane
        self.taken.discard(at)
        with self.lines.block(self.over_two()):
            parameters, low, high = self.accumulators_of_two(group, scene)
            head = f"const auto {at} = [&](int64_t in_{over}, int64_t in_{lane}{parameters}) INLINED {{"
            with self.lines.block(head):
                self.point(group, scene.inside())
            self.lines.add("};")
            with self.lines.block(self.over(over, scene)):
                self.lines.add(f"{at}(in_{over}, in_{lane}{low});")
                self.lines.add(f"{at}(in_{over}, in_{lane} + LANES{high});")
            self.lines.add("}")
            self.keep_two(group, scene)
        self.lines.add("}")

    def _running(self, fold: Assign, scene: Scene) -> str:
        """The variable of a fold; one number from all lanes has another name while it is a vector."""
        assert isinstance(fold.value, Fold)
        whole = fold.value.over == self.lane and not fold.value.shape
        return scene.name(fold.name) + ("_of_lanes" if whole else "")

    def accumulators(self, group: Pass, scene: Scene) -> None:
        for fold in group.folds:
            assert isinstance(fold.value, Fold)
            value = fold.value
            start = neutral(value.op, value.type)
            shown = self._running(fold, scene)
            if scene.is_vector(value.value):
                self.lines.add(f"{CPP_VECTORS[value.type]} {shown} = spread({start});")
            else:
                self.lines.add(f"{CPP_NUMBERS[value.type]} {shown} = {start};")

    def keep(self, statement: Assign, shown: str, scene: Scene) -> None:
        """Writes a value at this point into its memory."""
        if not statement.value.shape:
            return
        tile = scene.tiles[statement.name]
        if scene.lane in tile.shape:
            self.lines.add(self._vector_to(f"{tile.array} + {scene.at(tile)}", shown, scene))
        else:
            self.lines.add(f"{tile.array}[{scene.at(tile)}] = {shown};")

    def lazies(self, exprs: tuple[Expr, ...], scene: Scene) -> None:
        """Names of values that are computed where they are used."""
        for expr in exprs:
            for part in parts(expr):
                if isinstance(part, Var) and part.name in scene.lazy and part.name not in scene.locals:
                    value = scene.lazy[part.name]
                    self.lazies((value,), scene)
                    shown = scene.name(part.name)
                    kind = (CPP_VECTORS if scene.is_vector(value) else CPP_NUMBERS)[part.type]
                    self.lines.add(f"const {kind} {shown} = {scene.text(value)};")
                    scene.locals[part.name] = shown

    def point(self, group: Pass, scene: Scene, folds: dict[str, str] | None = None) -> None:
        """What happens at one point. `folds`: where folds are kept that are not variables of their name; "": the value
        at this point alone is wanted, by that name."""
        for statement in group.statements:
            match statement:
                case Assign(name, Dot()) if name in scene.locals:
                    if name in scene.tiles:
                        self.keep(statement, scene.locals[name], scene)
                case Assign(name, Fold(op, value, _, _, _)):
                    self.lazies((value,), scene)
                    shown = scene.text(value)
                    if folds is not None and not folds[name]:
                        self.lines.add(f"const {CPP_VECTORS[value.type]} {scene.name(name)} = {shown};")
                    elif folds is None:
                        target = self._running(statement, scene)
                        self.lines.add(f"{target} = {COMBINED[op].format(target, shown)};")
                    else:
                        combined = COMBINED[op].format(f"load({folds[name]})", shown)
                        self.lines.add(f"store({folds[name]}, {combined});")
                case Assign(name, value):
                    self.lazies((value,), scene)
                    self._value(statement, scene)
                case Store(_, base, offset, value, mask, _):
                    exprs = (base, offset, value) if mask is None else (base, offset, value, mask)
                    self.lazies(exprs, scene)
                    self.store(statement, scene)
                case Loop() | Remark():
                    raise AssertionError("stands alone")
                case _:
                    assert_never(statement)

    def _value(self, statement: Assign, scene: Scene) -> None:
        name, value = statement.name, statement.value
        kind = (CPP_VECTORS if scene.is_vector(value) else CPP_NUMBERS)[value.type]
        shown = scene.name(name)
        if any(tile.array == shown for tile in scene.tiles.values()) or name in scene.locals:
            shown = self.fresh(f"{shown}_value")
            self.taken.discard(shown)
        self.lines.add(f"const {kind} {shown} = {scene.text(value)};")
        scene.locals[name] = shown
        if name in scene.tiles:
            self.keep(statement, shown, scene)

    def store(self, store: Store, scene: Scene) -> None:
        """Writes to a tensor at this point."""
        place = scene.address(store.pointer, store.base)
        if scene.lane != self.lane and store.accumulate:
            guard = "" if store.mask is None else f"if ({scene.text(store.mask)}) "
            row = f"{place} + {scene.tight(without_unit(store.offset, scene.lane)[0], SUM)} + in_{scene.lane}"
            self.lines.add(guard + self._vector_to(row, scene.vector(store.value), scene, "add"))
            return
        if scene.is_vector(store.value) or scene.is_vector(store.offset):
            mask = "spread(true)" if store.mask is None else scene.vector(store.mask)
            shown = f"{scene.vector(store.offset)}, {scene.vector(store.value)}, {mask}"
            self.lines.add(f"{'scatter_add' if store.accumulate else 'scatter'}({place}, {shown});")
            return
        guard = "" if store.mask is None else f"if ({scene.text(store.mask)}) "
        element, value = f"({place})[{scene.text(store.offset)}]", scene.text(store.value)
        call = f"add_to({element}, {value})" if store.accumulate else f"narrow({value}, {element})"
        self.lines.add(f"{guard}{call};")

    def _vector_to(self, place: str, value: str, scene: Scene, call: str = "put") -> str:
        """Lanes written to a row of them, which may end before the vector does."""
        size = self.sizes[scene.lane]
        if self.layout.width(scene.lane) != size:
            return f"{call}_row({place}, {value}, {size} - in_{scene.lane});"
        return f"store({place}, {f'load({place}) + ' if call == 'add' else ''}{value});"

    def offsets(self, offset: Expr, name: str, scene: Scene) -> str:
        """An array of the offsets of rows."""
        array = self.array(scene, name, "_at")
        self.lines.add(f"alignas(64) {CPP_NUMBERS[offset.type]} {array}[{self.sizes[self.lane]}];")
        head = f"for (int64_t in_{self.lane} = 0; {self.step(self.lane)})"
        self.lines.add(f"{head} store({array} + in_{self.lane}, {scene.vector(offset)});")
        return array

    def array(self, scene: Scene, name: str, end: str) -> str:
        """The name of an array that stands for a value."""
        shown = self.fresh(scene.name(name).removesuffix("_tile") + end)
        self.taken.discard(shown)
        return shown


def neutral(op: str, kind: Type) -> str:
    """What a fold starts with, as C++."""
    if kind.startswith("i"):
        ends = {"sum": "0", "max": "INT32_MIN", "min": "INT32_MAX"}
        text = ends[op] if kind == "i32" else ends[op].replace("32", "64")
        return text if kind == "i32" else f"(int64_t){text}"
    return constant(NEUTRAL[op], kind)[0]


def size_of(kind: Type) -> int:
    """Bytes of a value in a tile."""
    return 8 if kind in ("i64", "fp64") else 4
