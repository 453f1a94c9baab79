"""Matrix products of printed C++: register tiles of several vectors × several broadcast numbers, every name spelt out.

The lanes of the vectors run along one dimension of the result; the other operand is read number by number from rows
that may lie anywhere. Sums start at zero for each tile and are handed on while they are still in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf

from .cpp_page import COMBINED
from .printer import Lines

Hands = OneOf["one", "two", "max", "min", "sum"]
HANDS = {"one": "", "two": "_by_two", "max": "_and_max", "min": "_and_min", "sum": "_and_sum"}


@dataclass(frozen=True)
class Shape:
    """A register tile: `across` vectors × `down` numbers, of `lanes` numbers a vector. `kind`: "float", "double", or
    "bfloat" for pairs of bfloat. `hands`: how sums of rows are handed on: one by one, for two rows at a time, or folded
    over the rows by an operation with what is made of each. `parted`: of each part of the lanes, as wide as the tile,
    only the stretch of rows that it sees is multiplied; for others the sums stay 0."""

    kind: str
    across: int
    down: int
    lanes: int
    hands: Hands = "one"
    parted: bool = False

    @property
    def name(self) -> str:
        """As functions for it are called."""
        return f"{self.across}x{self.down}_{self.kind}{HANDS[self.hands]}{'_seen' if self.parted else ''}"

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
    told, more = {
        "one": ("done(n, m, sums of lanes from m)", ""),
        "two": ("done(n, m, sums of lanes from m, those of n + 1); last(n, m, sums)", ", class Last"),
    }.get(shape.hands, ("join(m, fold over n of done(n, m, sums of lanes from m))", ", class Join"))
    lines.add(
        f"// for each row n: the sum over x of row(n)[x] times the lanes of packed[x]; {told}",
        f"template <class Row, class Done{more}>",
    )
    head = f"{shape.packed}* packed, int64_t width, int64_t length, Row row, int64_t count, Done done"
    head += {"": "", ", class Last": ", Last last"}.get(more, ", Join join")
    head += ", const stretch* seen" if shape.parted else ""
    with lines.block(f"INLINE void {rows_name(shape)}(const {head}) {{"):
        with lines.block(f"for (int64_t n = 0; n < count; n += {shape.down}) {{"):
            rows = ", ".join(f"{'' if i == 0 else '*'}row{i} = row(n + {i})" for i in range(shape.down))
            lines.add(f"const auto *{rows};")
            with lines.block(f"for (int64_t m = 0; m < width; m += {width}) {{"):
                lines.add("settle();")
                _sums(lines, shape)
                asked = f"if (meets(seen[m / {width}], n, n + {shape.down})) " if shape.parted else ""
                with lines.block(f"{asked}for (int64_t x = 0; x < length; ++x) {{"):
                    _vectors(lines, shape)
                    for i in range(shape.down):
                        element = f"pair_at(row{i} + 2 * x)" if shape.kind == "bfloat" else f"row{i}[x]"
                        lines.add(_step(shape, i, element))
                lines.add("}")
                if shape.kind == "bfloat":
                    lines.add(*(_kept(i, shape) for i in range(shape.down)))
                match shape.hands:
                    case "one":
                        _hand_on(lines, shape)
                    case "two":
                        _hand_on_by_two(lines, shape)
                    case op:
                        _hand_on_folded(lines, shape, op)
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


def _hand_on_folded(lines: Lines, shape: Shape, op: str) -> None:
    vectors, more = range(shape.across), list[str]()
    for i in range(shape.down):
        made = [f"done(n + {i}, m + {r * shape.lanes}, s{i}_{r})" for r in vectors]
        if i == 0:
            lines.add(f"{shape.vector} {', '.join(f'f{r} = {made[r]}' for r in vectors)};")
        else:
            more.append(" ".join(f"f{r} = {COMBINED[op].format(f'f{r}', made[r])};" for r in vectors))
    with lines.block(f"if (n + {shape.down} <= count) {{"):
        lines.add(*more)
    with lines.block("} else {"):
        lines.add(*(f"if (n + {i} < count) {{ {folded} }}" for i, folded in enumerate(more, 1)))
    lines.add("}")
    lines.add(" ".join(f"join(m + {r * shape.lanes}, f{r});" for r in vectors))


def columns_text(shape: Shape) -> str:
    """Results for a few columns: the sum runs over the rows."""
    lines = Lines("  ")
    width = shape.across * shape.lanes
    lines.add(
        "// for columns e from `first` on: the sum over n of row(n)[e] times the lanes of packed[n]; done(e, m, sums)",
        "template <class Row, class Done>",
    )
    count = "const stretch* seen" if shape.parted else "int64_t count"
    head = f"{shape.packed}* packed, int64_t width, {count}, Row row, int64_t first, Done done"
    start, stop = "0", "count"
    if shape.parted:
        start, stop = f"seen[m / {width}].first", f"seen[m / {width}].stop"
        if shape.kind == "bfloat":
            start, stop = f"{start} / 2", f"({stop} + 1) / 2"
    with lines.block(f"INLINE void {columns_name(shape)}(const {head}) {{"):
        with lines.block(f"for (int64_t m = 0; m < width; m += {width}) {{"):
            _sums(lines, shape)
            with lines.block(f"for (int64_t x = {start}; x < {stop}; ++x) {{"):
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


def _kept(row: int, shape: Shape) -> str:
    """The sums as what follows takes them: without it they are copied in every step of the loop."""
    return " ".join(f"keep(s{row}_{r});" for r in range(shape.across))


def _step(shape: Shape, row: int, element: str) -> str:
    if shape.kind == "bfloat":
        sums = " ".join(f"s{row}_{r} = dot2(s{row}_{r}, v{r}, b);" for r in range(shape.across))
        return f"{{ const ints b = spread({element}); {sums} }}"
    sums = " ".join(f"s{row}_{r} += b * v{r};" for r in range(shape.across))
    return f"{{ const {shape.kind} b = {element}; {sums} }}"
