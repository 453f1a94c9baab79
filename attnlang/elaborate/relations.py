"""A choice used as a predicate: positions are mapped to the groups it chooses."""

from __future__ import annotations

from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import both, build
from attnlang.elaborate.functions import wrong_count
from attnlang.elaborate.groups import containing, group_at, has_group, overlaps
from attnlang.elaborate.positions import POSITIONS, position_in
from attnlang.elaborate.reads import index_of, read_here
from attnlang.elaborate.values import Readable, Slot, Value
from attnlang.elaborate.vectors import bounded
from attnlang.elaborate.wording import counted, index_kind
from attnlang.elaborate.work import Context, Work
from attnlang.errors_meaning import WrongAxis
from attnlang.ir.pattern import Axis, Expr, Literal, Read, Reduce
from attnlang.source import Span

Place = tuple[Expr, Expr, tuple[Axis, ...]]


def relation(work: Work, node: syntax.Call, readable: Readable, context: Context) -> Value | None:
    values = [index_of(work, part, context) for part in node.arguments]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    own, leading = readable.own, readable.leading
    slots = own
    if node.keywords or len(known) not in (len(own), len(own) + 2, len(own) + len(leading)):
        expected = ", ".join(slot.written for slot in own)
        return wrong_count(work, node, f"{counted(len(own), 'argument')} ({expected})", len(known))
    spans = [part.span for part in node.arguments]
    at: list[Expr] = []
    if len(known) > len(own):
        roles = (
            ("batch", "head") if len(known) == len(own) + 2 else tuple(slot.role or "" for slot in leading)
        )
        extra = dict(zip(roles, known, strict=False))
        for slot in leading:
            value = extra.get(slot.role or "") or extra["head"]
            place = position_in(work, slot, value, readable.name, 1, node.span)
            if place is None:
                return None
            at.append(place)
        spans, known = spans[len(known) - len(own) :], known[len(known) - len(own) :]
    else:
        filled = _current(work, readable, node, context)
        if filled is None:
            return None
        at += filled
    places = _places(work, readable, slots, known, spans)
    return None if places is None else _asked(work, node, readable, at, places, sum(v.size for v in known))


def _current(work: Work, readable: Readable, node: syntax.Call, context: Context) -> list[Expr] | None:
    head = replace(readable, own=(), features=())
    value = read_here(work, head, node.span, context)
    if value is None:
        return None
    return list(value.expr.at) if isinstance(value.expr, Read) else None


def _places(
    work: Work, readable: Readable, slots: tuple[Slot, ...], values: list[Value], spans: list[Span]
) -> list[Place] | None:
    """For every argument: where to read, under which condition, and the groups to go through."""
    places: list[Place] = []
    always = Literal(True)
    for number, (slot, value) in enumerate(zip(slots, values, strict=True)):
        group = slot.group
        if group is not None and value.role in POSITIONS:
            wanted = "query" if group.of == "q" else "key"
            if wanted == "query" and value.role != "query" and not work.equal_lengths:
                expected, found = f"queries or the groups '{group.name}'", index_kind(value)
                work.report(
                    WrongAxis(
                        spans[number], number=number + 1, name=readable.name, expected=expected, found=found
                    )
                )
                return None
            if overlaps(group):
                members = containing(work, group, value.expr)
                places.append((members.position, members.exists, members.axes))
            else:
                index = group_at(group, value.expr)
                places.append((index, has_group(group, index), ()))
            continue
        at = position_in(work, slot, value, readable.name, number + 1, spans[number])
        if at is None:
            return None
        places.append((at, always, ()))
    return places


def _asked(
    work: Work, node: syntax.Call, readable: Readable, leading: list[Expr], places: list[Place], size: int
) -> Value | None:
    at = (*leading, *(place for place, _, _ in places))
    axes = tuple(axis for _, _, through in places for axis in through)
    exists = both(*(condition for _, condition, _ in places))
    chosen: Expr = build("and", exists, Read(readable.source, at, "bool"))
    if axes:
        chosen = Reduce("any", axes, chosen)
    return bounded(work, Value(chosen, "bool", size=size + len(at) + 4), node.span)
