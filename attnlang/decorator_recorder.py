"""`p`, the first argument of a traced Python function: statements are its methods, names its attributes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Mapping
from typing import TypeAlias

from attnlang import syntax
from attnlang.decorator_source import FILES_OF_THE_TRACER, here
from attnlang.decorator_values import Operand, Trace, Traced, is_name, lift
from attnlang.errors import WrongStatement

FILES_OF_THE_TRACER.update((__file__, contextlib.__file__))

Indices: TypeAlias = Traced | Iterable[Traced]
"""One index or several: `c`, `[c, p.q]`, `p.index("m", agents)`."""


class Recorder:
    """Collects the statements of a traced function, in order.

    What is no statement is a name of the language: `p.q`, `p.Q`, `p.scale`, `p.heads`, `p.causal`, `p.s`; called,
    it is a function of the language: `p.exp(x)`, `p.window(512)`, `p.top(16)`, `p.merge(a, b)`.
    Reductions take a function or a generator: `p.sum(lambda m: x[m], over=p.heads, where=lambda m: m < p.h)`.
    """

    def __init__(self, trace: Trace, body: list[syntax.AnyStatement]) -> None:
        """The statements outside of branches are added to `body`."""
        self._trace = trace
        self._bodies = [body]

    def __getattr__(self, name: str) -> Traced:
        if name.startswith("_"):
            raise AttributeError(name)
        return Traced(syntax.Name(name, span=here()), self._trace)

    def _add(self, statement: syntax.AnyStatement) -> None:
        self._bodies[-1].append(statement)

    def _named(self, name: object) -> Traced:
        if not isinstance(name, str) or not is_name(name):
            raise WrongStatement(
                here(), what="the first argument is a name: a string of letters, digits and _"
            )
        return Traced(syntax.Name(name, span=here()), self._trace)

    # ---- expressions

    @property
    def dot(self) -> Traced:
        """`Q[q] @ K[k]`, without the scale."""
        return self.Q[self.q] @ self.K[self.k]

    def where(self, condition: Operand, then: Operand, otherwise: Operand) -> Traced:
        """`then if condition else otherwise`."""
        node = syntax.Conditional(lift(condition), lift(then), lift(otherwise), span=here())
        return Traced(node, self._trace)

    def index(self, name: str, size: Operand) -> Traced:
        """`name in size`: an index with a range of its own, for `at`, `over` and candidates."""
        expr = self._named(name).__expr__
        return Traced(expr, self._trace, lift(size))

    # ---- sections

    def mask(self, condition: Operand) -> None:
        """Which pairs may interact."""
        self._add(syntax.Section("mask", lift(condition), span=here()))

    def sparsity(self, condition: Operand) -> None:
        """Which of them the pattern keeps."""
        self._add(syntax.Section("sparsity", lift(condition), span=here()))

    def score(self, number: Operand) -> None:
        """The number a pair gets."""
        self._add(syntax.Section("score", lift(number), span=here()))

    def weight(self, number: Operand) -> None:
        """The weight itself, in place of a score and a normalizer."""
        self._add(syntax.Section("weight", lift(number), span=here()))

    def reweight(self, number: Operand) -> None:
        """What becomes of the weight `p.w` after normalizing."""
        self._add(syntax.Section("reweight", lift(number), span=here()))

    def value(self, vector: Operand) -> None:
        """What is summed."""
        self._add(syntax.Section("value", lift(vector), span=here()))

    def output(self, vector: Operand) -> None:
        """The result of a row."""
        self._add(syntax.Section("output", lift(vector), span=here()))

    def normalize(self, *steps: Operand, over: Traced | None = None) -> None:
        """`normalize a | b | c`, each a formula in `p.s`; `over=p.q` normalizes columns."""
        across = None if over is None else _name(over)
        self._add(syntax.Normalize(tuple(map(lift, steps)), across, span=here()))

    # ---- definitions

    def let(self, name: str, value: Operand, at: Indices = ()) -> Traced:
        """`let name[at] = value`: a table, or without indices a name for an expression."""
        self._add(syntax.Let(name, _binders(at), lift(value), span=here()))
        return self._named(name)

    def scan(self, name: str, value: Operand, at: Indices, restart: Operand | None = None) -> Traced:
        """`scan name[at] = value restart condition`; the value before is `p.<name>[n - 1]`."""
        self._add(syntax.Scan(name, _binders(at), lift(value), _optional(restart), span=here()))
        return self._named(name)

    def grid(self, *indices: Traced, **extents: Operand) -> None:
        """`grid q, k as (t: frames, y: height)`: `p.grid(p.q, p.k, t=frames, y=height)`."""
        sizes = tuple((name, lift(size)) for name, size in extents.items())
        self._add(syntax.GridDeclaration(tuple(map(_name, indices)), sizes, span=here()))

    def blocks(
        self,
        name: str,
        of: Traced,
        by: Operand | Mapping[str, Operand],
        *,
        every: Operand | None = None,
        start: Operand | None = None,
        count: Operand | None = None,
    ) -> Traced:
        """`blocks name of k by 64 every 32 from start`; `by={"y": 8, "x": 8}` are boxes, `count` goes with ids."""
        index = self._named(name)
        boxes = tuple((axis, lift(size)) for axis, size in by.items()) if isinstance(by, Mapping) else ()
        length = None if isinstance(by, Mapping) else lift(by)
        parts = _optional(every), _optional(start), _optional(count)
        self._add(syntax.BlocksDeclaration(name, _name(of), length, *parts, boxes, span=here()))
        return index

    def select(
        self,
        name: str,
        rule: Traced,
        candidates: Indices,
        *,
        by: Operand,
        at: Indices = (),
        where: Operand | None = None,
        always: Operand | None = None,
        never: Operand | None = None,
        per: Indices | None = None,
    ) -> Traced:
        """`select name[at] = rule candidates by … where …`; the result is called as a predicate."""
        chosen = lift(rule)
        if not isinstance(chosen, syntax.Call):
            raise WrongStatement(
                here(), what="the rule of a selection is p.top(m), p.mass(share) or p.above(x)"
            )
        scope = None if per is None else tuple(binder.name for binder in _binders(per))
        conditions = _optional(where), _optional(always), _optional(never)
        rows = _binders(at)
        self._add(
            syntax.Select(name, rows, chosen, _binders(candidates), lift(by), *conditions, scope, span=here())
        )
        return self._named(name)

    @contextlib.contextmanager
    def branch(
        self, name: str, *, over: Traced | None = None, at: Indices = ()
    ) -> Generator[Traced, None, None]:
        """`with p.branch("coarse", over=c) as coarse:` and its sections; `at` are its rows where they are not q."""
        span, handle = here(), self._named(name)
        if len(self._bodies) > 1:
            raise WrongStatement(span, what="a branch stands in a pattern, not in another branch")
        summed = None if over is None else _binder(over)
        body: list[syntax.AnyStatement] = []
        self._bodies.append(body)
        try:
            yield handle
        finally:
            self._bodies.pop()
        self._add(syntax.Branch(name, _binders(at), summed, tuple(body), span=span))

    def state(self, name: str, *axes: Operand) -> Traced:
        """`state S[d, e]`: `S = p.state("S", p.d, p.e)`."""
        self._add(syntax.State(name, tuple(map(lift, axes)), span=here()))
        return self._named(name)

    def step(self, state: Traced, value: Operand) -> None:
        """`step S = value`: the state after a token from the state before it."""
        self._add(syntax.Step(_name(state), lift(value), span=here()))

    # ---- conditions and claims

    def require(self, condition: Operand) -> None:
        """A condition on parameters and sizes, checked when the pattern is called."""
        self._add(syntax.Require(lift(condition), span=here()))

    def claim(self, claim: Operand, where: Mapping[str, Operand] | None = None) -> None:
        """`assert density <= 0.1 where NK = 65536`: `p.claim(p.density <= 0.1, where={"NK": 65536})`."""
        sizes = tuple((name, lift(size)) for name, size in (where or {}).items())
        self._add(syntax.Assert(lift(claim), sizes, span=here()))


STATEMENTS = [name for name in vars(Recorder) if not name.startswith("_")]
"""The names that are no names of the language."""


def _name(value: object) -> str:
    """The name that an index, a state or a coarse index is."""
    if isinstance(value, Traced) and isinstance(value.__expr__, syntax.Name):
        return value.__expr__.id
    raise WrongStatement(
        here(), what="an index is wanted here", hint="such as p.q, p.k, or what p.blocks gave"
    )


def _binder(value: Traced) -> syntax.Binder:
    return syntax.Binder(_name(value), value.__domain__, span=here())


def _binders(values: Indices) -> tuple[syntax.Binder, ...]:
    return tuple(map(_binder, (values,) if isinstance(values, Traced) else values))


def _optional(value: Operand | None) -> syntax.Expr | None:
    return None if value is None else lift(value)
