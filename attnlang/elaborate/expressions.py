"""Expressions: each node of the tree becomes a typed value, or None after a report."""

from __future__ import annotations

from typing import assert_never

from attnlang import syntax
from attnlang.elaborate.calls import call
from attnlang.elaborate.operators import binary, comparison, conditional, logical, unary
from attnlang.elaborate.reductions import comprehension
from attnlang.elaborate.subscripts import attribute, name_value, subscript
from attnlang.elaborate.values import Value
from attnlang.elaborate.work import Context, Work
from attnlang.ir.pattern import Literal


def evaluate(work: Work, node: syntax.Expr, context: Context) -> Value | None:
    """The typed value of an expression; None, when a mistake in it has been reported."""
    match node:
        case syntax.Number(value):
            return Value(Literal(value), "int" if isinstance(value, int) else "float")
        case syntax.Boolean(value):
            return Value(Literal(value), "bool")
        case syntax.Name():
            return name_value(work, node, context)
        case syntax.Attribute():
            return attribute(work, node, context)
        case syntax.Subscript():
            return subscript(work, node, context)
        case syntax.Call():
            return call(work, node, context)
        case syntax.Reduction():
            return comprehension(work, node, context)
        case syntax.Unary():
            return unary(work, node, context)
        case syntax.Binary():
            return binary(work, node, context)
        case syntax.Comparison():
            return comparison(work, node, context)
        case syntax.Logical():
            return logical(work, node, context)
        case syntax.Conditional():
            return conditional(work, node, context)
        case _:
            assert_never(node)
