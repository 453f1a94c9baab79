"""Calls: built-in functions, relations, and definitions, which are written out at the place of use."""

from __future__ import annotations

from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import both, build, sources_of
from attnlang.elaborate.functions import (
    ELEMENTWISE,
    FORMULAS,
    PLACES,
    elementwise_call,
    extremum,
    formula,
    wrong_count,
)
from attnlang.elaborate.groups import containing, group_at, has_group, overlaps
from attnlang.elaborate.merges import merge_of
from attnlang.elaborate.names import kv_index, look_up, report_unknown_function
from attnlang.elaborate.operators import comparison_op
from attnlang.elaborate.reads import POSITIONS, agree, index_of, position_in, read_here
from attnlang.elaborate.reductions import REDUCTIONS, known_at_call, of_one
from attnlang.elaborate.values import Definition, Entity, Group, Readable, Relation, Slot, Value
from attnlang.elaborate.vectors import bounded
from attnlang.elaborate.wording import counted, described, index_kind, written
from attnlang.elaborate.work import Context, Work
from attnlang.errors import (
    DependsOnItself,
    WrongArguments,
    WrongAxis,
    WrongBlocks,
    WrongInside,
    WrongType,
    WrongUse,
    nearest,
)
from attnlang.ir.pattern import Axis, Expr, Literal, Read, Reduce
from attnlang.source import Span

_DEEPEST = 64


def call(work: Work, node: syntax.Call, context: Context) -> Value | None:
    """Any call in an expression."""
    name = node.function.id
    if not context.inside and name in work.declared and work.declared[name].kind == "select":
        entity = work.entity(name, node.function.span)
        return _relation(work, node, entity.readable, context) if isinstance(entity, Relation) else None
    if name in context.file.functions:
        return expand(work, node, context.file.functions[name], context)
    match name:
        case "block":
            return _block(work, node, context)
        case "merge":
            merged = merge_of(work, node, context, None)
            return None if merged is None else read_here(work, merged.result, node.span, context)
        case _ if name in PLACES:
            _evaluate_all(work, node, context)
            work.report(WrongUse(node.span, PLACES[name], name=name, what="no function of an expression"))
            return None
        case _:
            return _built_in(work, node, context)


def _evaluate_all(work: Work, node: syntax.Call, context: Context) -> list[Value] | None:
    parts = [*node.arguments, *(value for _, value in node.keywords)]
    values = [work.evaluate(part, context) for part in parts]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _built_in(work: Work, node: syntax.Call, context: Context) -> Value | None:
    name = node.function.id
    values = _evaluate_all(work, node, context)
    known = name in ELEMENTWISE or name in FORMULAS or name in REDUCTIONS or name == "g"
    if not known:
        report_unknown_function(work, name, node.function.span, context)
        return None
    if values is None:
        return None
    values = values[: len(node.arguments)]
    if name in ELEMENTWISE:
        return elementwise_call(work, node, values)
    if name in FORMULAS:
        return formula(work, node, values)
    if name == "g":
        return _kv_head(work, node, values)
    if name in ("min", "max") and len(values) > 1 and not node.keywords:
        return extremum(work, node, values)
    if len(values) != 1 or node.keywords:
        return wrong_count(work, node, "1 argument, or '… for i in n'", len(values))
    return of_one(work, name, node, values[0], context)


def _kv_head(work: Work, node: syntax.Call, values: list[Value]) -> Value | None:
    if len(values) != 1 or node.keywords:
        return wrong_count(work, node, "1 argument, a query head", len(values))
    (head,) = values
    if head.features or head.dtype != "int" or head.role not in (None, "head"):
        found = index_kind(head) if head.role else described(head)
        work.report(WrongType(node.arguments[0].span, what="the argument of 'g'", expected="a query head", found=found))
        return None
    return kv_index(work, head)


# ------------------------------------------------------------------------------------- groups and relations


def _block(work: Work, node: syntax.Call, context: Context) -> Value | None:
    if len(node.arguments) not in (1, 2) or node.keywords:
        return wrong_count(work, node, "a position and, where it is not clear, a coarse index", len(node.arguments))
    position = index_of(work, node.arguments[0], context)
    group = _named_group(work, node) if len(node.arguments) == 2 else _only_group(work, node)
    if position is None or group is None:
        return None
    return Value(group_at(group, position.expr), "int", (), None, group, size=position.size + 6)


def _named_group(work: Work, node: syntax.Call) -> Group | None:
    match node.arguments[1]:
        case syntax.Name(name) if name in work.groups:
            group = work.groups[name]
        case other:
            names = ", ".join(work.groups) or "none is declared"
            work.report(WrongBlocks(other.span, f"coarse indices: {names}", problem="this is no coarse index"))
            return None
    if overlaps(group):
        problem = f"the groups '{group.name}' overlap: a position has no single one"
        work.report(WrongBlocks(node.span, problem=problem))
        return None
    return group


def _only_group(work: Work, node: syntax.Call) -> Group | None:
    """The blocking that is meant: of keys before one of queries, and there must be no other of another shape."""
    found = sorted((group for group in work.groups.values() if not overlaps(group)), key=lambda group: group.of == "q")
    if not found:
        hint = "write, for instance, 'blocks c of k by 64'"
        work.report(WrongBlocks(node.span, hint, problem="'block' needs a declared coarse index"))
        return None
    if any(not agree(found[0], other) for other in found[1:]):
        names = ", ".join(group.name for group in found)
        hint = f"name one: block({written(node.arguments[0])}, {found[0].name})"
        work.report(WrongBlocks(node.span, hint, problem=f"the coarse indices {names} differ: which is meant?"))
        return None
    return found[0]


def _relation(work: Work, node: syntax.Call, readable: Readable, context: Context) -> Value | None:
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
        roles = ("batch", "head") if len(known) == len(own) + 2 else tuple(slot.role or "" for slot in leading)
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


Place = tuple[Expr, Expr, tuple[Axis, ...]]


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
                    WrongAxis(spans[number], number=number + 1, name=readable.name, expected=expected, found=found)
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


# --------------------------------------------------------------------------------------------- definitions


def expand(work: Work, node: syntax.Call, definition: Definition, context: Context) -> Value | None:
    """A definition written out: its parameters are its own, its indices those of the place of use."""
    name = node.function.id
    key = f"{definition.file.label}:{name}"
    bound = _bind(work, node, definition, context)
    if key in context.expanding or len(context.expanding) >= _DEEPEST:
        steps = (*context.expanding[context.expanding.index(key) :], key) if key in context.expanding else (key,)
        through = " → ".join(step.rsplit(":", 1)[-1] for step in steps)
        work.report(DependsOnItself(node.span, name=name, through=through))
        return None
    if bound is None:
        return None
    inner = replace(
        context,
        file=definition.file,
        locals=bound,
        inside=name,
        expanding=(*context.expanding, key),
        previous={},
    )
    before = len(work.reports.errors)
    value = work.evaluate(definition.node.value, inner)
    if definition.node.span.source != node.span.source:
        _move_reports(work, node, before)
    return None if value is None else bounded(work, value, node.span)


def _move_reports(work: Work, node: syntax.Call, before: int) -> None:
    """Mistakes that were found inside another file's definition belong to the place of its use."""
    found = work.reports.errors[before:]
    del work.reports.errors[before:]
    for error in found:
        inside = error.span is not None and error.span.source != node.span.source
        if inside:
            work.report(WrongInside(node.span, error.advice or None, name=node.function.id, problem=error.text))
        else:
            work.reports.errors.append(error)


def _bind(work: Work, node: syntax.Call, definition: Definition, context: Context) -> dict[str, Entity] | None:
    parameters = definition.node.parameters
    names = [parameter.name for parameter in parameters]
    given: dict[str, syntax.Expr] = dict(zip(names, node.arguments, strict=False))
    fine = True
    for keyword, value in node.keywords:
        if keyword not in names or keyword in given:
            problem = f"the named {keyword} twice" if keyword in given else f"the unknown {keyword}"
            found = nearest(keyword, names)
            hint = f"did you mean '{found}'?" if found and keyword not in given else None
            expected = _signature(names)
            work.report(WrongArguments(value.span, hint, name=node.function.id, expected=expected, given=problem))
            fine = False
        given.setdefault(keyword, value)
    missing = [p.name for p in parameters if p.name not in given and p.default is None]
    if len(node.arguments) > len(names) or missing:
        found = counted(len(node.arguments), "argument") if node.arguments else "none"
        hint = f"'{missing[0]}' is missing" if missing else None
        work.report(
            WrongArguments(node.span, hint, name=node.function.id, expected=_signature(names), given=found)
        )
        fine = False
    bound: dict[str, Entity] = {}
    own = replace(context, file=definition.file, locals={}, inside=node.function.id, previous={})
    for parameter in parameters:
        argument, place = given.get(parameter.name), context
        if argument is None:
            argument, place = parameter.default, own
        if argument is None:
            continue
        entity = _argument(work, argument, parameter, place, node.function.id)
        if entity is None:
            fine = False
        else:
            bound[parameter.name] = entity
    for surplus in node.arguments[len(names) :]:
        work.evaluate(surplus, context)
    return bound if fine else None


def _signature(names: list[str]) -> str:
    return f"{counted(len(names), 'argument')} ({', '.join(names)})" if names else "no arguments"


def _argument(
    work: Work, node: syntax.Expr, parameter: syntax.Parameter, context: Context, name: str
) -> Entity | None:
    """A tensor is handed on by its name; everything else by its value."""
    if isinstance(node, syntax.Name) and parameter.type is None:
        entity = look_up(work, node.id, node.span, context)
        if entity is None or (isinstance(entity, Readable) and entity.own):
            return entity
    value = work.evaluate(node, context)
    if value is None:
        return None
    allowed = {"int": ("int",), "float": ("int", "float"), "bool": ("bool",)}
    if parameter.type is not None and (value.dtype not in allowed[parameter.type] or value.features):
        expected = {"int": "an int", "float": "a number", "bool": "a condition"}[parameter.type]
        what = f"the argument '{parameter.name}' of '{name}'"
        work.report(WrongType(node.span, what=what, expected=expected, found=described(value)))
        return None
    return value if _within_bounds(work, node, value, parameter, context, name) else None


def _within_bounds(
    work: Work, node: syntax.Expr, value: Value, parameter: syntax.Parameter, context: Context, name: str
) -> bool:
    """Bounds of a definition's parameter are checked at once, or become a requirement of the call."""
    for operator, bound_node in parameter.bounds:
        bound = work.evaluate(bound_node, context)
        if bound is None:
            return False
        condition = build(comparison_op(operator), value.expr, bound.expr)
        text = f"{written(node)} {operator} {written(bound_node)}"
        if isinstance(condition, Literal) and condition.value is False:
            given = f"{parameter.name} = {written(node)}"
            expected = f"{parameter.name} {operator} {written(bound_node)}"
            work.report(WrongArguments(node.span, name=name, expected=expected, given=given))
            return False
        if known_at_call(condition) and not sources_of(condition):
            work.require(condition, text, node.span)
    return True


