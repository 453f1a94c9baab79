"""Conditions over whole numbers as the prover sees them: inequalities between polynomials, flags, and, or."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from attnlang.passes.prove_linear import Poly, constant, plus, scaled, terms_of, value_of


@dataclass(frozen=True)
class AtLeast:
    """poly ≥ 0."""

    poly: Poly


@dataclass(frozen=True)
class Flag:
    """A condition of which nothing but its name is known, or its opposite."""

    term: int
    positive: bool


@dataclass(frozen=True)
class Both:
    """All parts hold."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True)
class Either:
    """One of the parts holds."""

    parts: tuple[Formula, ...]


Formula = AtLeast | Flag | Both | Either

ALWAYS, NEVER = Both(()), Either(())
ONE = constant(1)


def at_least(one: Poly, other: Poly = ()) -> Formula:
    """one ≥ other."""
    poly = plus(one, other, -1)
    number = value_of(poly)
    if number is None:
        return AtLeast(poly)
    return ALWAYS if number >= 0 else NEVER


def less(one: Poly, other: Poly) -> Formula:
    """one < other."""
    return at_least(plus(other, ONE, -1), one)


def same(one: Poly, other: Poly) -> Formula:
    """one = other."""
    return both(at_least(one, other), at_least(other, one))


def both(*parts: Formula) -> Formula:
    """All of them."""
    found: dict[Formula, None] = {}
    for part in parts:
        if part == NEVER:
            return NEVER
        for inner in part.parts if isinstance(part, Both) else (part,):
            found[inner] = None
    return next(iter(found)) if len(found) == 1 else Both(tuple(found))


def either(*parts: Formula) -> Formula:
    """One of them."""
    found: dict[Formula, None] = {}
    for part in parts:
        if part == ALWAYS:
            return ALWAYS
        for inner in part.parts if isinstance(part, Either) else (part,):
            found[inner] = None
    return next(iter(found)) if len(found) == 1 else Either(tuple(found))


def negated(formula: Formula) -> Formula:
    """The opposite."""
    match formula:
        case AtLeast(poly):
            return at_least(plus(scaled(poly, -1), ONE, -1))
        case Flag(term, positive):
            return Flag(term, not positive)
        case Both(parts):
            return either(*map(negated, parts))
        case Either(parts):
            return both(*map(negated, parts))
        case _:
            assert_never(formula)


def terms_in(formula: Formula) -> frozenset[int]:
    """The terms of a formula."""
    match formula:
        case AtLeast(poly):
            return terms_of(poly)
        case Flag(term, _):
            return frozenset((term,))
        case Both(parts) | Either(parts):
            return frozenset[int]().union(*map(terms_in, parts))
        case _:
            assert_never(formula)


def decided(formula: Formula, term: int, value: bool) -> Formula:
    """The formula where a flag is known."""
    match formula:
        case Flag(own, positive) if own == term:
            return ALWAYS if positive == value else NEVER
        case Both(parts):
            return both(*(decided(part, term, value) for part in parts))
        case Either(parts):
            return either(*(decided(part, term, value) for part in parts))
        case _:
            return formula


def flags_in(formula: Formula) -> frozenset[Flag]:
    """The flags of a formula, with their signs."""
    match formula:
        case Flag():
            return frozenset((formula,))
        case Both(parts) | Either(parts):
            return frozenset[Flag]().union(*map(flags_in, parts))
        case _:
            return frozenset()
