"""Definitions, written out at the place of use: their parameters are their own, their indices those of the place."""

from __future__ import annotations

from dataclasses import replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import build, sources_of
from attnlang.elaborate.names import look_up
from attnlang.elaborate.operators import comparison_op
from attnlang.elaborate.reductions import known_at_call
from attnlang.elaborate.values import Definition, Entity, Readable, Value
from attnlang.elaborate.vectors import bounded
from attnlang.elaborate.wording import counted, described, written
from attnlang.elaborate.work import Context, Work
from attnlang.errors import nearest
from attnlang.errors_meaning import DependsOnItself, WrongArguments, WrongInside, WrongType
from attnlang.ir.pattern import Literal

_DEEPEST = 64


def expand(work: Work, node: syntax.Call, definition: Definition, context: Context) -> Value | None:
    """A definition written out: its parameters are its own, its indices those of the place of use."""
    name = node.function.id
    key = f"{definition.file.label}:{name}"
    bound = _bind(work, node, definition, context)
    if key in context.expanding or len(context.expanding) >= _DEEPEST:
        steps = (
            (*context.expanding[context.expanding.index(key) :], key) if key in context.expanding else (key,)
        )
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
            work.report(
                WrongInside(node.span, error.advice or None, name=node.function.id, problem=error.text)
            )
        else:
            work.reports.errors.append(error)


def _bind(
    work: Work, node: syntax.Call, definition: Definition, context: Context
) -> dict[str, Entity] | None:
    parameters = definition.node.parameters
    names = [parameter.name for parameter in parameters]
    given: dict[str, syntax.Expr] = dict(zip(names, node.arguments, strict=False))
    fine = True
    for keyword, value in node.keywords:
        if keyword not in names or keyword in given:
            problem = f"'{keyword}' twice" if keyword in given else f"the unknown '{keyword}'"
            found = nearest(keyword, names)
            hint = f"did you mean '{found}'?" if found and keyword not in given else None
            expected = _signature(names)
            work.report(
                WrongArguments(value.span, hint, name=node.function.id, expected=expected, given=problem)
            )
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
