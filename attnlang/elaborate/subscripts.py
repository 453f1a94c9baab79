"""Names, `x[i]` and `x.y`: what is read where, statistics of attentions, coordinates, ends of groups."""

from __future__ import annotations

from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import build
from attnlang.elaborate.groups import coordinate, first_of, last_of, size_of
from attnlang.elaborate.names import ROW_NAMES, look_up, of_other_head, report_missing_index
from attnlang.elaborate.reads import index_of, pick, read, read_here
from attnlang.elaborate.values import Abbreviation, Attended, Entity, Group, Merged, Readable, Relation, Value
from attnlang.elaborate.wording import counted, forms, index_kind, written
from attnlang.elaborate.work import Context, Work
from attnlang.errors import nearest
from attnlang.errors_meaning import (
    DependsOnItself,
    IndexNotHere,
    UnknownAttribute,
    WrongAxis,
    WrongIndexCount,
    WrongUse,
)
from attnlang.ir.pattern import ONE, ZERO, Literal
from attnlang.source import Span

STATISTICS = ("w", "lse", "max", "count")


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
    """A state after the current token: zero at queries before the first key, the last one behind the last key."""
    token = context.indices.get("k", context.indices.get("q"))
    if token is None:
        work.report(IndexNotHere(span, name="q", place=context.place))
        return None
    if token.role != "query":
        return read(work, readable, [token], [span], span, context)
    last = build("sub", readable.own[0].size, ONE)
    inside = replace(token, expr=build("max", build("min", token.expr, last), ZERO), role="position")
    value = read(work, readable, [inside], [span], span, context)
    if value is None:
        return None
    held = build("where", build("ge", token.expr, ZERO), value.expr, Literal(0.0))
    return replace(value, expr=held, size=value.size + 8)


def subscript(work: Work, node: syntax.Subscript, context: Context) -> Value | None:
    """`bias[h, n]`, `coarse.w[q, c]`, `s[m]`, `(a + b)[3]`."""
    values = [index_of(work, part, context) for part in node.indices]
    entity = _indexed(work, node.base, context)
    if entity is None or any(value is None for value in values):
        return None
    known = [value for value in values if value is not None]
    spans = [part.span for part in node.indices]
    match entity:
        case Attended(result=readable) | Merged(result=readable):
            return read(work, readable, known, spans, node.span, context)
        case Readable():
            return read(work, entity, known, spans, node.span, context)
        case Relation(readable):
            own = ", ".join(slot.written for slot in readable.own)
            what = "a relation, used like a predicate"
            work.report(WrongUse(node.span, f"write {readable.name}({own})", name=readable.name, what=what))
            return None
        case Value():
            if _is_row(work, node.base, context):
                return _other_head(work, node, known, context)
            return pick(work, entity, written(node.base), known, spans, node.span)
        case Abbreviation() | Group():
            value = as_value(work, entity, node.base, context)
            return None if value is None else pick(work, value, written(node.base), known, spans, node.span)


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
        case Group(name=name):
            report_missing_index(work, name, node.base.span, context)
            return None
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
