"""What is known while one pattern is elaborated: its names, its reports, the stages made so far."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from attnlang import syntax
from attnlang.elaborate.arithmetic import rename
from attnlang.elaborate.values import CANONICAL, Entity, FileScope, Grid, Group, Kind, Readable, Value
from attnlang.errors import Diagnostic
from attnlang.errors_meaning import DependsOnItself, ExpandsTooFar, NestsTooFar
from attnlang.ir.bounds import Facts, interval
from attnlang.ir.pattern import (
    DV,
    FEATURE,
    VALUE_FEATURE,
    ZERO,
    Apply,
    Axis,
    D,
    Expr,
    Index,
    Literal,
    Parameter,
    Requirement,
    Role,
    Stage,
    Tensor,
    children,
    kv_head_of,
)
from attnlang.source import Span

DEEPEST = 120
"""How deep expressions may nest, in the text and written out; Python's own limit is not far above it."""


LONGEST = 200_000
"""How many operations one pattern may have with all of its definitions written out."""


class Reports:
    """The mistakes found so far, each once."""

    def __init__(self) -> None:
        self.errors: list[Diagnostic] = []
        self._seen: set[tuple[str, str, int, int]] = set()
        self._muted = 0

    def add(self, error: Diagnostic) -> None:
        """Keeps a mistake unless the same one is known."""
        if self._muted:
            return
        start, end = (-1, -1) if error.span is None else (error.span.start, error.span.end)
        key = (error.code, error.text, start, end)
        if key not in self._seen:
            self._seen.add(key)
            self.errors.append(error)

    @contextmanager
    def muted(self) -> Generator[None]:
        """For a first look at an expression that is elaborated again."""
        self._muted += 1
        try:
            yield
        finally:
            self._muted -= 1

    @contextmanager
    def heard(self) -> Generator[None]:
        """For what is elaborated once only, even if it is needed during a first look."""
        muted, self._muted = self._muted, 0
        try:
            yield
        finally:
            self._muted = muted


@dataclass(frozen=True)
class Row:
    """What a normalizer step or a reweight sees: the row of values read as `source`, reduced along `along`."""

    attention: str
    rows: tuple[Axis, ...]
    over: Axis
    along: Axis
    source: str
    weights: bool

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Rows, then what is summed over."""
        return (*self.rows, self.over)


@dataclass(frozen=True)
class Context:
    """Where an expression stands: the indices that have a value, local names, the file of its functions.

    Indices follow a definition to its place of use, locals do not. `place` completes a sentence: `in the output`.
    """

    place: str
    indices: Mapping[str, Value]
    file: FileScope
    locals: Mapping[str, Entity] = field(default_factory=dict[str, Entity])
    inside: str = ""
    row: Row | None = None
    expanding: tuple[str, ...] = ()
    previous: Mapping[str, Readable] = field(default_factory=dict[str, Readable])

    def with_indices(self, more: Mapping[str, Value]) -> Context:
        """With further indices, which hide others of their name."""
        return replace(self, indices={**self.indices, **more})

    def with_local(self, name: str, entity: Entity) -> Context:
        """With one more local name."""
        return replace(self, locals={**self.locals, name: entity})


@dataclass(frozen=True)
class Declared:
    """A name that the pattern declares; `make` elaborates it on first use."""

    name: str
    kind: Kind
    span: Span
    make: Callable[[], Entity | None]

    @property
    def described(self) -> str:
        """`a tensor, line 3`."""
        if self.kind == "attention":
            return "the attention of the pattern's own sections"
        return f"a {self.kind}, line {self.span.line}"


Evaluate = Callable[["Work", syntax.Expr, Context], Value | None]


@dataclass
class Work:
    """One pattern on its way to IR."""

    pattern: syntax.PatternDefinition
    file: FileScope
    evaluator: Evaluate
    reports: Reports = field(default_factory=Reports)
    declared: dict[str, Declared] = field(default_factory=dict[str, Declared])
    parameters: list[Parameter] = field(default_factory=list[Parameter])
    tensors: list[Tensor] = field(default_factory=list[Tensor])
    requirements: list[Requirement] = field(default_factory=list[Requirement])
    stages: list[Stage] = field(default_factory=list[Stage])
    grids: list[Grid] = field(default_factory=list[Grid])
    groups: dict[str, Group] = field(default_factory=dict[str, Group])
    used: set[str] = field(default_factory=set[str])
    uses_kv_heads: bool = False
    equal_features: bool = False
    equal_lengths: bool = False
    _depth: int = 0
    _steps: int = 0
    _depths: dict[int, tuple[Expr, int]] = field(default_factory=dict[int, tuple[Expr, int]])
    _entities: dict[str, Entity | None] = field(default_factory=dict[str, "Entity | None"])
    _in_progress: list[str] = field(default_factory=list[str])
    _axes: dict[str, Axis] = field(default_factory=lambda: dict(CANONICAL))
    _features: dict[tuple[Expr, int], Axis] = field(default_factory=dict[tuple[Expr, int], Axis])

    # ----------------------------------------------------------------------------------------------- names

    def evaluate(self, node: syntax.Expr, context: Context) -> Value | None:
        """The typed value of an expression, or None after its mistakes have been reported."""
        self._steps += 1
        if self._steps > LONGEST:
            if self._steps == LONGEST + 1:
                self.report(ExpandsTooFar(node.span, limit=LONGEST))
            return None
        if self._depth >= DEEPEST:
            self.report(NestsTooFar(node.span, limit=DEEPEST))
            return None
        self._depth += 1
        try:
            return self.evaluator(self, node, context)
        finally:
            self._depth -= 1

    def depth_of(self, expr: Expr) -> int:
        """How deep an expression nests; known parts are remembered."""
        known = self._depths.get(id(expr))
        if known is None:
            known = (expr, 1 + max((self.depth_of(part) for part in children(expr)), default=0))
            self._depths[id(expr)] = known
        return known[1]

    def report(self, error: Diagnostic) -> None:
        """Keeps a mistake and goes on."""
        self.reports.add(error)

    def entity(self, name: str, span: Span) -> Entity | None:
        """What a declared name stands for, elaborated now if it has not been; None after a report."""
        if name in self._entities:
            self.used.add(name)
            return self._entities[name]
        if name in self._in_progress:
            through = [*self._in_progress[self._in_progress.index(name) :], name]
            self.report(DependsOnItself(span, name=name, through=" → ".join(through)))
            return None
        self.used.add(name)
        self._in_progress.append(name)
        try:
            with self.reports.heard():
                made = self.declared[name].make()
        finally:
            self._in_progress.pop()
        self._entities[name] = made
        return made

    # ------------------------------------------------------------------------------------------------ axes

    def fresh(self, base: str, size: Expr, role: Role, start: Expr = ZERO) -> Axis:
        """An index variable that is no other: `k_1`, `k_2`, …"""
        number = 1
        while f"{base}_{number}" in self._axes:
            number += 1
        axis = Axis(f"{base}_{number}", size, role, start)
        self._axes[axis.name] = axis
        return axis

    def copy(self, axis: Axis) -> Axis:
        """Another variable with the same values."""
        return self.fresh(
            axis.name.rstrip("0123456789").rstrip("_") or axis.name, axis.size, axis.role, axis.start
        )

    def named(self, name: str, size: Expr, role: Role, start: Expr = ZERO) -> Axis:
        """The index variable of that name, under another name if it is taken by one with other values."""
        axis = Axis(name, size, role, start)
        if self._axes.setdefault(name, axis) == axis:
            return axis
        return self.fresh(name, size, role, start)

    def feature_axis(self, size: Expr, copy: int = 0) -> Axis:
        """The index variable of vectors of that length; a second one for the other side of a matrix."""
        if copy == 0 and size in (D, DV):
            return FEATURE if size == D else VALUE_FEATURE
        if (size, copy) not in self._features:
            self._features[size, copy] = self.fresh("f", size, "range")
        return self._features[size, copy]

    def same_size(self, left: Expr, right: Expr) -> bool:
        """Whether two lengths are known to be equal."""
        return self._one_feature_size(left) == self._one_feature_size(right)

    def _one_feature_size(self, size: Expr) -> Expr:
        if not self.equal_features:
            return size
        match size:
            case Apply(op, args):
                return Apply(op, tuple(self._one_feature_size(arg) for arg in args))
            case _:
                return D if size == DV else size

    # ------------------------------------------------------------------------------------------- small helps

    def kv_head(self, head: Expr) -> Expr:
        """g(h), and the requirement that comes with it."""
        self.uses_kv_heads = True
        return kv_head_of(head)

    def non_negative(self, expr: Expr) -> bool:
        """Whether an int expression is at least 0 in every call, as far as intervals tell."""
        return interval(expr, Facts.of(tuple(self.parameters)))[0] >= 0

    def require(self, condition: Expr, text: str, span: Span) -> None:
        """A condition of every call; one that is known to hold is left out."""
        if isinstance(condition, Literal) and condition.value is True:
            return
        if all(known.condition != condition for known in self.requirements):
            self.requirements.append(Requirement(condition, text, span))


def shifted(value: Value, changes: Mapping[Axis, Expr]) -> Value:
    """The value with other index variables."""
    return replace(value, expr=rename(value.expr, changes)) if changes else value


def index_value(axis: Axis, group: Group | None = None) -> Value:
    """The index variable as a value."""
    return Value(Index(axis), "int", (), axis.role if axis.role != "range" else None, group)
