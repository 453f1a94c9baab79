"""Calls: relations, definitions and built-in functions."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.expansion import expand
from attnlang.elaborate.functions import (
    ELEMENTWISE,
    FORMULAS,
    PLACES,
    elementwise_call,
    extremum,
    formula,
    wrong_count,
)
from attnlang.elaborate.groups import group_at, overlaps
from attnlang.elaborate.merges import merge_of
from attnlang.elaborate.names import kv_index, report_unknown_function
from attnlang.elaborate.positions import agree
from attnlang.elaborate.reads import index_of, read_here
from attnlang.elaborate.reductions import REDUCTIONS, of_one
from attnlang.elaborate.relations import relation
from attnlang.elaborate.values import Group, Relation, Value
from attnlang.elaborate.wording import described, index_kind, written
from attnlang.elaborate.work import Context, Work
from attnlang.errors_meaning import WrongBlocks, WrongType, WrongUse


def call(work: Work, node: syntax.Call, context: Context) -> Value | None:
    """Any call in an expression."""
    name = node.function.id
    if not context.inside and name in work.declared and work.declared[name].kind == "select":
        entity = work.entity(name, node.function.span)
        return relation(work, node, entity.readable, context) if isinstance(entity, Relation) else None
    if name in context.file.functions:
        return expand(work, node, context.file.functions[name], context)
    match name:
        case "block":
            return _block(work, node, context)
        case "merge":
            merged = merge_of(work, node, context, None)
            return None if merged is None else read_here(work, merged.result, node.span, context)
        case _ if name in PLACES:
            _evaluate_all(work, node, context)
            work.report(WrongUse(node.span, PLACES[name], name=name, what="no function of an expression"))
            return None
        case _:
            return _built_in(work, node, context)


def _evaluate_all(work: Work, node: syntax.Call, context: Context) -> list[Value] | None:
    parts = [*node.arguments, *(value for _, value in node.keywords)]
    values = [work.evaluate(part, context) for part in parts]
    known = [value for value in values if value is not None]
    return known if len(known) == len(values) else None


def _built_in(work: Work, node: syntax.Call, context: Context) -> Value | None:
    name = node.function.id
    values = _evaluate_all(work, node, context)
    known = name in ELEMENTWISE or name in FORMULAS or name in REDUCTIONS or name == "g"
    if not known:
        report_unknown_function(work, name, node.function.span, context)
        return None
    if values is None:
        return None
    values = values[: len(node.arguments)]
    if name in ELEMENTWISE:
        return elementwise_call(work, node, values)
    if name in FORMULAS:
        return formula(work, node, values)
    if name == "g":
        return _kv_head(work, node, values)
    if name in ("min", "max") and len(values) > 1 and not node.keywords:
        return extremum(work, node, values)
    if len(values) != 1 or node.keywords:
        return wrong_count(work, node, "1 argument, or '… for i in n'", len(values))
    return of_one(work, name, node, values[0], context)


def _kv_head(work: Work, node: syntax.Call, values: list[Value]) -> Value | None:
    if len(values) != 1 or node.keywords:
        return wrong_count(work, node, "1 argument, a query head", len(values))
    (head,) = values
    if head.features or head.dtype != "int" or head.role not in (None, "head"):
        found = index_kind(head) if head.role else described(head)
        work.report(
            WrongType(
                node.arguments[0].span, what="the argument of 'g'", expected="a query head", found=found
            )
        )
        return None
    return kv_index(work, head)


def _block(work: Work, node: syntax.Call, context: Context) -> Value | None:
    if len(node.arguments) not in (1, 2) or node.keywords:
        return wrong_count(
            work, node, "a position and, where it is not clear, a coarse index", len(node.arguments)
        )
    position = index_of(work, node.arguments[0], context)
    group = _named_group(work, node) if len(node.arguments) == 2 else _only_group(work, node)
    if position is None or group is None:
        return None
    return Value(group_at(group, position.expr), "int", (), None, group, size=position.size + 6)


def _named_group(work: Work, node: syntax.Call) -> Group | None:
    match node.arguments[1]:
        case syntax.Name(name) if name in work.groups:
            group = work.groups[name]
        case other:
            names = ", ".join(work.groups) or "none is declared"
            work.report(
                WrongBlocks(other.span, f"coarse indices: {names}", problem="this is no coarse index")
            )
            return None
    if overlaps(group):
        problem = f"the groups '{group.name}' overlap: a position has no single one"
        work.report(WrongBlocks(node.span, problem=problem))
        return None
    return group


def _only_group(work: Work, node: syntax.Call) -> Group | None:
    """The blocking that is meant: of keys before one of queries, and there must be no other of another shape."""
    found = sorted(
        (group for group in work.groups.values() if not overlaps(group)), key=lambda group: group.of == "q"
    )
    if not found:
        hint = "write, for instance, 'blocks c of k by 64'"
        work.report(WrongBlocks(node.span, hint, problem="'block' needs a declared coarse index"))
        return None
    if any(not agree(work, found[0], other) for other in found[1:]):
        names = ", ".join(group.name for group in found)
        hint = f"name one: block({written(node.arguments[0])}, {found[0].name})"
        work.report(
            WrongBlocks(node.span, hint, problem=f"the coarse indices {names} differ: which is meant?")
        )
        return None
    return found[0]
