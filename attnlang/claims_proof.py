"""Claims proved for all sizes, parameters, offsets and contents of tensors: each kind, and the argument in a line."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import assert_never

from attnlang.call_interface import Interface
from attnlang.claims_seen import at_size, key_visibility, visibilities
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import NK, NQ, Q_OFFSET, Apply, Claim, Expr, Literal, dtype_of
from attnlang.ir.text import expression_text
from attnlang.passes.prove import EFFORT, Prover
from attnlang.passes.prove_count import Bound, most_visible
from attnlang.passes.prove_equal import equal
from attnlang.passes.prove_flow import causal
from attnlang.passes.prove_formula import NEVER, ONE, Formula, at_least, less, terms_in
from attnlang.passes.prove_linear import Poly, constant, left_of, plus, scaled, terms_of, times
from attnlang.passes.prove_terms import Terms
from attnlang.passes.prove_witness import nonempty

QUICK = 25_000
"""What each question of a proof may spend before the claim is searched."""
_TOTAL = 5
"""How many times that the bounds of a row may spend together."""
_LONGEST = 160


def proof(interface: Interface, claim: Claim, other: Interface | None, *, quick: bool) -> str | None:
    """Why a claim holds for every call, or None where that is not proved. `quick`: little is spent on it. Raises
    ClaimNotMeant."""
    pattern, fixed, effort = interface.pattern, dict(claim.where), QUICK if quick else EFFORT
    if claim.kind == "equal":
        return (
            None
            if other is None
            else equal(pattern, other.pattern, fixed | _of_one(interface, other), effort)
        )
    if claim.kind == "density":
        fixed |= _as_declared(interface, claim) | {"q_offset": Apply("sub", (NK, NQ))}
    prover = Prover(pattern, inside=claim.kind in ("causal", "nonempty"), fixed=fixed, effort=effort)
    if prover.valid(NEVER):  # no call meets the requirements: whatever is said of all calls is idle
        return None
    match claim.kind:
        case "causal":
            return causal(pattern, prover)
        case "nonempty":
            return nonempty(pattern, prover, visibilities(interface, claim))
        case "rows":
            return _rows(interface, claim, prover)
        case "density":
            return _density(interface, claim, prover)
        case _:
            assert_never(claim.kind)


def _of_one(interface: Interface, other: Interface) -> dict[str, Expr]:
    """Parameters that only one of two patterns has stay at their defaults."""
    found: dict[str, Expr] = {}
    for one, two in ((interface, other), (other, interface)):
        for name, parameter in one.parameters.items():
            if name not in two.parameters and parameter.default is not None:
                found[name] = Literal(parameter.default)
    return found


def _as_declared(interface: Interface, claim: Claim) -> dict[str, Expr]:
    """At a given size, parameters have their defaults."""
    given = {name for name, _ in claim.where}
    if not at_size(claim):
        return {}
    found: dict[str, Expr] = {}
    for size, like in (("NK", NQ), ("NQ", NK)):
        if size not in given:
            found[size] = like
    for name, parameter in interface.parameters.items():
        if name not in given and parameter.default is not None:
            found[name] = Literal(parameter.default)
    return found


# ----------------------------------------------------------------------------------------------- rows, density


def _rows(interface: Interface, claim: Claim, prover: Prover) -> str | None:
    """rows <= x where the keys that a row sees are at most x."""
    bound = None if claim.bound is None else _fraction(prover.terms, claim.bound)
    if bound is None or claim.comparison not in ("le", "lt"):
        return None
    above, below = bound
    if not prover.valid(at_least(below, ONE)):
        return None

    def claimed(_: Formula, found: Bound) -> Formula:
        return _within(claim, times(found.most, below), above)

    said = _bounded(interface, claim, prover, claimed)
    return None if said is None else f"each query sees at most {_text(claim)} keys: {said}"


def _density(interface: Interface, claim: Claim, prover: Prover) -> str | None:
    """density <= x where every row sees at most x · NK keys, or all rows together at most x · NK · NQ."""
    terms = prover.terms
    bound = None if claim.bound is None else _fraction(terms, claim.bound)
    if bound is None or claim.comparison not in ("le", "lt"):
        return None
    above, below = bound
    keys, queries, query = (
        terms.integer(NK, {}),
        terms.integer(NQ, {}),
        terms.index(interface.pattern.axes[2]),
    )
    if not prover.valid(at_least(below, ONE)):
        return None

    def of_each(_: Formula, found: Bound) -> Formula:
        return _within(claim, times(found.most, below), times(above, keys))

    def of_all(case: Formula, found: Bound) -> Formula:
        one_case = not terms_of(query) & terms.named_in(terms_in(case))  # the same for all queries of a head
        together = _twice_summed(terms, query, found.most) if one_case else None
        if together is None:
            return NEVER
        return _within(claim, times(together, below), scaled(times(times(above, keys), queries), 2))

    for claimed, added in ((of_each, ""), (of_all, ", summed over all queries")):
        said = _bounded(interface, claim, prover, claimed)
        if said is not None:
            return f"each query sees only {said}{added}"
    return None


def _within(claim: Claim, few: Poly, many: Poly) -> Formula:
    return at_least(many, few) if claim.comparison == "le" else less(few, many)


def _bounded(
    interface: Interface, claim: Claim, prover: Prover, claimed: Callable[[Formula, Bound], Formula]
) -> str | None:
    """What bounds the keys of a row, in each case, so that the claim follows."""
    over, seen = key_visibility(interface, claim)
    most = prover.spent + _TOTAL * prover.effort
    said: dict[str, None] = {}
    for case, bounds in most_visible(prover.terms, seen, over, Facts.of(interface.pattern.parameters)):
        for bound in bounds:
            if prover.valid(claimed(case, bound), (case,)):
                said[bound.said] = None
                break
            if prover.spent > most:
                return None
        else:
            return None
    return _shortened("; ".join(said))


def _twice_summed(terms: Terms, query: Poly, most: Poly) -> Poly | None:
    """2 · Σ over the queries of a bound that is linear in q, or None: Σ q = NQ · q_offset + NQ (NQ − 1) / 2."""
    (((own,), _),) = query
    queries, offset = terms.integer(NQ, {}), terms.integer(Q_OFFSET, {})
    positions = plus(times(scaled(queries, 2), offset), times(queries, plus(queries, ONE, -1)))
    total: Poly = ()
    for monomial, factor in most:
        left = left_of(monomial, (own,))
        rest = monomial if left is None else left
        if own in terms.named_in(frozenset(rest)):
            return None
        once = scaled(queries, 2) if left is None else positions
        total = plus(total, times(((rest, factor),), once))
    return total


def _fraction(terms: Terms, expr: Expr) -> tuple[Poly, Poly] | None:
    """A number as numerator and denominator, or None where it is more than a fraction of whole numbers."""
    if dtype_of(expr) == "int":
        return terms.integer(expr, {}), ONE
    match expr:
        case Literal(value) if math.isfinite(value):
            exact = Fraction(value)
            return constant(exact.numerator), constant(exact.denominator)
        case Apply("float", (x,)):
            return _fraction(terms, x)
        case Apply("add" | "sub" | "mul" | "div" as op, (x, y)):
            one, other = _fraction(terms, x), _fraction(terms, y)
            if one is None or other is None:
                return None
            (a, b), (c, d) = one, other
            match op:
                case "mul":
                    return times(a, c), times(b, d)
                case "div":
                    return times(a, d), times(b, c)
                case _:
                    return plus(times(a, d), times(c, b), 1 if op == "add" else -1), times(b, d)
        case _:
            return None


def _text(claim: Claim) -> str:
    return "" if claim.bound is None else expression_text(claim.bound)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
