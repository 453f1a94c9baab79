"""Which index may stand at which axis, and where it lies in memory."""

from __future__ import annotations

from attnlang.elaborate.arithmetic import build
from attnlang.elaborate.names import kv_index
from attnlang.elaborate.values import INPUTS, Group, Slot, Uniform, Value
from attnlang.elaborate.wording import index_kind, slot_kind
from attnlang.elaborate.work import Work
from attnlang.errors_meaning import IndexOutOfRange, WrongAxis
from attnlang.ir.pattern import ZERO, Expr, Literal
from attnlang.source import Span

POSITIONS = ("query", "key", "position")


def position_in(work: Work, slot: Slot, value: Value, name: str, number: int, span: Span) -> Expr | None:
    """Where the index lies in an axis that is stored from 0, after a look at what it counts."""
    expr = value.expr
    if slot.role == "kv_head" and value.role == "head" and not _is_tensor(work, name):
        expr = kv_index(work, value).expr
    elif not fits(work, slot, value, name):
        hint = _advice(slot, value)
        expected, found = slot_kind(slot), index_kind(value)
        work.report(WrongAxis(span, hint, number=number, name=name, expected=expected, found=found))
        return None
    match expr, slot.size:
        case Literal(int(at)), Literal(int(length)) if slot.start == ZERO and not 0 <= at < length:
            work.report(IndexOutOfRange(span, index=at, number=number, name=name, length=length))
            return None
        case _:
            pass
    return build("sub", expr, slot.start)


def _is_tensor(work: Work, name: str) -> bool:
    return name in work.declared and work.declared[name].kind == "tensor"


def fits(work: Work, slot: Slot, value: Value, name: str) -> bool:
    """Whether an index may stand at an axis: plain ints fit everywhere, others where the axis is theirs."""
    if slot.group is not None or value.group is not None:
        plain = (value.role is None and value.group is None) or (
            slot.role in (None, "range") and slot.group is None
        )
        return plain or (
            slot.group is not None and value.group is not None and agree(work, slot.group, value.group)
        )
    if value.role is None or slot.role in (None, "range", "group"):
        return True
    if slot.role == "query" and value.role in ("key", "position"):
        return work.equal_lengths
    if slot.role == "key" and value.role == "query":
        return work.equal_lengths or name in INPUTS
    if slot.role in POSITIONS and value.role in POSITIONS:
        return True
    return slot.role == value.role


def agree(work: Work, left: Group, right: Group) -> bool:
    """Whether two coarse indices number the groups alike; those of queries count rows, not positions."""
    if left.name == right.name:
        return True
    same_origin = work.equal_lengths or (left.of == "q") == (right.of == "q")
    return same_origin and isinstance(left.shape, Uniform) and left.shape == right.shape


def _advice(slot: Slot, value: Value) -> str | None:
    if slot.group is not None and value.role in POSITIONS:
        return "block(…) is the group of a position"
    if slot.role == "kv_head" and value.role == "head":
        return "g(h) is the key/value head of h"
    if slot.role == "query" and value.role in ("key", "position"):
        return "where queries and keys are the same positions, say so: 'require NQ == NK'"
    if slot.role == "key" and value.role == "query":
        return "an axis 'n' is read at queries and at keys"
    return None
