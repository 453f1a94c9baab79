"""Expressions as documents: parentheses where the precedence asks for them and nowhere else."""

from __future__ import annotations

from typing import assert_never

from attnlang import syntax

from .document import SOFT, SPACE, Document, Group, Indent, WhenBroken, join

CONDITIONAL, OR, AND, NOT, COMPARISON, SUM, PRODUCT, UNARY, POWER, POSTFIX = range(10)

_BINARY = {
    "+": SUM,
    "-": SUM,
    "*": PRODUCT,
    "/": PRODUCT,
    "//": PRODUCT,
    "mod": PRODUCT,
    "@": PRODUCT,
    "**": POWER,
}


def precedence(expr: syntax.Expr) -> int:
    """How tightly an expression binds: the index of its rule in the grammar."""
    match expr:
        case syntax.Conditional():
            return CONDITIONAL
        case syntax.Logical(operator=operator):
            return OR if operator == "or" else AND
        case syntax.Comparison():
            return COMPARISON
        case syntax.Unary(operator=operator):
            return NOT if operator == "not" else UNARY
        case syntax.Binary(operator=operator):
            return _BINARY[operator]
        case syntax.Number(value=value):
            return UNARY if value < 0 else POSTFIX
        case (
            syntax.Boolean()
            | syntax.Name()
            | syntax.Attribute()
            | syntax.Subscript()
            | syntax.Call()
            | syntax.Reduction()
        ):
            return POSTFIX
        case _:
            assert_never(expr)


def document(expr: syntax.Expr, least: int = CONDITIONAL) -> Document:
    """An expression that stands where one binding at least as tightly as `least` is read."""
    inner = Group(_plain(expr))
    return bracketed("(", inner, ")") if precedence(expr) < least else inner


def bracketed(opening: str, inner: Document, closing: str) -> Document:
    """`(inner)`, broken behind the bracket and before its partner where it does not fit, then inside if it must."""
    return Group((opening, Indent((SOFT, Group(inner))), SOFT, closing))


def arguments(opening: str, parts: list[Document], closing: str) -> Document:
    """`(a, b, c)`: on one line, on one line of their own, or one to a line."""
    return bracketed(opening, join((",", SPACE), parts), closing) if parts else opening + closing


def statement_value(expr: syntax.Expr) -> Document:
    """An expression at the end of a line: parentheses around it let it go on over several lines."""
    if isinstance(expr, syntax.Call | syntax.Reduction | syntax.Subscript):
        return _plain(expr)
    return Group((WhenBroken("("), Indent((SOFT, Group(_plain(expr)))), SOFT, WhenBroken(")")))


def number(value: int | float) -> str:
    """The shortest text that reads back as the same number: `1e-6`, not `1e-06`."""
    text = repr(value)
    mantissa, mark, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}" if mark else text


def _plain(expr: syntax.Expr) -> Document:
    match expr:
        case syntax.Number(value=value):
            return number(value)
        case syntax.Boolean(value=value):
            return "true" if value else "false"
        case syntax.Name(id=name):
            return name
        case syntax.Attribute(base=base, name=name):
            return (_base(base), ".", name)
        case syntax.Subscript(base=base, indices=indices):
            return (_base(base), arguments("[", [document(index) for index in indices], "]"))
        case syntax.Call(function=function, arguments=positional, keywords=keywords):
            named: list[Document] = [(name, "=", document(value)) for name, value in keywords]
            return (
                function.id,
                arguments("(", [*(document(argument) for argument in positional), *named], ")"),
            )
        case syntax.Reduction():
            return _reduction(expr)
        case syntax.Unary(operator="not", operand=operand):
            return ("not ", document(operand, NOT))
        case syntax.Unary(operator=operator, operand=operand):
            return (operator, document(operand, UNARY))
        case syntax.Binary(operator="**", left=left, right=right):
            return (document(left, POSTFIX), " ** ", document(right, UNARY))
        case syntax.Binary():
            return _chain(expr)
        case syntax.Comparison(first=first, rest=rest):
            operands = ((operator, " ", document(operand, SUM)) for operator, operand in rest)
            return join(SPACE, [document(first, SUM), *operands])
        case syntax.Logical(operator=operator, operands=operands):
            least = AND if operator == "or" else NOT
            first, *others = (document(operand, least) for operand in operands)
            return join(SPACE, [first, *((operator, " ", operand) for operand in others)])
        case syntax.Conditional(condition=condition, then=then, otherwise=otherwise):
            return (
                document(then, OR),
                SPACE,
                "if ",
                document(condition, OR),
                SPACE,
                "else ",
                document(otherwise),
            )
        case _:
            assert_never(expr)


def _base(base: syntax.Expr) -> Document:
    """What an index or an attribute is asked of; a number is put into parentheses, so that `1.x` is no number."""
    if isinstance(base, syntax.Number):
        return ("(", number(base.value), ")")
    return document(base, POSTFIX)


def _chain(expr: syntax.Binary) -> Document:
    """`a + b - c`: one precedence, read from the left, broken before every operator or before none."""
    level = _BINARY[expr.operator]
    parts: list[Document] = []
    left: syntax.Expr = expr
    while isinstance(left, syntax.Binary) and _BINARY[left.operator] == level:
        parts.append((left.operator, " ", document(left.right, level + 1)))
        left = left.left
    return join(SPACE, [document(left, level), *reversed(parts)])


def _reduction(expr: syntax.Reduction) -> Document:
    """`sum(body for k in keys if condition)`."""
    condition: Document = () if expr.condition is None else (SPACE, "if ", document(expr.condition, OR))
    domain = (SPACE, f"for {expr.variable} in ", document(expr.domain, OR))
    return (expr.function.id, bracketed("(", (document(expr.body), domain, condition), ")"))
