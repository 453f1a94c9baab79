"""Matrix products of printed C++ for a few rows: the other operand streams by once, and lanes lie along its rows.

A tile of fewer rows than a vector has lanes would leave most lanes idle if they were its rows. Then the lanes of a
result are the rows of the streamed operand (`dots`: each is the sum along one of them), or its columns (`weighted`: its
rows are added up by weights). No row is packed or turned: each is read where it lies, and the next ones are fetched.
"""

from __future__ import annotations

from dataclasses import dataclass

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
                lines.add(f"{{ const auto* from = row(n + {lane}); ahead(from, step, {shape.length}); r{lane} = {sums}; }}")
                bit = 1
                while (lane + 1) % (2 * bit) == 0:
                    lines.add(f"r{lane + 1 - 2 * bit} = folded_{bit}(r{lane + 1 - 2 * bit}, r{lane + 1 - bit});")
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
                sums = " ".join(f"{half}{i} += b * load(from + {i * shape.lanes});" for i in range(shape.across))
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
