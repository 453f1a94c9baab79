"""A readable dump of kernel IR: one statement a line, with types and shapes."""

from __future__ import annotations

from typing import assert_never

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
    Statement,
    Store,
    Var,
)


def kernel_text(kernel: Kernel) -> str:
    """The whole kernel: arguments, block lengths, statements."""
    lines = [f"kernel {kernel.name}, {kernel.warps} warps, {kernel.stages} stages"]
    for pointer in kernel.pointers:
        kind = "writes" if pointer.written else "reads"
        lines.append(f"  {kind} {pointer.name}: {pointer.type}, strides {', '.join(pointer.strides)}")
    lines.append("  takes " + ", ".join(f"{scalar.name}: {scalar.type}" for scalar in kernel.scalars))
    lines.append("  blocks " + ", ".join(f"{dim} = {length}" for dim, length in kernel.dims))
    for statement in kernel.body:
        lines += _statement(statement, 1)
    return "\n".join(lines) + "\n"


def _statement(statement: Statement, depth: int) -> list[str]:
    indent = "  " * depth
    match statement:
        case Remark(text):
            return [f"{indent}# {text}"]
        case Assign(name, value):
            return [f"{indent}{name}: {value.type}[{', '.join(value.shape)}] = {_text(value)}"]
        case Store(pointer, base, offset, value, mask, accumulate):
            where = "" if mask is None else f" where {_text(mask)}"
            sign = "+=" if accumulate else "="
            return [f"{indent}{pointer}[{_text(base)} + {_text(offset)}] {sign} {_text(value)}{where}"]
        case Loop(variable, start, stop, body, _, columns):
            head = f"{indent}for {variable} in {_text(start)} … {_text(stop)} - 1:"
            if columns is not None:
                head = f"{head[:-1]}, of N the first {_text(columns)}:"
            return [head, *(line for inner in body for line in _statement(inner, depth + 1))]
        case _:
            assert_never(statement)


def _text(expr: Expr) -> str:
    match expr:
        case Const(value, _, _):
            return str(value)
        case Var(name, _, _):
            return name
        case Lanes(dim, _):
            return f"lanes({dim})"
        case Full(value, _, shape):
            return f"full({value} over {', '.join(shape)})"
        case Op("cast", (value,), kind, _):
            return f"{kind}({_text(value)})"
        case Op(op, args, _, _):
            return f"{op}({', '.join(map(_text, args))})"
        case Load(pointer, base, offset, _, _, mask, other):
            where = "" if mask is None else f" where {_text(mask)} else {other}"
            return f"{pointer}[{_text(base)} + {_text(offset)}{where}]"
        case Dot(left, right, over, _, _, accumulator):
            start = "" if accumulator is None else f"{_text(accumulator)} + "
            return f"{start}dot({_text(left)}, {_text(right)} over {over})"
        case Fold(op, value, over, _, _):
            return f"{op}({_text(value)} over {over})"
        case _:
            assert_never(expr)
