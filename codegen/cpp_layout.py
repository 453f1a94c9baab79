"""What C++ must know of a kernel as a whole: which dimension lies along vectors, and how each product is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf

from attnlang.ir.kernel import (
    DIMENSION_ORDER,
    Assign,
    Const,
    Dot,
    Expr,
    Fold,
    Kernel,
    Lanes,
    Load,
    Loop,
    Op,
    Statement,
    Store,
    Var,
    walk,
)  # fmt: skip

from .cpp_isa import Isa
from .cpp_normal import Normal, exact_lengths, parts, reads

Kind = OneOf["float", "double", "bfloat", "dots", "weighted", "loops"]


FEW = 16
"""Rows of a tile for which the other operand of a product may stream by."""


@dataclass(frozen=True)
class Product:
    """A matrix product: `packed` is the operand whose lanes fill vectors, `rows` the one that is read number by number.

    `along`: the sum runs along the rows (else over them). `crossed`: it runs over what are lanes elsewhere, and vectors
    lie along the features of `packed`. `kind` "dots" and "weighted": of a few rows with a stream (cpp_few); "loops": no
    register tile fits its dimensions.
    """

    packed: str
    rows: str
    over: str
    along: bool
    kind: Kind
    crossed: bool = False


@dataclass(frozen=True)
class Direct:
    """A tile that can be read from the tensor itself, row by row: its load, the offset of a row, and the dimensions."""

    load: Load
    offset: Expr
    row: str
    column: str


class Layout:
    """The kernel taken apart, and the decisions on it."""

    def __init__(self, kernel: Kernel, isa: Isa) -> None:
        self.kernel, self.isa = kernel, isa
        self.sizes = exact_lengths(kernel)
        self.body = Normal(kernel, self.sizes).statements(kernel.body)
        self.assigned = self._assignments()
        self.lane = _lane(self.body)
        wide = any(
            value.type == "fp64" and value.shape for values in self.assigned.values() for value in values
        )
        self.lanes = isa.bytes // (8 if wide else 4)
        self.few = self.lane == "M" and self._is_few(wide)
        if self.few:
            self.lane = "N"
        self.changing = self._changing() if self.few else frozenset[str]()
        self.dotted, self.used = self._uses()
        self.products: dict[tuple[str, str, str], Product] = {}
        for values in self.assigned.values():
            for value in values:
                if isinstance(value, Dot):
                    self.products[_key(value)] = self._product(value)
        self.operands = {name for p in self.products.values() for name in (p.packed, p.rows)}
        self.paired = {
            name
            for product in self.products.values()
            if product.kind == "bfloat" and not product.crossed
            for name in (product.packed, *(() if product.along else (product.rows,)))
        }
        self.crossed = {p.packed: p for p in self.products.values() if p.crossed}
        self.narrowed = {p.rows for p in self.products.values() if p.crossed and p.kind == "bfloat"}

    def _assignments(self) -> dict[str, list[Expr]]:
        found: dict[str, list[Expr]] = {}
        for statement in walk(self.body):
            if isinstance(statement, Assign):
                found.setdefault(statement.name, []).append(statement.value)
        return found

    def _is_few(self, wide: bool) -> bool:
        """Whether lanes should lie along the keys, as there are few rows: never where tiles of keys have any width."""
        if "N" not in self.sizes or any(
            isinstance(s, Loop) and s.columns is not None for s in walk(self.body)
        ):
            return False
        rows = self.sizes["M"]
        return rows % (self.isa.bytes // 4) != 0 or (rows <= FEW and not wide)

    def _changing(self) -> frozenset[str]:
        """Names that are assigned again, those of folds, and those that read such names."""
        found = {
            name
            for name, values in self.assigned.items()
            if len(values) > 1 or isinstance(values[0], Fold | Dot)
        }
        while True:
            more = {
                name
                for name, values in self.assigned.items()
                if any(
                    isinstance(part, Var) and part.name in found for value in values for part in parts(value)
                )
            }
            if more <= found:
                return frozenset(found)
            found |= more

    def _uses(self) -> tuple[set[str], set[str]]:
        """Names that are operands of products, and names that are read otherwise."""
        dotted: set[str] = set()
        used: set[str] = set()
        for statement in walk(self.body):
            if isinstance(statement, Assign) and isinstance(statement.value, Dot):
                dot = statement.value
                dotted |= {x.name for x in (dot.left, dot.right) if isinstance(x, Var)}
                if dot.accumulator is not None:
                    used |= {part.name for part in parts(dot.accumulator) if isinstance(part, Var)}
            elif not isinstance(statement, Loop):
                used |= reads(statement)
            else:
                used |= {
                    part.name
                    for end in (statement.start, statement.stop)
                    for part in parts(end)
                    if isinstance(part, Var)
                }
        return dotted, used

    def product(self, dot: Dot) -> Product:
        """How a product is computed."""
        return self.products[_key(dot)]

    def direct(self, name: str) -> Direct | None:
        """A tile that products alone read, if its rows lie whole in a tensor."""
        values = self.assigned.get(name, [])
        if name in self.used or not values:
            return None
        found = [self._direct(value) for value in values]
        first = found[0]
        if first is None or any(other is None for other in found):
            return None
        if self.lane in first.load.shape and not all(
            self._reads_stream(dot, name) for dot in self._dots(name)
        ):
            return None
        return first

    def _direct(self, value: Expr) -> Direct | None:
        if not isinstance(value, Load) or len(value.shape) != 2:
            return None
        row, column = value.shape
        if self.lane in value.shape and not (self.few and row == self.lane and self._streams(value, column)):
            return None
        if value.other != 0 or (value.mask is not None and column in value.mask.shape):
            return None
        offset, unit = without_unit(value.offset, column)
        return Direct(value, offset, row, column) if unit else None

    def _dots(self, name: str) -> list[Dot]:
        """The products that read a tile."""
        dots = [value for values in self.assigned.values() for value in values if isinstance(value, Dot)]
        return [dot for dot in dots if name in {x.name for x in (dot.left, dot.right) if isinstance(x, Var)}]

    def _streams(self, load: Load, column: str) -> bool:
        """Whether a tile's rows can be read vector by vector, as float."""
        whole = self.sizes[column] >= self.lanes and self.lanes * 4 == self.isa.bytes
        return whole and load.type in ("fp32", "fp16", "bf16")

    def direct_of(self, load: Load) -> Direct:
        """The same for one load of such a tile."""
        found = self._direct(load)
        assert found is not None
        return found

    def _product(self, dot: Dot) -> Product:
        left, right = dot.left, dot.right
        assert isinstance(left, Var) and isinstance(right, Var)
        if self.few and (stream := self._stream(dot, left, right)) is not None:
            return stream
        if dot.over == self.lane:
            return self._crossed(dot, left, right)
        packed, rows = (left, right) if self.lane in left.shape else (right, left)
        fits = self.lane in packed.shape and self.lane not in rows.shape and len(rows.shape) == 2
        fits = fits and len(packed.shape) == 2
        along = dot.over == rows.shape[-1]
        kind: Kind = "loops"
        if fits:
            kind = "double" if dot.type == "fp64" else "float"
            is_half = "bf16" in (left.type, right.type) and self.isa.bf16 and self.lanes == 16
            source = self.direct(rows.name)
            if is_half and source is not None and source.load.type == "bf16":
                whole = self.sizes[rows.shape[-1]] % 2 == 0
                kind = "bfloat" if whole or not along else "float"
        return Product(packed.name, rows.name, dot.over, along, kind)

    def _stream(self, dot: Dot, left: Var, right: Var) -> Product | None:
        """A product of a few rows with a tile whose rows can be read where they lie."""
        if not self._reads_stream(dot, right.name) or self.direct(right.name) is None:
            return None
        if dot.over == self.lane:
            return Product(left.name, right.name, dot.over, False, "weighted")
        return Product(right.name, left.name, dot.over, True, "dots")

    def _reads_stream(self, dot: Dot, name: str) -> bool:
        """Whether a product could read a tile as a stream."""
        left, right = dot.left, dot.right
        assert isinstance(left, Var) and isinstance(right, Var)
        fits = len(left.shape) == 2 and left.shape[-1] == dot.over and left.shape[0] != self.lane
        return fits and dot.type == "fp32" and right.name == name != left.name

    def _crossed(self, dot: Dot, left: Var, right: Var) -> Product:
        """A product over the lanes: the tile of pairs is read by rows, and the other one has features as lanes."""
        packed, rows = (left, right) if dot.shape[-1] in left.shape else (right, left)
        fits = len(packed.shape) == len(rows.shape) == 2 and dot.shape[-1] not in DIMENSION_ORDER
        if not fits or dot.accumulator is not None:
            return Product(packed.name, rows.name, dot.over, True, "loops")
        kind: Kind = "double" if dot.type == "fp64" else "float"
        loads = self.assigned.get(packed.name, [])
        if packed.type == "bf16" and self.isa.bf16 and self.lanes == 16 and loads:
            kind = "bfloat" if all(self.turned(Assign(packed.name, x)) is not None for x in loads) else kind
        return Product(packed.name, rows.name, dot.over, True, kind, crossed=True)

    def turned(self, statement: Statement) -> Expr | None:
        """The offset of each row, where whole rows are loaded into a tile of lanes, or stored from one."""
        match statement:
            case Assign(_, Load(_, _, offset, kind, (_, _) as shape, None, _)):
                pass
            case Store(_, _, offset, value, mask, False) if len(value.shape) == 2:
                kind, shape = value.type, value.shape
                if mask is not None and set(mask.shape) - {self.lane}:
                    return None
            case _:
                return None
        columns = [dim for dim in shape if dim != self.lane]
        if kind not in ("fp32", "fp16", "bf16") or len(columns) != 1 or columns[0] in DIMENSION_ORDER:
            return None
        if self.lanes * 4 != self.isa.bytes:
            return None
        rest, unit = without_unit(offset, columns[0])
        return rest if unit and set(rest.shape) <= {self.lane} else None

    def width(self, dim: str) -> int:
        """The length of a row of lanes along a dimension: whole vectors, an even number of them or one."""
        vectors = -(-self.sizes[dim] // self.lanes)
        odd = dim != self.lane and vectors > 1 and vectors % 2
        return (vectors + bool(odd)) * self.lanes


def _key(dot: Dot) -> tuple[str, str, str]:
    assert isinstance(dot.left, Var) and isinstance(dot.right, Var)
    return dot.left.name, dot.right.name, dot.over


def without_unit(offset: Expr, column: str) -> tuple[Expr, bool]:
    """An offset without its term for the lanes of a dimension, and whether there was one with step 1 and no other."""
    match offset:
        case Lanes(dim, kind) if dim == column:
            return Const(0, kind), True
        case Op("cast", (Lanes(dim, _),), kind, _) if dim == column:
            return Const(0, kind), True
        case Op("add", (x, y), kind, _):
            if column not in x.shape:
                rest, unit = without_unit(y, column)
                return (x if rest == Const(0, kind) else _sum(x, rest)), unit
            if column not in y.shape:
                rest, unit = without_unit(x, column)
                return (y if rest == Const(0, kind) else _sum(rest, y)), unit
            return offset, False
        case _:
            return offset, False


def _sum(x: Expr, y: Expr) -> Expr:
    shape = tuple(dict.fromkeys((*x.shape, *y.shape)))
    return Op("add", (x, y), x.type, shape)


def _lane(body: tuple[Statement, ...]) -> str:
    """The dimension that values outside of all loops have: it stays while the other one streams by."""
    for dim in DIMENSION_ORDER:
        for statement in body:
            match statement:
                case Assign(_, value) if dim in value.shape:
                    return dim
                case Store(_, _, _, value, _) if dim in value.shape:
                    return dim
                case _:
                    pass
    return DIMENSION_ORDER[0]
