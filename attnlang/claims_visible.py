"""`assert nonempty` and `assert rows <= n`: how many keys a query sees.

A key is visible where mask and sparsity hold. With several attentions over the keys a key counts once, in any of them.
For `nonempty` an attention over something else (block means, extra tokens) counts too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from attnlang.call_interface import Interface
from attnlang.call_numbers import NotKnown, Number, number
from attnlang.claims import Counterexample, Verdict
from attnlang.claims_cases import Case, Search, shown
from attnlang.claims_inputs import Kind, call_inputs, draw, first_place, fits, one_entry, small_values
from attnlang.claims_seen import key_visibility, sources_of, visibilities
from attnlang.claims_verdicts import counterexample, searched
from attnlang.ir.interpret import evaluate
from attnlang.ir.pattern import Apply, Axis, Claim, Expr, Pattern, Reduce

KINDS: tuple[Kind, ...] = ("usual", "ties", "sharp", "usual")
SEEDS = 3

COMPARED: dict[str, tuple[str, Callable[[Tensor, float], Tensor]]] = {
    "lt": ("<", torch.lt), "le": ("≤", torch.le), "gt": (">", torch.gt),
    "ge": ("≥", torch.ge), "eq": ("=", torch.eq), "ne": ("≠", torch.ne),
}  # fmt: skip


def nonempty(interface: Interface, claim: Claim) -> Verdict:
    """The verdict on `assert nonempty`; queries are positions of the keys."""
    patterns = [counting(interface.pattern, over, seen) for over, seen in visibilities(interface, claim)]
    search = Search(interface, dict(claim.where), inside=True)

    def judge(counts: list[Tensor]) -> tuple[Tensor, str, Tensor]:
        total = reduce(torch.add, counts)
        return total > 0, "sees no key", total

    return searched(interface, claim, search, lambda case: _attempt(interface, case, patterns, judge))


def rows(interface: Interface, claim: Claim) -> Verdict:
    """The verdict on `assert rows <= n`."""
    pattern = counting(interface.pattern, *key_visibility(interface, claim))
    search = Search(interface, dict(claim.where), inside=False)
    sign, compare = COMPARED[claim.comparison]

    def attempt(case: Case) -> Counterexample | bool:
        bound = bound_of(claim, case.symbols())
        if bound is None:
            return False

        def judge(counts: list[Tensor]) -> tuple[Tensor, str, Tensor]:
            good = compare(counts[0], bound)
            return good, f"sees {{count}} of the keys, which is not {sign} {shown(bound)}", counts[0]

        return _attempt(interface, case, [pattern], judge)

    return searched(interface, claim, search, attempt)


def bound_of(claim: Claim, symbols: Mapping[str, Number]) -> float | None:
    """The number a claim compares with; None where it has no value in this call."""
    if claim.bound is None:
        return None
    try:
        return float(number(claim.bound, symbols))
    except (NotKnown, ArithmeticError):
        return None


Judge = Callable[[list[Tensor]], tuple[Tensor, str, Tensor]]
"""From the counts [B, H, NQ] of each pattern: where all is well, what is said where it is not, and the counts shown."""


def _attempt(
    interface: Interface, case: Case, patterns: list[Pattern], judge: Judge
) -> Counterexample | bool:
    if not fits(interface.pattern, case, len(KINDS)):
        return False
    read = frozenset[str]().union(*(sources_of(pattern) for pattern in patterns))
    for seed in range(SEEDS if read & set(interface.tensors) else 1):
        tensors = draw(interface.pattern, case, (*KINDS[seed:], *KINDS[:seed]), seed=10 * seed + 5)
        found = count_of(interface, case, patterns, tensors)
        if found is None:
            return False
        good, said, counts = judge(found)
        place = first_place(~good)
        if place is not None:
            entry, head, row = place
            one = one_entry(interface.pattern, tensors, entry)
            query = row + case.q_offset
            text = f"q = {query} {said.format(count=int(counts[entry, head, row]))}"
            at = {"b": 0, "h": head, "q": query}
            return counterexample(case, at, text, one, small_values(interface, one, read))
    return True


# ------------------------------------------------------------------------------------------------- counting


def counting(pattern: Pattern, over: Axis, seen: Expr) -> Pattern:
    """The pattern whose output, in every feature, is the number of entries that a row sees."""
    return replace(pattern, output=Reduce("sum", (over,), Apply("float", (seen,))), result="")


def count_of(
    interface: Interface, case: Case, patterns: list[Pattern], tensors: Mapping[str, Tensor]
) -> list[Tensor] | None:
    """The counts [B, H, NQ] of each pattern; None where the call is refused."""
    inputs = call_inputs(interface, case, tensors)
    if inputs is None:
        return None
    return [evaluate(pattern, inputs, dtype=torch.float64).out[..., 0] for pattern in patterns]
