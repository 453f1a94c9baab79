"""Indices on the left of a definition: which variable each is, and the indices that come by themselves."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang import syntax
from attnlang.elaborate.operators import scalar
from attnlang.elaborate.reductions import DOMAINS, described_dependence, known_at_call
from attnlang.elaborate.values import CANONICAL, Group, Slot, Value, slot_of
from attnlang.elaborate.work import Context, Work, index_value
from attnlang.errors import nearest
from attnlang.errors_meaning import NameTwice, NotKnownAtCall, UnknownName
from attnlang.ir.pattern import BATCH, HEAD, Axis


@dataclass(frozen=True)
class Bound:
    """A binder: its variable, the coarse index it counts, if any, and its value."""

    name: str
    axis: Axis
    group: Group | None
    value: Value

    @property
    def slot(self) -> Slot:
        """As an axis that is read."""
        slot = slot_of(self.axis, self.group)
        return Slot(self.name, slot.size, slot.role, slot.group, slot.start)


def heads(work: Work) -> dict[str, Value]:
    """The indices that every expression over rows has: batch and query head."""
    return {"b": index_value(BATCH), "h": index_value(HEAD)}


def bind(work: Work, binders: tuple[syntax.Binder, ...], context: Context) -> list[Bound] | None:
    """Every binder of a list; None after a report."""
    made: list[Bound] = []
    failed = False
    for binder in binders:
        bound = bind_one(work, binder, context)
        if bound is None:
            failed = True
        elif any(bound.name == other.name for other in made):
            work.report(NameTwice(binder.span, name=binder.name, first="an index of this definition"))
            failed = True
        else:
            made.append(bound)
    return None if failed else made


def bind_one(work: Work, binder: syntax.Binder, context: Context) -> Bound | None:
    """An index name, a declared coarse index, or a range of its own."""
    name = binder.name
    if binder.domain is not None:
        return _bind_range(work, binder, binder.domain, context)
    if name in ("d", "e"):
        like = CANONICAL[name]
        axis = work.fresh(name, like.size, like.role)
        return Bound(name, axis, None, index_value(axis))
    if name in CANONICAL:
        axis = CANONICAL[name]
        return Bound(name, axis, None, index_value(axis))
    if name in work.groups:
        group = work.groups[name]
        return Bound(name, group.axis, group, index_value(group.axis, group))
    if name in work.declared and work.declared[name].kind == "blocks":
        work.entity(name, binder.span)
        return None
    known = [*CANONICAL, *work.groups]
    found = nearest(name, known)
    hint = f"did you mean '{found}'?" if found else f"a range of its own is written '{name} in 16'"
    work.report(UnknownName(binder.span, hint, name=name))
    return None


def _bind_range(work: Work, binder: syntax.Binder, domain: syntax.Expr, context: Context) -> Bound | None:
    name = binder.name
    if isinstance(domain, syntax.Name):
        if domain.id in DOMAINS and domain.id not in work.declared:
            space = DOMAINS[domain.id]
            axis = work.named(name, space.size, space.role, space.start)
            return Bound(name, axis, None, index_value(axis))
        if domain.id in work.groups:
            group = work.groups[domain.id]
            axis = work.named(name, group.axis.size, "group")
            return Bound(name, axis, group, index_value(axis, group))
    length = call_value(work, domain, context, f"the length of '{name}'", "int")
    if length is None:
        return None
    axis = work.named(name, length.expr, "range")
    return Bound(name, axis, None, index_value(axis))


def call_value(work: Work, node: syntax.Expr, context: Context, what: str, kind: str) -> Value | None:
    """A number that only parameters and sizes enter."""
    value = scalar(work, node, context, what, kind)
    if value is None:
        return None
    if not known_at_call(value.expr):
        work.report(NotKnownAtCall(node.span, what=what, found=described_dependence(value.expr)))
        return None
    return value


def call_context(work: Work, place: str) -> Context:
    """Where only parameters and sizes have a value."""
    return Context(place, {}, work.file)
