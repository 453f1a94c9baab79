"""Reading: tensors, tables, results and statistics by their indices; coordinates, ends of groups."""

from __future__ import annotations

from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import build, rename
from attnlang.elaborate.groups import coordinate, first_of, last_of, size_of
from attnlang.elaborate.names import ROW_NAMES, kv_index, look_up, of_other_head, report_missing_index
from attnlang.elaborate.values import (
    INPUTS,
    Abbreviation,
    Attended,
    Entity,
    Group,
    Merged,
    Readable,
    Relation,
    Slot,
    Uniform,
    Value,
)
from attnlang.elaborate.wording import counted, described, forms, index_kind, slot_kind, written
from attnlang.elaborate.work import Context, Work
from attnlang.errors import (
    DependsOnItself,
    IndexNotHere,
    IndexOutOfRange,
    UnknownAttribute,
    WrongAxis,
    WrongIndexCount,
    WrongRecurrence,
    WrongType,
    WrongUse,
    nearest,
)
from attnlang.ir.pattern import QUERY, ZERO, Axis, Expr, Index, Literal, Read
from attnlang.source import Span

POSITIONS = ("query", "key", "position")
STATISTICS = ("w", "lse", "max", "count")


# --------------------------------------------------------------------------------------------------- names


def name_value(work: Work, node: syntax.Name, context: Context) -> Value | None:
    """A bare name as a value."""
    return as_value(work, look_up(work, node.id, node.span, context), node, context)


def as_value(work: Work, entity: Entity | None, node: syntax.Expr, context: Context) -> Value | None:
    """The entity where a value is needed: results and abbreviations become values, a relation is an error."""
    match entity:
        case None | Value():
            return entity
        case Abbreviation(name, value):
            if name and name in context.expanding:
                through = " → ".join((*context.expanding, name))
                work.report(DependsOnItself(node.span, name=name, through=through))
                return None
            expanding = (*context.expanding, name) if name else context.expanding
            return work.evaluate(value, replace(context, locals={}, expanding=expanding))
        case Relation(readable):
            own = ", ".join(slot.written for slot in readable.own)
            what = "a relation, used like a predicate"
            work.report(WrongUse(node.span, f"write {readable.name}({own})", name=readable.name, what=what))
            return None
        case Group(name=name):
            report_missing_index(work, name, node.span, context)
            return None
        case Readable():
            return _read_bare(work, entity, node.span, context)
        case Attended(result=readable) | Merged(result=readable):
            return read_here(work, readable, node.span, context)


def _read_bare(work: Work, readable: Readable, span: Span, context: Context) -> Value | None:
    if readable.after:
        return _state_here(work, readable, span, context)
    if readable.omit or not readable.own:
        return read(work, readable, [], [], span, context)
    work.report(WrongIndexCount(span, name=readable.name, expected=forms(readable), given="none"))
    return None


def _state_here(work: Work, readable: Readable, span: Span, context: Context) -> Value | None:
    """A state after the current token: zero at queries before the first key."""
    token = context.indices.get("k", context.indices.get("q"))
    if token is None:
        work.report(IndexNotHere(span, name="q", place=context.place))
        return None
    value = read(work, readable, [token], [span], span, context)
    if value is None or token.role != "query":
        return value
    held = build("where", build("ge", token.expr, ZERO), value.expr, Literal(0.0))
    return replace(value, expr=held, size=value.size + 4)


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


# ---------------------------------------------------------------------------------------------- subscripts


def subscript(work: Work, node: syntax.Subscript, context: Context) -> Value | None:
    """`bias[h, n]`, `coarse.w[q, c]`, `s[m]`, `(a + b)[3]`."""
    values = [index_of(work, part, context) for part in node.indices]
    entity = _indexed(work, node.base, context)
    if entity is None or any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    spans = [part.span for part in node.indices]
    match entity:
        case Attended(result=readable) | Merged(result=readable) | Readable() as readable:
            return read(work, readable, known, spans, node.span, context)
        case Relation(readable):
            own = ", ".join(slot.written for slot in readable.own)
            what = "a relation, used like a predicate"
            work.report(WrongUse(node.span, f"write {readable.name}({own})", name=readable.name, what=what))
            return None
        case Value():
            if _is_row(work, node.base, context):
                return _other_head(work, node, known, context)
            return _pick(work, entity, written(node.base), known, spans, node.span)
        case Abbreviation() | Group():
            value = as_value(work, entity, node.base, context)
            return None if value is None else _pick(work, value, written(node.base), known, spans, node.span)


def _indexed(work: Work, base: syntax.Expr, context: Context) -> Entity | None:
    match base:
        case syntax.Name(name):
            return look_up(work, name, base.span, context)
        case syntax.Attribute(syntax.Name(name), attribute):
            entity = look_up(work, name, base.base.span, context)
            if isinstance(entity, Attended | Merged):
                return statistic(work, entity, name, attribute, base.span)
            return None if entity is None else work.evaluate(base, context)
        case _:
            return work.evaluate(base, context)


def _is_row(work: Work, base: syntax.Expr, context: Context) -> bool:
    if not isinstance(base, syntax.Name) or base.id not in ROW_NAMES or context.row is None:
        return False
    hidden = base.id in context.locals or base.id in context.indices
    return not hidden and (bool(context.inside) or base.id not in work.declared)


def _other_head(work: Work, node: syntax.Subscript, values: list[Value], context: Context) -> Value | None:
    row = context.row
    name = written(node.base)
    if row is None or name == "count" or len(values) != 1:
        given = counted(len(values), "index", "indices")
        expected = "count" if name == "count" else f"{name}[m], the value of another head"
        work.report(WrongIndexCount(node.span, name=name, expected=expected, given=given))
        return None
    (head,) = values
    if head.role not in (None, "head"):
        found = index_kind(head)
        work.report(WrongAxis(node.indices[0].span, number=1, name=name, expected="query heads", found=found))
        return None
    return Value(of_other_head(row, head, row.source), "float", size=len(row.axes) + head.size)


def _pick(
    work: Work, value: Value, name: str, values: list[Value], spans: list[Span], span: Span
) -> Value | None:
    if not value.features or len(values) > len(value.features):
        expected = described(value)
        given = counted(len(values), "index", "indices")
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


# --------------------------------------------------------------------------------------------------- reads


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
        kept = [value for value, role in zip(values[:2], ("batch", "head"), strict=True) if _has(readable, role)]
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
    features = readable.features + _features(work, omitted)
    at = (*places, *(Index(axis) for axis in features))
    size = 1 + len(features) + sum(value.size for value in values)
    whole = Value(Read(readable.source, at, readable.dtype), readable.dtype, features, size=size)
    if not picks:
        return whole
    return _pick(work, whole, readable.name, picks, spans[len(slots) :], span)


def _features(work: Work, omitted: tuple[Slot, ...]) -> tuple[Axis, ...]:
    made: list[Axis] = []
    for slot in omitted:
        copies = sum(1 for axis in made if axis.size == slot.size)
        made.append(work.feature_axis(slot.size, copies))
    return tuple(made)


def _may_omit(work: Work, readable: Readable, omitted: tuple[Slot, ...], given: int, span: Span) -> bool:
    if len(omitted) <= 2 and all(slot.may_be_feature for slot in omitted):
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


def position_in(work: Work, slot: Slot, value: Value, name: str, number: int, span: Span) -> Expr | None:
    """Where the index lies in an axis that is stored from 0, after a look at what it counts."""
    expr = value.expr
    if slot.role == "kv_head" and value.role == "head" and name not in work.declared:
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
    if slot.role in ("key", "position") and value.expr == Index(QUERY):
        work.reads_ahead = work.reads_ahead or span
    return build("sub", expr, slot.start)


def fits(work: Work, slot: Slot, value: Value, name: str) -> bool:
    """Whether an index may stand at an axis: plain ints fit everywhere, others where the axis is theirs."""
    if slot.group is not None or value.group is not None:
        plain = (value.role is None and value.group is None) or (slot.role in (None, "range") and slot.group is None)
        return plain or (slot.group is not None and value.group is not None and agree(slot.group, value.group))
    if value.role is None or slot.role in (None, "range", "group"):
        return True
    if slot.role == "query" and value.role in ("key", "position"):
        return work.equal_lengths
    if slot.role == "key" and value.role == "query":
        return work.equal_lengths or name in INPUTS
    if slot.role in POSITIONS and value.role in POSITIONS:
        return True
    return slot.role == value.role


def agree(left: Group, right: Group) -> bool:
    """Whether two coarse indices number the groups alike."""
    if left.name == right.name:
        return True
    return isinstance(left.shape, Uniform) and left.shape == right.shape


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


# ---------------------------------------------------------------------------------------------- attributes


def attribute(work: Work, node: syntax.Attribute, context: Context) -> Value | None:
    """`q.t`, `c.first`, `coarse.lse`."""
    entity: Entity | None
    if isinstance(node.base, syntax.Name):
        entity = look_up(work, node.base.id, node.base.span, context)
    else:
        entity = work.evaluate(node.base, context)
    match entity:
        case None:
            return None
        case Value(group=Group() as group):
            return _group_attribute(work, node, entity, group)
        case Value(role="query" | "key" | "position"):
            return _coordinate(work, node, entity)
        case Attended() | Merged():
            readable = statistic(work, entity, written(node.base), node.name, node.span)
            return None if readable is None else read_here(work, readable, node.span, context)
        case _:
            work.report(UnknownAttribute(node.span, base=written(node.base), name=node.name))
            return None


def statistic(work: Work, entity: Attended | Merged, name: str, which: str, span: Span) -> Readable | None:
    """What an attention keeps per row."""
    rows = entity.result
    has_lse = not isinstance(entity, Attended) or entity.has_lse
    if which == "lse" and not has_lse:
        hint = "only a softmax, whose weights begin with exp(s), has one"
        work.report(UnknownAttribute(span, hint, base=name, name=which))
        return None
    allowed = STATISTICS if isinstance(entity, Attended) else ("lse",)
    if which not in allowed:
        found = nearest(which, list(allowed))
        hint = f"did you mean '{found}'?" if found else f"it has {', '.join(allowed)}"
        work.report(UnknownAttribute(span, hint, base=name, name=which))
        return None
    if which == "w" and isinstance(entity, Attended):
        return entity.weights
    dtype = "int" if which == "count" else "float"
    shown = f"{rows.name}.{which}"
    return replace(rows, name=shown, source=f"{rows.source}.{which}", features=(), dtype=dtype)


def _group_attribute(work: Work, node: syntax.Attribute, index: Value, group: Group) -> Value | None:
    role = "query" if group.of == "q" else "key" if group.of == "k" else "position"
    match node.name:
        case "first":
            return Value(first_of(group, index.expr), "int", (), role, size=index.size + 6)
        case "last":
            return Value(last_of(group, index.expr), "int", (), role, size=index.size + 10)
        case "size":
            return Value(size_of(work, group, index.expr), "int", size=2 * index.size + 16)
        case _:
            hint = "a coarse index has first, last and size"
            work.report(UnknownAttribute(node.span, hint, base=written(node.base), name=node.name))
            return None


def _coordinate(work: Work, node: syntax.Attribute, position: Value) -> Value | None:
    for grid in work.grids:
        if any(node.name == name for name, _ in grid.extents):
            return Value(coordinate(grid, node.name, position.expr), "int", size=position.size + 6)
    names = [name for grid in work.grids for name, _ in grid.extents]
    if not names:
        hint = "coordinates come from a grid: 'grid q, k as (y: height, x: width)'"
    else:
        found = nearest(node.name, names)
        hint = f"did you mean '{found}'?" if found else f"the grid has {', '.join(names)}"
    work.report(UnknownAttribute(node.span, hint, base=written(node.base), name=node.name))
    return None
