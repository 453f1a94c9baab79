"""Kernel IR → Triton source."""

from __future__ import annotations

import math
import re
from typing import assert_never

from attnlang.artifact import Argument, KernelSource
from attnlang.ir.kernel import (
    Assign,
    Const,
    Dot,
    Expr,
    Fold,
    Full,
    Kernel,
    Lanes,
    Load,
    Loop,
    Op,
    Remark,
    Shape,
    Statement,
    Store,
    Var,
)  # fmt: skip

from .banner import banner
from .ops import ATOM, COMPARISON, SUM, TRITON, TRITON_HELPER_NEEDS, TRITON_HELPERS, TRITON_TYPES
from .printer import Lines


def print_triton(kernel: Kernel) -> KernelSource:
    """The complete source of a kernel. Arguments: pointers, their strides, scalars; constants: block lengths."""
    arguments = [Argument(pointer.name, "pointer", pointer.type) for pointer in kernel.pointers]
    arguments += [
        Argument(stride, "scalar", "i64") for pointer in kernel.pointers for stride in pointer.strides
    ]
    arguments += [Argument(scalar.name, "scalar", scalar.type) for scalar in kernel.scalars]
    constants = tuple((_block(dim), length) for dim, length in kernel.dims)
    body = Lines()
    body.depth = 1
    body.add(f"{kernel.program} = tl.program_id(0)")
    for statement in kernel.body:
        _statement(statement, body)
    lines = Lines()
    lines.add(*banner(kernel.banner, "#"), "import triton", "import triton.language as tl", "")
    for helper in _helpers(body.text()):
        lines.add("", *TRITON_HELPERS[helper].splitlines(), "")
    lines.add("", "@triton.jit", f"def {kernel.name}(")
    for pointer in kernel.pointers:
        strides = "".join(f"{name}, " for name in pointer.strides)
        lines.add(f"    {pointer.name}, {strides}".rstrip())
    if kernel.scalars:
        lines.add("    " + ", ".join(scalar.name for scalar in kernel.scalars) + ",")
    lines.add("    " + ", ".join(f"{name}: tl.constexpr" for name, _ in constants) + ",", "):")
    text = lines.text() + body.text()
    by_name = {argument.name: argument for argument in arguments}
    order = [name for pointer in kernel.pointers for name in (pointer.name, *pointer.strides)]
    order += [scalar.name for scalar in kernel.scalars]
    ordered = tuple(by_name[name] for name in order)
    return KernelSource("triton", kernel.name, text, ordered, constants, kernel.warps, kernel.stages)


def _block(dim: str) -> str:
    return f"BLOCK_{dim}"


def _helpers(text: str) -> list[str]:
    """The helper functions that a text calls, those they need first."""
    found: list[str] = []

    def need(name: str) -> None:
        for other in TRITON_HELPER_NEEDS.get(name, ()):
            need(other)
        if name not in found:
            found.append(name)

    for name in TRITON_HELPERS:
        if re.search(rf"(?<![\w.]){name}\(", text):
            need(name)
    return found


# ------------------------------------------------------------------------------------------------ statements


def _statement(statement: Statement, lines: Lines) -> None:
    match statement:
        case Remark(text):
            lines.add("", f"# {text}")
        case Assign(name, value):
            lines.add(f"{name} = {_print(value)}")
        case Store(pointer, base, offset, value, mask, accumulate):
            address = _address(pointer, base, offset, value.shape)
            shown = "" if mask is None else f", mask={_spread(mask, value.shape)}"
            order = ', sem="relaxed"' if accumulate else ""
            writes = "tl.atomic_add" if accumulate else "tl.store"
            lines.add(f"{writes}({address}, {_print(value)}{shown}{order})")
        case Loop(variable, start, stop, body, _, columns):
            assert columns is None, "tiles of Triton have one length"
            with lines.block(f"for {variable} in range({_print(start)}, {_print(stop)}):"):
                for inner in body:
                    _statement(inner, lines)
        case _:
            assert_never(statement)


def _address(pointer: str, base: Expr, offset: Expr, shape: Shape) -> str:
    parts = [pointer]
    if not (isinstance(base, Const) and base.value == 0):
        parts.append(_bracket(base, SUM + 1))
    if not (isinstance(offset, Const) and offset.value == 0):
        text, binds = _spread_with(offset, shape)
        parts.append(text if binds > SUM else f"({text})")
    return " + ".join(parts)


# ----------------------------------------------------------------------------------------------- expressions


def _print(expr: Expr) -> str:
    return _with(expr)[0]


def _bracket(expr: Expr, binds: int) -> str:
    text, own = _with(expr)
    return text if own >= binds else f"({text})"


def _with(expr: Expr) -> tuple[str, int]:
    """The text of an expression and how tightly it binds."""
    match expr:
        case Const(value, kind, _):
            return _constant(value, kind)
        case Var(name, _, _):
            return name, ATOM
        case Lanes(dim, _):
            return f"tl.arange(0, {_block(dim)})", ATOM
        case Full(value, kind, shape):
            return f"tl.full([{_lengths(shape)}], {_constant(value, kind)[0]}, {TRITON_TYPES[kind]})", ATOM
        case Op(op, args, kind, shape):
            return _operation(op, args, kind, shape)
        case Load(pointer, base, offset, _, shape, mask, other):
            shown = "" if mask is None else f", mask={_spread(mask, shape)}, other={other}"
            return f"tl.load({_address(pointer, base, offset, shape)}{shown})", ATOM
        case Dot():
            return _dot(expr), ATOM
        case Fold(op, value, over, _, _):
            return f"tl.{op}({_print(value)}, axis={value.shape.index(over)})", ATOM
        case _:
            assert_never(expr)


def _constant(value: bool | int | float, kind: str) -> tuple[str, int]:
    if isinstance(value, bool) or kind == "i1":
        return str(bool(value)), ATOM
    if kind.startswith("i"):
        return str(int(value)), ATOM if value >= 0 else SUM
    if math.isinf(value) or math.isnan(value):
        return f'float("{value}")', ATOM
    return repr(float(value)), ATOM if value >= 0 else SUM


def _lengths(shape: Shape) -> str:
    return ", ".join(_block(dim) for dim in shape)


def _spread_with(expr: Expr, shape: Shape) -> tuple[str, int]:
    """An operand of an operation of a shape: `[:, None]` where it lacks dimensions."""
    if expr.shape in ((), shape):
        return _with(expr)
    index = ", ".join(":" if dim in expr.shape else "None" for dim in shape)
    return f"{_bracket(expr, ATOM)}[{index}]", ATOM


def _spread(expr: Expr, shape: Shape) -> str:
    return _spread_with(expr, shape)[0]


def _operation(op: str, args: tuple[Expr, ...], kind: str, shape: Shape) -> tuple[str, int]:
    if op == "cast":
        (value,) = args
        if value.shape == () and isinstance(value, Var):
            return f"tl.cast({_print(value)}, {TRITON_TYPES[kind]})", ATOM
        return f"{_bracket(value, ATOM)}.to({TRITON_TYPES[kind]})", ATOM
    if op == "spread":
        if isinstance(args[0], Const):
            return f"tl.full([{_lengths(shape)}], {_print(args[0])}, {TRITON_TYPES[kind]})", ATOM
        return f"tl.broadcast_to({_spread(args[0], shape)}, [{_lengths(shape)}])", ATOM
    spelling = TRITON[op]
    operands: list[str] = []
    for position, arg in enumerate(args):
        text, binds = _spread_with(arg, shape)
        if position == 0 and all(isinstance(each, Const) for each in args):
            text, binds = (
                f"tl.full([], {_print(arg)}, {TRITON_TYPES[arg.type]})",
                ATOM,
            )  # not a number of Python
        if spelling.binds == ATOM:
            operands.append(text)
            continue
        needed = spelling.binds + (1 if position or spelling.binds == COMPARISON else 0)
        operands.append(
            text if binds >= needed and not (spelling.binds < SUM and binds < SUM) else f"({text})"
        )
    return spelling.template.format(*operands), spelling.binds


def _dot(dot: Dot) -> str:
    """`tl.dot`, in full precision for float32; a right operand stored by rows of the result's columns is transposed.

    A left operand that is contracted over its rows is transposed too. Where it is computed from another product,
    Triton 3.4 to 3.7.0 miscompile that on Hopper: no kernel for Triton's targets is lowered so.
    """
    left, right = _print(dot.left), _print(dot.right)
    if dot.left.shape.index(dot.over) == 0:
        left = f"tl.trans({left})"
    if dot.right.shape.index(dot.over) == 1:
        right = f"tl.trans({right})"
    precision = ', input_precision="ieee"' if dot.left.type == "fp32" else ""
    accumulator = "" if dot.accumulator is None else f", {_print(dot.accumulator)}"
    return f"tl.dot({left}, {right}{accumulator}{precision})"
