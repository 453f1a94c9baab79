"""A prover for conditions over whole numbers with symbolic sizes: proved for every call, or not known.

The opposite of what is to be shown is assumed and led to a contradiction. Nothing is claimed where the search ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attnlang.ir.pattern import NK, NQ, Q_OFFSET, Apply, Axis, Expr, Pattern, Reduce, Symbol, dtype_of
from attnlang.ir.walk import parts_of
from attnlang.passes.prove_formula import (
    ALWAYS,
    NEVER,
    Both,
    Flag,
    Formula,
    at_least,
    decided,
    flags_in,
    negated,
    same,
    terms_in,
)
from attnlang.passes.prove_linear import Effort, constant, plus
from attnlang.passes.prove_search import refuted
from attnlang.passes.prove_terms import Terms

EFFORT, LITTLE = 120_000, 3_000
"""What a question may spend before it is given up, and what one may that only simplifies a term."""


class Prover:
    """Proofs about one pattern. `inside`: the queries are positions of the keys; `fixed`: sizes and parameters that
    are given; `effort`: what each question may spend."""

    def __init__(
        self,
        pattern: Pattern,
        *,
        inside: bool,
        fixed: Mapping[str, Expr] | None = None,
        effort: int = EFFORT,
    ) -> None:
        self.effort = effort
        given = list((fixed or {}).items())
        equal = _acyclic([*given, *_equations(pattern)])
        self.terms = Terms(pattern, equal, least_offset=0 if inside else -math.inf)
        self._answers: dict[tuple[Formula, frozenset[Formula], int], bool] = {}
        self._asked: set[Formula] = set()
        self._spent = 0
        self.assumed: list[Formula] = []
        offset, keys, queries = (self.terms.integer(size, {}) for size in (Q_OFFSET, NK, NQ))
        if inside:
            self.assumed += [at_least(offset), at_least(keys, plus(queries, offset))]
        for requirement in pattern.requirements:
            if not isinstance(requirement.condition, Reduce):
                self.assumed.append(self.terms.formula(requirement.condition, {}))
        self.assumed += [self._fixed(name, value) for name, value in given]
        for name, value in equal.items():
            low, high = self.terms.symbols.get(name, (-math.inf, math.inf))
            found = self.terms.integer(value, {})
            self.assumed += [at_least(found, constant(int(low)))] if math.isfinite(low) else []
            self.assumed += [at_least(constant(int(high)), found)] if math.isfinite(high) else []
        self.assumed = [
            part for whole in self.assumed for part in (whole.parts if isinstance(whole, Both) else (whole,))
        ]
        self.terms.decide = self._decided

    def _fixed(self, name: str, value: Expr) -> Formula:
        """What it means that a number is given; nothing for numbers that are not whole."""
        match dtype_of(value):
            case "int":
                return same(self.terms.integer(Symbol(name, "int"), {}), self.terms.integer(value, {}))
            case "bool":
                return self.terms.formula(Apply("eq", (Symbol(name, "bool"), value)), {})
            case "float":
                return ALWAYS

    def valid(self, goal: Formula, given: Sequence[Formula] = (), most: int = 0) -> bool:
        """Whether the goal holds in every call in which what is given holds. `most`: what may be spent on it, 0: the
        prover's own effort."""
        known = {part for whole in given for part in (whole.parts if isinstance(whole, Both) else (whole,))}
        if goal == ALWAYS or goal in known or NEVER in known:
            return True
        most = most or self.effort
        if isinstance(goal, Both):
            return all(self.valid(part, given, most) for part in goal.parts)
        flags = flags_in(goal)
        for flag in sorted(flags, key=lambda flag: flag.term):
            if flag.positive and Flag(flag.term, False) in flags:
                return all(
                    self.valid(decided(goal, flag.term, value), (*given, Flag(flag.term, value)), most)
                    for value in (True, False)
                )
        question = (goal, frozenset(given), most)
        if question not in self._answers:
            self._answers[question] = self._proved(goal, given, most)
        return self._answers[question]

    def _proved(self, goal: Formula, given: Sequence[Formula], most: int) -> bool:
        """Whether the opposite of a goal contradicts what is given: what is said of its own indices and sizes first,
        then everything."""
        formulas = (*self._related(goal, given), negated(goal))
        near = self._near(formulas)
        if self._refuted((*near, *formulas), most):
            return True
        if len(near) == len(self.assumed) and len(formulas) > len(given):
            return False
        return self._refuted((*self.assumed, *given, negated(goal)), most // 4)

    def _related(self, goal: Formula, given: Sequence[Formula]) -> list[Formula]:
        """What is given of the indices of a goal, and of those that stand beside them there."""
        indices = [self._indices(formula) for formula in given]
        own = self._indices(goal)
        beside = own.union(*(found for found in indices if found & own))
        return [formula for formula, found in zip(given, indices, strict=True) if found <= beside]

    def _indices(self, formula: Formula) -> frozenset[int]:
        """The indices in a formula, without those of rows."""
        named = self.terms.named_in(terms_in(formula))
        return frozenset(number for number in named if self._is_inner(number))

    def _is_inner(self, number: int) -> bool:
        match self.terms.keys[number]:
            case ("axis", Axis(name)):
                return "'" in name or "#" in name
            case _:
                return False

    def _near(self, formulas: Sequence[Formula]) -> list[Formula]:
        """The assumptions that name at most one number that the formulas do not name."""
        known = frozenset[int]().union(*(self.terms.named_in(terms_in(formula)) for formula in formulas))
        found: list[Formula] = []
        for formula in self.assumed:
            more = self.terms.named_in(terms_in(formula))
            if len(more - known) <= 1:
                found.append(formula)
                known |= more
        return found

    def _decided(self, formula: Formula) -> bool:
        """Whether a formula holds in every call; False while that very question is open."""
        if formula in self._asked:
            return False
        self._asked.add(formula)
        spent = self._spent
        try:
            return self.valid(formula, most=LITTLE)
        finally:
            self._spent = spent
            self._asked.discard(formula)

    @property
    def spent(self) -> int:
        """What has been spent in all, on questions that were asked from outside."""
        return self._spent

    def _refuted(self, formulas: Sequence[Formula], most: int) -> bool:
        effort = Effort(most)
        found = refuted(self.terms, formulas, effort)
        self._spent += most - effort.left
        return found


def _equations(pattern: Pattern) -> list[tuple[str, Expr]]:
    """Sizes and parameters that a requirement gives, as NK == height * width does."""
    found: list[tuple[str, Expr]] = []
    pending = [requirement.condition for requirement in pattern.requirements]
    while pending:
        match pending.pop(0):
            case Apply("and", (x, y)):
                pending += [x, y]
            case Apply("eq", (Symbol(name, "int"), value)) | Apply("eq", (value, Symbol(name, "int"))):
                if dtype_of(value) == "int":
                    found.append((name, value))
            case _:
                pass
    return found


def _acyclic(equations: Sequence[tuple[str, Expr]]) -> dict[str, Expr]:
    """The equations that give a whole number by others, none by itself; the first for each name."""
    found: dict[str, Expr] = {}

    def reached(expr: Expr) -> frozenset[str]:
        names = frozenset(part.name for part in parts_of(expr) if isinstance(part, Symbol))
        return names.union(*(reached(found[name]) for name in names if name in found))

    for name, value in equations:
        if dtype_of(value) == "int" and name not in found and name not in reached(value):
            found[name] = value
    return found
