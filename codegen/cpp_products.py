"""Matrix products of printed C++: register tiles of several vectors × several broadcast numbers, every name spelt out.

The lanes of the vectors run along one dimension of the result; the other operand is read number by number from rows
that may lie anywhere. Sums start at zero for each tile and are handed on while they are still in registers.
"""

from __future__ import annotations

from dataclasses import dataclass

from .printer import Lines


@dataclass(frozen=True)
class Shape:
    """A register tile: `across` vectors × `down` numbers, of `lanes` numbers a vector. `kind`: "float", "double", or
    "bfloat" for pairs of bfloat. `two`: sums are handed on for two rows at a time."""

    kind: str
    across: int
    down: int
    lanes: int
    two: bool = False

    @property
    def name(self) -> str:
        """As functions for it are called."""
        return f"{self.across}x{self.down}_{self.kind}{'_by_two' if self.two else ''}"

    @property
    def vector(self) -> str:
        """The type of the sums."""
        return "doubles" if self.kind == "double" else "floats"

    @property
    def packed(self) -> str:
        """The type of what lies in memory for one lane."""
        return "int32_t" if self.kind == "bfloat" else self.kind


def rows_name(shape: Shape) -> str:
    """The function that gives all rows."""
    return f"rows_{shape.name}"


def columns_name(shape: Shape) -> str:
    """The function that gives `down` columns."""
    return f"columns_{shape.name}"


def rows_text(shape: Shape) -> str:
    """One result for every row: the sum runs along the rows."""
    lines = Lines("  ")
    width = shape.across * shape.lanes
    told = "sums of lanes from m"
    if shape.two:
        told += ", those of n + 1); last(n, m, sums"
    lines.add(
        f"// for each row n: the sum over x of row(n)[x] times the lanes of packed[x]; done(n, m, {told})",
        f"template <class Row, class Done{', class Last' if shape.two else ''}>",
    )
    head = f"{shape.packed}* packed, int64_t width, int64_t length, Row row, int64_t count, Done done"
    head += ", Last last" if shape.two else ""
    with lines.block(f"INLINE void {rows_name(shape)}(const {head}) {{"):
        with lines.block(f"for (int64_t n = 0; n < count; n += {shape.down}) {{"):
            rows = ", ".join(f"{'' if i == 0 else '*'}row{i} = row(n + {i})" for i in range(shape.down))
            lines.add(f"const auto *{rows};")
            with lines.block(f"for (int64_t m = 0; m < width; m += {width}) {{"):
                lines.add("settle();")
                _sums(lines, shape)
                with lines.block("for (int64_t x = 0; x < length; ++x) {"):
                    _vectors(lines, shape)
                    for i in range(shape.down):
                        element = f"pair_at(row{i} + 2 * x)" if shape.kind == "bfloat" else f"row{i}[x]"
                        lines.add(_step(shape, i, element))
                lines.add("}")
                (_hand_on_by_two if shape.two else _hand_on)(lines, shape)
            lines.add("}")
        lines.add("}")
    lines.add("}")
    return lines.text()


def _hand_on(lines: Lines, shape: Shape) -> None:
    for i in range(shape.down):
        guard = f"if (n + {i} < count) " if i else ""
        calls = " ".join(f"done(n + {i}, m + {r * shape.lanes}, s{i}_{r});" for r in range(shape.across))
        lines.add(f"{guard}{{ {calls} }}")


def _hand_on_by_two(lines: Lines, shape: Shape) -> None:
    vectors = range(shape.across)
    for i in range(0, shape.down, 2):
        both = " ".join(f"done(n + {i}, m + {r * shape.lanes}, s{i}_{r}, s{i + 1}_{r});" for r in vectors)
        alone = " ".join(f"last(n + {i}, m + {r * shape.lanes}, s{i}_{r});" for r in vectors)
        guard = f"if (n + {i} < count) " if i else ""
        lines.add(f"if (n + {i + 1} < count) {{ {both} }}", f"else {guard}{{ {alone} }}")


def columns_text(shape: Shape) -> str:
    """Results for a few columns: the sum runs over the rows."""
    lines = Lines("  ")
    width = shape.across * shape.lanes
    lines.add(
        "// for columns e from `first` on: the sum over n of row(n)[e] times the lanes of packed[n]; done(e, m, sums)",
        "template <class Row, class Done>",
    )
    head = f"{shape.packed}* packed, int64_t width, int64_t count, Row row, int64_t first, Done done"
    with lines.block(f"INLINE void {columns_name(shape)}(const {head}) {{"):
        with lines.block(f"for (int64_t m = 0; m < width; m += {width}) {{"):
            _sums(lines, shape)
            with lines.block("for (int64_t x = 0; x < count; ++x) {"):
                lines.add("const auto* from = row(x) + first;")
                _vectors(lines, shape)
                for i in range(shape.down):
                    lines.add(_step(shape, i, f"from[{i}]"))
            lines.add("}")
            for i in range(shape.down):
                calls = " ".join(
                    f"done(first + {i}, m + {r * shape.lanes}, s{i}_{r});" for r in range(shape.across)
                )
                lines.add(calls)
        lines.add("}")
    lines.add("}")
    return lines.text()


def _sums(lines: Lines, shape: Shape) -> None:
    for i in range(shape.down):
        names = ", ".join(f"s{i}_{r}{{}}" for r in range(shape.across))
        lines.add(f"{shape.vector} {names};")


def _vectors(lines: Lines, shape: Shape) -> None:
    names = ", ".join(
        f"v{r} = load(packed + x * width + m{f' + {r * shape.lanes}' if r else ''})"
        for r in range(shape.across)
    )
    if shape.kind == "bfloat":
        lines.add(f"ints {names};")
        lines.add("keep(" + "); keep(".join(f"v{r}" for r in range(shape.across)) + ");")
        return
    lines.add(f"const auto {names};")


def _step(shape: Shape, row: int, element: str) -> str:
    if shape.kind == "bfloat":
        sums = " ".join(f"s{row}_{r} = dot2(s{row}_{r}, v{r}, b);" for r in range(shape.across))
        return f"{{ const ints b = spread({element}); {sums} }}"
    sums = " ".join(f"s{row}_{r} += b * v{r};" for r in range(shape.across))
    return f"{{ const {shape.kind} b = {element}; {sums} }}"
