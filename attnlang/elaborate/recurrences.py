"""Running values: `scan`, one per token, and `state` with `step`, which an output reads after a token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import by_kv_head
from attnlang.elaborate.binders import bind, call_context, call_value, heads
from attnlang.elaborate.declarations import table_context
from attnlang.elaborate.operators import condition
from attnlang.elaborate.values import CANONICAL, Readable, Slot, Value, slot_of
from attnlang.elaborate.wording import described
from attnlang.elaborate.work import Context, Work, index_value
from attnlang.errors_meaning import WrongRecurrence, WrongShape
from attnlang.ir.pattern import (
    BATCH,
    FEATURE,
    HEAD,
    KEY,
    KV_HEAD,
    VALUE_FEATURE,
    Apply,
    Axis,
    Expr,
    Read,
    Recurrence,
    Reduce,
    free_axes,
)

TOKENS = ("query", "key", "position", "group")


def scan(work: Work, node: syntax.Scan) -> Readable | None:
    """A running value per token; the token is the last index."""
    context = table_context(work, node.name, node.indices)
    bound = bind(work, node.indices, context)
    if not bound:
        if bound is not None:
            work.report(WrongRecurrence(node.span, problem="a scan needs its token: 'scan x[n] = …'"))
        return None
    *others, token = bound
    if token.axis.role not in TOKENS:
        problem = f"a scan goes along tokens (n, k, q or a coarse index), '{token.name}' is none"
        work.report(WrongRecurrence(node.span, problem=problem))
        return None
    context = context.with_indices({each.name: each.value for each in bound})
    own = tuple(each.slot for each in bound)

    def before(leading: tuple[Axis, ...], features: tuple[Axis, ...]) -> Readable:
        source = f"{node.name}.previous"
        return Readable(node.name, source, own, tuple(map(slot_of, leading)), features, token=token.axis)

    mine = frozenset(each.axis for each in bound)
    shape = _shape(work, node.name, node.value, context, before, [(), (FEATURE,), (VALUE_FEATURE,)], mine)
    restart = None
    if node.restart is not None:
        restart = condition(work, node.restart, context, "the restart of a scan")
        if restart is not None:
            leading = _union(shape.leading, _leading(restart.expr, mine))
            shape = replace(shape, leading=leading)
    made = _step(work, node.name, node.value, context, before, shape)
    if made is None or (node.restart is not None and restart is None):
        return None
    leading, features, step = made
    axes = (*leading, *(each.axis for each in others), *features)
    held = None if restart is None else shape.narrowed(restart.expr)
    place = len(leading) + len(others)
    work.stages.append(Recurrence(node.name, axes, token.axis, place, step, held, node.span))
    return Readable(node.name, node.name, own, tuple(map(slot_of, leading)), features)


def _union(left: tuple[Axis, ...], right: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """The axes of both; where one depends on the query head, the key/value head follows from it."""
    axes = {*left, *right}
    if HEAD in axes:
        axes.discard(KV_HEAD)
    return tuple(axis for axis in (BATCH, HEAD, KV_HEAD) if axis in axes)


Before = Callable[[tuple[Axis, ...], tuple[Axis, ...]], Readable]


@dataclass(frozen=True)
class Shape:
    """What a first look tells: the axes of batch and heads, and the features."""

    leading: tuple[Axis, ...]
    features: tuple[Axis, ...]
    per_head: bool

    def narrowed(self, expr: Expr) -> Expr:
        """The expression over key/value heads, where no query head is among the axes."""
        return expr if self.per_head or HEAD in self.leading else by_kv_head(expr)


def _shape(
    work: Work,
    name: str,
    node: syntax.Expr,
    context: Context,
    before: Before,
    tries: list[tuple[Axis, ...]],
    own: frozenset[Axis],
) -> Shape:
    """Which features make the step agree with the value before it, and what else it depends on."""
    for features in tries:
        with work.reports.muted():
            value = work.evaluate(node, replace(context, previous={name: before((), features)}))
            if value is None:
                continue
            again = work.evaluate(node, replace(context, previous={name: before((), value.features)}))
        if again is not None and again.features == value.features:
            return Shape(_leading(again.expr, own), again.features, HEAD in own)
    return Shape((), tries[0], HEAD in own)


def _leading(expr: Expr, own: frozenset[Axis]) -> tuple[Axis, ...]:
    free = free_axes(expr if HEAD in own else by_kv_head(expr)) - own
    return tuple(axis for axis in (BATCH, HEAD, KV_HEAD) if axis in free)


def _step(
    work: Work, name: str, node: syntax.Expr, context: Context, before: Before, shape: Shape
) -> tuple[tuple[Axis, ...], tuple[Axis, ...], Expr] | None:
    value = work.evaluate(node, replace(context, previous={name: before(shape.leading, shape.features)}))
    if value is None:
        return None
    if value.features != shape.features:
        expected, found = described(Value(value.expr, "float", shape.features)), described(value)
        work.report(WrongShape(node.span, what=f"the step of '{name}'", expected=expected, found=found))
        return None
    step = shape.narrowed(value.expr)
    if not _is_linear(step, f"{name}.previous"):
        hint = "decay it, or take a rank-one part away; other transitions have no parallel form"
        work.report(WrongRecurrence(node.span, hint, problem=f"'{name}' is not linear in its value before"))
        return None
    return shape.leading, shape.features, step


def _is_linear(expr: Expr, source: str) -> bool:
    """Whether the value before enters every term at most once, and under no function."""
    return _degree(expr, source) in (0, 1)


def _degree(expr: Expr, source: str) -> int:
    match expr:
        case Read(name, at, _):
            return max([2 if _degree(index, source) else 0 for index in at] + [int(name == source)])
        case Apply("add" | "sub", args):
            return max(_degree(arg, source) for arg in args)
        case Apply("neg" | "detach" | "float", (arg,)):
            return _degree(arg, source)
        case Apply("mul", (left, right)):
            return _degree(left, source) + _degree(right, source)
        case Apply("div", (left, right)):
            return _degree(left, source) + 2 * _degree(right, source)
        case Apply("where", (held, then, otherwise)):
            return max(2 * _degree(held, source), _degree(then, source), _degree(otherwise, source))
        case Apply(_, args):
            return 2 * max((_degree(arg, source) for arg in args), default=0)
        case _:
            return _degree_of_sum(expr, source)


def _degree_of_sum(expr: Expr, source: str) -> int:
    if not isinstance(expr, Reduce):
        return 0
    body = _degree(expr.body, source)
    where = 0 if expr.where is None else _degree(expr.where, source)
    return (body if expr.op in ("sum", "mean") else 2 * body) + 2 * where


# ------------------------------------------------------------------------------------------------- states


def state(work: Work, node: syntax.State, step: syntax.Step | None) -> Readable | None:
    """A state and its step, over the keys; read after a token."""
    features = _state_axes(work, node)
    if step is None:
        hint = f"write 'step {node.name} = …'"
        work.report(WrongRecurrence(node.span, hint, problem=f"the state '{node.name}' has no step"))
    if features is None or step is None:
        return None
    context = Context(f"in the step of '{node.name}'", {**heads(work), "k": index_value(KEY)}, work.file)

    def before(leading: tuple[Axis, ...], axes: tuple[Axis, ...]) -> Readable:
        return Readable(node.name, f"{node.name}.previous", (), tuple(map(slot_of, leading)), axes)

    found = _shape(work, node.name, step.value, context, before, [features], frozenset())
    made = _step(work, node.name, step.value, context, before, replace(found, features=features))
    if made is None:
        return None
    leading, _, expr = made
    work.stages.append(Recurrence(node.name, (*leading, *features), KEY, len(leading), expr, None, node.span))
    token = Slot("k", KEY.size, "position")
    return Readable(node.name, node.name, (token,), tuple(map(slot_of, leading)), features, after=True)


def _state_axes(work: Work, node: syntax.State) -> tuple[Axis, ...] | None:
    if len(node.axes) > 2:
        work.report(WrongRecurrence(node.span, problem="a state is a number, a vector or a matrix"))
        return None
    made: list[Axis] = []
    for part in node.axes:
        size = _axis_size(work, part)
        if size is None:
            return None
        made.append(work.feature_axis(size, sum(1 for axis in made if axis.size == size)))
    return tuple(made)


def _axis_size(work: Work, node: syntax.Expr) -> Expr | None:
    if isinstance(node, syntax.Name) and node.id in ("d", "e") and node.id not in work.declared:
        return CANONICAL[node.id].size
    value = call_value(
        work, node, call_context(work, "in the shape of a state"), "the length of an axis", "int"
    )
    return None if value is None else value.expr
