"""`require` and `assert`: conditions of a call, and claims that `check` decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal as OneOf

from attnlang import syntax
from attnlang.elaborate.arithmetic import sources_of
from attnlang.elaborate.binders import call_context, call_value, heads
from attnlang.elaborate.operators import comparison_op
from attnlang.elaborate.values import CANONICAL, INPUTS
from attnlang.elaborate.wording import described, written
from attnlang.elaborate.work import Context, Work, index_value
from attnlang.errors import nearest
from attnlang.errors_meaning import NotKnownAtCall, WrongClaim, WrongType
from attnlang.ir.pattern import SIZES, Claim, Expr, Literal, Reduce, free_axes

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
    """A condition over parameters, sizes and tensors, for all values of its indices and all its entries."""
    value = work.evaluate(node.condition, _everywhere(work))
    if value is None:
        return
    span = node.condition.span
    if value.dtype != "bool":
        hint = "compare it, as in 'x > 0'"
        found = described(replace(value, features=()))
        work.report(WrongType(span, hint, what="a requirement", expected="a condition", found=found))
        return
    given = {*INPUTS, *(tensor.name for tensor in work.tensors)}
    computed = sorted(sources_of(value.expr) - given)
    if computed:
        hint = "only tensors, parameters, sizes and numbers may enter"
        work.report(NotKnownAtCall(span, hint, what="a requirement", found=f"'{computed[0]}'"))
        return
    if isinstance(value.expr, Literal) and not value.expr.value:
        work.report(WrongClaim(span, problem="no call can meet this requirement"))
        return
    free = free_axes(value.expr)
    axes = [
        axis
        for axis in (*CANONICAL.values(), *(group.axis for group in work.groups.values()))
        if axis in free
    ]
    axes += sorted(free.difference(axes), key=lambda axis: axis.name)
    condition = Reduce("all", tuple(axes), value.expr) if axes else value.expr
    work.require(condition, written(node.condition), node.span)


def _everywhere(work: Work) -> Context:
    """Where every index has a value: any of its values."""
    indices = {**heads(work), **{name: index_value(CANONICAL[name]) for name in ("q", "k", "n")}}
    for name in ("d", "e"):
        like = CANONICAL[name]
        indices[name] = index_value(work.fresh(name, like.size, like.role))
    groups = {name: index_value(group.axis, group) for name, group in work.groups.items()}
    return Context("in 'require'", {**indices, **groups}, work.file)


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
