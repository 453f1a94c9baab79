"""`select`: a relation between rows and candidates, chosen by a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf

from attnlang import syntax
from attnlang.elaborate.arithmetic import both, build, by_kv_head
from attnlang.elaborate.binders import Bound, bind, heads
from attnlang.elaborate.functions import wrong_count
from attnlang.elaborate.operators import condition, scalar
from attnlang.elaborate.reductions import known_at_call
from attnlang.elaborate.values import Group, Readable, Relation, slot_of
from attnlang.elaborate.wording import counted, written
from attnlang.elaborate.work import Context, Work
from attnlang.errors_meaning import WrongSelect
from attnlang.ir.pattern import (
    BATCH,
    FALSE,
    HEAD,
    KV_HEAD,
    TRUE,
    Axis,
    Expr,
    Literal,
    Select,
    free_axes,
)

RULES = ("top", "mass", "above")


@dataclass(frozen=True)
class Parts:
    """The clauses of a choice."""

    amount: Expr
    total: Expr | None
    by: Expr
    where: Expr
    always: Expr
    never: Expr

    def all(self) -> tuple[Expr, ...]:
        """Every expression that decides."""
        total = () if self.total is None else (self.total,)
        return (self.amount, *total, self.by, self.where, self.always, self.never)


def select(work: Work, node: syntax.Select) -> Relation | None:
    """One choice as a stage."""
    context = Context(f"in '{node.name}'", heads(work), work.file)
    rows = _rows(work, node, context)
    candidates = bind(work, node.candidates, context)
    if rows is None or candidates is None:
        return None
    names = [row.name for row in rows]
    twice = [each.name for each in candidates if each.name in names]
    if twice:
        work.report(WrongSelect(node.span, problem=f"'{twice[0]}' is an index of the rows and a candidate"))
        return None
    scope = context.with_indices({row.name: row.value for row in rows})
    parts = _parts(work, node, scope, scope.with_indices({each.name: each.value for each in candidates}))
    if parts is None:
        return None
    own = {bound.axis for bound in (*rows, *candidates)}
    leading, parts = _leading(parts, own)
    leading = _within_scope(work, node, leading)
    if leading is None:
        return None
    where = both(build("or", parts.where, parts.always), build("not", parts.never))
    always = both(parts.always, build("not", parts.never))
    axes = (*leading, *(row.axis for row in rows))
    kind: OneOf["top", "mass", "above"] = "top"
    if node.rule.function.id != "top":
        kind = "mass" if node.rule.function.id == "mass" else "above"
    work.stages.append(
        Select(
            node.name,
            axes,
            tuple(each.axis for each in candidates),
            kind,
            parts.amount,
            parts.by,
            where,
            always,
            parts.total,
            node.span,
        )
    )
    slots = tuple(bound.slot for bound in (*rows, *candidates))
    return Relation(Readable(node.name, node.name, slots, tuple(map(slot_of, leading)), (), "bool"))


def _rows(work: Work, node: syntax.Select, context: Context) -> list[Bound] | None:
    """The indices that choose: those on the left, in which `per i` puts a block of queries in the place of q."""
    binders = [each for each in node.indices if each.domain is not None or each.name not in ("b", "h")]
    whole_heads = node.scope is not None and all(name in ("b", "h", "head", "batch") for name in node.scope)
    if whole_heads and any(each.name == "q" for each in binders):
        hint = f"leave it out: 'select {node.name} = …'"
        scope = ", ".join(node.scope or ())
        work.report(WrongSelect(node.span, hint, problem=f"one choice per {scope} has no index 'q'"))
        return None
    named = {each.name for each in binders}
    for name in node.scope or ():
        if name in ("q", "b", "h", "head", "batch") or name in named:
            continue
        group = work.groups.get(name)
        if group is None:
            problem = f"'per {name}' names no index: q, head, (b, h) or a coarse index"
            work.report(WrongSelect(node.span, problem=problem))
            return None
        binders = [each for each in binders if not _replaced(work, each, group)]
        binders.append(syntax.Binder(name, span=node.span))
    return bind(work, tuple(binders), context)


def _replaced(work: Work, binder: syntax.Binder, group: Group) -> bool:
    known = work.groups.get(binder.name)
    return binder.name == group.of or (known is not None and known.of == group.of)


def _parts(work: Work, node: syntax.Select, scope: Context, inner: Context) -> Parts | None:
    amount, total, fine = _rule(work, node, scope)
    by = scalar(work, node.by, inner, "the score of a choice", "float")
    clauses: list[Expr | None] = []
    for clause, otherwise in ((node.where, TRUE), (node.always, FALSE), (node.never, FALSE)):
        if clause is None:
            clauses.append(otherwise)
            continue
        held = condition(work, clause, inner, "a clause of select")
        clauses.append(None if held is None else held.expr)
    where, always, never = clauses
    if not fine or amount is None or by is None or where is None or always is None or never is None:
        return None
    return Parts(amount, total, by.expr, where, always, never)


def _rule(work: Work, node: syntax.Select, scope: Context) -> tuple[Expr | None, Expr | None, bool]:
    """Amount, total, and whether all was well."""
    rule, name = node.rule, node.rule.function.id
    if name not in RULES:
        hint = "the rules are top(m), mass(p) and above(x)"
        work.report(WrongSelect(rule.function.span, hint, problem=f"'{name}' is no rule of select"))
        return None, None, False
    keywords = dict(rule.keywords)
    total_node = keywords.pop("total", None) if name == "mass" else None
    if len(rule.arguments) != 1 or keywords:
        wrong_count(work, rule, counted(1, "argument"), len(rule.arguments))
        return None, None, False
    (argument,) = rule.arguments
    amount = scalar(work, argument, scope, f"the argument of '{name}'", "int" if name == "top" else "float")
    total = None if total_node is None else scalar(work, total_node, scope, "the total", "float")
    if amount is None or (total_node is not None and total is None):
        return None, None, False
    if known_at_call(amount.expr) and not _in_range(work, argument, name, amount.expr):
        return None, None, False
    return amount.expr, None if total is None else total.expr, True


def _in_range(work: Work, node: syntax.Expr, name: str, amount: Expr) -> bool:
    """top(m) keeps at least none, mass(p) at most everything."""
    limits = {"top": ((">=", "ge", 0),), "mass": ((">", "gt", 0), ("<=", "le", 1)), "above": ()}[name]
    for operator, op, limit in limits:
        held = build(op, amount, Literal(limit))
        if isinstance(held, Literal) and not held.value:
            problem = f"{name}({written(node)}) must be {operator} {limit}"
            work.report(WrongSelect(node.span, problem=problem))
            return False
        if name == "mass" or not work.non_negative(amount):
            work.require(held, f"{written(node)} {operator} {limit}", node.span)
    return True


def _leading(parts: Parts, own: set[Axis]) -> tuple[tuple[Axis, ...], Parts]:
    """The axes of batch and heads on which the choice depends."""
    if HEAD not in own and KV_HEAD not in own:
        changed = [by_kv_head(part) for part in parts.all()]
        if all(HEAD not in free_axes(part) for part in changed):
            amount, *rest = changed
            total = rest.pop(0) if parts.total is not None else None
            parts = Parts(amount, total, *rest)
    free = frozenset[Axis]().union(*map(free_axes, parts.all()))
    return tuple(axis for axis in (BATCH, HEAD, KV_HEAD) if axis in free and axis not in own), parts


def _within_scope(work: Work, node: syntax.Select, leading: tuple[Axis, ...]) -> tuple[Axis, ...] | None:
    """`per b` allows no dependence on heads; other scopes name what is there anyway."""
    if node.scope is None:
        return leading
    by_batch = any(name in ("b", "batch") for name in node.scope)
    by_head = any(name in ("h", "head") for name in node.scope)
    if by_batch and not by_head and any(axis != BATCH for axis in leading):
        hint = "sum over heads, or write 'per (b, h)'"
        work.report(
            WrongSelect(
                node.span, hint, problem="one choice for all heads, but the score depends on the head"
            )
        )
        return None
    return leading
