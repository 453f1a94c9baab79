"""`assert density <= x where NK = …`: the share of all pairs of queries and keys that is visible.

At a given size it is counted exactly: from the closed-form key ranges where the visibility has them, else pair by pair
where there are few enough, with the declared defaults for parameters that the claim does not give. Without a size the
claim is tried at small calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from attnlang.call_interface import Interface, parameter_value
from attnlang.call_numbers import NotKnown, Number, number
from attnlang.claims import Counterexample, Outcome, Verdict, not_meant
from attnlang.claims_cases import Case, Search, holds, shown
from attnlang.claims_inputs import Kind, draw, fits, one_entry, small_values
from attnlang.claims_seen import at_size, key_visibility, sources_of
from attnlang.claims_verdicts import counterexample, searched
from attnlang.claims_visible import COMPARED, bound_of, count_of, counting
from attnlang.errors import Diagnostic
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import (
    HEAD,
    Axis,
    Claim,
    Expr,
    Index,
    Literal,
    Parameter,
    Pattern,
    Read,
    Symbol,
    children,
    dtype_of,
    free_axes,
    kv_head_of,
)
from attnlang.ir.rewrite import simplify, substitute
from attnlang.passes.counting import count_pairs

KINDS: tuple[Kind, ...] = ("usual", "ties", "sharp", "usual")
MOST_PAIRS = 2**24
"""Pairs that are looked at one by one, over all heads and inputs."""
HEADS = (1, 2, 4, 8)
"""Numbers of heads that are tried where the visibility differs between heads and the claim gives none."""


def density(interface: Interface, claim: Claim) -> Verdict:
    """The verdict on `assert density <= x`. Raises ClaimNotMeant where it has no keys or a parameter has no value."""
    count = _Count(interface, claim, *key_visibility(interface, claim))
    if at_size(claim):
        return count.at_size()
    return searched(interface, claim, Search(interface, dict(claim.where), inside=False), count.attempt)


@dataclass(frozen=True)
class _Count:
    """The pairs (q, over) where `seen` holds, held against the bound of a claim."""

    interface: Interface
    claim: Claim
    over: Axis
    seen: Expr

    @cached_property
    def pattern(self) -> Pattern:
        """The pattern that counts visible keys for each query."""
        return counting(self.interface.pattern, self.over, self.seen)

    # --------------------------------------------------------------------------------------- small calls

    def attempt(self, case: Case, kinds: tuple[Kind, ...] = KINDS) -> Counterexample | bool:
        """All pairs of a call, one by one, for several inputs."""
        bound = bound_of(self.claim, case.symbols())
        if bound is None or not fits(self.interface.pattern, case, len(kinds)):
            return False
        tensors = draw(self.interface.pattern, case, kinds, seed=5)
        found = count_of(self.interface, case, [self.pattern], tensors)
        if found is None:
            return False
        pairs = case.sizes["NQ"] * case.sizes["NK"] * case.sizes["H"]
        shares = found[0].sum((1, 2)) / pairs
        sign, compare = COMPARED[self.claim.comparison]
        for entry in (~compare(shares, bound)).nonzero().reshape(-1)[:1]:
            one = one_entry(self.interface.pattern, tensors, int(entry))
            return self._told(case, float(shares[entry]), bound, sign, one)
        return True

    def _told(
        self, case: Case, share: float, bound: float, sign: str, tensors: Mapping[str, Tensor]
    ) -> Counterexample:
        read = sources_of(self.pattern)
        found = f"the density is {share:.6g}, which is not {sign} {shown(bound)}"
        return counterexample(case, {}, found, tensors, small_values(self.interface, tensors, read))

    # ------------------------------------------------------------------------------------------- one size

    def at_size(self) -> Verdict:
        """The exact density of the calls of the claim."""
        cases = [self._case(heads) for heads in self._heads()]
        accepted = [case for case in cases if case is not None]
        if not accepted:
            return self._verdict("undecided", 0, "the requirements of the pattern do not allow this size")
        told: list[str] = []
        for case in accepted:
            exact = self._closed_form(case)
            if exact is not None:
                share = exact / (case.sizes["NQ"] * case.sizes["NK"] * case.sizes["H"])
                found = self._judged(case, share)
                if found is not None:
                    return self._verdict("refuted", len(told) + 1, "", found)
                told.append(f"the density is {share:.6g} at {case}, counted from closed-form key ranges")
                continue
            pairs = case.sizes["NQ"] * case.sizes["NK"] * case.sizes["H"]
            if pairs > MOST_PAIRS:
                reason = f"the key ranges have no closed form, and {pairs:,} pairs are too many to look at"
                return self._verdict("undecided", len(told), f"{reason} ({case})")
            many = self._depends() and pairs * len(KINDS) <= MOST_PAIRS
            found = self.attempt(case, KINDS if many else KINDS[:1])
            if isinstance(found, Counterexample):
                return self._verdict("refuted", len(told) + 1, "", found)
            if not found:
                return self._verdict(
                    "undecided", len(told), f"the pattern does not accept this call ({case})"
                )
            how = "for random inputs" if self._depends() else "counted pair by pair"
            told.append(f"it holds at {case}, {how}")
        exact = not self._depends() and _head_sizes(self.seen) <= {name for name, _ in self.claim.where}
        return self._verdict("proved" if exact else "searched", len(told), "; ".join(told))

    def _verdict(
        self, outcome: Outcome, cases: int, reason: str, found: Counterexample | None = None
    ) -> Verdict:
        return Verdict(self.interface.pattern.name, self.claim, outcome, cases, reason, found)

    def _judged(self, case: Case, share: float) -> Counterexample | None:
        bound = bound_of(self.claim, case.symbols())
        if bound is None:
            raise not_meant(self.interface, self.claim, "its bound has no value")
        sign, compare = COMPARED[self.claim.comparison]
        good = bool(compare(torch.tensor(share, dtype=torch.float64), bound))
        return None if good else self._told(case, share, bound, sign, {})

    def _depends(self) -> bool:
        """Whether the visibility depends on what tensors hold."""
        return bool(sources_of(self.pattern) & {"Q", "K", "V", *self.interface.tensors})

    def _heads(self) -> tuple[int, ...]:
        where = dict(self.claim.where)
        if "H" in where:
            return (int(number(where["H"], self._parameters())),)
        return HEADS if _names_heads(self.seen) else (1,)

    def _parameters(self) -> dict[str, Number]:
        """The parameters: as the claim gives them, else their defaults. Raises ClaimNotMeant."""
        where = dict(self.claim.where)
        values = {
            name: item.default for name, item in self.interface.parameters.items() if item.default is not None
        }
        for name, parameter in self.interface.parameters.items():
            if name in where:
                values[name] = self._parameter(parameter, where[name], values)
            elif parameter.default is None:
                reason = f"the parameter '{name}' has no default; add it: where {name} = …"
                raise not_meant(self.interface, self.claim, reason)
        return {name: values[name] for name in self.interface.parameters}

    def _parameter(self, parameter: Parameter, expr: Expr, values: Mapping[str, Number]) -> Number:
        """The value that the claim gives. Raises ClaimNotMeant where it is none of the parameter's."""
        try:
            return parameter_value(self.interface.name, parameter, number(expr, values))
        except (NotKnown, ArithmeticError):
            raise not_meant(self.interface, self.claim, f"'{parameter.name}' has no value") from None
        except Diagnostic as mistake:
            raise not_meant(self.interface, self.claim, mistake.text) from None

    def _case(self, heads: int) -> Case | None:
        """The call of the claim with so many heads; None where it does not meet the requirements."""
        where, parameters = dict(self.claim.where), self._parameters()
        found: dict[str, int] = {}
        for name in ("NK", "NQ", "HK", "D", "DV"):
            if name in where:
                try:
                    found[name] = int(number(where[name], {**parameters, **found, "H": heads}))
                except (NotKnown, ArithmeticError):
                    raise not_meant(self.interface, self.claim, f"'{name}' has no value") from None
        keys = found.get("NK", found.get("NQ", 1))
        sizes = {"H": heads, "HK": heads, "NK": keys, "NQ": keys, "D": 2, "DV": 2, **found}
        if min(sizes.values()) < 1:
            raise not_meant(self.interface, self.claim, "every size is at least 1")
        case = Case(sizes, parameters, sizes["NK"] - sizes["NQ"])
        allowed = all(
            holds(requirement, case.symbols()) for requirement in self.interface.pattern.requirements
        )
        return case if allowed else None

    def _closed_form(self, case: Case) -> int | None:
        """The visible pairs over all heads, where the visibility is closed-form ranges of keys."""
        values = {name: value for name, value in case.symbols().items() if name not in ("scale", "B")}
        known: dict[Expr, Expr] = {
            Symbol(name, dtype_of(Literal(value))): Literal(value) for name, value in values.items()
        }
        over, query = self.over, self.interface.pattern.axes[2]
        seen = simplify(substitute(self.seen, known))
        inside = {axis.name: axis for axis in free_axes(seen)}
        over, query = inside.get(over.name, over), inside.get(query.name, query)
        exact = {name: (float(value), float(value)) for name, value in values.items()}
        return count_pairs(seen, query, over, case.symbols(), Facts(exact))


def _head_sizes(expr: Expr) -> set[str]:
    """The numbers of heads that a condition depends on."""
    match expr:
        case Index(axis):
            return {"head": {"H"}, "kv_head": {"H", "HK"}}.get(axis.role, set())
        case Symbol(name, _):
            return {name} & {"H", "HK"}
        case _:
            return set[str]().union(*map(_head_sizes, children(expr)))


def _names_heads(expr: Expr) -> bool:
    """Whether a condition tells heads apart by more than what tensors and stages hold for them."""
    match expr:
        case Index(axis):
            return axis.role in ("head", "kv_head")
        case Symbol(name, _):
            return name in ("H", "HK")
        case Read(_, at, _):
            plain = (Index(HEAD), kv_head_of(Index(HEAD)))
            return any(_names_heads(part) for part in at if part not in plain)
        case _:
            return any(_names_heads(part) for part in children(expr))
