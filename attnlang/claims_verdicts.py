"""How a search becomes a verdict: what was searched, and the first counterexample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from attnlang.call_interface import Interface
from attnlang.claims import Counterexample, Verdict
from attnlang.claims_cases import Case, Search
from attnlang.ir.pattern import Claim

MOST_PAIRS = 2**14
"""Queries times keys of the largest call that is tried."""


def searched(
    interface: Interface, claim: Claim, search: Search, attempt: Callable[[Case], Counterexample | bool]
) -> Verdict:
    """Tries the calls of a search in order until one refutes the claim, and then those with less in them.

    `attempt`: a counterexample, or whether the call could be made at all.
    """
    name = interface.pattern.name
    tried: list[Case] = []
    cases = search.cases()
    small = [case for case in cases if case.sizes["NQ"] * case.sizes["NK"] <= MOST_PAIRS]
    if cases and not small:
        reason = f"calls of more than {MOST_PAIRS:,} pairs of queries and keys are not searched"
        return Verdict(name, claim, "undecided", 0, reason)
    for case in small:
        found = attempt(case)
        if isinstance(found, Counterexample):
            smaller = (attempt(other) for other in search.smaller(case))
            least = next((other for other in smaller if isinstance(other, Counterexample)), found)
            return Verdict(name, claim, "refuted", len(tried) + 1, "", least)
        if found:
            tried.append(case)
    if not tried:
        return Verdict(name, claim, "undecided", 0, "no small call meets the requirements of the pattern")
    return Verdict(name, claim, "searched", len(tried), _reach(tried))


def _reach(tried: Sequence[Case]) -> str:
    most = {name: max(case.sizes[name] for case in tried) for name in ("NQ", "NK", "H")}
    sizes = ", ".join(f"{name} ≤ {value}" for name, value in most.items())
    return f"no counterexample in {len(tried)} call{'' if len(tried) == 1 else 's'} ({sizes})"


def counterexample(
    case: Case, at: Mapping[str, int], found: str, tensors: Mapping[str, Tensor], values: str = ""
) -> Counterexample:
    """Where a claim fails, with the call as a text; `values`: tensors worth showing, as a text."""
    place = ", ".join(f"{name} = {value}" for name, value in at.items())
    call = "; ".join(part for part in (str(case), values, f"at {place}" if place else "") if part)
    return Counterexample(case.sizes, case.parameters, case.q_offset, at, found, call, tensors)
