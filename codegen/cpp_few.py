"""Matrix products of printed C++ for a few rows: the other operand streams by once, and lanes lie along its rows.

A tile of fewer rows than a vector has lanes would leave most lanes idle if they were its rows. Then the lanes of a
result are the rows of the streamed operand (`dots`: each is the sum along one of them), or its columns (`weighted`: its
rows are added up by weights). No row is packed or turned: each is read where it lies, once from memory for all rows of
the tile and once into a register for a few of them, and the next ones are fetched meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.ir.kernel import Assign, Dot

from .cpp_isa import Isa
from .cpp_layout import Product
from .cpp_page import Page
from .cpp_points import Scene
from .printer import Lines

AHEAD = 1 << 14
"""Bytes of a stream that are asked for before they are read."""
NEAR = 4
"""Rows of a stream whose sums are made side by side."""
BLOCK = 32
"""Rows of a stream that all weights are applied to before the next ones are read."""


@dataclass(frozen=True)
class Dots:
    """For each row of a stream of `length` numbers the sum of its products with each of a tile's rows, `rows` of these
    at a time; `lanes` of a vector."""

    rows: int
    length: int
    lanes: int

    @property
    def name(self) -> str:
        """As the function for it is called."""
        return f"dots_{self.rows}_{self.length}"


@dataclass(frozen=True)
class Weighted:
    """The rows of a stream of `length` numbers times their weights, added up for each of a tile's rows: `rows` of these
    and `across` vectors of `lanes` columns at a time."""

    rows: int
    length: int
    across: int
    lanes: int

    @property
    def name(self) -> str:
        """As the function for it is called."""
        return f"weighted_{self.rows}_{self.length}"


def rows_together(rows: int, isa: Isa) -> int:
    """How many of a tile's rows share what is loaded of a stream, so that all sums are in registers."""
    return next(n for n in (most_sums(isa) // NEAR, 2, 1) if rows % n == 0)


def most_sums(isa: Isa) -> int:
    """Vectors of sums that registers hold, besides what is added to them."""
    return isa.across * isa.down * 2 // 3


def vectors_of(length: int, lanes: int) -> tuple[int, ...]:
    """Where the vectors of a row begin. The last one ends with the row and begins in the one before it, if need be."""
    starts = range(0, length - lanes + 1, lanes)
    return (*starts, length - lanes) if length % lanes else tuple(starts)


def dots_text(shape: Dots) -> str:
    """One result for every row of the stream, as vectors of as many rows as there are lanes."""
    lines, rows = Lines("  "), range(shape.rows)
    lines.add(
        "// for each row n of a stream and each of `rows` others: the sum over x of row(n)[x] · with(m)[x];",
        "// done(m, n, sums of the rows from n)",
        "template <class With, class Row, class Done>",
    )
    head = "With with, int64_t rows, Row row, int64_t count, Done done"
    with lines.block(f"INLINE void {shape.name}({head}) {{"):
        lines.add(*_step(shape.length))
        lines.add("for (int64_t n = 0; n < count; n += LANES)")
        with lines.block(f"for (int64_t m = 0; m < rows; m += {shape.rows}) {{"):
            lines.add(f"const float {', '.join(f'*w{m} = with(m + {m})' for m in rows)};")
            for lane in range(0, shape.lanes, NEAR):
                near = range(lane, lane + NEAR)
                lines.add(f"floats {', '.join(f'r{m}_{i}{{}}' for m in rows for i in near)};")
                with lines.block("{"):
                    lines.add(f"const auto {', '.join(f'*k{i} = row(n + {i})' for i in near)};")
                    whole = shape.length - shape.length % shape.lanes
                    with lines.block(f"for (int64_t x = 0; x < {whole}; x += LANES) {{"):
                        _multiply(lines, shape, near, "x")
                    lines.add("}")
                    if whole < shape.length:
                        _multiply(lines, shape, near, str(shape.length - shape.lanes))
                lines.add("}")
                for m in rows:
                    for i in near:
                        _fold(lines, f"r{m}_", i)
            for m in rows:
                lines.add(f"done(m + {m}, n, r{m}_0);")
        lines.add("}")
    lines.add("}")
    return lines.text()


def _multiply(lines: Lines, shape: Dots, near: range, x: str) -> None:
    """One vector of each of some rows of the stream, times those of the tile's rows."""
    rows = range(shape.rows)
    for i in near:
        lines.add(_ahead(f"k{i} + {x}", str(i), shape, "LANES"))
    with lines.block("{"):
        lines.add(f"const floats {', '.join(f'a{m} = load(w{m} + {x})' for m in rows)};")
        for i in near:
            sums = " ".join(f"r{m}_{i} += a{m} * b;" for m in rows)
            lines.add(f"{{ const floats b = {_part(f'k{i} + {x}', x, shape)}; {sums} }}")
    lines.add("}")


def _part(place: str, start: str, shape: Dots | Weighted) -> str:
    """A vector of a row; of the last one without what is in the one before it."""
    left = shape.length % shape.lanes
    return (
        f"last_lanes<{left}>(load({place}))"
        if left and start == str(shape.length - shape.lanes)
        else f"load({place})"
    )


def _step(length: int) -> tuple[str, str]:
    """How far it is to the row that is asked for, in bytes."""
    return (
        f"const int64_t rows_ahead = {AHEAD} / ({length} * sizeof(*row(0)));",
        "const int64_t step = rows_ahead * ((const char*)row(1) - (const char*)row(0));",
    )


def _ahead(start: str, number: str, shape: Dots | Weighted, length: str) -> str:
    """Asks for a part of a row: each of the groups of a tile's rows does it for its share of the stream."""
    return f"if ({number} % (rows / {shape.rows}) == m / {shape.rows}) ahead({start}, step, {length});"


def _fold(lines: Lines, name: str, lane: int) -> None:
    """Brings the vectors before a lane together with its own, as far as they are complete."""
    bit = 1
    while (lane + 1) % (2 * bit) == 0:
        low, high = f"{name}{lane + 1 - 2 * bit}", f"{name}{lane + 1 - bit}"
        lines.add(f"{low} = folded_{bit}({low}, {high});")
        bit *= 2


def weighted_text(shape: Weighted) -> str:
    """Sums that are in registers for a block of the stream, and in memory between blocks."""
    lines, starts = Lines("  "), vectors_of(shape.length, shape.lanes)
    lines.add(
        "// to[m][e] += the sum over n of weights[m][n] · row(n)[e], for each of `rows` rows; weights lie `apart`",
        "template <class Row>",
    )
    head = "float* to, const float* weights, int64_t apart, int64_t rows, Row row, int64_t count"
    with lines.block(f"INLINE void {shape.name}({head}) {{"):
        lines.add(*_step(shape.length))
        with lines.block(f"for (int64_t first = 0; first < count; first += {BLOCK}) {{"):
            lines.add(f"const int64_t stop = first + {BLOCK} < count ? first + {BLOCK} : count;")
            with lines.block(f"for (int64_t m = 0; m < rows; m += {shape.rows}) {{"):
                for place in range(0, len(starts), shape.across):
                    _weigh(lines, shape, starts[place : place + shape.across])
            lines.add("}")
        lines.add("}")
    lines.add("}")
    return lines.text()


def _weigh(lines: Lines, shape: Weighted, starts: tuple[int, ...]) -> None:
    """The sums of the columns of some vectors over a block of the stream."""
    rows = range(shape.rows)
    places = [(f"s{m}_{e}", f"to + (m + {m}) * {shape.length} + {e}") for m in rows for e in starts]
    with lines.block("{"):
        for name, place in places:
            lines.add(f"floats {name} = load({place});")
        with lines.block("for (int64_t n = first; n < stop; ++n) {"):
            lines.add("const auto* from = row(n);")
            lines.add(_ahead(f"from + {starts[0]}", "n", shape, str(len(starts) * shape.lanes)))
            for e in starts:
                lines.add(f"const floats v{e} = {_part(f'from + {e}', str(e), shape)};")
            for m in rows:
                sums = " ".join(f"s{m}_{e} += b * v{e};" for e in starts)
                lines.add(f"{{ const float b = weights[(m + {m}) * apart + n]; {sums} }}")
        lines.add("}")
        for name, place in reversed(places):  # what the last vector has of the one before it is not new
            lines.add(f"store({place}, {name});")
    lines.add("}")


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
        rows, length = self.sizes[column], self.sizes[product.over]
        shape = Dots(rows_together(rows, self.layout.isa), length, self.layout.lanes)
        self._dots[shape] = None
        tile = scene.tiles.get(f"{product.rows} copy", scene.tiles[product.rows])
        row = f"{tile.array}[m]" if tile.rows else f"{tile.array} + m * {length}"
        operands = (
            f"[&](int64_t m) INLINED {{ return {row}; }}, {rows}, {self._stream(product.packed, scene)}"
        )
        self.lines.add(f"{shape.name}({operands}, {done});")

    def weighted(self, statement: Assign, product: Product, scene: Scene) -> None:
        """The rows of the stream, added up by the weights of each of the rows."""
        dot = statement.value
        assert isinstance(dot, Dot)
        row, column = dot.shape
        rows, length = self.sizes[row], self.sizes[column]
        together = rows_together(rows, self.layout.isa)
        shape = Weighted(
            together,
            length,
            most_sums(self.layout.isa) // (2 if together == 1 else together),
            self.layout.lanes,
        )
        self._weighted[shape] = None
        inner = scene.inside()
        inner.lane = column
        tile = inner.tiles[statement.name]
        with self.lines.block(self.page.over(row, scene)):
            start = "floats{}" if dot.accumulator is None else inner.vector(dot.accumulator)
            with self.lines.block(f"for (int64_t in_{column} = 0; {self.page.step(column)}) {{"):
                self.page.keep(statement, start, inner)
            self.lines.add("}")
        self.lines.add("}")
        weights = f"{scene.tiles[product.packed].array}, {self.sizes[self.lane]}"
        self.lines.add(f"{shape.name}({tile.array}, {weights}, {rows}, {self._stream(product.rows, scene)});")

    def _stream(self, name: str, scene: Scene) -> str:
        """Where the rows of a stream lie, and how many there are."""
        at = scene.tiles[name].array
        return f"[&](int64_t n) INLINED {{ return {at}[n]; }}, {scene.lengths[self.lane]}"
