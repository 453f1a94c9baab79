"""Pairs that lead their rows: where scores are large, they leave their tile, and what they give is added afterwards.

The error of a score is the relative error of its weight. Near 40 a float is known to 2e-6, and a chain of sums that
ends there to some 1e-5. But rows with such maxima are led by a few pairs. These are taken out of the tile: their scores
are computed again in double, and become so small in the tile that their weights there count for nothing. Whatever adds
up the weights of the tile gets theirs afterwards: the sum of all small weights is small itself, and so is its error.

A kernel that stores statistics of its rows is left as it is: a backward pass takes its weights from them and from
scores that it sums as this one did, so that the errors of both cancel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from attnlang.ir.kernel import Assign, Dot, Expr, Lanes, Load, Op, Statement, Store, Var, walk

from .cpp_exact import Written, definitions
from .cpp_groups import Pass
from .cpp_leading_text import LARGE, MOST, MOST_OF_ROW
from .cpp_normal import parts
from .cpp_page import Page
from .cpp_points import Scene
from .cpp_softmax import Softmax, softmax_of


@dataclass
class Taken:
    """Pairs that have left a tile: the names of their number, of the arrays of their rows and columns, and for each sum
    or product of the array of what they count in it."""

    softmax: Softmax
    count: str
    rows: str
    columns: str
    weights: str
    factors: dict[str, str] = field(default_factory=dict[str, str])


class Leading:
    """Prints how pairs leave a tile, and what is added for them."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines, self.layout, self.memory = page.lines, page.layout, page.memory
        self.lane, self.sizes = page.lane, page.sizes
        self.by_rows = self.lane == "M"
        most = MOST * self.sizes["M"] if self.by_rows else MOST_OF_ROW * self.sizes["M"]
        self.places = -(-most // 16) * 16
        kernel = self.layout.kernel
        self.keeps_statistics = any(
            isinstance(statement, Store) and statement.value.shape == ("M",)
            for statement in walk(kernel.body)
        )
        self.readable = frozenset((*(scalar.name for scalar in kernel.scalars), kernel.program))

    def softmax(self, statements: tuple[Statement, ...], groups: list[Pass]) -> Softmax | None:
        """The softmax of a body whose products can be added to afterwards."""
        found = None if self.keeps_statistics else softmax_of(statements)
        if found is None:
            return None
        alone = {group.products[0].name for group in groups if group.products and len(group.statements) == 1}
        return (
            found if all(name in alone and self._adds(dot) for name, dot in found.products.items()) else None
        )

    def _adds(self, dot: Dot) -> bool:
        how, right = self.layout.product(dot), dot.right
        assert isinstance(right, Var)
        fits = how.kind in ("float", "weighted") and not how.crossed and how.rows == right.name
        return fits and right.type == "fp32" and self.layout.direct(right.name) is not None

    # ------------------------------------------------------------------------------------------ out of the tile

    def take_out(
        self, softmax: Softmax, statements: tuple[Statement, ...], scene: Scene, places: Mapping[str, int]
    ) -> Taken | None:
        """Printed before the weights are computed. None: a score cannot be computed again from what is at hand.
        `places`: of tiles in memory; those that share one may be gone."""
        if not {softmax.score.name, softmax.top, softmax.shift.name} <= set(scene.tiles):
            return None
        inner = scene.inside()
        inner.alone = True
        shared = Counter(places.values())
        gone = frozenset(name for name, place in places.items() if shared[place] > 1)
        written = Written(definitions(self.layout.body, statements), inner, self.readable, gone)
        exact = written.visible(softmax.score)
        dots = {name: self._dot(dot, inner) for name, dot in written.dots.items()}
        shown = {name: text for name, text in dots.items() if text is not None}
        if not shown or len(shown) < len(dots):
            return None
        count, rows, columns, weights = (
            self.page.array(scene, "lead", end) for end in ("_count", "_in_M", "_in_N", "_weights")
        )
        taken = Taken(softmax, count, rows, columns, weights)
        inner.locals[softmax.weight.name] = f"{taken.weights}[i]"
        wanted = {**softmax.sums, **{name: dot.left for name, dot in softmax.products.items()}}
        factors = {name: written.at_pair(value, wide=False) for name, value in wanted.items()}
        if not written.whole:
            return None
        self._list(taken, exact, inner)
        self._weigh(taken, exact, shown, inner)
        for name, factor in factors.items():
            taken.factors[name] = taken.weights
            if factor != softmax.weight:
                taken.factors[name] = self._factors(taken, factor, inner)
        return taken

    def _list(self, taken: Taken, exact: Expr, scene: Scene) -> None:
        softmax, columns = taken.softmax, scene.lengths["N"] if self.by_rows else self.sizes["N"]
        tiles = ", ".join(scene.tiles[x].array for x in (softmax.score.name, softmax.shift.name, softmax.top))
        # far from its query a key's bias makes all scores of a tile large, and of no weight in the end
        biased = any(isinstance(part, Load | Lanes | Var) and part.shape for part in parts(exact))
        least = "-infinity" if biased else f"-{LARGE}f"
        take = f"take_leading_{'across' if self.by_rows else 'along'}"
        self.lines.add(
            "// large scores: the pairs that lead their rows leave the tile, and are computed again in double",
            f"int32_t {taken.rows}[{self.places}], {taken.columns}[{self.places}];",
            f"alignas(64) float {taken.weights}[{self.places}];",
            f"const int32_t {taken.count} = "
            f"{take}({tiles}, {self.sizes['M']}, {columns}, {least}, {taken.rows}, {taken.columns});",
        )

    def _weigh(self, taken: Taken, exact: Expr, dots: Mapping[str, str], scene: Scene) -> None:
        """The weights of the pairs: what 2 is raised to, in double, and the powers."""
        inner = scene.inside()
        with self._each(taken):
            for name, text in dots.items():
                self.lines.add(f"const double {scene.name(name)} = {text};")
                inner.locals[name] = scene.name(name)
            power = Op("sub", (exact, taken.softmax.shift), "fp64", exact.shape)
            self.lines.add(f"{taken.weights}[i] = (float){inner.tight(power)};")
        self.lines.add("}")
        weights = f"{taken.weights} + i"
        self.lines.add(
            f"for (int32_t i = 0; i < {taken.count}; i += LANES) store({weights}, exp2(load({weights})));"
        )

    @contextmanager
    def _each(self, taken: Taken) -> Generator[None]:
        """What follows stands in a loop over the pairs."""
        with self.lines.block(f"for (int32_t i = 0; i < {taken.count}; ++i) {{"):
            self.lines.add(f"const int64_t in_M = {taken.rows}[i], in_N = {taken.columns}[i];")
            yield

    def _factors(self, taken: Taken, factor: Expr, scene: Scene) -> str:
        """What each pair counts in a sum or product, where that is not its weight alone."""
        array = self.page.array(scene, "lead", "_factors")
        self.page.taken.add(array)
        self.lines.add(f"float {array}[{self.places}];")
        with self._each(taken):
            self.lines.add(f"{array}[i] = {scene.text(factor)};")
        self.lines.add("}")
        return array

    def _dot(self, dot: Dot, scene: Scene) -> str | None:
        """The same sum of products in double, at one pair."""
        operands = [self._row(operand, dot.over, scene) for operand in (dot.left, dot.right)]
        known = [operand for operand in operands if operand is not None]
        if len(known) < 2 or dot.accumulator is not None:
            return None
        (x, x_step), (y, y_step) = known
        steps = "" if x_step == y_step == "1" else f"{x_step}, {y_step}, "
        return f"exact_dot({x}, {y}, {steps}{self.sizes[dot.over]})"

    def _row(self, operand: Expr, over: str, scene: Scene) -> tuple[str, str] | None:
        """Where the numbers of one row or column of an operand lie, and how far apart."""
        assert isinstance(operand, Var)
        name = operand.name
        if operand.type != "fp32" or len(operand.shape) != 2 or operand.shape[-1] != over:
            return None
        (dim,) = (dim for dim in operand.shape if dim != over)
        if name in scene.origins:
            return f"{scene.origins[name]}[in_{dim}]", "1"
        tile = scene.tiles.get(name)
        if tile is None or tile.type != "fp32" or dim not in ("M", "N"):
            return None
        if tile.rows:
            return f"{tile.array}[in_{dim}]", "1"
        if dim == self.lane:
            return f"{tile.array} + in_{dim}", str(self.sizes[dim])
        return f"{tile.array} + in_{dim} * {self.sizes[over]}", "1"

    # ---------------------------------------------------------------------------------------------- afterwards

    def put_back(self, taken: Taken, group: Pass, scene: Scene) -> None:
        """Printed behind each pass: what its sums and products are without the pairs, and now get from them."""
        pairs = f"{taken.rows}, {taken.columns}"
        for statement in group.statements:
            if not isinstance(statement, Assign) or statement.name not in taken.factors:
                continue
            tile, factors = scene.tiles[statement.name], taken.factors[statement.name]
            if statement.name in taken.softmax.sums:
                head = f"for (int32_t i = 0; i < {taken.count}; ++i)"
                self.lines.add(f"{head} {tile.array}[{taken.rows}[i]] += {factors}[i];")
                continue
            dot = taken.softmax.products[statement.name]
            assert isinstance(dot.right, Var)
            rows, length = scene.tiles[dot.right.name].array, self.sizes[dot.shape[-1]]
            listed = f"{taken.count}, {pairs}, {factors}, {rows}"
            if self.lane == "N":
                self.lines.add(f"add_rows({tile.array}, {length}, {listed});")
                continue
            size, mark = self.sizes["M"] * length * 4, self.memory.used
            sums, turned = self.memory.take(size), self.memory.take(size)
            self.memory.used = mark
            places = f"(float*)(scratch + {sums}), (float*)(scratch + {turned})"
            call = f"add_turned_rows({tile.array}, {self.sizes['M']}, {length}, {listed}, {places});"
            self.lines.add(f"if ({taken.count} > 0) {call}")
