"""Mistakes in what nobody uses: names in definitions that are never written out."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.names import BUILTIN_FUNCTIONS, INDEX_NAMES, ROW_NAMES
from attnlang.elaborate.reductions import DOMAINS, REDUCTIONS
from attnlang.elaborate.values import CONSTANTS, INPUTS
from attnlang.elaborate.work import Context, Work
from attnlang.errors import NameTwice, UnknownFunction, UnknownName, nearest
from attnlang.ir.pattern import SIZES


def check_unused(work: Work, file: syntax.File) -> None:
    """Every definition of the file: its parameters are different, its names are known somewhere."""
    for item in file.items:
        if isinstance(item, syntax.Definition):
            _check_definition(work, item)


def _check_definition(work: Work, node: syntax.Definition) -> None:
    names: dict[str, syntax.Parameter] = {}
    for parameter in node.parameters:
        if parameter.name in names:
            first = f"a parameter of '{node.name}'"
            work.report(NameTwice(parameter.span, name=parameter.name, first=first))
        names[parameter.name] = parameter
    known = {*names, *INDEX_NAMES, *ROW_NAMES, *CONSTANTS, *INPUTS, *SIZES, "scale", "q_offset", *work.groups}
    known |= {name for name, definition in work.file.functions.items() if not definition.node.parameters}
    inside = Context("in a definition", {}, work.file, inside=node.name)
    for part in _names_of(node.value, known | set(work.file.functions)):
        if part.id in DOMAINS:
            continue
        found = nearest(part.id, sorted(known))
        hint = f"did you mean '{found}'?" if found else None
        if part.id in work.declared:
            hint = f"a definition sees its own parameters only: give '{inside.inside}' one for '{part.id}'"
        elif found in names:
            hint = f"did you mean '{found}'? (parameter of '{node.name}')"
        if not _reported(work, part):
            work.report(UnknownName(part.span, hint, name=part.id))
    for call in _calls_of(node.value):
        name = call.function.id
        if name not in work.file.functions and name not in BUILTIN_FUNCTIONS and name not in REDUCTIONS:
            found = nearest(name, [*work.file.functions, *BUILTIN_FUNCTIONS])
            if not _reported(work, call.function):
                hint = f"did you mean '{found}'?" if found else None
                work.report(UnknownFunction(call.function.span, hint, name=name))


def _reported(work: Work, node: syntax.Expr) -> bool:
    return any(error.span == node.span for error in work.reports.errors)


def _names_of(node: syntax.Expr, known: set[str]) -> list[syntax.Name]:
    """The names in an expression that are not known, in the order they stand."""
    match node:
        case syntax.Name(name):
            return [] if name in known else [node]
        case syntax.Reduction(_, body, variable, domain, condition):
            inner = known | {variable}
            found = _names_of(domain, known) + _names_of(body, inner)
            return found + (_names_of(condition, inner) if condition is not None else [])
        case _:
            return [name for part in parts_of(node) for name in _names_of(part, known)]


def _calls_of(node: syntax.Expr) -> list[syntax.Call]:
    found = [node] if isinstance(node, syntax.Call) else []
    return found + [call for part in parts_of(node) for call in _calls_of(part)]


def parts_of(node: syntax.Expr) -> tuple[syntax.Expr, ...]:
    """The direct subexpressions; the names of functions are none."""
    match node:
        case syntax.Attribute(base, _):
            return (base,)
        case syntax.Subscript(base, indices):
            return (base, *indices)
        case syntax.Call(_, arguments, keywords):
            return (*arguments, *(value for _, value in keywords))
        case syntax.Reduction(_, body, _, domain, condition):
            return (body, domain) if condition is None else (body, domain, condition)
        case syntax.Unary(_, operand):
            return (operand,)
        case syntax.Binary(_, left, right):
            return (left, right)
        case syntax.Comparison(first, rest):
            return (first, *(part for _, part in rest))
        case syntax.Logical(_, operands):
            return operands
        case syntax.Conditional(condition, then, otherwise):
            return (condition, then, otherwise)
        case syntax.Number() | syntax.Boolean() | syntax.Name():
            return ()
