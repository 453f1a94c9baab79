"""How a search becomes a verdict: what was searched, and the first counterexample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from attnlang.call_interface import Interface
from attnlang.claims import Counterexample, Verdict
from attnlang.claims_cases import Case
from attnlang.ir.pattern import Claim


def searched(
    interface: Interface, claim: Claim, cases: Sequence[Case], attempt: Callable[[Case], Counterexample | bool]
) -> Verdict:
    """Tries the cases in order until one refutes the claim. `attempt`: a counterexample, or whether the call could be
    made at all."""
    tried: list[Case] = []
    for case in cases:
        found = attempt(case)
        if isinstance(found, Counterexample):
            return Verdict(interface.pattern.name, claim, "refuted", len(tried) + 1, "", found)
        if found:
            tried.append(case)
    if not tried:
        reason = "no small call meets the requirements of the pattern"
        return Verdict(interface.pattern.name, claim, "undecided", 0, reason)
    return Verdict(interface.pattern.name, claim, "held", len(tried), _reach(tried))


def _reach(tried: Sequence[Case]) -> str:
    most = {name: max(case.sizes[name] for case in tried) for name in ("NQ", "NK", "H")}
    sizes = ", ".join(f"{name} ≤ {value}" for name, value in most.items())
    return f"no counterexample in {len(tried)} call{'' if len(tried) == 1 else 's'} ({sizes})"


def counterexample(
    case: Case, at: Mapping[str, int], found: str, tensors: Mapping[str, Tensor], values: str = ""
) -> Counterexample:
    """Where a claim fails, with the call as a text; `values`: tensors worth showing, as a text."""
    place = ", ".join(f"{name} = {value}" for name, value in at.items())
    call = "; ".join(part for part in (str(case), values, f"at {place}") if part)
    return Counterexample(case.sizes, case.parameters, case.q_offset, at, found, call, tensors)
