"""Kernel expressions with their types worked out: casts, elementwise operations, small foldings."""

from __future__ import annotations

from attnlang.ir import kernel as ir
from attnlang.ir.kernel import Const, Shape, Type, join


def walk(value: ir.Expr) -> list[ir.Expr]:
    """The expression and all below it."""
    return [value, *(part for child in ir.children(value) for part in walk(child))]


def weight(value: ir.Expr) -> int:
    """How many operations an expression spells out."""
    return sum(isinstance(part, ir.Op | ir.Dot) for part in walk(value))


def dot_type(left: Type, right: Type) -> Type:
    """The type in which two operands are multiplied: the half type among them."""
    narrow: list[Type] = [kind for kind in (left, right) if kind in ("fp16", "bf16")]
    return narrow[0] if narrow else "fp32"


def cast(value: ir.Expr, kind: Type) -> ir.Expr:
    """The value in another type; constants are converted on the spot."""
    if value.type == kind:
        return value
    if isinstance(value, Const) and not value.shape:
        number = value.value
        converted = (
            float(number) if kind.startswith(("fp", "bf")) else bool(number) if kind == "i1" else int(number)
        )
        return Const(converted, kind)
    return ir.Op("cast", (value,), kind, value.shape)


def elementwise(op: str, values: list[ir.Expr], kind: Type) -> ir.Expr:
    """An operation whose operands have their types already."""
    shape: Shape = join(*(value.shape for value in values))
    return ir.Op(op, tuple(values), kind, shape)


def _folded(op: str, a: int, b: int) -> int | None:
    match op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "floordiv":
            return a // b
        case "min" | "max":
            return min(a, b) if op == "min" else max(a, b)
        case _:
            return None


def binary(op: str, x: ir.Expr, y: ir.Expr) -> ir.Expr:
    """Integer and logical arithmetic with the simplest foldings."""
    match op, x, y:
        case _, Const(int(a), "i32" | "i64" as kind, ()), Const(int(b), _, ()) if y.type == kind:
            value = _folded(op, a, b)
            return operation(op, [x, y]) if value is None else Const(value, kind)
        case "and", Const(True, "i1", ()), _:
            return y
        case "and", _, Const(True, "i1", ()):
            return x
        case "add", Const(0, _, ()), _ if y.type == x.type:
            return y
        case "add" | "sub", _, Const(0, _, ()) if y.type == x.type:
            return x
        case "mul", Const(1, _, ()), _ if y.type == x.type:
            return y
        case "mul", _, Const(1, _, ()) if y.type == x.type:
            return x
        case _:
            return operation(op, [x, y])


_RANK: dict[str, int] = {"i1": 0, "i8": 1, "i32": 2, "i64": 3, "fp16": 4, "bf16": 4, "fp32": 5, "fp64": 6}
_COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")


def operation(op: str, values: list[ir.Expr]) -> ir.Expr:
    """An operation with its operands brought to one type, as the pattern IR counts."""
    match op:
        case "and" | "or" | "not":
            return elementwise(op, values, "i1")
        case "where":
            condition, x, y = values
            kind = _widest([x, y])
            return elementwise("where", [condition, cast(x, kind), cast(y, kind)], kind)
        case "int" | "floor" | "ceil" | "round":
            if not values[0].type.startswith(("fp", "bf")):
                return cast(values[0], "i32") if values[0].type == "i1" else values[0]
            return cast(values[0] if op == "int" else elementwise(op, values, values[0].type), "i32")
        case "float":
            return cast(values[0], "fp32")
        case "detach":
            return values[0]
        case _:
            kind = _widest(values)
            if op in _FLOAT_ONLY or (kind == "i1" and op not in _COMPARE):
                kind = "fp32" if op in _FLOAT_ONLY else "i32"
            if _RANK[kind] in (4,):
                kind = "fp32"
            operands = [cast(value, kind) for value in values]
            return elementwise(op, operands, "i1" if op in _COMPARE else kind)


_FLOAT_ONLY = (
    "div", "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid",
    "softplus", "erf", "atan",
)  # fmt: skip


def _widest(values: list[ir.Expr]) -> Type:
    return max((value.type for value in values), key=lambda kind: _RANK[kind])
