"""Parameters: their type, bounds and default."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.arithmetic import build
from attnlang.elaborate.binders import call_context
from attnlang.elaborate.operators import comparison_op
from attnlang.elaborate.values import Value
from attnlang.elaborate.wording import written
from attnlang.elaborate.work import Work
from attnlang.errors import nearest
from attnlang.errors_meaning import WrongParameter
from attnlang.ir.pattern import DType, Literal, Parameter, Symbol

DTYPES: dict[str, DType] = {"bool": "bool", "int": "int", "float": "float"}


def parameter(work: Work, node: syntax.Parameter) -> Value | None:
    """A parameter of the pattern, as a symbol."""
    default = None if node.default is None else _constant(work, node.name, node.default, "default")
    kind = _parameter_kind(work, node, default)
    if kind is None:
        return None
    bounds: list[tuple[str, int | float]] = []
    for operator, bound_node in node.bounds:
        bound = _constant(work, node.name, bound_node, "bound")
        if kind == "bool" or isinstance(bound, bool):
            problem = "a bound is for numbers"
            work.report(WrongParameter(bound_node.span, name=node.name, problem=problem))
        elif bound is not None:
            bounds.append((comparison_op(operator), bound))
    if default is not None and not _default_fits(work, node, kind, default, bounds):
        default = None
    if kind == "float" and default is not None:
        default = float(default)
    work.parameters.append(Parameter(node.name, kind, tuple(bounds), default, node.span))
    return Value(Symbol(node.name, kind), kind)


def _constant(work: Work, name: str, node: syntax.Expr, what: str) -> bool | int | float | None:
    value = work.evaluate(node, call_context(work, f"in the {what} of a parameter"))
    if value is None:
        return None
    if isinstance(value.expr, Literal) and not value.features:
        return value.expr.value
    work.report(
        WrongParameter(node.span, name=name, problem=f"its {what} must be a number, not an expression")
    )
    return None


def _parameter_kind(work: Work, node: syntax.Parameter, default: bool | int | float | None) -> DType | None:
    if node.type is not None:
        kind = DTYPES.get(node.type)
        if kind is None:
            found = nearest(node.type, list(DTYPES))
            hint = f"did you mean '{found}'?" if found else "the types are int, float and bool"
            work.report(
                WrongParameter(node.span, hint, name=node.name, problem=f"unknown type '{node.type}'")
            )
        return kind
    match default:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case None:
            if node.default is None:
                hint = f"write '{node.name}: int' or give it a default"
                problem = "it has neither a type nor a default"
                work.report(WrongParameter(node.span, hint, name=node.name, problem=problem))
            return None


def _default_fits(
    work: Work,
    node: syntax.Parameter,
    kind: DType,
    default: bool | int | float,
    bounds: list[tuple[str, int | float]],
) -> bool:
    place = node.span if node.default is None else node.default.span
    given: DType = "bool" if isinstance(default, bool) else "int" if isinstance(default, int) else "float"
    if given != kind and (kind, given) != ("float", "int"):
        problem = f"its default is {'a condition' if given == 'bool' else f'a {given}'}, its type {kind}"
        work.report(WrongParameter(place, name=node.name, problem=problem))
        return False
    for (operator, bound_node), (op, bound) in zip(node.bounds, bounds, strict=False):
        held = build(op, Literal(default), Literal(bound))
        if isinstance(held, Literal) and not held.value:
            problem = f"its default {written(node.default) if node.default else ''} is not"
            problem += f" {operator} {written(bound_node)}"
            work.report(WrongParameter(place, name=node.name, problem=problem))
            return False
    return True
