"""A contradiction among formulas: linear arithmetic, products, what is known of terms, alternatives split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import assert_never, cast

from attnlang.passes.prove_facts import facts_of
from attnlang.passes.prove_formula import (
    AtLeast,
    Both,
    Either,
    Flag,
    Formula,
    both,
    either,
    less,
    negated,
    same,
    terms_in,
)
from attnlang.passes.prove_linear import (
    Contradiction,
    Effort,
    GivenUp,
    Inequalities,
    Monomial,
    Poly,
    Side,
    constant,
    contradictory,
    eliminated,
    left_of,
    made,
    note,
    plus,
    term,
    times,
    value_of,
)
from attnlang.passes.prove_terms import Terms

MOST_ORDERED = 12
"""Pairs of terms whose order is asked for before alternatives are split."""
MOST_RESTS = 4
"""Up to this divisor the remainders are told apart."""
MOST_PAIRS = 8
"""Pairs of quotients, and of reads, that are told apart when all else has been tried."""


@dataclass
class _Branch:
    """What is assumed: inequalities, flags, and alternatives that are still open."""

    rows: Inequalities = field(default_factory=dict[Side, int])
    flags: dict[int, bool] = field(default_factory=dict[int, bool])
    clauses: tuple[Either, ...] = ()
    known: frozenset[int] = frozenset()
    products: frozenset[tuple[Side, int, Monomial]] = frozenset()
    parted: bool = False
    ordered: bool = False

    def copy(self) -> _Branch:
        return replace(self, rows=dict(self.rows), flags=dict(self.flags))


def refuted(terms: Terms, formulas: Sequence[Formula], effort: Effort) -> bool:
    """Whether formulas cannot all hold in any call. False where they can, or where the effort does not suffice."""
    search = _Search(terms, effort)
    branch = _Branch()
    try:
        search.assume(branch, formulas)
        return search.closed(branch)
    except Contradiction:
        return True
    except GivenUp:
        return False


class _Search:
    def __init__(self, terms: Terms, effort: Effort) -> None:
        self.terms = terms
        self.effort = effort

    # ---------------------------------------------------------------------------------------- assuming

    def assume(self, branch: _Branch, formulas: Sequence[Formula]) -> None:
        """Adds formulas and what is known of their terms. Raises Contradiction."""
        queue = list(formulas)
        while queue:
            formula = queue.pop()
            new = terms_in(formula) - branch.known
            branch.known |= new
            for number in sorted(new):
                queue += self._facts(number)
            match formula:
                case AtLeast(poly):
                    note(branch.rows, poly)
                case Flag(number, positive):
                    if branch.flags.setdefault(number, positive) != positive:
                        raise Contradiction
                case Both(parts):
                    queue += parts
                case Either(()):
                    raise Contradiction
                case Either():
                    if formula not in branch.clauses:
                        branch.clauses = (*branch.clauses, formula)
                case _:
                    assert_never(formula)

    def _facts(self, number: int) -> tuple[Formula, ...]:
        known = self.terms.facts.get(number)
        if known is None:
            self.terms.facts[number] = ()
            known = self.terms.facts[number] = facts_of(self.terms, number)
        return known

    # --------------------------------------------------------------------------------------- searching

    def closed(self, branch: _Branch) -> bool:
        """Whether a contradiction is found in every alternative."""
        while True:
            if self._contradictory(branch) or (self._multiply(branch) and self._contradictory(branch)):
                return True
            try:
                open_clauses, units = self._narrowed(branch)
            except Contradiction:
                return True
            if open_clauses is None:
                return True
            branch.clauses = open_clauses
            if units:
                self.assume(branch, units)
                continue
            if branch.clauses and not branch.ordered:
                branch.ordered = True
                if self._order_quotients(branch):
                    continue
            if branch.clauses:
                break
            more = self._distinctions(branch)
            if branch.parted or not more:
                return False
            branch.parted = True
            self.assume(branch, more)
        chosen = min(branch.clauses, key=lambda clause: len(clause.parts))
        rest = tuple(clause for clause in branch.clauses if clause is not chosen)
        before: tuple[Formula, ...] = ()
        for part in chosen.parts:
            other = branch.copy()
            other.clauses = rest
            try:
                self.assume(other, (part, *before))
                if not self.closed(other):
                    return False
            except Contradiction:
                pass
            if isinstance(part, AtLeast | Flag):
                before = (*before, negated(part))
        return True

    def _contradictory(self, branch: _Branch, more: Sequence[Poly] = ()) -> bool:
        return contradictory(branch.rows, more, self.effort)

    def _narrowed(self, branch: _Branch) -> tuple[tuple[Either, ...] | None, list[Formula]]:
        """The clauses without the parts that cannot hold, and those of which one part is left; None where none is."""
        kept: list[Either] = []
        units: list[Formula] = []
        named = frozenset(monomial for clause in branch.clauses for monomial in _monomials(clause))
        near = eliminated(dict(branch.rows), named, self.effort)
        for clause in branch.clauses:
            parts: list[Formula] = []
            for part in clause.parts:
                holds = self._looked(branch, near, part)
                if holds:
                    break
                if holds is None:
                    parts.append(part)
            else:
                if not parts:
                    return None, []
                narrowed = either(*parts)
                if len(parts) > 1 and isinstance(narrowed, Either):
                    kept.append(narrowed)
                else:
                    units.append(narrowed)
        return tuple(kept), units

    def _looked(self, branch: _Branch, near: Inequalities, part: Formula) -> bool | None:
        """Whether a part holds, or cannot hold, given the rest, of which `near` is what is said of the same monomials;
        None: neither is seen."""
        rows: list[Poly] = []
        for atom in part.parts if isinstance(part, Both) else (part,):
            match atom:
                case Flag(number, positive):
                    if branch.flags.get(number, positive) != positive:
                        return False
                case AtLeast(poly):
                    rows.append(poly)
                case _:
                    pass
        if isinstance(part, Flag):
            return True if part.term in branch.flags else None
        if isinstance(part, AtLeast) and self._follows(branch, part.poly):
            return True
        if rows and contradictory(near, rows, self.effort):
            return False
        return None

    def _follows(self, branch: _Branch, poly: Poly) -> bool:
        """Whether an inequality is there already."""
        trial: Inequalities = dict(branch.rows)
        try:
            return not note(trial, poly)
        except Contradiction:
            return False

    # ---------------------------------------------------------------------------------------- products

    def _multiply(self, branch: _Branch) -> bool:
        """Adds inequalities times terms that are not negative, where the products stand in the problem already."""
        wanted: set[Monomial] = {
            monomial for side in branch.rows for monomial, _ in side if len(monomial) > 1
        }
        for clause in branch.clauses:
            wanted.update(monomial for monomial in _monomials(clause) if len(monomial) > 1)
        factors: set[Monomial] = {(number,) for monomial in wanted for number in monomial}
        factors |= {monomial for monomial in self._divisors(branch) if len(monomial) > 1}
        done = set(branch.products)
        found: list[Poly] = []
        for factor in sorted(factors):
            low, _ = self.terms.bounds(((factor, 1),))
            if low < 0:
                continue
            for side, free in branch.rows.items():
                product = _product(side, free, factor, int(low), wanted)
                if product is not None and (side, free, factor) not in done:
                    done.add((side, free, factor))
                    found.append(product)
        branch.products = frozenset(done)
        return any([note(branch.rows, poly) for poly in found])

    def _divisors(self, branch: _Branch) -> set[Monomial]:
        """The divisors of quotients that are products of sizes and parameters."""
        keys = (self.terms.keys[number] for number in branch.known)
        found = (cast(Poly, key[2]) for key in keys if key[0] == "floordiv")
        return {
            divisor[0][0] for divisor in found if len(divisor) == 1 and divisor[0][0] and divisor[0][1] == 1
        }

    def _order_quotients(self, branch: _Branch) -> bool:
        """Adds which of two terms is larger, where both stand in products with one divisor and a contradiction shows
        it: that q // d ≤ r // d, or that w ≤ n // d as w · d ≤ n."""
        found = False
        for divisor, one, other in self._comparable(branch):
            for first, second in ((one, other), (other, one)):
                least: int | None = None
                for gap in (1, 0):  # first − second is not ≥ gap
                    row = plus(plus(term(first), term(second), -1), constant(gap), -1)
                    if not self._contradictory(branch, (row, times(row, ((divisor, 1),)))):
                        break
                    least = 1 - gap
                if least is not None:
                    row = plus(term(second), term(first), -1)
                    found = note(branch.rows, plus(row, constant(least), -1)) or found
        return found

    def _comparable(self, branch: _Branch) -> list[tuple[Monomial, int, int]]:
        """A divisor that is not negative, and two terms that both are multiplied with it, one a quotient by it."""
        keys = self.terms.keys
        products = {monomial for side in branch.rows for monomial, _ in side if len(monomial) > 1}
        found: list[tuple[Monomial, int, int]] = []
        for divisor in sorted(self._divisors(branch)):
            if self.terms.bounds(((divisor, 1),))[0] < 0:
                continue
            lefts = (left_of(monomial, divisor) for monomial in products)
            others = sorted({left[0] for left in lefts if left is not None and len(left) == 1})
            quotients = {n for n in others if keys[n][0] == "floordiv" and keys[n][2] == ((divisor, 1),)}
            found += [(divisor, a, b) for a, b in combinations(others, 2) if {a, b} & quotients]
        return found[:MOST_ORDERED]

    # ------------------------------------------------------------------------------------ distinctions

    def _distinctions(self, branch: _Branch) -> list[Formula]:
        """Cases that are told apart last: quotients by their sign and order, reads by their places."""
        keys = self.terms.keys
        quotients = [n for n in sorted(branch.known) if keys[n][0] == "floordiv"]
        divisors = {n: value_of(cast(Poly, keys[n][2])) for n in quotients}
        symbolic = [n for n, divisor in divisors.items() if divisor is None]
        small = [
            (n, divisor) for n, divisor in divisors.items() if divisor is not None and divisor <= MOST_RESTS
        ]
        found: list[Formula] = [_order(term(n), ()) for n in symbolic]
        for n, divisor in small:
            rest = plus(cast(Poly, keys[n][1]), term(n), -divisor)
            found.append(either(*(same(rest, constant(value)) for value in range(divisor))))
        pairs = [(a, b) for a, b in combinations(symbolic, 2) if keys[a][2] == keys[b][2]]
        found += [_order(term(a), term(b)) for a, b in pairs[:MOST_PAIRS]]
        reads = [n for n in sorted(branch.known) if keys[n][0] in ("read", "chosen", "visible")]
        alike = [(a, b) for a, b in combinations(reads, 2) if keys[a][:2] == keys[b][:2]]
        found += [self._congruent(branch, a, b) for a, b in alike[:MOST_PAIRS]]
        return [formula for formula in found if isinstance(formula, Either)]

    def _congruent(self, branch: _Branch, one: int, other: int) -> Formula:
        """The same element is the same value."""
        left, right = (cast("tuple[Poly, ...]", self.terms.keys[n][2]) for n in (one, other))
        apart = [negated(same(a, b)) for a, b in zip(left, right, strict=True) if a != b]
        if one in branch.flags or other in branch.flags:
            equal = either(
                both(Flag(one, True), Flag(other, True)), both(Flag(one, False), Flag(other, False))
            )
        else:
            equal = same(term(one), term(other))
        return either(*apart, equal)


def _order(one: Poly, other: Poly) -> Formula:
    return either(less(one, other), same(one, other), less(other, one))


def _monomials(formula: Formula) -> Iterator[Monomial]:
    match formula:
        case AtLeast(poly):
            yield from (monomial for monomial, _ in poly)
        case Both(parts) | Either(parts):
            for part in parts:
                yield from _monomials(part)
        case Flag():
            pass
        case _:
            assert_never(formula)


def _product(side: Side, free: int, factor: Monomial, low: int, wanted: set[Monomial]) -> Poly | None:
    """(factor − low) · (side + free), where all its products are wanted."""
    found: dict[Monomial, int] = {factor: free, (): -low * free}
    for monomial, value in side:
        product = tuple(sorted((*monomial, *factor)))
        if product not in wanted:
            return None
        found[product] = found.get(product, 0) + value
        found[monomial] = found.get(monomial, 0) - low * value
    return made(found)
