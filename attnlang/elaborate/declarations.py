"""Tensors, grids, blocks and lets."""

from __future__ import annotations

from attnlang import syntax
from attnlang.elaborate.arithmetic import build, by_kv_head
from attnlang.elaborate.binders import Bound, bind, call_context, call_value, heads
from attnlang.elaborate.groups import box_count, uniform_count
from attnlang.elaborate.merges import is_merge, merge_of
from attnlang.elaborate.operators import scalar
from attnlang.elaborate.parameters import DTYPES
from attnlang.elaborate.values import (
    CANONICAL,
    SLOTS,
    Abbreviation,
    Boxes,
    ById,
    Entity,
    Grid,
    Group,
    Readable,
    Slot,
    Uniform,
    slot_of,
)
from attnlang.elaborate.wording import written
from attnlang.elaborate.work import Context, Work, index_value
from attnlang.errors import nearest
from attnlang.errors_meaning import NotPositive, UnknownName, WrongBlocks, WrongGrid
from attnlang.ir.pattern import (
    BATCH,
    HEAD,
    KV_HEAD,
    NK,
    ONE,
    POSITION,
    ZERO,
    Axis,
    Expr,
    Let,
    Literal,
    Tensor,
    TensorAxis,
    free_axes,
)

# ------------------------------------------------------------------------------------------------- tensors


def tensor(work: Work, node: syntax.TensorDeclaration) -> Readable | None:
    """A declared tensor: an axis is an index name, a coarse index, or a length."""
    kind = DTYPES.get(node.dtype or "float")
    if kind is None:
        found = nearest(node.dtype or "", list(DTYPES))
        hint = f"did you mean '{found}'?" if found else "the types are int, float and bool"
        work.report(UnknownName(node.span, hint, name=node.dtype))
    axes = [_tensor_axis(work, part) for part in node.axes]
    known = [axis for axis in axes if axis is not None]
    if kind is None or len(known) < len(axes):
        return None
    work.tensors.append(Tensor(node.name, tuple(axis for axis, _ in known), kind, node.span))
    return Readable(node.name, node.name, tuple(slot for _, slot in known), (), (), kind, omit=True)


def _tensor_axis(work: Work, node: syntax.Expr) -> tuple[TensorAxis, Slot] | None:
    text = written(node)
    if isinstance(node, syntax.Name):
        if node.id in CANONICAL and node.id not in work.declared:
            slot = SLOTS[node.id]
            return TensorAxis(text, slot.size, node.id), slot
        if node.id in work.groups:
            group = work.groups[node.id]
            return TensorAxis(text, group.axis.size, group.name), slot_of(group.axis, group)
        if node.id in work.declared and work.declared[node.id].kind == "blocks":
            return None
    length = call_value(
        work, node, call_context(work, "in the shape of a tensor"), "the length of an axis", "int"
    )
    if length is None:
        return None
    if isinstance(length.expr, Literal) and length.expr.value < 1:
        work.report(NotPositive(node.span, what="the length of an axis", least=1, found=length.expr.value))
        return None
    return TensorAxis(text, length.expr), Slot(text, length.expr)


# ---------------------------------------------------------------------------------------- grids and blocks


def grid(work: Work, node: syntax.GridDeclaration) -> None:
    """Coordinates for positions, and the requirement that they cover the keys."""
    for index in node.indices:
        if index not in ("q", "k", "n"):
            work.report(WrongGrid(node.span, "a grid is of q, k or n", problem=f"'{index}' has no grid"))
    extents: list[tuple[str, Expr]] = []
    taken = {name for known in work.grids for name, _ in known.extents}
    for name, extent in node.extents:
        size = _positive(work, extent, f"the extent '{name}'")
        if name in taken or name in ("first", "last", "size"):
            work.report(WrongGrid(extent.span, problem=f"the coordinate '{name}' is declared twice"))
        elif size is not None:
            extents.append((name, size))
        taken.add(name)
    if len(extents) < len(node.extents) or not extents:
        return
    work.grids.append(Grid(tuple(extents)))
    product: Expr = ONE
    for _, size in extents:
        product = build("mul", product, size)
    text = " * ".join(written(extent, 8) for _, extent in node.extents)
    work.require(build("eq", NK, product), f"NK == {text}", node.span)


def _positive(work: Work, node: syntax.Expr, what: str) -> Expr | None:
    """A length of at least 1: known at once, from the bounds of parameters, or required of the call."""
    value = call_value(work, node, call_context(work, f"in {what}"), what, "int")
    if value is None:
        return None
    if isinstance(value.expr, Literal):
        if value.expr.value < 1:
            work.report(NotPositive(node.span, what=what, least=1, found=value.expr.value))
            return None
    elif not work.non_negative(build("sub", value.expr, ONE)):
        work.require(build("ge", value.expr, ONE), f"{written(node)} >= 1", node.span)
    return value.expr


def blocks(work: Work, node: syntax.BlocksDeclaration) -> Group | None:
    """A coarse index over groups of keys, queries or positions."""
    if node.of not in ("q", "k", "n"):
        hint = "groups are of keys (k), queries (q) or positions (n)"
        work.report(WrongBlocks(node.span, hint, problem=f"'{node.of}' has no groups"))
        return None
    if node.boxes:
        group = _boxes(work, node)
    elif node.by is None:
        work.report(WrongBlocks(node.span, problem="'blocks' needs 'by': how many make a group"))
        return None
    elif node.count is not None or isinstance(node.by, syntax.Subscript):
        group = _by_id(work, node, node.by)
    else:
        group = _uniform(work, node, node.by)
    if group is not None:
        work.groups[node.name] = group
    return group


def _uniform(work: Work, node: syntax.BlocksDeclaration, by_node: syntax.Expr) -> Group | None:
    by = _positive(work, by_node, "the size of a group")
    every = by if node.every is None else _positive(work, node.every, "the step between groups")
    start: Expr | None = ZERO
    if node.start is not None:
        value = call_value(
            work, node.start, call_context(work, "in 'from'"), "the start of the groups", "int"
        )
        start = None if value is None else value.expr
        if start is not None and not work.non_negative(start):
            work.require(build("ge", start, ZERO), f"{written(node.start)} >= 0", node.start.span)
    if by is None or every is None or start is None:
        return None
    if node.every is not None and by != every:
        order = build("le", every, by)
        if isinstance(order, Literal) and not order.value:
            work.report(WrongBlocks(node.span, problem="the groups leave gaps: 'every' is larger than 'by'"))
            return None
        work.require(order, f"{written(node.every)} <= {written(by_node)}", node.span)
    axis = work.named(node.name, uniform_count(node.of, by, every, start), "group")
    return Group(node.name, node.of, axis, Uniform(by, every, start))


def _by_id(work: Work, node: syntax.BlocksDeclaration, by_node: syntax.Expr) -> Group | None:
    if node.count is None:
        hint = f"write 'blocks {node.name} of {node.of} by {written(by_node)} in 16'"
        work.report(WrongBlocks(node.span, hint, problem="groups by id need their number behind 'in'"))
        return None
    count = _positive(work, node.count, "the number of groups")
    context = Context("in 'by'", heads(work), work.file)
    position = index_value(POSITION)
    context = context.with_indices({"n": position, node.of: position})
    ids = scalar(work, by_node, context, "the id of a position", "int")
    if count is None or ids is None:
        return None
    return Group(node.name, node.of, work.named(node.name, count, "group"), ById(ids.expr))


def _boxes(work: Work, node: syntax.BlocksDeclaration) -> Group | None:
    grids = [
        known for known in work.grids if {name for name, _ in node.boxes} <= {n for n, _ in known.extents}
    ]
    if not grids:
        names = ", ".join(name for known in work.grids for name, _ in known.extents)
        hint = f"the grid has {names}" if names else "declare one: 'grid q, k as (y: height, x: width)'"
        work.report(WrongBlocks(node.span, hint, problem="boxes need a grid with these coordinates"))
        return None
    sides: dict[str, Expr] = {}
    for name, side_node in node.boxes:
        side = _positive(work, side_node, f"the side '{name}'")
        if name in sides:
            work.report(WrongBlocks(side_node.span, problem=f"the side '{name}' stands twice"))
        elif side is not None:
            sides[name] = side
    if len(sides) < len(node.boxes):
        return None
    extents = grids[0].extents
    shape = Boxes(tuple((name, extent, sides.get(name, extent)) for name, extent in extents))
    return Group(node.name, node.of, work.named(node.name, box_count(shape.sides), "group"), shape)


# ---------------------------------------------------------------------------------------------------- lets


def let(work: Work, node: syntax.Let) -> Entity | None:
    """A table, an abbreviation, or the name of a merge."""
    if not node.indices:
        if isinstance(node.value, syntax.Call) and is_merge(node.value):
            context = Context(f"in '{node.name}'", heads(work), work.file)
            return merge_of(work, node.value, context, node.name)
        return Abbreviation(node.name, node.value)
    context = table_context(work, node.name, node.indices)
    bound = bind(work, node.indices, context)
    if bound is None:
        return None
    context = context.with_indices({each.name: each.value for each in bound})
    value = work.evaluate(node.value, context)
    if value is None:
        return None
    body, leading = lead(value.expr, bound)
    own = tuple(each.axis for each in bound)
    work.stages.append(Let(node.name, (*leading, *own, *value.features), body, value.dtype, node.span))
    slots = tuple(each.slot for each in bound)
    read_by = tuple(map(slot_of, leading))
    return Readable(node.name, node.name, slots, read_by, value.features, value.dtype, omit=True)


def table_context(work: Work, name: str, binders: tuple[syntax.Binder, ...]) -> Context:
    """Batch and head come by themselves, unless the key/value head is an index of the table."""
    indices = heads(work)
    if any(binder.name == "g" and binder.domain is None for binder in binders):
        del indices["h"]
    return Context(f"in '{name}'", indices, work.file)


def lead(expr: Expr, bound: list[Bound]) -> tuple[Expr, tuple[Axis, ...]]:
    """The expression and the axes of batch and heads that it depends on, besides those that are written out."""
    own = {each.axis for each in bound}
    if HEAD not in own and KV_HEAD not in own:
        expr = by_kv_head(expr)
    free = free_axes(expr)
    return expr, tuple(axis for axis in (BATCH, HEAD, KV_HEAD) if axis in free and axis not in own)
