"""Mistakes in what nobody uses: names in definitions and abbreviations that are never written out."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.names import BUILTIN_FUNCTIONS, INDEX_NAMES, ROW_NAMES
from attnlang.elaborate.reductions import DOMAINS, REDUCTIONS
from attnlang.elaborate.values import CONSTANTS, INPUTS
from attnlang.elaborate.work import Work
from attnlang.errors import nearest
from attnlang.errors_meaning import NameTwice, UnknownFunction, UnknownName
from attnlang.ir.pattern import SIZES


def check_unused(work: Work, file: syntax.File) -> None:
    """Names in every definition of the file, and in every `let` without indices that nothing reads."""
    functions = {name for name, each in work.file.functions.items() if not each.node.parameters}
    known = {
        *INDEX_NAMES,
        *ROW_NAMES,
        *CONSTANTS,
        *INPUTS,
        *SIZES,
        *work.groups,
        *functions,
        "scale",
        "q_offset",
    }
    for item in file.items:
        if isinstance(item, syntax.Definition):
            _check_definition(work, item, known)
    for statement in work.pattern.body:
        if isinstance(statement, syntax.Let) and not statement.indices and statement.name not in work.used:
            _check_names(work, statement.value, known | set(work.declared) | _bound_names(work), "")


def _bound_names(work: Work) -> set[str]:
    """The indices that some statement of the pattern binds: an abbreviation may be used there."""
    names: set[str] = set()
    for statement in work.pattern.body:
        match statement:
            case syntax.Let(indices=binders) | syntax.Scan(indices=binders):
                names |= {binder.name for binder in binders}
            case syntax.Select():
                names |= {binder.name for binder in (*statement.indices, *statement.candidates)}
            case syntax.Branch():
                over = () if statement.over is None else (statement.over,)
                names |= {binder.name for binder in (*statement.rows, *over)}
            case _:
                pass
    return names


def _check_definition(work: Work, node: syntax.Definition, known: set[str]) -> None:
    names: set[str] = set()
    for parameter in node.parameters:
        if parameter.name in names:
            first = f"a parameter of '{node.name}'"
            work.report(NameTwice(parameter.span, name=parameter.name, first=first))
        names.add(parameter.name)
    _check_names(work, node.value, known | names, node.name)


def _check_names(work: Work, node: syntax.Expr, known: set[str], definition: str) -> None:
    for part in _names_of(node, known | set(DOMAINS)):
        hint = None
        if definition and part.id in work.declared:
            hint = f"a definition sees its own parameters only: give '{definition}' one for '{part.id}'"
        else:
            found = nearest(part.id, sorted(known))
            hint = f"did you mean '{found}'?" if found else None
        if not _reported(work, part) and part.id not in work.file.functions:
            work.report(UnknownName(part.span, hint, name=part.id))
    functions = [*work.file.functions, *sorted(BUILTIN_FUNCTIONS), *REDUCTIONS]
    functions += [] if definition else list(work.declared)
    for call in _calls_of(node):
        name = call.function.id
        if name not in functions and not _reported(work, call.function):
            found = nearest(name, functions)
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
