"""Matrix products of printed C++ for a few rows: the other operand streams by once, and lanes lie along its rows.

A tile of fewer rows than a vector has lanes would leave most lanes idle if they were its rows. Then the lanes of a
result are the rows of the streamed operand (`dots`: each is the sum along one of them), or its columns (`weighted`: its
rows are added up by weights). No row is packed or turned: each is read where it lies, and the next ones are fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.ir.kernel import Assign, Dot

from .cpp_layout import Product
from .cpp_page import Page
from .cpp_points import Scene
from .printer import Lines

AHEAD = 16
"""Rows of a stream that are asked for before they are read."""
MOST_SUMS = 8
"""Vectors of sums side by side."""

_STEP = f"const int64_t step = {AHEAD} * ((const char*)row(1) - (const char*)row(0));"


@dataclass(frozen=True)
class Dots:
    """For each row of a stream of `length` numbers the sum of its products with one row; `lanes` of a vector."""

    length: int
    lanes: int

    @property
    def name(self) -> str:
        """As the function for it is called."""
        return f"dots_{self.length}"


@dataclass(frozen=True)
class Weighted:
    """The rows of a stream times their weights, added up: `across` vectors of `lanes` columns at a time."""

    across: int
    lanes: int

    @property
    def name(self) -> str:
        """As the function for it is called."""
        return f"weighted_{self.across}"


def dots_text(shape: Dots) -> str:
    """One result for every row of the stream, as vectors of as many rows as there are lanes."""
    lines, lanes = Lines("  "), range(shape.lanes)
    lines.add(
        "// for each row n of a stream: the sum over x of row(n)[x] · with[x]; done(n, sums of the rows from n)",
        "template <class Row, class Done>",
    )
    with lines.block(f"INLINE void {shape.name}(const float* with, Row row, int64_t count, Done done) {{"):
        steps = range(0, shape.length, shape.lanes)
        lines.add(_STEP)
        lines.add(f"const floats {', '.join(f'w{x} = load(with + {x})' for x in steps)};")
        with lines.block("for (int64_t n = 0; n < count; n += LANES) {"):
            for lane in lanes:
                lines.add(f"floats r{lane};")
                sums = " + ".join(f"load(from + {x}) * w{x}" for x in steps)
                lines.add(f"{{ const auto* from = row(n + {lane});")
                lines.add(f"  ahead(from, step, {shape.length});", f"  r{lane} = {sums}; }}")
                bit = 1
                while (lane + 1) % (2 * bit) == 0:
                    lines.add(
                        f"r{lane + 1 - 2 * bit} = folded_{bit}(r{lane + 1 - 2 * bit}, r{lane + 1 - bit});"
                    )
                    bit *= 2
            lines.add("done(n, r0);")
        lines.add("}")
    lines.add("}")
    return lines.text()


def weighted_text(shape: Weighted) -> str:
    """Sums for a few vectors of columns: two rows at a time, in sums of their own."""
    lines, width = Lines("  "), shape.across * shape.lanes
    lines.add(
        "// for columns e from `first` on: the sum over n of weights[n] · row(n)[e]; done(e, sums)",
        "template <class Row, class Done>",
    )
    head = "const float* weights, Row row, int64_t count, int64_t first, Done done"
    with lines.block(f"INLINE void {shape.name}({head}) {{"):
        for half in "st":
            lines.add(f"floats {', '.join(f'{half}{i}{{}}' for i in range(shape.across))};")
        lines.add(_STEP, "int64_t n = 0;")
        with lines.block("for (; n + 1 < count; n += 2) {"):
            for half, place in (("s", "n"), ("t", "n + 1")):
                lines.add(f"{{ const auto* from = row({place}) + first; const float b = weights[{place}];")
                lines.add(f"  ahead(from, step, {width});")
                sums = " ".join(
                    f"{half}{i} += b * load(from + {i * shape.lanes});" for i in range(shape.across)
                )
                lines.add(f"  {sums} }}")
        lines.add("}")
        with lines.block("if (n < count) {"):
            lines.add("const auto* from = row(n) + first;")
            for i in range(shape.across):
                lines.add(f"s{i} += weights[n] * load(from + {i * shape.lanes});")
        lines.add("}")
        for i in range(shape.across):
            lines.add(f"done(first + {i * shape.lanes}, s{i} + t{i});")
    lines.add("}")
    return lines.text()


class Few:
    """Prints the products of a few rows."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines, self.layout = page.lines, page.layout
        self.lane, self.sizes = page.lane, page.sizes
        self._dots: dict[Dots, None] = {}
        self._weighted: dict[Weighted, None] = {}

    def texts(self) -> list[str]:
        """The functions that were called for."""
        return [dots_text(shape) for shape in self._dots] + [weighted_text(shape) for shape in self._weighted]

    def dots(self, product: Product, column: str, done: str, scene: Scene) -> None:
        """For each of the rows the sums along the rows of the stream."""
        shape = Dots(self.sizes[product.over], self.layout.lanes)
        self._dots[shape] = None
        tile = scene.tiles.get(f"{product.rows} copy", scene.tiles[product.rows])
        at = f"{tile.array}[m]" if tile.rows else f"{tile.array} + m * {shape.length}"
        take = f"[&](int64_t n, floats sums) INLINED {{ {done}(m, n, sums); }}"
        stream = self._rows(product.packed, scene)
        self.lines.add(
            f"for (int64_t m = 0; m < {scene.lengths[column]}; ++m)",
            f"  {shape.name}({at}, {stream}, {scene.lengths[self.lane]}, {take});",
        )

    def weighted(self, statement: Assign, product: Product, scene: Scene) -> None:
        """The rows of the stream, added up by the weights of each of the rows."""
        dot = statement.value
        assert isinstance(dot, Dot)
        row, column = dot.shape
        inner = scene.inside()
        inner.lane = column
        done = self.page.fresh(f"take_{scene.name(statement.name)}")
        self.page.taken.discard(done)
        tile, lanes = inner.tiles[statement.name], self.layout.lanes
        with self.lines.block(self.page.over(row, scene)):
            with self.lines.block(f"const auto {done} = [&](int64_t in_{column}, floats sum) INLINED {{"):
                shown = "sum" if dot.accumulator is None else f"{inner.vector(dot.accumulator)} + sum"
                self.lines.add(f"store({tile.array} + {inner.at(tile)}, {shown});")
            self.lines.add("};")
            weights = f"{scene.tiles[product.packed].array} + in_{row} * {self.sizes[self.lane]}"
            stream = self._rows(product.rows, scene)
            for first in range(0, self.sizes[column] // lanes, MOST_SUMS):
                shape = Weighted(min(MOST_SUMS, self.sizes[column] // lanes - first), lanes)
                self._weighted[shape] = None
                operands = f"{weights}, {stream}, {scene.lengths[self.lane]}, {first * lanes}, {done}"
                self.lines.add(f"{shape.name}({operands});")
        self.lines.add("}")

    def _rows(self, name: str, scene: Scene) -> str:
        return f"[&](int64_t n) INLINED {{ return {scene.tiles[name].array}[n]; }}"
