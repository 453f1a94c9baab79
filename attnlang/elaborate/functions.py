"""The built-in functions, one row each: elementwise operations and small formulas of them."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.names import BUILTIN_FUNCTIONS
from attnlang.elaborate.reductions import REDUCTIONS
from attnlang.elaborate.values import Value
from attnlang.elaborate.vectors import elementwise, outer, product
from attnlang.elaborate.wording import counted, described
from attnlang.elaborate.work import Work
from attnlang.errors_meaning import WrongArguments, WrongShape, WrongType
from attnlang.ir.pattern import ZERO
from attnlang.source import Span

_ZERO = Value(ZERO, "int")

# name -> operation of one number
ELEMENTWISE: dict[str, str] = {
    name: name
    for name in (
        "exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "sin", "cos", "tanh", "sigmoid",
        "softplus", "erf", "atan", "floor", "ceil", "round", "abs", "sign", "int", "float", "detach",
    )
} | {"ln": "log"}  # fmt: skip

# name -> how its arguments are called in reports
FORMULAS: dict[str, tuple[str, ...]] = {
    "relu": ("x",),
    "elu": ("x",),
    "clip": ("x", "low", "high"),
    "where": ("condition", "then", "otherwise"),
    "outer": ("a", "b"),
    "norm": ("vector",),
}

# names that are understood in one place only, and what that place is
PLACES: dict[str, str] = {
    "group": "group(h) stands behind 'in': sum(… for m in group(h))",
    "groups": "groups(c) stands behind 'in': sum(… for j in groups(c))",
    "top": "top(m) stands in select and in normalize",
    "mass": "mass(p) is a rule of select",
    "above": "above(x) is a rule of select",
    "sparsemax": "sparsemax is a step of normalize",
    "entmax": "entmax(alpha) is a step of normalize",
    "sinkhorn": "sinkhorn(n) is a step of normalize",
}

BUILTIN_FUNCTIONS.update((*ELEMENTWISE, *FORMULAS, *PLACES, *REDUCTIONS, "min", "max", "block", "merge", "g"))


def elementwise_call(work: Work, node: syntax.Call, values: list[Value]) -> Value | None:
    """`exp(x)` and its like."""
    name = node.function.id
    if len(values) != 1 or node.keywords:
        return wrong_count(work, node, "1 argument", len(values))
    (value,) = values
    if name in ("floor", "ceil", "round", "int") and value.dtype == "int":
        return value
    if name == "detach" and value.dtype != "float":
        return value
    return elementwise(work, ELEMENTWISE[name], node.span, [value], [node.arguments[0].span])


def extremum(work: Work, node: syntax.Call, values: list[Value]) -> Value | None:
    """`max(a, b)`, `min(a, b, c)`."""
    op = node.function.id
    result: Value | None = values[0]
    spans = [argument.span for argument in node.arguments]
    for number, value in enumerate(values[1:], 1):
        if result is None:
            return None
        result = elementwise(work, op, node.span, [result, value], [spans[0], spans[number]])
    return result


def formula(work: Work, node: syntax.Call, values: list[Value]) -> Value | None:
    """The functions that are made of several operations."""
    name = node.function.id
    if len(values) != len(FORMULAS[name]) or node.keywords:
        expected = f"{counted(len(FORMULAS[name]), 'argument')} ({', '.join(FORMULAS[name])})"
        return wrong_count(work, node, expected, len(values))
    spans = [argument.span for argument in node.arguments]
    match name:
        case "relu":
            return elementwise(work, "max", node.span, [values[0], _ZERO], [spans[0], spans[0]])
        case "elu":
            return _elu(work, node.span, values[0], spans[0])
        case "clip":
            above = elementwise(work, "max", node.span, values[:2], spans[:2])
            if above is None:
                return None
            return elementwise(work, "min", node.span, [above, values[2]], [spans[0], spans[2]])
        case "where":
            return elementwise(work, "where", node.span, values, spans)
        case "outer":
            return outer(work, node.span, values[0], values[1])
        case "norm":
            return _norm(work, node.span, values[0], spans[0])
        case _:
            raise ValueError(name)


def _elu(work: Work, span: Span, value: Value, place: Span) -> Value | None:
    if value.dtype == "bool":
        work.report(WrongType(place, what="the argument of 'elu'", expected="a number", found="a condition"))
        return None
    positive = elementwise(work, "gt", span, [value, _ZERO], [place, place])
    if positive is None:
        return None
    below = elementwise(work, "where", span, [positive, _ZERO, value], [place, place, place])
    if below is None:
        return None
    smooth = elementwise(work, "expm1", span, [below], [place])
    return (
        None if smooth is None else elementwise(work, "where", span, [positive, value, smooth], [place] * 3)
    )


def _norm(work: Work, span: Span, value: Value, place: Span) -> Value | None:
    if len(value.features) != 1:
        work.report(
            WrongShape(place, what="the argument of 'norm'", expected="a vector", found=described(value))
        )
        return None
    squared = product(work, span, value, value, (place, place))
    return None if squared is None else elementwise(work, "sqrt", span, [squared], [place])


def wrong_count(work: Work, node: syntax.Call, expected: str, given: int) -> None:
    """A call with too few or too many arguments, or with a named one that is unknown."""
    found = counted(given, "argument") if given else "none"
    if node.keywords:
        found += f" and the named {', '.join(name for name, _ in node.keywords)}"
    work.report(WrongArguments(node.span, name=node.function.id, expected=expected, given=found))
