"""`require` and `assert`: conditions of a call, and claims that `check` decides."""

from __future__ import annotations

from typing import Literal as OneOf

from attnlang import syntax
from attnlang.elaborate.binders import call_context, call_value
from attnlang.elaborate.operators import comparison_op
from attnlang.elaborate.wording import written
from attnlang.elaborate.work import Work
from attnlang.errors import nearest
from attnlang.errors_meaning import WrongClaim
from attnlang.ir.pattern import SIZES, Claim, Expr, Literal

CLAIMS = ("causal", "nonempty", "density", "rows", "equal")
_HINT = "claims are: causal, nonempty, density <= x, rows <= n, equal(other)"


def note_equal_sizes(work: Work, node: syntax.Require) -> None:
    """`require DV == D` and `require NQ == NK` are known before anything else is elaborated."""
    match node.condition:
        case syntax.Comparison(syntax.Name(left), ((("==", syntax.Name(right))),)):
            pair = {left, right}
        case syntax.Logical("and", operands):
            for part in operands:
                note_equal_sizes(work, syntax.Require(part))
            return
        case _:
            return
    work.equal_features = work.equal_features or pair == {"D", "DV"}
    work.equal_lengths = work.equal_lengths or pair == {"NQ", "NK"}


def require(work: Work, node: syntax.Require) -> None:
    """A condition over parameters and sizes."""
    what = "a requirement"
    value = call_value(work, node.condition, call_context(work, "in 'require'"), what, "bool")
    if value is None:
        return
    if isinstance(value.expr, Literal) and not value.expr.value:
        work.report(WrongClaim(node.condition.span, problem="no call can meet this requirement"))
        return
    work.require(value.expr, written(node.condition), node.span)


def claim(work: Work, node: syntax.Assert) -> Claim | None:
    """A claim with the sizes it is made for."""
    where = _where(work, node)
    match node.claim:
        case syntax.Name("causal"):
            kind: OneOf["causal", "nonempty"] = "causal"
        case syntax.Name("nonempty"):
            kind = "nonempty"
        case syntax.Comparison(syntax.Name("density" | "rows" as about), ((operator, bound),)):
            return _measured(work, node, about, operator, bound, where)
        case syntax.Call(syntax.Name("equal"), (syntax.Name(other),), ()):
            return _equal(work, node, other, where)
        case _:
            work.report(WrongClaim(node.claim.span, _HINT, problem=f"'{written(node.claim)}' is no claim"))
            return None
    return None if where is None else Claim(kind, where=where, span=node.span)


def _measured(
    work: Work,
    node: syntax.Assert,
    about: str,
    operator: str,
    bound: syntax.Expr,
    where: tuple[tuple[str, Expr], ...] | None,
) -> Claim | None:
    value = call_value(work, bound, call_context(work, "in 'assert'"), "the bound of a claim", "float")
    if value is None or where is None:
        return None
    op = comparison_op(operator)
    if about == "rows":
        return Claim("rows", op, value.expr, where=where, span=node.span)
    return Claim("density", op, value.expr, where=where, span=node.span)


def _equal(
    work: Work, node: syntax.Assert, other: str, where: tuple[tuple[str, Expr], ...] | None
) -> Claim | None:
    if other not in work.file.patterns:
        found = nearest(other, list(work.file.patterns))
        hint = f"did you mean '{found}'?" if found else "it must stand in this file or in an imported one"
        work.report(WrongClaim(node.claim.span, hint, problem=f"there is no pattern '{other}'"))
        return None
    return None if where is None else Claim("equal", other=other, where=where, span=node.span)


def _where(work: Work, node: syntax.Assert) -> tuple[tuple[str, Expr], ...] | None:
    pairs: list[tuple[str, Expr]] = []
    failed = False
    known = [*SIZES, *(parameter.name for parameter in work.parameters)]
    for name, value_node in node.where:
        if name not in known:
            found = nearest(name, known)
            hint = f"did you mean '{found}'?" if found else "sizes and parameters can be given"
            work.report(
                WrongClaim(value_node.span, hint, problem=f"'{name}' is neither a size nor a parameter")
            )
            failed = True
        value = call_value(
            work, value_node, call_context(work, "in 'assert'"), f"the value of '{name}'", "float"
        )
        if value is None:
            failed = True
        else:
            pairs.append((name, value.expr))
    return None if failed else tuple(pairs)
