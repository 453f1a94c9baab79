"""Sums and their relatives: `sum(… for v in domain)`, over features, and over the row in a normalizer."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang import syntax
from attnlang.elaborate.arithmetic import HEADS_PER_GROUP, both, build, rename
from attnlang.elaborate.groups import members_of, role_of
from attnlang.elaborate.names import INDEX_NAMES, kv_index, look_up, row_visible
from attnlang.elaborate.operators import condition
from attnlang.elaborate.values import CANONICAL, Group, Value
from attnlang.elaborate.vectors import bounded, over_features
from attnlang.elaborate.wording import described, written
from attnlang.elaborate.work import Context, Work, index_value
from attnlang.errors import nearest
from attnlang.errors_meaning import NotKnownAtCall, UnknownFunction, WrongDomain, WrongType
from attnlang.ir.pattern import (
    ONE,
    TRUE,
    Axis,
    DType,
    Expr,
    Index,
    Literal,
    Read,
    Reduce,
    children,
    free_axes,
)
from attnlang.source import Span

REDUCTIONS = ("sum", "mean", "max", "min", "prod", "any", "all", "count", "logsumexp")
DOMAINS: dict[str, Axis] = {
    "heads": CANONICAL["h"],
    "kv_heads": CANONICAL["g"],
    "queries": CANONICAL["q"],
    "keys": CANONICAL["k"],
    "positions": CANONICAL["n"],
    "features": CANONICAL["d"],
    "value_features": CANONICAL["e"],
}


@dataclass(frozen=True)
class Domain:
    """What a variable goes through: index variables, its value in terms of them, where that exists."""

    axes: tuple[Axis, ...]
    value: Value
    exists: Expr = TRUE


def comprehension(work: Work, node: syntax.Reduction, context: Context) -> Value | None:
    """`mean(K[k] for k in c if k < q)`."""
    op = node.function.id
    if op not in REDUCTIONS:
        found = nearest(op, list(REDUCTIONS))
        hint = f"did you mean '{found}'?" if found else f"over an index go {', '.join(REDUCTIONS)}"
        work.report(UnknownFunction(node.function.span, hint, name=op))
        return None
    domain = domain_of(work, node.variable, node.domain, context)
    if domain is None:
        return None
    if node.variable in INDEX_NAMES or node.variable in work.groups:
        inner = context.with_indices({node.variable: domain.value})
    else:
        inner = context.with_local(node.variable, domain.value)
    body = work.evaluate(node.body, inner)
    where = (
        None
        if node.condition is None
        else condition(work, node.condition, inner, "the condition behind 'if'")
    )
    if body is None or (node.condition is not None and where is None):
        return None
    exists = domain.exists if where is None else both(domain.exists, where.expr)
    size = 2 + body.size + (where.size if where is not None else 0) + domain.value.size
    if op == "count":
        return _count(work, node, domain.axes, body, exists, size)
    return reduce_over(work, op, node.body.span, domain.axes, body, exists, size)


def _count(
    work: Work, node: syntax.Reduction, axes: tuple[Axis, ...], body: Value, exists: Expr, size: int
) -> Value | None:
    if body.features:
        work.report(
            WrongType(
                node.body.span, what="the body of 'count'", expected="a condition", found=described(body)
            )
        )
        return None
    held = both(exists, body.expr) if body.dtype == "bool" else exists
    return bounded(work, Value(_reduce("sum", axes, ONE, held), "int", size=size), node.span)


def reduce_over(
    work: Work, op: str, span: Span, axes: tuple[Axis, ...], body: Value, exists: Expr, size: int
) -> Value | None:
    """A reduction over index variables, after a look at the kind of its body."""
    logical = op in ("any", "all")
    if (body.dtype == "bool") != logical:
        expected = "a condition" if logical else "a number"
        hint = "compare it, as in 'x > 0'" if logical else "'count' counts where a condition holds"
        found = "a condition" if not logical else described(body)
        work.report(WrongType(span, hint, what=f"the body of '{op}'", expected=expected, found=found))
        return None
    kind: DType = "float" if op in ("mean", "logsumexp") else body.dtype
    return bounded(work, Value(_reduce(op, axes, body.expr, exists), kind, body.features, size=size), span)


def _reduce(op: str, axes: tuple[Axis, ...], body: Expr, exists: Expr) -> Expr:
    where = None if isinstance(exists, Literal) and exists.value is True else exists
    match op:
        case "sum" | "max" | "min" | "mean" | "any" | "all" | "prod" | "logsumexp":
            return Reduce(op, axes, body, where)
        case _:
            raise ValueError(op)


# ------------------------------------------------------------------------------------------------- domains


def domain_of(work: Work, variable: str, node: syntax.Expr, context: Context) -> Domain | None:
    """What stands behind `in`: an index space, the members of a group, or a length."""
    match node:
        case syntax.Call(syntax.Name("group"), arguments, _):
            return _kv_group(work, variable, node, arguments, context)
        case syntax.Call(syntax.Name("groups"), arguments, _):
            return _all_groups(work, variable, node, arguments)
        case syntax.Name(name):
            known = name in context.locals or name in context.indices
            declared = name in work.declared and not context.inside
            if name in DOMAINS and not known and not declared:
                space = DOMAINS[name]
                axis = work.fresh(variable, space.size, space.role, space.start)
                return Domain((axis,), index_value(axis))
            entity = look_up(work, name, node.span, context)
            if entity is None:
                return None
            if isinstance(entity, Value) and entity.group is not None:
                return _members(work, entity, entity.group)
            if isinstance(entity, Group):
                hint = f"groups({name}) are all of them; '{name}' alone, where it has a value, its members"
                _wrong(work, variable, node, hint)
                return None
        case _:
            pass
    return _range(work, variable, node, context)


def _wrong(work: Work, variable: str, node: syntax.Expr, advice: str) -> None:
    work.report(WrongDomain(node.span, name=variable, domain=f"'{written(node)}'", advice=advice))


def _members(work: Work, index: Value, group: Group) -> Domain:
    members = members_of(work, group, index.expr)
    value = Value(members.position, "int", (), role_of(group.of), size=index.size + 6)
    return Domain(members.axes, value, members.exists)


def _kv_group(
    work: Work, variable: str, node: syntax.Expr, arguments: tuple[syntax.Expr, ...], context: Context
) -> Domain | None:
    if len(arguments) != 1:
        _wrong(work, variable, node, "write group(h): the query heads that share the key/value head of h")
        return None
    head = work.evaluate(arguments[0], context)
    if head is None:
        return None
    if head.role not in ("head", "kv_head"):
        _wrong(work, variable, node, "group(h) takes a head")
        return None
    inside = work.fresh(variable, HEADS_PER_GROUP, "range")
    first = build("mul", kv_index(work, head).expr if head.role == "head" else head.expr, HEADS_PER_GROUP)
    return Domain((inside,), Value(build("add", first, Index(inside)), "int", (), "head", size=head.size + 8))


def _all_groups(
    work: Work, variable: str, node: syntax.Expr, arguments: tuple[syntax.Expr, ...]
) -> Domain | None:
    match arguments:
        case (syntax.Name(name),) if name in work.groups:
            group = work.groups[name]
            axis = work.fresh(variable, group.axis.size, "group")
            return Domain((axis,), Value(Index(axis), "int", (), None, group))
        case _:
            names = ", ".join(work.groups) or "none is declared, as in 'blocks c of k by 64'"
            _wrong(work, variable, node, f"groups(…) takes a coarse index: {names}")
            return None


def _range(work: Work, variable: str, node: syntax.Expr, context: Context) -> Domain | None:
    length = work.evaluate(node, context)
    if length is None:
        return None
    if length.dtype != "int" or length.features:
        advice = "a domain is heads, keys, queries, a coarse index or a length"
        work.report(WrongDomain(node.span, name=variable, domain=described(length), advice=advice))
        return None
    if length.role is not None or not known_at_call(length.expr):
        found = described_dependence(length.expr)
        work.report(NotKnownAtCall(node.span, what=f"the length that '{variable}' goes through", found=found))
        return None
    axis = work.fresh(variable, length.expr, "range")
    return Domain((axis,), index_value(axis))


def known_at_call(expr: Expr) -> bool:
    """Whether only numbers, sizes and parameters enter."""
    return not free_axes(expr) and not _reads(expr)


def _reads(expr: Expr) -> bool:
    return isinstance(expr, Read) or any(_reads(part) for part in children(expr))


def described_dependence(expr: Expr) -> str:
    """The first index or tensor that an expression depends on."""
    names = sorted(axis.name for axis in free_axes(expr))
    if names:
        return f"the index '{names[0]}'"
    sources: list[str] = []

    def visit(part: Expr) -> None:
        if isinstance(part, Read):
            sources.append(part.source)
        for child in children(part):
            visit(child)

    visit(expr)
    return f"'{sources[0]}'" if sources else "a value"


# --------------------------------------------------------------------------------------------------- calls


def of_one(work: Work, op: str, node: syntax.Call, value: Value, context: Context) -> Value | None:
    """`sum(x)`: over the features of a vector, or over the visible keys of the row in a normalizer."""
    span = node.arguments[0].span
    if value.features:
        return over_features(work, op, span, value)
    row = context.row
    if row is None:
        hint = f"over an index: {op}(… for i in n)"
        work.report(
            WrongType(span, hint, what=f"the argument of '{op}'", expected="a vector", found=described(value))
        )
        return None
    fresh = work.copy(row.along)
    body = Value(rename(value.expr, {row.along: Index(fresh)}), value.dtype, size=value.size)
    return reduce_over(
        work, op, span, (fresh,), body, row_visible(row, fresh), value.size + len(row.axes) + 2
    )
