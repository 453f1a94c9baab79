"""Printed C++ of the statements of a kernel: bodies pass by pass, loops over tiles, what a tile may leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from attnlang.ir.kernel import Assign, Dot, Fold, Loop, Remark, Statement, Store, Var

from .cpp_groups import Pass, is_lazy, passes, reads_through
from .cpp_hidden import Visible, by_flags, needed, visible
from .cpp_inner import Inners
from .cpp_leading import Leading
from .cpp_multiply import PART, Products
from .cpp_normal import parts, reads, writes
from .cpp_page import Page, Work, size_of
from .cpp_points import Scene
from .cpp_tiles import Tiles
from .ops import CPP_NUMBERS, CPP_VECTORS


class Printer:
    """Prints the bodies of a kernel on a page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines, self.layout, self.memory = page.lines, page.layout, page.memory
        self.lane, self.sizes = page.lane, page.sizes
        self.tiles = Tiles(page)
        self.products = Products(page, self.tiles)
        self.leading = Leading(page)
        self.inners = Inners(page)
        self.again = _again(page.layout.body, set())

    def body(
        self, statements: tuple[Statement, ...], scene: Scene, after: frozenset[str] = frozenset()
    ) -> None:
        """The statements of one body; names `after` are read behind it."""
        outer = frozenset(scene.tiles) | after
        for statement in statements:
            if isinstance(statement, Assign) and is_lazy(statement, self.lane, self.layout.changing):
                scene.lazy[statement.name] = statement.value
        busy = tuple(s for s in statements if not (isinstance(s, Assign) and s.name in scene.lazy))
        groups = passes(busy, scene.lazy)
        wanted = [
            frozenset[str]().union(*(reads_through(s, scene.lazy) for s in group.statements))
            for group in groups
        ]
        places: dict[str, int] = {}
        softmax, taken = self.leading.softmax(statements, groups), None
        for number, group in enumerate(groups):
            others = outer.union(*(w for i, w in enumerate(wanted) if i != number))
            others |= self.layout.operands
            self._free(groups, wanted, number, outer, places, scene)
            plainly = outer.union(*(_plainly(g) for i, g in enumerate(groups) if i != number))
            if softmax is not None and any(softmax.weight.name in writes(s) for s in group.statements):
                taken = self.leading.take_out(softmax, statements, scene, places)
            if any(self.products.product_of(s).along for s in group.products):
                self._point_at_later_rows(groups[number:], scene)
            self._pass(Work(group, others, plainly, places), scene)
            if taken is not None:
                self.leading.put_back(taken, group, scene)

    def _point_at_later_rows(self, groups: list[Pass], scene: Scene) -> None:
        """Points at rows that later passes read where they lie, so that a product can ask for them on its way."""
        later = [statement for group in groups for statement in group.statements]
        written = frozenset[str]().union(*map(writes, later))
        for statement in later:
            if not isinstance(statement, Assign) or reads_through(statement, scene.lazy) & written:
                continue
            if self.layout.direct(statement.name) is not None:
                self.tiles.point_at_rows(statement, scene)

    def _free(
        self,
        groups: list[Pass],
        wanted: list[frozenset[str]],
        number: int,
        outer: frozenset[str],
        places: dict[str, int],
        scene: Scene,
    ) -> None:
        """Lets the tiles of a pass take the memory of tiles that it is the last to read, point by point."""
        group = groups[number]
        if group.products:
            return
        later = frozenset[str]().union(*wanted[number + 1 :])
        dying = [
            name
            for name in sorted(wanted[number] - later - outer)
            if name in places and name in scene.tiles and scene.tiles[name].shape == group.dims
        ]
        for statement in group.statements:
            if isinstance(statement, Assign) and statement.name not in places and dying:
                old = scene.tiles[dying[0]]
                if statement.value.shape == old.shape and size_of(statement.value.type) == size_of(old.type):
                    places[statement.name] = places[dying.pop(0)]

    def _pass(self, work: Work, scene: Scene) -> None:
        first = work.group.statements[0]
        match first:
            case Remark(text):
                self.lines.add("", f"// {text}")
            case Loop():
                self._loop(first, scene)
            case _ if not work.group.dims:
                for statement in work.group.statements:
                    self._number(statement, scene)
            case _:
                self._points(work, scene)

    def _number(self, statement: Statement, scene: Scene) -> None:
        match statement:
            case Assign(name, value):
                shown = scene.name(name)
                if name in scene.numbers:
                    self.lines.add(f"{shown} = {scene.text(value)};")
                    return
                scene.numbers.add(name)
                kept = "" if name in self.again else "const "
                self.lines.add(f"{kept}{CPP_NUMBERS[value.type]} {shown} = {scene.text(value)};")
            case Store():
                self.page.store(statement, scene)
            case Loop() | Remark():
                raise AssertionError("stands alone")
            case _:
                assert_never(statement)

    def _loop(self, loop: Loop, scene: Scene) -> None:
        inner, mark = scene.inside(), self.memory.used
        shown = scene.name(loop.variable)
        inner.numbers.add(loop.variable)
        head = f"for (int32_t {shown} = {scene.text(loop.start)}; {shown} < {scene.text(loop.stop)}; ++{shown}) {{"
        inner.last = f"{shown} + 1 == {scene.tight(loop.stop)}"
        with self.lines.block(head):
            if loop.columns is not None:
                inner.lengths["N"] = columns = self.page.fresh("columns")
                self.lines.add(f"const int64_t {columns} = {inner.text(loop.columns)};")
            body = loop.body
            stream = "N" if self.lane == "M" else "M"
            listed = loop.pipelined and not self.layout.few
            asked = visible(body, ("M", "N"), stream) if listed else None
            if asked is not None and stream in asked.cheap.shape:
                body = self._leave_out(asked, body, stream, inner)
            self.body(body, inner)
        self.lines.add("}")
        self.memory.used = mark

    def _leave_out(
        self, found: Visible, body: tuple[Statement, ...], stream: str, scene: Scene
    ) -> tuple[Statement, ...]:
        """Lists the places of the stream that some row sees; gives the body without what is known by then."""
        condition, flags = found.cheap, self.page.fresh("seen_by")
        flagged = found.whole == found.cheap and self.lane in condition.shape
        vectors = self.sizes[self.lane] // self.layout.lanes
        lines, kept, count = self.lines, self.page.fresh("seen"), self.page.fresh("seen_count")
        before = needed(condition, body)
        numbers = tuple(s for s in before if isinstance(s, Assign) and not s.value.shape)
        self.body(numbers, scene)
        lines.add("// of this tile, only what is visible to some row is computed")
        lines.add(f"int32_t {kept}[{self.sizes[stream] + 1}];", f"int64_t {count} = 0;")
        if flagged:
            lines.add(f"flags {flags}[{(self.sizes[stream] + 1) * vectors}];")
        with lines.block("{"):
            inner, rest = scene.inside(), tuple(s for s in before if s not in numbers)
            pointwise = [s for s in rest if isinstance(s, Assign) and len(s.value.shape) > 1]
            asked = frozenset[str]().union(*(reads(s) for s in rest))
            asked |= {part.name for part in parts(condition) if isinstance(part, Var)}
            self.body(tuple(s for s in rest if s not in pointwise), inner, asked)
            with lines.block(
                f"for (int64_t in_{stream} = 0; in_{stream} < {scene.lengths[stream]}; ++in_{stream}) {{"
            ):
                if self.lane in condition.shape:
                    lines.add("uint16_t found = 0;" if flagged else "ints found{};")
                    with lines.block(f"for (int64_t in_{self.lane} = 0; {self.page.step(self.lane)}) {{"):
                        self.page.lazies((*(s.value for s in pointwise), condition), inner)
                        for statement in pointwise:
                            assert isinstance(statement, Assign)
                            kind = CPP_VECTORS[statement.value.type]
                            lines.add(
                                f"const {kind} {inner.name(statement.name)} = {inner.text(statement.value)};"
                            )
                            inner.locals[statement.name] = inner.name(statement.name)
                        if flagged:
                            shown = f"flags_of({inner.text(condition)})"
                            lines.add(f"const flags here = {shown};", "found |= here.bits;")
                            lines.add(f"{flags}[{count} * {vectors} + in_{self.lane} / LANES] = here;")
                        else:
                            lines.add(f"found |= {inner.text(condition)};")
                    lines.add("}")
                    asked = "found != 0" if flagged else "any(found)"
                else:
                    self.page.lazies((condition,), inner)
                    asked = inner.tight(condition)
                lines.add(f"{kept}[{count}] = (int32_t)in_{stream};", f"{count} += {asked};")
            lines.add("}")
        lines.add("}")
        scene.places[stream], scene.lengths[stream] = kept, count
        if flagged and vectors > PART and vectors % PART == 0:
            scene.parts[stream] = stretches = self.page.fresh("seen_parts")
            many = vectors // PART
            shown = f"{stretches}[part] = seen_by_part({flags}, {vectors}, part, {many}, {count});"
            lines.add(f"stretch {stretches}[{many}];", f"for (int part = 0; part < {many}; ++part) {shown}")
        left = tuple(s for s in body if s not in numbers)
        if flagged:
            scene.flags[flags] = f"{flags}[in_{stream} * {vectors}"
            left = by_flags(left, found.whole, Var(flags, "i1", condition.shape), frozenset(scene.tiles))
        return left

    def _points(self, work: Work, scene: Scene) -> None:
        """A pass over the points of its dimensions."""
        group = work.group
        for inner in self.inners.found(group):
            self.inners.print(inner, work, scene)
            done = (inner.total, inner.left, inner.right)
            group = Pass(group.dims, [s for s in group.statements if s not in done])
        rows = [s for s in group.statements if isinstance(s, Assign) and self.layout.direct(s.name)]
        for statement in rows:
            self.tiles.point_at_rows(statement, scene)
            self.tiles.copy_rows(statement, scene)
        turned = [s for s in group.statements if s not in rows and self.layout.turned(s) is not None]
        rest = [s for s in group.statements if s not in rows and s not in turned]
        for statement in turned:
            if isinstance(statement, Assign) and not self.tiles.pack_pairs(statement, scene):
                self.page.declare(statement, work, scene)
                self.tiles.pack(statement, scene)
                if statement.name in self.layout.paired:
                    self.tiles.pairs(statement, scene)
            self.products.crossed.operands(statement, scene)
        if rest:
            self._rest(replace(work, group=Pass(group.dims, rest)), scene)
        for statement in turned:
            if isinstance(statement, Store):
                self.tiles.unpack(statement, scene)

    def _rest(self, work: Work, scene: Scene) -> None:
        """What is left of a pass: arithmetic at its points, and products."""
        group, rest = work.group, work.group.statements
        over = [fold.value.over for fold in group.folds if isinstance(fold.value, Fold)]
        products = group.products
        fused = products[-1] if products and self.lane not in over else None
        if fused is not None and not self._takes_all(fused, group, scene):
            fused = None
        pairing = self.products.by_two(fused, group) if fused else self.tiles.pairing(group, over)
        for statement in rest:
            if not isinstance(statement, Assign) or not self._is_kept(statement, work, scene):
                continue
            if statement is not pairing or statement.name in work.plainly:
                self.page.declare(statement, work, scene)
        for statement in products:
            if statement is not fused:
                if statement.name not in scene.tiles:
                    self.page.declare(statement, work, scene)
                self.products.multiply(statement, Pass(group.dims, [statement]), work, scene)
        left = [s for s in rest if s not in products or s is fused]
        if fused is not None:
            self.products.multiply(fused, Pass(group.dims, left), work, scene, pairing)
        elif pairing is not None:
            self.tiles.nest_of_pairs(pairing, Pass(group.dims, left), scene)
        elif left:
            self.page.nest(Pass(group.dims, left), work, scene)
        for statement in rest:
            if statement is pairing:
                continue
            if isinstance(statement, Assign) and statement.name in self.layout.paired:
                self.tiles.pairs(statement, scene)
            self.products.crossed.operands(statement, scene)

    def _takes_all(self, statement: Assign, group: Pass, scene: Scene) -> bool:
        """Whether a product can be followed by the rest of its pass while its sums are in registers."""
        product = self.products.product_of(statement)
        if not product.crossed:
            return product.kind not in ("loops", "weighted")
        return self.products.crossed.takes(group, statement.value.shape[-1], scene)

    def _is_kept(self, statement: Assign, work: Work, scene: Scene) -> bool:
        """Whether a value must be in memory: others read it, or it is a fold's."""
        name = statement.name
        if not statement.value.shape or name in scene.tiles:
            return False
        return isinstance(statement.value, Fold) or name in work.outside


def _again(body: tuple[Statement, ...], known: set[str]) -> frozenset[str]:
    """Single numbers that are assigned again, in a body or in a loop in it."""
    found: set[str] = set()
    known = set(known)
    for statement in body:
        if isinstance(statement, Loop):
            found |= _again(statement.body, known)
        else:
            found |= writes(statement) & known
            known |= writes(statement)
    return frozenset(found)


def _plainly(group: Pass) -> frozenset[str]:
    """The names that a pass reads otherwise than as an operand of a product."""
    found: set[str] = set()
    for statement in group.statements:
        match statement:
            case Assign(_, Dot(_, _, _, _, _, accumulator)):
                if accumulator is not None:
                    found |= {part.name for part in parts(accumulator) if isinstance(part, Var)}
            case Loop(_, _, _, body, _, _):
                for inner in body:
                    found |= _plainly(Pass((), [inner]))
            case _:
                found |= reads(statement)
    return frozenset(found)
