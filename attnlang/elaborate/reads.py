"""Reading tensors and stages by their indices; batch and head are filled in where they are left out."""

from __future__ import annotations

from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import build, rename
from attnlang.elaborate.names import kv_index
from attnlang.elaborate.positions import position_in
from attnlang.elaborate.values import Readable, Slot, Value
from attnlang.elaborate.wording import counted, described, forms
from attnlang.elaborate.work import Context, Work
from attnlang.errors_meaning import IndexNotHere, WrongIndexCount, WrongRecurrence, WrongType, WrongUse
from attnlang.ir.pattern import Axis, Expr, Index, Literal, Read
from attnlang.source import Span


def read_here(work: Work, readable: Readable, span: Span, context: Context) -> Value | None:
    """At the current value of every index of its rows."""
    values: list[Value] = []
    for slot in readable.own:
        if slot.written not in context.indices:
            own = ", ".join(slot.written for slot in readable.own)
            hint = f"'{readable.name}' has a value per {own}: write {readable.name}[…]"
            work.report(IndexNotHere(span, hint, name=slot.written, place=context.place))
            return None
        values.append(context.indices[slot.written])
    return read(work, readable, values, [span] * len(values), span, context)


def index_of(work: Work, node: syntax.Expr, context: Context) -> Value | None:
    """An expression in index position: one int."""
    value = work.evaluate(node, context)
    if value is None:
        return None
    if value.features or value.dtype != "int":
        hint = "int(…), floor(…) or // make an int" if value.dtype == "float" and not value.features else None
        work.report(WrongType(node.span, hint, what="an index", expected="an int", found=described(value)))
        return None
    return value


def read(
    work: Work, readable: Readable, values: list[Value], spans: list[Span], span: Span, context: Context
) -> Value | None:
    """The element or vector at some indices, leading ones filled in where they are left out."""
    given, own, leading = len(values), len(readable.own), len(readable.leading)
    picks: list[Value] = []
    omitted: tuple[Slot, ...] = ()
    if given == own or (readable.omit and given < own):
        filled = _fill(work, readable, span, context)
        omitted = readable.own[given:]
        if filled is None or not _may_omit(work, readable, omitted, given, span):
            return None
        slots = readable.leading + readable.own[:given]
        values, spans = filled + values, [span] * leading + spans
    elif given > own and leading + own <= given <= leading + own + len(readable.features):
        slots = readable.leading + readable.own
        values, picks = values[: leading + own], values[leading + own :]
    elif leading < 2 and given == 2 + own and _begins_with_head(values, readable):
        kept = [
            value for value, role in zip(values[:2], ("batch", "head"), strict=True) if _has(readable, role)
        ]
        slots, spans = readable.leading + readable.own, [span] * leading + spans[2:]
        values = kept + values[2:]
    else:
        count = counted(given, "index", "indices")
        work.report(WrongIndexCount(span, name=readable.name, expected=forms(readable), given=count))
        return None
    return _element(work, readable, slots, values, picks, omitted, spans, span)


def _element(
    work: Work,
    readable: Readable,
    slots: tuple[Slot, ...],
    values: list[Value],
    picks: list[Value],
    omitted: tuple[Slot, ...],
    spans: list[Span],
    span: Span,
) -> Value | None:
    places: list[Expr] = []
    for number, (slot, value) in enumerate(zip(slots, values, strict=True)):
        at = position_in(work, slot, value, readable.name, number + 1, spans[number])
        if at is None:
            return None
        places.append(at)
    if readable.token is not None:
        before = build("sub", Index(readable.token), Literal(1))
        if values[-1].expr != before:
            name, token = readable.name, readable.token.name
            problem = f"a scan reads itself at the token before: {name}[{token} - 1]"
            work.report(WrongRecurrence(span, problem=problem))
            return None
        places.pop()
    features = _features(work, omitted, readable.features) + readable.features
    at = (*places, *(Index(axis) for axis in features))
    size = 1 + len(features) + sum(value.size for value in values)
    whole = Value(Read(readable.source, at, readable.dtype), readable.dtype, features, size=size)
    if not picks:
        return whole
    return pick(work, whole, readable.name, picks, spans[len(slots) :], span)


def _features(work: Work, omitted: tuple[Slot, ...], others: tuple[Axis, ...]) -> tuple[Axis, ...]:
    made: list[Axis] = []
    for slot in omitted:
        copies = sum(1 for axis in (*others, *made) if axis.size == slot.size)
        made.append(work.feature_axis(slot.size, copies))
    return tuple(made)


def _may_omit(work: Work, readable: Readable, omitted: tuple[Slot, ...], given: int, span: Span) -> bool:
    if len(omitted) + len(readable.features) <= 2 and all(slot.may_be_feature for slot in omitted):
        return True
    count = counted(given, "index", "indices") if given else "none"
    hint = "only features at the end may be left out, which gives a vector" if given else None
    work.report(WrongIndexCount(span, hint, name=readable.name, expected=forms(readable), given=count))
    return False


def _fill(work: Work, readable: Readable, span: Span, context: Context) -> list[Value] | None:
    filled: list[Value] = []
    for slot in readable.leading:
        name = {"batch": "b", "head": "h", "kv_head": "g"}[slot.role or ""]
        if name == "g" and "g" not in context.indices and "h" in context.indices:
            filled.append(kv_index(work, context.indices["h"]))
        elif name in context.indices:
            filled.append(context.indices[name])
        else:
            hint = f"write its indices out: {forms(readable).split(' or ')[-1]}"
            work.report(IndexNotHere(span, hint, name=name, place=context.place))
            return None
    return filled


def _begins_with_head(values: list[Value], readable: Readable) -> bool:
    plain = all(slot.role not in ("batch", "head", "kv_head") for slot in readable.own)
    return plain and values[0].role == "batch" and values[1].role in ("head", "kv_head")


def _has(readable: Readable, role: str) -> bool:
    roles = [slot.role for slot in readable.leading]
    return role in roles or (role == "head" and "kv_head" in roles)


def pick(
    work: Work, value: Value, name: str, values: list[Value], spans: list[Span], span: Span
) -> Value | None:
    if not value.features:
        work.report(WrongUse(span, name=name, what=f"{described(value)}, and has no indices"))
        return None
    if len(values) > len(value.features):
        given = counted(len(values), "index", "indices")
        expected = f"{name}[{', '.join('ij'[: len(value.features)])}]"
        work.report(WrongIndexCount(span, name=name, expected=expected, given=given))
        return None
    changes: dict[Axis, Expr] = {}
    for number, (axis, picked, place) in enumerate(zip(value.features, values, spans, strict=False)):
        slot = Slot(axis.name, axis.size, axis.role)
        at = position_in(work, slot, picked, name, number + 1, place)
        if at is None:
            return None
        changes[axis] = at
    size = value.size + sum(picked.size for picked in values)
    return replace(value, expr=rename(value.expr, changes), features=value.features[len(values) :], size=size)
