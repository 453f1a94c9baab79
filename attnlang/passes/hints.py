"""Names that tell a reader of the kernel what a value is."""

from __future__ import annotations

from attnlang.ir import kernel as ir
from attnlang.ir.pattern import HEAD, Apply, Expr, Index, Literal, Read, Reduce, Symbol, kv_head_of


def read_hint(expr: Read, loaded: ir.Load) -> str:
    """For what is read from a tensor."""
    return f"{expr.source}_tile" if len(loaded.shape) == 2 else f"{expr.source}_value".replace(".", "_")


def hint(expr: Expr) -> str:
    """For what is computed."""
    if expr == kv_head_of(Index(HEAD)):
        return "kv_head"
    match expr:
        case Apply("mul", (Symbol(name, _), Literal(float()))):
            return f"{name}_log2e"
        case Read(source, _, _):
            return source.lower().replace(".", "_")
        case Reduce(_, (axis, *_), _, _):
            return {"feature": "dot"}.get(axis.role, "total")
        case Apply(op, _):
            return {
                "lt": "test",
                "le": "test",
                "ge": "test",
                "gt": "test",
                "and": "both",
                "or": "either",
            }.get(op, "part")
        case _:
            return "value"
