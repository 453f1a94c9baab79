"""Polynomials over whole numbers, and whether linear inequalities between their monomials can hold at once.

A monomial is a tuple of numbers that stand for terms; products of terms count as terms of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd

Monomial = tuple[int, ...]
Poly = tuple[tuple[Monomial, int], ...]
"""Monomials in order, each with a factor other than 0; () is the monomial of the constant."""

Side = tuple[tuple[Monomial, int], ...]
"""The part of a polynomial without its constant."""

MOST_INEQUALITIES = 260
"""Beyond so many, elimination gives up."""


def made(terms: Mapping[Monomial, int]) -> Poly:
    """The polynomial of these terms."""
    return tuple(sorted((monomial, factor) for monomial, factor in terms.items() if factor))


def constant(value: int) -> Poly:
    """A number."""
    return (((), value),) if value else ()


def term(number: int) -> Poly:
    """A term by itself."""
    return (((number,), 1),)


def plus(one: Poly, other: Poly, factor: int = 1) -> Poly:
    """one + factor · other."""
    found = dict(one)
    for monomial, value in other:
        found[monomial] = found.get(monomial, 0) + factor * value
    return made(found)


def times(one: Poly, other: Poly) -> Poly:
    """The product."""
    found: dict[Monomial, int] = {}
    for left, a in one:
        for right, b in other:
            monomial = tuple(sorted(left + right))
            found[monomial] = found.get(monomial, 0) + a * b
    return made(found)


def scaled(poly: Poly, factor: int) -> Poly:
    """factor · poly."""
    return tuple((monomial, factor * value) for monomial, value in poly) if factor else ()


def value_of(poly: Poly) -> int | None:
    """The number that a polynomial is, or None."""
    if not poly:
        return 0
    return poly[0][1] if len(poly) == 1 and poly[0][0] == () else None


def terms_of(poly: Poly) -> frozenset[int]:
    """The terms in it."""
    return frozenset(number for monomial, _ in poly for number in monomial)


def left_of(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    """The monomial divided by another, or None where it is no multiple of it."""
    left = list(monomial)
    for number in divisor:
        if number not in left:
            return None
        left.remove(number)
    return tuple(left)


# ------------------------------------------------------------------------------------------- inequalities


class Contradiction(Exception):
    """The inequalities cannot hold at once."""


class GivenUp(Exception):
    """A proof takes too long."""


@dataclass
class Effort:
    """What a proof may still spend, in inequalities that are looked at."""

    left: int

    def spend(self, amount: int) -> None:
        """Raises GivenUp where no more is left."""
        self.left -= amount
        if self.left < 0:
            raise GivenUp


Inequalities = dict[Side, int]
"""`side + constant ≥ 0`, the least constant for each side; the factors of a side have no common divisor."""


def note(found: Inequalities, poly: Poly) -> bool:
    """Adds poly ≥ 0, tightened to whole numbers; whether it says something new. Raises Contradiction."""
    free = poly[0][1] if poly and poly[0][0] == () else 0
    side = poly[1:] if poly and poly[0][0] == () else poly
    if not side:
        if free < 0:
            raise Contradiction
        return False
    divisor = gcd(*(factor for _, factor in side))
    if divisor > 1:
        side = tuple((monomial, factor // divisor) for monomial, factor in side)
        free //= divisor
    known = found.get(side)
    if known is not None and known <= free:
        return False
    opposite = found.get(tuple((monomial, -factor) for monomial, factor in side))
    if opposite is not None and opposite + free < 0:
        raise Contradiction
    found[side] = free
    return True


_FEW = 2
"""How many more inequalities are taken to eliminate a term before the others are known."""

_UNEVEN = 12
"""How many more inequalities are taken rather than eliminating a term with another factor than ±1."""


def contradictory(inequalities: Inequalities, more: Iterable[Poly], effort: Effort) -> bool:
    """Whether no whole numbers meet the inequalities: Fourier-Motzkin elimination, each result tightened. False where
    they can hold, or where there would be too many. Raises GivenUp."""
    rows = dict(inequalities)
    try:
        for poly in more:
            note(rows, poly)
        eliminated(rows, frozenset(), effort)
    except Contradiction:
        return True
    return False


def eliminated(rows: Inequalities, kept: frozenset[Monomial], effort: Effort) -> Inequalities:
    """What inequalities say of some monomials: the others eliminated, as long as that adds few. Raises Contradiction,
    GivenUp."""
    while rows:
        effort.spend(len(rows))
        equation = _equation(rows, kept)
        if equation is not None:
            rows = _replaced(rows, *equation)
            continue
        rows, chosen = _bounded(rows, kept)
        if chosen is None:
            break
        rows = _without(rows, chosen)
        if len(rows) > MOST_INEQUALITIES:
            break
    return rows


def _equation(rows: Inequalities, kept: frozenset[Monomial]) -> tuple[Monomial, Poly] | None:
    """A monomial that equals a polynomial: side + constant = 0 with a factor of ±1."""
    for side, free in rows.items():
        opposite = rows.get(tuple((monomial, -factor) for monomial, factor in side))
        if opposite is None or opposite != -free:
            continue
        for monomial, factor in side:
            if abs(factor) == 1 and monomial not in kept:
                rest = {own: -factor * value for own, value in side if own != monomial}
                return monomial, made({**rest, (): -factor * free})
    return None


def _replaced(rows: Inequalities, monomial: Monomial, value: Poly) -> Inequalities:
    """The inequalities with a polynomial for a monomial."""
    kept: Inequalities = {}
    for side, free in rows.items():
        factor = next((factor for own, factor in side if own == monomial), 0)
        rest = made({(): free, **{own: found for own, found in side if own != monomial}})
        note(kept, plus(rest, value, factor))
    return kept


def _bounded(rows: Inequalities, kept: frozenset[Monomial]) -> tuple[Inequalities, Monomial | None]:
    """The inequalities whose monomials all have bounds on both sides, for the others always can be met; and the
    monomial whose elimination adds the fewest, with factors of ±1 where there is one: then nothing is lost of what
    holds for whole numbers only."""
    while True:
        above: dict[Monomial, int] = {}
        below: dict[Monomial, int] = {}
        uneven: set[Monomial] = set()
        for side in rows:
            for monomial, factor in side:
                counts = above if factor > 0 else below
                counts[monomial] = counts.get(monomial, 0) + 1
                if factor not in (1, -1):
                    uneven.add(monomial)
        loose = (above.keys() ^ below.keys()) - kept
        if not loose:
            break
        rows = {
            side: free for side, free in rows.items() if not any(monomial in loose for monomial, _ in side)
        }

    def cost(monomial: Monomial) -> int:
        over, under = above[monomial], below[monomial]
        return over * under - over - under + (_UNEVEN if monomial in uneven else 0)

    chosen = min(above.keys() - kept, key=lambda monomial: (cost(monomial), monomial), default=None)
    return rows, None if chosen is None or (kept and cost(chosen) > _FEW) else chosen


def _without(rows: Inequalities, monomial: Monomial) -> Inequalities:
    """The inequalities that follow for the other monomials."""
    over: list[tuple[int, Side, int]] = []
    under: list[tuple[int, Side, int]] = []
    kept: Inequalities = {}
    for side, free in rows.items():
        factor = next((factor for own, factor in side if own == monomial), 0)
        if factor == 0:
            kept[side] = free
        else:
            (over if factor > 0 else under).append((abs(factor), side, free))
    for a, left, one in over:
        for b, right, other in under:
            divisor = gcd(a, b)
            combined: dict[Monomial, int] = {own: factor * (b // divisor) for own, factor in left}
            for own, factor in right:
                combined[own] = combined.get(own, 0) + factor * (a // divisor)
            combined[()] = one * (b // divisor) + other * (a // divisor)
            note(kept, made(combined))
    return kept
