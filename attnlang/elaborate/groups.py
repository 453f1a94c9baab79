"""Coarse indices and grids as arithmetic on positions: members, first and last, the group of a position."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.elaborate.arithmetic import both, build, ceil_div, rename
from attnlang.elaborate.values import Boxes, ById, Grid, Group, Uniform
from attnlang.elaborate.work import Work
from attnlang.ir.pattern import (
    KEY,
    NK,
    NQ,
    ONE,
    POSITION,
    Q_OFFSET,
    QUERY,
    ZERO,
    Axis,
    Expr,
    Index,
    Literal,
    Reduce,
    Role,
)


@dataclass(frozen=True)
class Members:
    """The members of a group as index variables: their position, and the condition under which it exists."""

    axes: tuple[Axis, ...]
    position: Expr
    exists: Expr


def length_of(of: str) -> Expr:
    """How many positions there are to group."""
    return NQ if of == "q" else NK


def origin_of(of: str) -> Expr:
    """The absolute position of the first."""
    return Q_OFFSET if of == "q" else ZERO


def role_of(of: str) -> Role:
    """What a member of a group of these counts."""
    return "query" if of == "q" else "key" if of == "k" else "position"


def _axis_of(of: str) -> Axis:
    return QUERY if of == "q" else KEY if of == "k" else POSITION


def uniform_count(of: str, by: Expr, every: Expr, start: Expr) -> Expr:
    """How many groups reach from `start` to the end."""
    left = build("sub", length_of(of), start)
    if by == every:
        count = ceil_div(left, by)
        return count if start == ZERO else build("max", count, ZERO)
    return build("add", build("max", ceil_div(build("sub", left, by), every), ZERO), ONE)


def first_of(group: Group, index: Expr) -> Expr:
    """The smallest position in a group."""
    match group.shape:
        case Uniform(_, every, start):
            return build("add", build("add", origin_of(group.of), start), build("mul", index, every))
        case ById():
            return _extreme(group, index, "min")
        case Boxes(sides):
            corner = [
                build("mul", at, side) for at, (_, _, side) in zip(_box(sides, index), sides, strict=True)
            ]
            return build("add", origin_of(group.of), _row_major(corner, [extent for _, extent, _ in sides]))


def last_of(group: Group, index: Expr) -> Expr:
    """The largest position in a group; the last group may be short."""
    match group.shape:
        case Uniform(by, _, _):
            full = build("sub", build("add", first_of(group, index), by), ONE)
            return build("min", full, build("sub", _end(group), ONE))
        case ById():
            return _extreme(group, index, "max")
        case Boxes(sides):
            corner: list[Expr] = []
            for at, (_, extent, side) in zip(_box(sides, index), sides, strict=True):
                beyond = build("min", build("mul", build("add", at, ONE), side), extent)
                corner.append(build("sub", beyond, ONE))
            return build("add", origin_of(group.of), _row_major(corner, [extent for _, extent, _ in sides]))


def size_of(work: Work, group: Group, index: Expr) -> Expr:
    """How many members a group has."""
    match group.shape:
        case Uniform():
            return build("add", build("sub", last_of(group, index), first_of(group, index)), ONE)
        case ById():
            members = members_of(work, group, index)
            return Reduce("sum", members.axes, ONE, members.exists)
        case Boxes(sides):
            result: Expr = ONE
            for at, (_, extent, side) in zip(_box(sides, index), sides, strict=True):
                low = build("mul", at, side)
                result = build(
                    "mul", result, build("sub", build("min", build("add", low, side), extent), low)
                )
            return result


def members_of(work: Work, group: Group, index: Expr) -> Members:
    """Variables that go through the members of a group."""
    match group.shape:
        case Uniform(by, every, start):
            inside = work.fresh("i", by, "range")
            row = build("add", build("add", start, build("mul", index, every)), Index(inside))
            exists = Literal(True) if by == every == ONE else build("lt", row, length_of(group.of))
            return Members((inside,), build("add", origin_of(group.of), row), exists)
        case ById(ids):
            member = work.copy(_axis_of(group.of))
            exists = build("eq", rename(ids, {POSITION: Index(member)}), index)
            return Members((member,), Index(member), exists)
        case Boxes(sides):
            axes: list[Axis] = []
            coordinates: list[Expr] = []
            conditions: list[Expr] = []
            for at, (name, extent, side) in zip(_box(sides, index), sides, strict=True):
                inside = work.fresh(name, side, "range")
                coordinate = build("add", build("mul", at, side), Index(inside))
                axes.append(inside)
                coordinates.append(coordinate)
                if side != extent:
                    conditions.append(build("lt", coordinate, extent))
            position = build(
                "add", origin_of(group.of), _row_major(coordinates, [extent for _, extent, _ in sides])
            )
            return Members(tuple(axes), position, both(*conditions))


def group_at(group: Group, position: Expr) -> Expr:
    """The group of a position; overlapping groups have none, they are asked with `containing`."""
    match group.shape:
        case Uniform(_, every, start):
            row = build("sub", build("sub", position, origin_of(group.of)), start)
            return build("floordiv", row, every)
        case ById(ids):
            return rename(ids, {POSITION: position})
        case Boxes(sides):
            place = build("sub", position, origin_of(group.of))
            grid = Grid(tuple((name, extent) for name, extent, _ in sides))
            at = [
                build("floordiv", coordinate(grid, name, place), side) if side != extent else ZERO
                for name, extent, side in sides
            ]
            return _row_major(at, [ceil_div(extent, side) for _, extent, side in sides])


def has_group(group: Group, index: Expr) -> Expr:
    """Whether `group_at` found one: positions before the start and ids out of range are in none."""
    match group.shape:
        case Uniform(_, _, start):
            return Literal(True) if start == ZERO else build("ge", index, ZERO)
        case ById():
            return both(build("ge", index, ZERO), build("lt", index, group.axis.size))
        case Boxes():
            return Literal(True)


def overlaps(group: Group) -> bool:
    """Whether a position can be in several groups."""
    return isinstance(group.shape, Uniform) and group.shape.by != group.shape.every


def containing(work: Work, group: Group, position: Expr) -> Members:
    """Overlapping groups: a variable that goes through the groups of a position."""
    shape = group.shape
    assert isinstance(shape, Uniform)
    back = work.fresh("i", ceil_div(shape.by, shape.every), "range")
    index = build("sub", group_at(group, position), Index(back))
    inside = build("lt", position, build("add", first_of(group, index), shape.by))
    exists = both(build("ge", index, ZERO), build("lt", index, group.axis.size), inside)
    return Members((back,), index, exists)


def coordinate(grid: Grid, name: str, position: Expr) -> Expr:
    """The coordinate of a position along one axis of a grid."""
    below: Expr = ONE
    for axis, extent in reversed(grid.extents):
        if axis == name:
            result = build("floordiv", position, below)
            return result if axis == grid.extents[0][0] else build("mod", result, extent)
        below = build("mul", extent, below)
    raise KeyError(name)


def box_count(sides: tuple[tuple[str, Expr, Expr], ...]) -> Expr:
    """How many boxes cover the grid."""
    count: Expr = ONE
    for _, extent, side in sides:
        count = build("mul", count, ceil_div(extent, side) if extent != side else ONE)
    return count


def _end(group: Group) -> Expr:
    return build("add", origin_of(group.of), length_of(group.of))


def _row_major(at: list[Expr], extents: list[Expr]) -> Expr:
    position = at[0]
    for coordinate_, extent in zip(at[1:], extents[1:], strict=True):
        position = build("add", build("mul", position, extent), coordinate_)
    return position


def _box(sides: tuple[tuple[str, Expr, Expr], ...], index: Expr) -> list[Expr]:
    """The coordinates of a box from its number."""
    result: list[Expr] = []
    below: Expr = ONE
    for number, (_, extent, side) in reversed(list(enumerate(sides))):
        if extent == side:
            result.append(ZERO)
            continue
        count = ceil_div(extent, side)
        at = build("floordiv", index, below)
        slowest = all(e == s for _, e, s in sides[:number])
        result.append(at if slowest else build("mod", at, count))
        below = build("mul", count, below)
    return result[::-1]


def _extreme(group: Group, index: Expr, op: str) -> Expr:
    shape = group.shape
    assert isinstance(shape, ById)
    axis = _axis_of(group.of)
    member = Axis(f"{axis.name}_{group.name}", axis.size, axis.role, axis.start)
    exists = build("eq", rename(shape.ids, {POSITION: Index(member)}), index)
    body = Index(member)
    return Reduce("min", (member,), body, exists) if op == "min" else Reduce("max", (member,), body, exists)
