"""That every row sees something, for every call: a key that is always visible, or several of which one is.

The keys that are tried are the query itself, the ends, the ends of the ranges that a predicate leaves, and whatever a
choice has chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import ONE, ZERO, Apply, Axis, Expr, Index, Pattern, Read, Select, free_axes
from attnlang.ir.rewrite import simplify
from attnlang.ir.text import expression_text
from attnlang.ir.walk import reads_of
from attnlang.passes.prove import Prover
from attnlang.passes.prove_formula import Formula, at_least, both, either, less, negated
from attnlang.passes.prove_linear import Monomial, Poly, plus, scaled, times
from attnlang.passes.prove_terms import Place, Terms
from attnlang.passes.ranges import bands

MOST_WITNESSES = 12


@dataclass(frozen=True)
class _Witness:
    """A value of an axis, in words and as a number; `seen`: that it exists and is visible."""

    said: str
    seen: Formula


def nonempty(pattern: Pattern, prover: Prover, visible: Sequence[tuple[Axis, Expr]]) -> str | None:
    """Why every query sees something, or None where that is not proved. `visible`: conditions over (b, h, q) and one
    axis each."""
    witnesses: list[_Witness] = []
    given: list[Formula] = []
    for axis, seen in visible:
        found, known = _witnesses(pattern, prover.terms, axis, seen)
        witnesses += found
        given += known
    for some in _sets(witnesses):
        if _together(prover, some, given):
            return f"every query sees {' or '.join(witness.said for witness in _needed(prover, some, given))}"
    return None


def _sets(witnesses: Sequence[_Witness]) -> Iterator[Sequence[_Witness]]:
    """Which witnesses are tried: each alone, the first with another one, all."""
    yield from ([witness] for witness in witnesses)
    if len(witnesses) > 1:
        yield from ([witnesses[0], witness] for witness in reversed(witnesses[1:]))
        yield witnesses


def _needed(prover: Prover, witnesses: Sequence[_Witness], given: Sequence[Formula]) -> Sequence[_Witness]:
    """As few of them as are found to do."""
    if len(witnesses) < 3:
        return witnesses
    for witness in witnesses:
        fewer = [other for other in witnesses if other is not witness]
        if _together(prover, fewer, given):
            return _needed(prover, fewer, given)
    return witnesses


def _together(prover: Prover, witnesses: Sequence[_Witness], given: Sequence[Formula]) -> bool:
    """Whether one of them is visible in every call."""
    return prover.valid(either(*(witness.seen for witness in witnesses)), given)


def _witnesses(
    pattern: Pattern, terms: Terms, axis: Axis, seen: Expr
) -> tuple[list[_Witness], list[Formula]]:
    """What may be visible, and what is known of it."""
    values = _values(pattern, terms, axis, seen, {})
    given: list[Formula] = []
    for read in dict.fromkeys(
        read for read in reads_of(seen) if isinstance(terms.stages.get(read.source), Select)
    ):
        found, known = _chosen(pattern, terms, axis, read)
        values |= found
        given += known
    listed = list(values.items())[:MOST_WITNESSES]
    return [
        _Witness(said, both(_there(terms, axis, value), terms.formula(seen, {axis: value})))
        for said, value in listed
    ], given


def _values(pattern: Pattern, terms: Terms, axis: Axis, seen: Expr, place: Place) -> dict[str, Poly]:
    """Values of an axis that a condition may hold for, by what they are called."""
    query = next((own for own in free_axes(seen) if own.role == "query"), pattern.axes[2])
    last = simplify(Apply("sub", (Apply("add", (axis.start, axis.size)), ONE)))
    exprs: list[Expr] = [Index(query), ZERO, last] if axis.role in ("key", "position") else [ZERO, last]
    inside = next((own for own in free_axes(seen) if own.name == axis.name), axis)
    for band in bands(seen, query, inside, Facts.of(pattern.parameters)):
        exprs += [bound for bound in (*band.lower, *band.upper) if inside not in free_axes(bound)]
    return {
        f"{axis.name} = {expression_text(expr)}": terms.integer(expr, place) for expr in dict.fromkeys(exprs)
    }


def _there(terms: Terms, axis: Axis, value: Poly) -> Formula:
    start, size = terms.integer(axis.start, {}), terms.integer(axis.size, {})
    return both(at_least(value, start), less(value, plus(start, size)))


def _chosen(pattern: Pattern, terms: Terms, axis: Axis, read: Read) -> tuple[dict[str, Poly], list[Formula]]:
    """Something that a choice has chosen, as a value of the axis it is read for: there is one as soon as anything may
    be chosen, where `top` takes at least one."""
    stage = terms.stages[read.source]
    if not (isinstance(stage, Select) and stage.rule == "top" and len(stage.candidates) == 1):
        return {}, []
    rows, (candidate,) = read.at[:-1], stage.candidates
    if any(axis in free_axes(part) for part in rows):
        return {}, []
    some = terms.fresh(candidate)
    value = _solved(terms, axis, read.at[-1], plus(some, terms.integer(candidate.start, {}), -1))
    if value is None:
        return {}, []
    at = tuple(terms.integer(part, {}) for part in rows)
    place = terms.rows(stage.rows, at)
    chosen = terms.read(stage.name, (*at, plus(some, terms.integer(candidate.start, {}), -1)))
    enough = at_least(terms.integer(stage.amount, place), terms.integer(ONE, {}))
    given: list[Formula] = []
    for other in _values(pattern, terms, candidate, Apply("or", (stage.always, stage.where)), place).values():
        allowed = terms.formula(stage.where, {**place, candidate: other})
        may = both(enough, _there(terms, candidate, other), allowed)
        given.append(either(negated(may), chosen))
    return {f"a key that '{stage.name}' has chosen": value}, given


def _solved(terms: Terms, axis: Axis, expr: Expr, wanted: Poly) -> Poly | None:
    """The value of an axis for which an expression of it is what is wanted: `k + r` and `(k + r) // d`."""
    match expr:
        case Apply("floordiv", (inner, divisor)) if axis not in free_axes(divisor):
            return _solved(terms, axis, inner, times(wanted, terms.integer(divisor, {})))
        case _:
            ((own, _),) = terms.index(axis)
            poly = terms.integer(expr, {})
            rest: Poly = tuple(item for item in poly if item[0] != own)
            if dict(poly).get(own) != 1 or any(_names(terms, axis, own[0], monomial) for monomial, _ in rest):
                return None
            return plus(wanted, scaled(rest, -1))


def _names(terms: Terms, axis: Axis, own: int, monomial: Monomial) -> bool:
    """Whether a monomial depends on an axis, as far as its terms show."""
    return any(number == own or terms.keys[number][0] not in ("symbol", "axis") for number in monomial)
