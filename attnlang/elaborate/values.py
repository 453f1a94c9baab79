"""What the names of a pattern stand for, and the typed values that expressions become."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as OneOf

from attnlang import syntax
from attnlang.ir.pattern import (
    BATCH,
    FEATURE,
    HEAD,
    KEY,
    KV_HEAD,
    POSITION,
    QUERY,
    VALUE_FEATURE,
    ZERO,
    Axis,
    DType,
    Expr,
    Role,
)
from attnlang.source import Span


@dataclass(frozen=True)
class Uniform:
    """Groups of `by` neighbours, one every `every` positions from `start` (absolute)."""

    by: Expr
    every: Expr
    start: Expr


@dataclass(frozen=True)
class ById:
    """One group per id; `ids` is the id of the position that `POSITION` stands for."""

    ids: Expr


@dataclass(frozen=True)
class Boxes:
    """Boxes of a grid: name, extent and side along every grid axis, the slowest first."""

    sides: tuple[tuple[str, Expr, Expr], ...]


@dataclass(frozen=True)
class Group:
    """A coarse index: `axis` counts groups of the positions of `of` ('q', 'k' or 'n'), which has `length` entries."""

    name: str
    of: str
    axis: Axis
    shape: Uniform | ById | Boxes


@dataclass(frozen=True)
class Grid:
    """Row-major coordinates of positions: name and extent, the slowest first."""

    extents: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True)
class Value:
    """A typed expression; a vector has one free feature axis, a matrix two.

    `role` and `group` tell what an index counts, None for a plain number. `size` bounds the number of its nodes.
    """

    expr: Expr
    dtype: DType
    features: tuple[Axis, ...] = ()
    role: Role | None = None
    group: Group | None = None
    size: int = 1


@dataclass(frozen=True)
class Slot:
    """One axis of something that is read: its stored entries are `start`, `start` + 1, …"""

    written: str
    size: Expr
    role: Role | None = None
    group: Group | None = None
    start: Expr = ZERO

    @property
    def may_be_feature(self) -> bool:
        """Whether leaving the index out makes a vector."""
        return self.group is None and self.role in (None, "feature", "value_feature", "range")


@dataclass(frozen=True)
class Readable:
    """A tensor or a stage, read by `own` indices or by `leading` and `own`; `features` remain when it is read.

    With `omit`, trailing own indices may be left out and become features. With `token`, the last own index must be
    the token before this one, and is not read by. With `after`, it is a state: bare, it is
    the one after the current token.
    """

    name: str
    source: str
    own: tuple[Slot, ...]
    leading: tuple[Slot, ...] = ()
    features: tuple[Axis, ...] = ()
    dtype: DType = "float"
    omit: bool = False
    token: Axis | None = None
    after: bool = False


@dataclass(frozen=True)
class Relation:
    """A choice, used like a predicate of its own rows and candidates."""

    readable: Readable


@dataclass(frozen=True)
class Attended:
    """An attention: its result, what its rows keep, and whether it is one plain softmax."""

    result: Readable
    weights: Readable
    over: Slot
    row_slots: tuple[Slot, ...]
    feature: Axis
    softmax: bool
    has_lse: bool


@dataclass(frozen=True)
class Merged:
    """A merge of attentions over the same rows."""

    result: Readable
    parts: tuple[str, ...]
    row_slots: tuple[Slot, ...]
    feature: Axis


@dataclass(frozen=True)
class Abbreviation:
    """A `let` without indices: its expression, elaborated at the place of use."""

    name: str
    value: syntax.Expr


Entity = Value | Readable | Relation | Attended | Merged | Abbreviation | Group

Kind = OneOf["parameter", "tensor", "let", "scan", "select", "branch", "blocks", "state", "attention"]


@dataclass(frozen=True)
class Definition:
    """A `def` and the file it stands in."""

    node: syntax.Definition
    file: FileScope


@dataclass
class FileScope:
    """The functions and patterns that a file can name, filled while files are read."""

    label: str
    functions: dict[str, Definition] = field(default_factory=dict[str, Definition])
    patterns: dict[str, syntax.PatternDefinition] = field(default_factory=dict[str, syntax.PatternDefinition])
    spans: dict[str, Span] = field(default_factory=dict[str, Span])


CANONICAL: dict[str, Axis] = {
    axis.name: axis for axis in (BATCH, HEAD, KV_HEAD, QUERY, KEY, POSITION, FEATURE, VALUE_FEATURE)
}


def slot_of(axis: Axis, group: Group | None = None) -> Slot:
    """The slot that an axis of a stage makes."""
    return Slot(axis.name, axis.size, axis.role, group, axis.start)


SLOTS: dict[str, Slot] = {name: slot_of(axis) for name, axis in CANONICAL.items()}

INPUTS: dict[str, Readable] = {
    "Q": Readable("Q", "Q", (SLOTS["q"],), (SLOTS["b"], SLOTS["h"]), (FEATURE,)),
    "K": Readable("K", "K", (SLOTS["k"],), (SLOTS["b"], SLOTS["g"]), (FEATURE,)),
    "V": Readable("V", "V", (SLOTS["k"],), (SLOTS["b"], SLOTS["g"]), (VALUE_FEATURE,)),
}

CONSTANTS: dict[str, float] = {"pi": 3.141592653589793, "inf": float("inf")}
