"""Checks a kernel: names are assigned before they are read, shapes and types fit. Names the pass that broke it."""

from __future__ import annotations

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
    children,
    join,
)  # fmt: skip


class KernelError(Exception):
    """A pass made a kernel that makes no sense: a mistake of attnlang's, never of its user."""


def verify_kernel(kernel: Kernel, after: str) -> None:
    """Raises `KernelError`, naming the pass `after`, where a kernel is malformed."""
    known: dict[str, tuple[str, tuple[str, ...]]] = {kernel.program: ("i32", ())}
    for pointer in kernel.pointers:
        known[pointer.name] = ("pointer", ())
        known |= {stride: ("i64", ()) for stride in pointer.strides}
    known |= {scalar.name: (scalar.type, ()) for scalar in kernel.scalars}
    dims = {dim for dim, _ in kernel.dims}
    try:
        _block(kernel.body, known, dims)
    except KernelError as error:
        raise KernelError(f"after {after}, in {kernel.name}: {error}") from None


def _block(
    statements: tuple[Statement, ...], known: dict[str, tuple[str, tuple[str, ...]]], dims: set[str]
) -> None:
    for statement in statements:
        match statement:
            case Assign(name, value):
                _expr(value, known, dims)
                before = known.get(name)
                if before is not None and before != (value.type, value.shape):
                    raise KernelError(f"{name} was {before}, becomes {(value.type, value.shape)}")
                known[name] = (value.type, value.shape)
            case Store(pointer, base, offset, value, mask, _):
                if pointer not in known:
                    raise KernelError(f"stores to {pointer}, which is no argument")
                for part in (base, offset, value, *(() if mask is None else (mask,))):
                    _expr(part, known, dims)
                if join(offset.shape, value.shape) != value.shape:
                    raise KernelError(f"stores a value over {value.shape} at offsets over {offset.shape}")
            case Loop(variable, start, stop, body, _, columns):
                _expr(start, known, dims)
                _expr(stop, known, dims)
                inside = {**known, variable: ("i32", ())}
                if columns is not None:
                    _expr(columns, inside, dims)
                _block(body, inside, dims)
            case Remark(_):
                pass


def _expr(expr: Expr, known: dict[str, tuple[str, tuple[str, ...]]], dims: set[str]) -> None:
    for child in children(expr):
        _expr(child, known, dims)
    if set(expr.shape) - dims:
        raise KernelError(f"dimension of unknown length among {expr.shape}")
    match expr:
        case Var(name, kind, shape):
            if known.get(name) != (kind, shape):
                raise KernelError(
                    f"reads {name} as {(kind, shape)}, which is {known.get(name, 'not assigned here')}"
                )
        case Op(op, args, _, shape):
            joined = join(*(arg.shape for arg in args))
            if joined != shape and op != "spread":
                raise KernelError(f"{op} of shapes {[arg.shape for arg in args]} said to be {shape}")
        case Load(pointer, _, offset, _, shape, _, _):
            if pointer not in known or join(offset.shape, shape) != shape:
                raise KernelError(f"loads {pointer} at offsets over {offset.shape} as {shape}")
        case Dot(left, right, over, _, shape, accumulator):
            fits = over in left.shape and over in right.shape and left.type == right.type
            if not fits or (accumulator is not None and accumulator.shape != shape):
                raise KernelError(
                    f"dot of {left.shape} {left.type} and {right.shape} {right.type} over {over}"
                )
        case Fold(_, value, over, _, shape):
            if tuple(dim for dim in value.shape if dim != over) != shape:
                raise KernelError(f"folds {value.shape} over {over} to {shape}")
        case Const() | Lanes() | Full():
            pass
