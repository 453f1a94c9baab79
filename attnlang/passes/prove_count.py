"""How many keys a row sees at most, for every call: ranges, every d-th key, choices and grids added up.

A bound is a polynomial over sizes, parameters and the indices of the row. There are several for one predicate; which of
them shows a claim is for the prover to find out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import (
    FALSE,
    ONE,
    ZERO,
    Apply,
    Axis,
    Expr,
    Index,
    Literal,
    Read,
    Select,
    children,
    dtype_of,
    free_axes,
)
from attnlang.ir.rewrite import map_children, simplify, substitute
from attnlang.ir.text import expression_text
from attnlang.ir.walk import parts_of
from attnlang.passes.prove_formula import ALWAYS, Formula, at_least, both, either, less, negated
from attnlang.passes.prove_linear import Poly, constant, plus, terms_of, times
from attnlang.passes.prove_terms import Place, Terms
from attnlang.passes.ranges import bands, linear

MOST_ALTERNATIVES, MOST_SUMS = 12, 48


@dataclass(frozen=True)
class Bound:
    """At most so many; `said`: why."""

    most: Poly
    said: str


def most_visible(
    terms: Terms, seen: Expr, axis: Axis, facts: Facts
) -> Iterator[tuple[Formula, Iterator[Bound]]]:
    """Cases, and for each the bounds on how many values of an axis meet a condition; none is less than 0."""
    counter = _Counter(terms, facts)
    for case, condition in _cases(terms, _lifted(simplify(seen), axis), ALWAYS, axis):
        yield case, islice(counter.of(condition, axis, {}), MOST_SUMS)


def _cases(terms: Terms, seen: Expr, case: Formula, axis: Axis) -> Iterator[tuple[Formula, Expr]]:
    """A condition taken apart by conditions that are free of the index, with what holds in each case."""
    match seen:
        case Apply("where", (condition, x, y)) if axis not in free_axes(condition):
            known = terms.formula(condition, {})
            yield from _cases(terms, x, both(case, known), axis)
            yield from _cases(terms, y, both(case, negated(known)), axis)
        case _:
            yield case, seen


class _Counter:
    def __init__(self, terms: Terms, facts: Facts) -> None:
        self.terms = terms
        self.facts = facts

    def of(self, seen: Expr, axis: Axis, place: Place) -> Iterator[Bound]:
        """Bounds of a whole condition: the sum over its alternatives, or the whole axis."""
        axis = next((own for own in free_axes(seen) if own.name == axis.name), axis)
        yield Bound(self.terms.integer(axis.size, place), f"there are {expression_text(axis.size)} of them")
        alternatives = _alternatives(_lifted(simplify(seen), axis))
        if len(alternatives) <= MOST_ALTERNATIVES:
            choices = [self._of_clause(clause, axis, place) for clause in alternatives]
            for chosen in _simplest_first(choices):
                total: Poly = ()
                for bound in chosen:
                    total = plus(total, bound.most)
                yield Bound(
                    total, ", and ".join(dict.fromkeys(bound.said for bound in chosen)) or "there are none"
                )

    def _of_clause(self, clause: Sequence[Expr], axis: Axis, place: Place) -> list[Bound]:
        """Bounds of conditions that all hold. Those without the axis decide whether there is anything to count."""
        guard = self.terms.formula(_all(part for part in clause if axis not in free_axes(part)), place)
        inner = [part for part in clause if axis in free_axes(part)]
        found: dict[Poly, Bound] = {}
        for bound in self._of_parts(inner, axis, place):
            most = self.terms.choice(guard, self._at_least_none(bound.most), ())
            found.setdefault(most, Bound(most, bound.said))
        return sorted(found.values(), key=lambda bound: self._weight(bound.most))

    def _at_least_none(self, most: Poly) -> Poly:
        """max(most, 0)."""
        plain = all(len(monomial) < 2 for monomial, _ in most)
        return most if plain and self.terms.decide(at_least(most)) else self.terms.larger(most, ())

    def _weight(self, poly: Poly) -> int:
        """How far a bound is from one in sizes and parameters alone."""
        return sum(0 if self.terms.keys[number][0] == "symbol" else 1 for number in terms_of(poly))

    def _of_parts(self, parts: list[Expr], axis: Axis, place: Place) -> Iterator[Bound]:
        for part in parts:
            yield from self._chosen(part, parts, axis, place)
        yield from self._rolled(parts, axis, place)
        yield from self._grid(parts, axis, place)
        ranges = list(self._ranges(parts, axis, place))
        whole = Bound(self.terms.integer(axis.size, place), f"{expression_text(axis.size)} of them")
        for span in (*ranges, whole):
            for part in parts:
                step = _step(part, axis)
                if step is not None and self.terms.positive(self.terms.integer(step, place)):
                    length, every = plus(span.most, ONE_POLY, -1), self.terms.integer(step, place)
                    said = f"{span.said}, every {expression_text(step)}-th of them"
                    yield Bound(plus(self.terms.quotient(length, every), ONE_POLY), said)
        yield from ranges

    # ------------------------------------------------------------------------------------------- ranges

    def _ranges(self, parts: list[Expr], axis: Axis, place: Place) -> Iterator[Bound]:
        """upper − lower + 1, for bounds in closed form and the ends of the axis."""
        query = next((own for part in parts for own in free_axes(part) if own.role == "query"), axis)
        found = bands(_all(parts), query, axis, self.facts)
        if len(found) != 1:
            return
        last = simplify(Apply("sub", (Apply("add", (axis.start, axis.size)), ONE)))
        lowers = [bound for bound in found[0].lower if axis not in free_axes(bound)]
        uppers = [bound for bound in found[0].upper if axis not in free_axes(bound)]
        for low, high in product([*lowers, axis.start], [*uppers, last]):
            if (low, high) == (axis.start, last):
                continue
            length = plus(self.terms.integer(high, place), self.terms.integer(low, place), -1)
            said = f"{expression_text(low)} <= {axis.name} <= {expression_text(high)}"
            yield Bound(plus(length, ONE_POLY), said)

    # ------------------------------------------------------------------------------------------ choices

    def _chosen(self, part: Expr, parts: list[Expr], axis: Axis, place: Place) -> Iterator[Bound]:
        """`top` chooses its amount, or what it always chooses where that is more, each with all its members."""
        match part:
            case Read(source, at, _):
                stage = self.terms.stages.get(source)
            case _:
                return
        if not (isinstance(stage, Select) and stage.rule == "top" and len(stage.candidates) == 1):
            return
        size = _members(at[-1], axis)
        if size is None or any(axis in free_axes(part) for part in at[:-1]):
            return
        if not self.terms.positive(self.terms.integer(size, place)):
            return
        others = self.terms.formula(_all([other for other in parts if other is not part]), place)
        if not self.terms.decide(either(negated(others), self._inside(at[-1], stage.candidates[0], place))):
            return  # outside of the candidates many values would read the nearest one
        rows = self.terms.rows(stage.rows, tuple(self.terms.integer(part, place) for part in at[:-1]))
        amount = self.terms.larger(self.terms.integer(stage.amount, rows), ())
        each = self.terms.integer(size, place)
        said = f"'{source}' has at most {expression_text(stage.amount)}"
        said += "" if size == ONE else f" of {expression_text(size)} each"
        if stage.always == FALSE:
            yield Bound(times(amount, each), said)
            return
        for always in islice(self.of(stage.always, stage.candidates[0], rows), MOST_ALTERNATIVES):
            yield Bound(times(self.terms.larger(amount, always.most), each), said)

    def _inside(self, at: Expr, axis: Axis, place: Place) -> Formula:
        """Whether a place, counted from 0, is one of an axis."""
        where = self.terms.integer(at, place)
        return both(at_least(where), less(where, self.terms.integer(axis.size, {})))

    # -------------------------------------------------------------------------------------------- grids

    def _rolled(self, parts: list[Expr], axis: Axis, place: Place) -> Iterator[Bound]:
        """`(k + r) mod m` is another number for every k of an axis that is no longer than m."""
        for rolled in dict.fromkeys(found for part in parts for found in _remainders(part, axis)):
            _, length = rolled.args
            size, most = (self.terms.integer(expr, place) for expr in (axis.size, length))
            if not self.terms.decide(at_least(most, size)):
                continue
            other = Axis(expression_text(rolled), length, "range")
            apart = [simplify(substitute(part, {rolled: Index(other)})) for part in parts]
            left = [part for part in apart if axis not in free_axes(part)]
            yield from islice(self.of(_all(left), other, place), MOST_ALTERNATIVES if left else 0)

    def _grid(self, parts: list[Expr], axis: Axis, place: Place) -> Iterator[Bound]:
        """k is y · width + x: as many as there are y, times as many as there are x."""
        if axis.start != ZERO:
            return
        for width in dict.fromkeys(width for part in parts for width in _divisors(part, axis)):
            if not self.terms.positive(self.terms.integer(width, place)):
                continue
            rows = Apply("floordiv", (Apply("add", (axis.size, Apply("sub", (width, ONE)))), width))
            whole = Axis(f"{axis.name} // {expression_text(width)}", simplify(rows), "range")
            rest = Axis(f"{axis.name} mod {expression_text(width)}", width, "range")
            taken: dict[Expr, Expr] = {
                Apply("floordiv", (Index(axis), width)): Index(whole),
                Apply("mod", (Index(axis), width)): Index(rest),
            }
            apart = [simplify(substitute(part, taken)) for part in parts]
            sides = [
                [part for part in apart if own in free_axes(part) and not free_axes(part) & others]
                for own, others in ((whole, {rest, axis}), (rest, {whole, axis}))
            ]
            if not any(sides):
                continue
            first, second = (
                islice(self.of(_all(side), own, place), MOST_ALTERNATIVES)
                for side, own in zip(sides, (whole, rest), strict=True)
            )
            for one, other in product(list(first), list(second)):
                said = f"{one.said}, times {other.said}"
                yield Bound(times(self._at_least_none(one.most), self._at_least_none(other.most)), said)


ONE_POLY = constant(1)


def _simplest_first(choices: list[list[Bound]]) -> Iterator[tuple[Bound, ...]]:
    """One bound for each alternative, the first ones of all first."""
    places = product(*(range(min(len(bounds), MOST_ALTERNATIVES)) for bounds in choices))
    for chosen in sorted(islice(places, MOST_SUMS * MOST_SUMS), key=sum):
        yield tuple(bounds[place] for bounds, place in zip(choices, chosen, strict=True))


def _all(parts: Iterator[Expr] | Sequence[Expr]) -> Expr:
    whole: Expr = Literal(True)
    for part in parts:
        whole = part if whole == Literal(True) else Apply("and", (whole, part))
    return whole


def _alternatives(expr: Expr) -> list[list[Expr]]:
    """Lists of conditions that all hold, one list for each alternative."""
    match expr:
        case Literal(value):
            return [[]] if value else []
        case Apply("and", (x, y)):
            left, right = _alternatives(x), _alternatives(y)
            if len(left) * len(right) > MOST_ALTERNATIVES:
                return left if len(left) <= len(right) else right
            return [[*a, *b] for a in left for b in right]
        case Apply("or", (x, y)):
            return _alternatives(x) + _alternatives(y)
        case Apply("where", (condition, x, y)) if dtype_of(expr) == "bool":
            opposite = Apply("not", (condition,))
            yes = [[condition, *clause] for clause in _alternatives(x)]
            return yes + [[opposite, *clause] for clause in _alternatives(y)]
        case _:
            return [[expr]]


def _step(part: Expr, axis: Axis) -> Expr | None:
    """d where a condition leaves every d-th value: `(± k + r) mod d == s`, with r, d and s free of k."""
    match part:
        case Apply("eq", (x, y)):
            pass
        case _:
            return None
    if axis in free_axes(x) and axis in free_axes(y):
        return None
    match x if axis in free_axes(x) else y:
        case Apply("mod", (inner, step)) if axis not in free_axes(step):
            return step if abs(_slope(inner, axis)) == 1 else None
        case _:
            return None


def _slope(expr: Expr, axis: Axis) -> int:
    """The factor of an index in a linear expression; 0 where it does not stand there alone."""
    terms, _ = linear(expr)
    named = [term for term in terms if axis in free_axes(term)]
    return terms[named[0]] if named == [Index(axis)] else 0


def _members(expr: Expr, axis: Axis) -> Expr | None:
    """How many values of an axis give an expression one value: 1 for `k + r`, d for `(k + r) // d`."""
    match expr:
        case Apply("floordiv", (inner, size)) if axis not in free_axes(size):
            inside = _members(inner, axis)
            return None if inside is None else size if inside == ONE else Apply("mul", (inside, size))
        case _:
            return ONE if abs(_slope(expr, axis)) == 1 else None


def _remainders(expr: Expr, axis: Axis) -> list[Apply]:
    """Where an index stands in `(± k + r) mod m`, not as `k mod m`."""
    match expr:
        case Apply("mod", (inner, length)) if axis in free_axes(inner) and axis not in free_axes(length):
            return [expr] if abs(_slope(inner, axis)) == 1 and inner != Index(axis) else []
        case Apply(_, args):
            return [found for arg in args for found in _remainders(arg, axis)]
        case _:
            return []


def _lifted(expr: Expr, axis: Axis, most: int = 3) -> Expr:
    """Numbers chosen by a condition that is free of an index, chosen outside instead."""
    chosen = next((part for part in parts_of(expr) if _is_choice(part, axis)), None)
    if chosen is None or most == 0:
        return expr
    condition = children(chosen)[0]
    picked = (_lifted(simplify(_picked(expr, condition, turn)), axis, most - 1) for turn in (1, 2))
    return Apply("where", (condition, *picked))


def _is_choice(expr: Expr, axis: Axis) -> bool:
    match expr:
        case Apply("where", (condition, _, _)):
            whole = dtype_of(expr) in ("int", "bool")
            return whole and axis in free_axes(expr) and axis not in free_axes(condition)
        case _:
            return False


def _picked(expr: Expr, condition: Expr, turn: int) -> Expr:
    """The expression where every choice by a condition is the one (1) or the other (2)."""
    match expr:
        case Apply("where", args) if args[0] == condition:
            return _picked(args[turn], condition, turn)
        case _:
            return map_children(expr, lambda part: _picked(part, condition, turn))


def _divisors(expr: Expr, axis: Axis) -> list[Expr]:
    """Widths d of `k // d` and `k mod d`."""
    found: list[Expr] = []
    match expr:
        case Apply("floordiv" | "mod", (Index(own), width)) if own == axis:
            found.append(width)
        case Apply(_, args):
            found += [width for arg in args for width in _divisors(arg, axis)]
        case Read(_, at, _):
            found += [width for part in at for width in _divisors(part, axis)]
        case _:
            pass
    return found
