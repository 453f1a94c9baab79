"""Sums of the products of two tensors' rows in printed C++: each pair of rows is read once, where it lies."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.ir.kernel import Assign, Expr, Fold, Load, Loop, Op, Var, walk

from .cpp_groups import Pass
from .cpp_normal import reads
from .cpp_page import Page, Work
from .cpp_points import Scene


@dataclass(frozen=True)
class Inner:
    """The sum of each row of `left` times the same row of `right`; nothing else reads the two."""

    total: Assign
    left: Assign
    right: Assign


class Inners:
    """Finds and prints such sums."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines, self.layout = page.lines, page.layout
        self.lane, self.sizes = page.lane, page.sizes

    def found(self, group: Pass) -> list[Inner]:
        """The sums of a pass whose rows need not become a tile."""
        made = {s.name: s for s in group.statements if isinstance(s, Assign) and self._is_rows(s)}
        sums: list[Inner] = []
        for statement in group.statements:
            match statement:
                case Assign(_, Fold("sum", Op("mul", (x, y)), over, "fp32", (lane,))) if lane == self.lane:
                    left, right = _named(x, made), _named(y, made)
                    if left is None or right is None or left is right:
                        continue
                    if left.value.shape == right.value.shape and left.value.shape[-1] == over:
                        sums.append(Inner(statement, left, right))
                case _:
                    pass
        return sums

    def _is_rows(self, statement: Assign) -> bool:
        """Whether a tile is rows of a tensor that one statement reads."""
        name = statement.name
        if self.layout.turned(statement) is None or len(self.layout.assigned[name]) > 1:
            return False
        readers = [s for s in walk(self.layout.body) if not isinstance(s, Loop) and name in reads(s)]
        return len(readers) == 1

    def print(self, inner: Inner, work: Work, scene: Scene) -> None:
        """The sums of all rows."""
        self.page.declare(inner.total, work, scene)
        rows: list[str] = []
        for statement in (inner.left, inner.right):
            load, offset = statement.value, self.layout.turned(statement)
            assert isinstance(load, Load) and offset is not None
            at = self.page.offsets(offset, statement.name, scene)
            rows.append(f"{scene.address(load.pointer, load.base)}, {at}")
        array, length = scene.tiles[inner.total.name].array, self.sizes[inner.left.value.shape[-1]]
        self.lines.add(f"row_products({array}, {self.sizes[self.lane]}, {', '.join(rows)}, {length});")


def _named(expr: Expr, made: dict[str, Assign]) -> Assign | None:
    """The tile that an expression is, as it was loaded."""
    match expr:
        case Op("cast", (Var(name),), "fp32", _) | Var(name):
            return made.get(name)
        case _:
            return None
