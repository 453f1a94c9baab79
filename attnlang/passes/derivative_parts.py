"""Terms of a derivative as products that a kernel contracts: what stands outside a sum over tokens, and inside it.

Σ over k of ds[q, k] · scale · K[k, e]  →  outer `scale`, weight `ds[q, k]`, vector `K[k, e]`: one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attnlang.ir.pattern import Apply, Axis, Expr, Literal, free_axes
from attnlang.ir.rewrite import simplify
from attnlang.passes.algebra import factors, product

UNIT = Literal(1.0)


@dataclass(frozen=True)
class Part:
    """outer · Σ over the summed tokens of weight · vector.

    `outer` does not depend on the summed tokens, `weight` not on the feature. `vector` is 1 (a sum of each row), over
    summed tokens and feature (a matrix product), or over all three (`mixed`: one feature after the other).
    """

    outer: Expr
    weight: Expr
    vector: Expr
    mixed: bool

    @property
    def is_row(self) -> bool:
        """Whether it sums numbers, not vectors."""
        return self.vector == UNIT


def parts(terms: Iterable[Expr], kept: Axis, summed: Axis, feature: Axis) -> tuple[Part, ...]:
    """The terms for an element of a token `kept`, to be summed over the tokens `summed`; terms with one vector are one
    part."""
    found = [_part(term, kept, summed, feature) for term in terms]
    result: list[Part] = []
    for vector in dict.fromkeys(part.vector for part in found):
        alike = [part for part in found if part.vector == vector]
        if len({part.outer for part in alike}) > 1:
            alike = [_inward(part, feature) for part in alike]
        for outer in dict.fromkeys(part.outer for part in alike):
            weights = [part.weight for part in alike if part.outer == outer]
            result.append(Part(outer, _total(weights), vector, alike[0].mixed))
    return tuple(result)


def _part(term: Expr, kept: Axis, summed: Axis, feature: Axis) -> Part:
    outer: list[Expr] = []
    weight: list[Expr] = []
    vector: list[Expr] = []
    for factor in factors(term):
        axes = free_axes(factor)
        (outer if summed not in axes else vector if feature in axes else weight).append(factor)
    mixed = any(kept in free_axes(factor) for factor in vector)
    return Part(_product(outer), _product(weight), _product(vector), mixed)


def _inward(part: Part, feature: Axis) -> Part:
    """The part with only what depends on the feature outside."""
    items = factors(part.outer)
    still = [item for item in items if feature in free_axes(item)]
    moved = [item for item in items if feature not in free_axes(item)]
    return Part(_product(still), _product([*moved, part.weight]), part.vector, part.mixed)


def _product(items: list[Expr]) -> Expr:
    return product(items) if items else UNIT


def _total(weights: list[Expr]) -> Expr:
    """The sum; equal ones are counted."""
    total: Expr | None = None
    for weight in dict.fromkeys(weights):
        count = weights.count(weight)
        term = weight if count == 1 else Apply("mul", (weight, Literal(float(count))))
        total = term if total is None else Apply("add", (total, term))
    assert total is not None
    return simplify(total)
