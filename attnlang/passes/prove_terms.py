"""From expressions of the pattern IR to polynomials and formulas, and what is known of each term they name.

A term is what a polynomial cannot take apart: a size, a parameter, an index, `x // d`, `min`, an element of a tensor.
Tables, choices and visibilities are written out where they are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import assert_never, cast

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import (
    Apply,
    Attention,
    Axis,
    Expr,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Select,
    Symbol,
    Threshold,
    dtype_of,
    free_axes,
)
from attnlang.passes.prove_formula import (
    ALWAYS,
    NEVER,
    Flag,
    Formula,
    at_least,
    both,
    either,
    less,
    negated,
    same,
    terms_in,
)
from attnlang.passes.prove_linear import (
    Poly,
    constant,
    left_of,
    plus,
    scaled,
    term,
    terms_of,
    times,
    value_of,
)

Place = Mapping[Axis, Poly]
"""Where an expression is looked at: the values of its index variables."""

Key = tuple[object, ...]
ONE = constant(1)
HIDDEN = -(2**62)
"""The largest of no whole numbers."""


def steps_hide(stage: Attention) -> bool:
    """Whether a step of the normalizer hides more than mask and sparsity do."""
    return any(isinstance(step, Threshold) and step.kind == "top" for step in stage.normalize)


def read_axes(stage: Let | Select | Attention | Recurrence, part: str) -> tuple[Axis, ...]:
    """The axes a stage, or a part of it, is read by."""
    match stage:
        case Let():
            return stage.axes
        case Select():
            return stage.rows + stage.candidates
        case Attention():
            if part == "":
                return (*stage.rows, stage.feature)
            return stage.rows if part in ("lse", "max", "count") else (*stage.rows, stage.over)
        case Recurrence():
            if part == "previous":
                return stage.axes
            return (*stage.axes[: stage.position], stage.token, *stage.axes[stage.position :])
        case _:
            assert_never(stage)


class Terms:
    """The terms of one pattern, by number. `decide` answers whether a formula holds for every call; `equal`: whole
    numbers of the call that others give; `least_offset`: what q_offset is at least."""

    def __init__(
        self, pattern: Pattern, equal: Mapping[str, Expr] | None = None, least_offset: float = -math.inf
    ) -> None:
        self.equal = equal or {}
        self.pattern = pattern
        self.stages = {stage.name: stage for stage in pattern.stages}
        self.symbols = Facts.of(pattern.parameters, (least_offset, math.inf)).symbols
        self.decide: Callable[[Formula], bool] = lambda formula: formula == ALWAYS
        self.keys: list[Key] = []
        self._numbers: dict[Key, int] = {}
        self._bounds: list[tuple[float, float]] = []
        self.facts: dict[int, tuple[Formula, ...]] = {}
        self._parts: dict[int, frozenset[int]] = {}
        self._copies = 0

    # ------------------------------------------------------------------------------------------- terms

    def named(self, *key: object, low: float = -math.inf, high: float = math.inf) -> Poly:
        """The term with this key; low and high bound it in every call."""
        if key not in self._numbers:
            self._numbers[key] = len(self.keys)
            self.keys.append(key)
            self._bounds.append((low, high))
        return term(self._numbers[key])

    def fresh(self, axis: Axis) -> Poly:
        """Some value of an axis, about which nothing else is known."""
        self._copies += 1
        return self.index(replace(axis, name=f"{axis.name}#{self._copies}"))

    def unused(self, axis: Axis, used: frozenset[int]) -> Poly:
        """Some value of an axis that is none of the used terms; the same again where the same are used."""
        turn = 1
        while True:
            value = self.index(replace(axis, name=f"{axis.name}'{turn}"))
            if not terms_of(value) & used:
                return value
            turn += 1

    def index(self, axis: Axis) -> Poly:
        """The value of an index variable."""
        start, size = self.integer(axis.start, {}), self.integer(axis.size, {})
        last = plus(plus(start, size), ONE, -1)
        return self.named("axis", axis, low=self.bounds(start)[0], high=self.bounds(last)[1])

    def bounds(self, poly: Poly) -> tuple[float, float]:
        """Numbers between which a polynomial lies in every call."""
        low = high = 0.0
        for monomial, factor in poly:
            least, most = 1.0, 1.0
            for number in monomial:
                corners = [_product(a, b) for a in (least, most) for b in self._bounds[number]]
                least, most = min(corners), max(corners)
            ends = (_product(factor, least), _product(factor, most))
            low, high = low + min(ends), high + max(ends)
        return low, high

    def named_in(self, numbers: frozenset[int]) -> frozenset[int]:
        """The sizes, parameters and indices that terms are made of."""
        return frozenset[int]().union(*map(self._named_in, numbers))

    def _named_in(self, number: int) -> frozenset[int]:
        if number not in self._parts:
            self._parts[number] = frozenset((number,))
            match self.keys[number]:
                case ("symbol", _):
                    pass
                case ("axis", Axis(_, size, _, start)):
                    inner = terms_of(self.integer(size, {})) | terms_of(self.integer(start, {}))
                    self._parts[number] |= self.named_in(inner)
                case ("floordiv" | "mod" | "max" | "pow", x, y):
                    self._parts[number] = self.named_in(terms_of(cast(Poly, x)) | terms_of(cast(Poly, y)))
                case ("where", condition, x, y):
                    inner = terms_of(cast(Poly, x)) | terms_of(cast(Poly, y))
                    self._parts[number] = self.named_in(inner | terms_in(cast(Formula, condition)))
                case ("expr", expr, known):
                    places = dict(cast("frozenset[tuple[Axis, Poly]]", known))
                    free = [self.index(axis) for axis in free_axes(cast(Expr, expr)) if axis not in places]
                    inner = frozenset[int]().union(*map(terms_of, (*places.values(), *free)))
                    self._parts[number] |= self.named_in(inner)
                case (_, _, at):
                    inner = frozenset[int]().union(*map(terms_of, cast("tuple[Poly, ...]", at)))
                    self._parts[number] |= self.named_in(inner)
                case _:
                    pass
        return self._parts[number]

    def positive(self, poly: Poly) -> bool:
        """Whether it is at least 1 in every call."""
        return self.bounds(poly)[0] >= 1

    # ------------------------------------------------------------------------------------- whole numbers

    def integer(self, expr: Expr, place: Place) -> Poly:
        """A whole number as a polynomial."""
        if dtype_of(expr) == "bool":
            return self.choice(self.formula(expr, place), ONE, ())
        match expr:
            case Literal(value) if isinstance(value, int):
                return constant(value)
            case Symbol(name, "int") if name in self.equal:
                return self.integer(self.equal[name], {})
            case Symbol(name, "int"):
                low, high = self.symbols.get(name, (-math.inf, math.inf))
                return self.named("symbol", name, low=low, high=high)
            case Index(axis):
                return place[axis] if axis in place else self.index(axis)
            case Apply("where", (condition, x, y)):
                chosen = self.formula(condition, place)
                return self.choice(chosen, self.integer(x, place), self.integer(y, place))
            case Apply("int" | "floor" | "ceil" | "round", (x,)) if dtype_of(x) == "float":
                return self._opaque(expr, place)
            case Apply(op, args) if dtype_of(expr) == "int":
                return self._operation(expr, op, [self.integer(arg, place) for arg in args], place)
            case Read(source, at, "int"):
                return self._int_read(source, at, place)
            case _:
                return self._opaque(expr, place)

    def _operation(self, expr: Expr, op: str, args: list[Poly], place: Place) -> Poly:
        match op, args:
            case "add", [x, y]:
                return plus(x, y)
            case "sub", [x, y]:
                return plus(x, y, -1)
            case "neg", [x]:
                return scaled(x, -1)
            case "mul", [x, y]:
                return times(x, y)
            case "floordiv", [x, y]:
                return self.quotient(x, y)
            case "mod", [x, y]:
                return self.remainder(x, y)
            case "min", [x, y]:
                return scaled(self.larger(scaled(x, -1), scaled(y, -1)), -1)
            case "max", [x, y]:
                return self.larger(x, y)
            case "abs", [x]:
                return self.larger(x, scaled(x, -1))
            case "pow", [x, y]:
                return self._power(x, y)
            case (("int" | "floor" | "ceil" | "round" | "detach"), [x]):
                return x
            case _:
                return self._opaque(expr, place)

    def larger(self, x: Poly, y: Poly) -> Poly:
        """max(x, y)."""
        low, high = self.bounds(plus(x, y, -1))
        if low >= 0:
            return x
        if high <= 0:
            return y
        x, y = sorted((x, y))
        ends = [self.bounds(part) for part in (x, y)]
        low, high = max(end[0] for end in ends), max(end[1] for end in ends)
        if x == scaled(y, -1):
            low = max(low, 0)
        return self.named("max", x, y, low=low, high=high)

    def quotient(self, x: Poly, y: Poly) -> Poly:
        """x // y, as far as possible without a remainder; 0 where y is 0."""
        if not self.positive(y):
            return () if y == () or x == () else self.named("floordiv", x, y)
        whole, rest = self._divided(x, y)
        low, high = self.bounds(rest)
        least = self.bounds(y)[0]
        if low >= 0 and (high < least or self.positive(plus(y, rest, -1))):
            return whole
        if high < 0 and (low >= -least or self.bounds(plus(y, rest))[0] >= 0):
            return plus(whole, ONE, -1)
        low = math.floor(low / least) if math.isfinite(low) and low < 0 else -math.inf if low < 0 else 0
        high = high if math.isinf(high) else high // least if high >= 0 else -1
        return plus(whole, self.named("floordiv", rest, y, low=low, high=high))

    def _divided(self, x: Poly, y: Poly) -> tuple[Poly, Poly]:
        """What of x is a multiple of y, divided, and the rest."""
        if x == y:
            return ONE, ()
        number = value_of(y)
        whole: dict[tuple[int, ...], int] = {}
        rest: dict[tuple[int, ...], int] = {}
        for monomial, factor in x:
            if number is not None:
                exact = factor if monomial == () else factor // number * number
                if monomial != () and factor % number:
                    exact = 0
                whole[monomial] = exact // number
                rest[monomial] = factor - whole[monomial] * number
            else:
                left = left_of(monomial, y[0][0]) if len(y) == 1 and y[0][1] == 1 else None
                target = rest if left is None else whole
                target[monomial if left is None else left] = factor
        pack = plus((), tuple(sorted(item for item in whole.items() if item[1])))
        return pack, tuple(sorted(item for item in rest.items() if item[1]))

    def remainder(self, x: Poly, y: Poly) -> Poly:
        """x mod y; 0 where y is 0."""
        if self.positive(y):
            return plus(x, times(y, self.quotient(x, y)), -1)
        return () if x == () or y == () else self.named("mod", x, y)

    def _power(self, x: Poly, y: Poly) -> Poly:
        exponent, base = value_of(y), value_of(x)
        if exponent is not None and exponent <= 6:
            found = ONE
            for _ in range(max(exponent, 0)):
                found = times(found, x)
            return found
        return self.named("pow", x, y, low=1 if base is not None and base >= 1 else -math.inf)

    def choice(self, condition: Formula, x: Poly, y: Poly) -> Poly:
        """x where the condition holds, else y."""
        if condition == ALWAYS or x == y:
            return x
        if condition == NEVER:
            return y
        ends = [self.bounds(part) for part in (x, y)]
        low, high = min(end[0] for end in ends), max(end[1] for end in ends)
        return self.named("where", condition, x, y, low=low, high=high)

    def _opaque(self, expr: Expr, place: Place) -> Poly:
        known = frozenset((axis, place[axis]) for axis in free_axes(expr) if axis in place)
        return self.named("expr", expr, known)

    # --------------------------------------------------------------------------------------------- reads

    def _int_read(self, source: str, at: tuple[Expr, ...], place: Place) -> Poly:
        places = tuple(self.integer(part, place) for part in at)
        stage = self.stages.get(source)
        if isinstance(stage, Let):
            return self.integer(stage.body, self.rows(stage.axes, places))
        return self.named("read", source, places)

    def rows(self, axes: tuple[Axis, ...], at: tuple[Poly, ...]) -> dict[Axis, Poly]:
        """The values of axes read at these places, counted from 0; outside an axis the nearest one is read."""
        return {axis: self._inside(axis, place) for axis, place in zip(axes, at, strict=True)}

    def _inside(self, axis: Axis, place: Poly) -> Poly:
        start, size = self.integer(axis.start, {}), self.integer(axis.size, {})
        value = plus(start, place)
        if self._is_index(value, axis):
            return value
        last = plus(size, ONE, -1)
        if not self.decide(at_least(place)):
            place = self.larger(place, ())
        if not self.decide(at_least(last, place)):
            place = scaled(self.larger(scaled(place, -1), scaled(last, -1)), -1)
        return plus(start, place)

    def _is_index(self, value: Poly, axis: Axis) -> bool:
        if len(value) != 1 or len(value[0][0]) != 1 or value[0][1] != 1:
            return False
        match self.keys[value[0][0][0]]:
            case ("axis", Axis(_, size, _, start)):
                return (size, start) == (axis.size, axis.start)
            case _:
                return False

    # ---------------------------------------------------------------------------------------- conditions

    def formula(self, expr: Expr, place: Place) -> Formula:
        """A condition."""
        match expr:
            case Literal(value):
                return ALWAYS if value else NEVER
            case Apply("not", (x,)):
                return negated(self.formula(x, place))
            case Apply("and" | "or" as op, (x, y)):
                parts = (self.formula(x, place), self.formula(y, place))
                return both(*parts) if op == "and" else either(*parts)
            case Apply("where", (condition, x, y)):
                known, yes, no = (self.formula(part, place) for part in (condition, x, y))
                return either(both(known, yes), both(negated(known), no))
            case Apply("lt" | "le" | "gt" | "ge" | "eq" | "ne" as op, (x, y)):
                return self._comparison(expr, op, x, y, place)
            case Read(source, at, "bool"):
                return self._bool_read(source, at, place)
            case _:
                return self._flag(expr, place)

    def _flag(self, expr: Expr, place: Place) -> Formula:
        ((monomial, _),) = self._opaque(expr, place)
        return Flag(monomial[0], True)

    def _comparison(self, expr: Expr, op: str, x: Expr, y: Expr, place: Place) -> Formula:
        kinds = {dtype_of(x), dtype_of(y)}
        if "float" in kinds:
            return self._flag(expr, place)
        if kinds == {"bool"} and op in ("eq", "ne"):
            one, other = self.formula(x, place), self.formula(y, place)
            alike = either(both(one, other), both(negated(one), negated(other)))
            return alike if op == "eq" else negated(alike)
        one, other = self.integer(x, place), self.integer(y, place)
        match op:
            case "lt":
                return less(one, other)
            case "le":
                return at_least(other, one)
            case "gt":
                return less(other, one)
            case "ge":
                return at_least(one, other)
            case "eq":
                return same(one, other)
            case _:
                return negated(same(one, other))

    def _bool_read(self, source: str, at: tuple[Expr, ...], place: Place) -> Formula:
        return self.read(source, tuple(self.integer(part, place) for part in at))

    def read(self, source: str, at: tuple[Poly, ...]) -> Formula:
        """An element of a tensor, choice or table of conditions, or of the visibility of an attention."""
        name, _, part = source.partition(".")
        stage = self.stages.get(name)
        match stage:
            case Let():
                return self.formula(stage.body, self.rows(stage.axes, at))
            case Attention() if part == "visible" and not steps_hide(stage):
                rows = self.rows(read_axes(stage, part), at)
                return both(self.formula(stage.mask, rows), self.formula(stage.sparsity, rows))
            case Attention() if part == "visible":
                values = tuple(self.rows(read_axes(stage, part), at).values())
                return self._flagged("visible", name, values)
            case Select():
                return self._flagged("chosen", name, tuple(self.rows(read_axes(stage, part), at).values()))
            case Merge() | Recurrence() | Attention() | None:
                return self._flagged("read", source, at)
            case _:
                assert_never(stage)

    def _flagged(self, *key: object) -> Formula:
        ((monomial, _),) = self.named(*key, low=0, high=1)
        return Flag(monomial[0], True)


def _product(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y
