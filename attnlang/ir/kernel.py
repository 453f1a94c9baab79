"""Kernel IR: tiled loops. Blocks of values, loads, dots, running statistics, stores.

Both printers read only this, so a kernel that is right in Triton is right in C++. A value is a scalar or a tile
whose shape is a tuple of named dimensions, each with a block length in `Kernel.dims`. Operations broadcast by
dimension name: a value over ("M",) and one over ("N",) give one over ("M", "N").
"""

from __future__ import annotations

import builtins
import keyword
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as OneOf

Type = OneOf["i1", "i8", "i32", "i64", "fp16", "bf16", "fp32", "fp64"]
Shape = tuple[str, ...]
DIMENSION_ORDER = ("M", "N")  # rows, columns; every other dimension stands behind these


# ------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True)
class Const:
    """A constant of a type; infinities are floats."""

    value: bool | int | float
    type: Type
    shape: Shape = ()


@dataclass(frozen=True)
class Var:
    """An argument, a loop variable or an assigned value."""

    name: str
    type: Type
    shape: Shape = ()


@dataclass(frozen=True)
class Lanes:
    """0, 1, 2, … along one dimension."""

    dim: str
    type: Type = "i32"

    @property
    def shape(self) -> Shape:
        """One dimension."""
        return (self.dim,)


@dataclass(frozen=True)
class Op:
    """An elementwise operation, named as in the pattern IR, plus `cast`."""

    op: str
    args: tuple[Expr, ...]
    type: Type
    shape: Shape


@dataclass(frozen=True)
class Load:
    """Elements of an argument at base + offset, in elements; where `mask` is false, `other` is taken instead.

    `base` is a 64-bit scalar, so that `offset` may stay in 32 bits within one head.
    """

    pointer: str
    base: Expr
    offset: Expr
    type: Type
    shape: Shape
    mask: Expr | None = None
    other: int | float = 0


@dataclass(frozen=True)
class Dot:
    """Matrix product contracting the dimension `over`: (M, x) · (N, x) → (M, N), or (M, N) · (N, x) → (M, x), or
    (M, N) · (M, x) → (N, x).

    Operands have one type; the sum is in fp32 (fp64 for fp64). `accumulator` is added.
    """

    left: Expr
    right: Expr
    over: str
    type: Type
    shape: Shape
    accumulator: Expr | None = None


@dataclass(frozen=True)
class Fold:
    """`sum`, `max` or `min` of a tile over one dimension."""

    op: OneOf["sum", "max", "min"]
    value: Expr
    over: str
    type: Type
    shape: Shape


@dataclass(frozen=True)
class Full:
    """A tile of one value."""

    value: float | int | bool
    type: Type
    shape: Shape


Expr = Const | Var | Lanes | Op | Load | Dot | Fold | Full


# ------------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True)
class Assign:
    """`name = value`; a name assigned again keeps its type and shape (running statistics)."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Store:
    """Writes a tile to an argument at base + offset, in elements, where `mask` holds. `accumulate`: adds it to what is
    there, which no other program writes."""

    pointer: str
    base: Expr
    offset: Expr
    value: Expr
    mask: Expr | None = None
    accumulate: bool = False


@dataclass(frozen=True)
class Loop:
    """`for variable in start … stop − 1`. `pipelined`: its loads may be prefetched. `columns`: how many places of N
    there are in its body, the first ones, where that differs from turn to turn; for printers of the CPU."""

    variable: str
    start: Expr
    stop: Expr
    body: tuple[Statement, ...]
    pipelined: bool = False
    columns: Expr | None = None


@dataclass(frozen=True)
class Remark:
    """A comment before a phase."""

    text: str


Statement = Assign | Store | Loop | Remark


# ---------------------------------------------------------------------------------------------------- kernels


@dataclass(frozen=True)
class Pointer:
    """A tensor argument: element type, and the names of its stride arguments, outermost first; an innermost stride
    that is not named is 1."""

    name: str
    type: Type
    strides: tuple[str, ...]
    written: bool = False


@dataclass(frozen=True)
class Scalar:
    """A number passed at every launch."""

    name: str
    type: Type


@dataclass(frozen=True)
class Kernel:
    """Run once per tile of rows of every head; `program` is the name of its number, tile + tiles · (b·H + h)."""

    name: str
    banner: tuple[str, ...]
    pointers: tuple[Pointer, ...]
    scalars: tuple[Scalar, ...]
    dims: tuple[tuple[str, int], ...]
    program: str
    body: tuple[Statement, ...]
    warps: int = 4
    stages: int = 2

    def block(self, dim: str) -> int:
        """Block length of a dimension."""
        return dict(self.dims)[dim]


# Functions that printers may put above a kernel.
HELPERS = frozenset(
    (
        *("atan", "expm1", "floor_divide", "floor_modulo", "floor_quotient", "floor_rest", "log1p", "power"),
        *("power_integer", "power_whole", "round_half_even", "sign", "softplus", "tanh"),
    )
)
LISTED = ("tile_class", "tile_starts", "tile_columns", "tile_heavy")
"""Arguments of a kernel that reads its tiles from lists, int32: the map of each head [B, H]; where the full and the
partial tiles of each row of tiles begin and end in the next [maps, row_tiles, 3]; tiles of keys; the rows of tiles by
falling weight [maps, row_tiles]."""
ORDERED = ("query_order", "key_order")
"""The token at each place, −1 where there is none, int32: [maps, row_tiles · rows] and [maps, key_tiles · columns]."""
BACKWARD = ("dout", "dlse", "delta", "dQ", "dK", "dV", "shares")
"""Arguments of the kernels of a backward pass: gradients by the result and by its lse, what is subtracted from each
row, the gradients by Q, K and V, and how many programs share the tiles of a head."""
_TAKEN = frozenset(
    (
        *(*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *HELPERS, *LISTED, *ORDERED, *BACKWARD),
        *("tl", "triton", "out", "lse", "program", "row_tiles", "key_tiles", "splits"),
    )
)


def spelled(name: str) -> str:
    """A name of the user's as kernels write it: itself, unless that means something there; never two names alike."""
    clash = name in _TAKEN or name.startswith(("user_", "BLOCK_")) or "_stride_" in name
    return f"user_{name}" if clash else name


def join(*shapes: Shape) -> Shape:
    """The shape of an elementwise operation on values of these shapes."""
    names = {name for shape in shapes for name in shape}
    front = tuple(name for name in DIMENSION_ORDER if name in names)
    return front + tuple(sorted(names - set(front)))


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct subexpressions."""
    match expr:
        case Op(_, args, _, _):
            return args
        case Load(_, base, offset, _, _, mask, _):
            return (base, offset) if mask is None else (base, offset, mask)
        case Dot(left, right, _, _, _, accumulator):
            return (left, right) if accumulator is None else (left, right, accumulator)
        case Fold(_, value, _, _, _):
            return (value,)
        case Const() | Var() | Lanes() | Full():
            return ()


def walk(statements: tuple[Statement, ...]) -> Iterator[Statement]:
    """All statements, those of loops behind their loop."""
    for statement in statements:
        yield statement
        if isinstance(statement, Loop):
            yield from walk(statement.body)


def operands(statement: Statement) -> tuple[Expr, ...]:
    """The expressions of a statement itself, those of a loop's body left out."""
    match statement:
        case Assign(_, value):
            return (value,)
        case Store(_, base, offset, value, mask, _):
            return (base, offset, value) if mask is None else (base, offset, value, mask)
        case Loop(_, start, stop, _, _, columns):
            return (start, stop) if columns is None else (start, stop, columns)
        case Remark(_):
            return ()


def names(statements: tuple[Statement, ...]) -> frozenset[str]:
    """Every name that is read or written: variables, arguments, pointers."""
    found: set[str] = set()

    def visit(expr: Expr) -> None:
        match expr:
            case Var(name, _, _):
                found.add(name)
            case Load(pointer, _, _, _, _, _, _):
                found.add(pointer)
            case _:
                pass
        for child in children(expr):
            visit(child)

    for statement in walk(statements):
        for part in operands(statement):
            visit(part)
        match statement:
            case Assign(name, _) | Store(name, _, _, _, _, _) | Loop(name, _, _, _, _, _):
                found.add(name)
            case Remark(_):
                pass
    return frozenset(found)
