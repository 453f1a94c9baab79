"""What holds of a term in every call, by what the term is: the axioms of the prover."""

from __future__ import annotations

import math
from typing import cast

from attnlang.ir.pattern import Apply, Attention, Axis, Expr, Reduce, Select, dtype_of, free_axes
from attnlang.passes.prove_formula import (
    ALWAYS,
    Flag,
    Formula,
    at_least,
    both,
    either,
    less,
    negated,
    same,
)
from attnlang.passes.prove_linear import Poly, constant, plus, term, times, value_of
from attnlang.passes.prove_terms import HIDDEN, ONE, Place, Terms, read_axes


def facts_of(terms: Terms, number: int) -> tuple[Formula, ...]:
    """Everything that is known of a term."""
    own = term(number)
    low, high = terms.bounds(own)
    found: list[Formula] = []
    if math.isfinite(low):
        found.append(at_least(own, constant(int(low))))
    if math.isfinite(high):
        found.append(at_least(constant(int(high)), own))
    match terms.keys[number]:
        case ("axis", Axis() as axis):
            found += _of_index(terms, own, axis)
        case ("floordiv" | "mod" as kind, x, y):
            of = _of_quotient if kind == "floordiv" else _of_remainder
            found += of(terms, own, cast(Poly, x), cast(Poly, y))
        case ("max", x, y):
            one, other = cast(Poly, x), cast(Poly, y)
            found += [at_least(own, one), at_least(own, other)]
            found.append(either(at_least(one, own), at_least(other, own)))
        case ("where", condition, x, y):
            known = cast(Formula, condition)
            yes, no = same(own, cast(Poly, x)), same(own, cast(Poly, y))
            found += [either(negated(known), yes), either(known, no)]
        case ("pow", x, y):
            base = value_of(cast(Poly, x))
            if base is not None and base >= 2:
                found.append(at_least(own, plus(cast(Poly, y), ONE)))
        case ("expr", Reduce() as reduction, known):
            place = dict(cast("frozenset[tuple[Axis, Poly]]", known))
            found += _of_reduction(terms, number, reduction, place)
        case ("expr", Apply("sign", (x,)), known) if dtype_of(x) == "int":
            inner = terms.integer(x, dict(cast("frozenset[tuple[Axis, Poly]]", known)))
            above = both(less((), inner), same(own, ONE))
            below = both(less(inner, ()), same(own, constant(-1)))
            found.append(either(above, below, both(same(inner, ()), same(own, ()))))
        case ("chosen", str() as name, at):
            found += _of_choice(terms, Flag(number, True), name, cast("tuple[Poly, ...]", at))
        case ("visible", str() as name, at):
            found.append(_of_visible(terms, Flag(number, True), name, cast("tuple[Poly, ...]", at)))
        case _:
            pass
    return tuple(fact for fact in found if fact != ALWAYS)


def _of_index(terms: Terms, own: Poly, axis: Axis) -> list[Formula]:
    if free_axes(axis.size) | free_axes(axis.start):
        return []
    start, size = terms.integer(axis.start, {}), terms.integer(axis.size, {})
    return [at_least(own, start), less(own, plus(start, size))]


def _of_quotient(terms: Terms, own: Poly, x: Poly, y: Poly) -> list[Formula]:
    """y · (x // y) ≤ x < y · (x // y) + y, where y > 0."""
    rest = plus(x, times(y, own), -1)
    holds = both(at_least(rest), less(rest, y))
    if terms.positive(y):
        return [holds]
    return [either(less(y, ONE), holds), either(less(y, ()), less((), y), same(own, ()))]


def _of_remainder(terms: Terms, own: Poly, x: Poly, y: Poly) -> list[Formula]:
    """x mod y = x − y · (x // y), from 0 to y − 1, where y > 0."""
    exact = same(own, plus(x, times(y, terms.quotient(x, y)), -1))
    holds = both(at_least(own), less(own, y), exact)
    return [either(less(y, ONE), holds), either(less(y, ()), less((), y), same(own, ()))]


def _of_choice(terms: Terms, chosen: Flag, name: str, at: tuple[Poly, ...]) -> list[Formula]:
    """What is chosen may be chosen; what is always chosen is chosen wherever it may be."""
    stage = cast(Select, terms.stages[name])
    place = dict(zip(read_axes(stage, ""), at, strict=True))
    allowed, always = terms.formula(stage.where, place), terms.formula(stage.always, place)
    return [either(negated(chosen), allowed), either(chosen, negated(allowed), negated(always))]


def _of_visible(terms: Terms, visible: Flag, name: str, at: tuple[Poly, ...]) -> Formula:
    """What steps of a normalizer leave visible was visible before."""
    stage = cast(Attention, terms.stages[name])
    place = dict(zip(read_axes(stage, "visible"), at, strict=True))
    return either(
        negated(visible), both(terms.formula(stage.mask, place), terms.formula(stage.sparsity, place))
    )


def _of_reduction(terms: Terms, number: int, expr: Reduce, place: Place) -> list[Formula]:
    """A largest or least number is one of them, and no less (no more) than the first; a condition that holds for any
    index holds for some index."""
    own = term(number)
    some = {**place, **{axis: terms.fresh(axis) for axis in expr.axes}}
    first = {**place, **{axis: terms.integer(axis.start, place) for axis in expr.axes}}
    there = all(terms.positive(terms.integer(axis.size, place)) for axis in expr.axes)
    match expr.op:
        case "max" | "min" if dtype_of(expr.body) == "int":
            sign = 1 if expr.op == "max" else -1
            attained = both(same(own, terms.integer(expr.body, some)), _where(terms, expr.where, some))
            bound = at_least(*_ordered(own, terms.integer(expr.body, first), sign))
            found = [either(attained, same(own, constant(sign * HIDDEN)))]
            return [*found, either(negated(_where(terms, expr.where, first)), bound)] if there else found
        case "any":
            holds = both(_where(terms, expr.where, some), terms.formula(expr.body, some))
            return [either(Flag(number, False), holds)]
        case "all":
            fails = both(_where(terms, expr.where, some), negated(terms.formula(expr.body, some)))
            return [either(Flag(number, True), fails)]
        case _:
            return []


def _where(terms: Terms, where: Expr | None, place: Place) -> Formula:
    return ALWAYS if where is None else terms.formula(where, place)


def _ordered(one: Poly, other: Poly, sign: int) -> tuple[Poly, Poly]:
    return (one, other) if sign > 0 else (other, one)
