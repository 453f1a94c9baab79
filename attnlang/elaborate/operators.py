"""Operators and conditionals."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.values import Value
from attnlang.elaborate.vectors import elementwise, product
from attnlang.elaborate.wording import described
from attnlang.elaborate.work import Context, Work
from attnlang.errors_meaning import WrongType
from attnlang.ir.pattern import Literal
from attnlang.source import Span

_BINARY = {"+": "add", "-": "sub", "*": "mul", "/": "div", "//": "floordiv", "mod": "mod", "**": "pow"}
_COMPARE = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}


def comparison_op(operator: str) -> str:
    """`<=` -> `le`."""
    return _COMPARE[operator]


def unary(work: Work, node: syntax.Unary, context: Context) -> Value | None:
    """`-x`, `+x`, `not x`."""
    value = work.evaluate(node.operand, context)
    if value is None or node.operator == "+":
        return value
    op = "not" if node.operator == "not" else "neg"
    return elementwise(work, op, node.span, [value], [node.operand.span])


def binary(work: Work, node: syntax.Binary, context: Context) -> Value | None:
    """`+ - * / // mod ** @`."""
    left, right = work.evaluate(node.left, context), work.evaluate(node.right, context)
    if left is None or right is None:
        return None
    spans = (node.left.span, node.right.span)
    if node.operator == "@":
        return product(work, node.span, left, right, spans)
    if node.operator in ("//", "mod") and right.expr == Literal(0):
        what = f"the divisor of '{node.operator}'"
        work.report(WrongType(node.right.span, what=what, expected="another number than 0", found="0"))
        return None
    return elementwise(work, _BINARY[node.operator], node.span, [left, right], list(spans))


def comparison(work: Work, node: syntax.Comparison, context: Context) -> Value | None:
    """`a <= b < c`: all of its comparisons hold."""
    nodes = [node.first, *(part for _, part in node.rest)]
    values = [work.evaluate(part, context) for part in nodes]
    result: Value | None = None
    failed = False
    for number, (operator, _) in enumerate(node.rest):
        left, right = values[number], values[number + 1]
        if left is None or right is None:
            failed = True
            continue
        spans = [nodes[number].span, nodes[number + 1].span]
        made = elementwise(work, _COMPARE[operator], spans[0].to(spans[1]), [left, right], spans)
        failed = failed or made is None
        if made is not None:
            result = made if result is None else _both(work, node.span, result, made)
    return None if failed else result


def _both(work: Work, span: Span, left: Value, right: Value) -> Value | None:
    return elementwise(work, "and", span, [left, right], [span, span])


def logical(work: Work, node: syntax.Logical, context: Context) -> Value | None:
    """`a and b and c`, `a or b`."""
    parts = [(work.evaluate(part, context), part.span) for part in node.operands]
    return _joined(work, node.operator, parts)


def _joined(work: Work, operator: str, parts: list[tuple[Value | None, Span]]) -> Value | None:
    """The parts joined from the left; many of them as a tree, so that nothing nests deep."""
    if len(parts) == 1:
        return parts[0][0]
    middle = len(parts) - 1 if len(parts) <= 16 else len(parts) // 2
    left, right = _joined(work, operator, parts[:middle]), _joined(work, operator, parts[middle:])
    if left is None or right is None:
        return None
    spans = [parts[0][1].to(parts[middle - 1][1]), parts[middle][1].to(parts[-1][1])]
    if middle == 1:
        spans[0] = parts[0][1]
    if middle == len(parts) - 1:
        spans[1] = parts[-1][1]
    return elementwise(work, operator, spans[0].to(spans[1]), [left, right], spans)


def conditional(work: Work, node: syntax.Conditional, context: Context) -> Value | None:
    """`then if condition else otherwise`."""
    parts = (node.condition, node.then, node.otherwise)
    values = [work.evaluate(part, context) for part in parts]
    known = [value for value in values if value is not None]
    if len(known) < 3:
        return None
    return elementwise(work, "where", node.span, known, [part.span for part in parts])


def condition(work: Work, node: syntax.Expr, context: Context, what: str) -> Value | None:
    """An expression that must be one condition."""
    return scalar(work, node, context, what, "bool")


def number(work: Work, node: syntax.Expr, context: Context, what: str) -> Value | None:
    """An expression that must be one number."""
    return scalar(work, node, context, what, "float")


def scalar(work: Work, node: syntax.Expr, context: Context, what: str, kind: str) -> Value | None:
    """An expression that must be one number, one int or one condition, as `kind` says."""
    value = work.evaluate(node, context)
    if value is None:
        return None
    fitting = {"bool": ("bool",), "int": ("int",), "float": ("int", "float")}[kind]
    if value.features or value.dtype not in fitting:
        expected = {"bool": "a condition", "int": "an int", "float": "a number"}[kind]
        hint = None
        if kind == "bool" and not value.features:
            hint = "compare it, as in 'x > 0'"
        work.report(WrongType(node.span, hint, what=what, expected=expected, found=described(value)))
        return None
    return value
