"""`assert nonempty` and `assert rows <= n`: how many keys a query sees.

A key is visible where mask and sparsity hold. With several attentions over the keys a key counts once, in any of them; an
attention over something else (block means, extra tokens) counts what it sums over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from attnlang.call_interface import Interface
from attnlang.call_numbers import NotKnown, Number, number
from attnlang.call_reads import reads
from attnlang.claims import Counterexample, Verdict, not_meant
from attnlang.claims_cases import Case, Search, shown
from attnlang.claims_inputs import Kind, call_inputs, draw, fits, small_values
from attnlang.claims_verdicts import counterexample, searched
from attnlang.ir.interpret import evaluate
from attnlang.ir.pattern import Apply, Attention, Axis, Claim, Expr, Merge, Pattern, Read, Reduce, children

KINDS: tuple[Kind, ...] = ("usual", "ties", "sharp", "usual")
SEEDS = 3

COMPARED: dict[str, tuple[str, Callable[[Tensor, float], Tensor]]] = {
    "lt": ("<", torch.lt), "le": ("≤", torch.le), "gt": (">", torch.gt),
    "ge": ("≥", torch.ge), "eq": ("=", torch.eq), "ne": ("≠", torch.ne),
}  # fmt: skip


def nonempty(interface: Interface, claim: Claim) -> Verdict:
    """The verdict on `assert nonempty`; queries are positions of the keys."""
    counts = [seen for _, seen in counted(interface, claim)]
    search = Search(interface, dict(claim.where), inside=True)
    patterns = [counting(interface.pattern, seen) for seen in counts]

    def attempt(case: Case) -> Counterexample | bool:
        return _attempt(interface, case, patterns, lambda found, _: (sum(found) > 0, "sees no key", sum(found)))

    return searched(interface, claim, search.cases(), attempt)


def rows(interface: Interface, claim: Claim) -> Verdict:
    """The verdict on `assert rows <= n`, for each attention by itself where they do not go over the keys."""
    counts = counted(interface, claim)
    over_keys = [seen for over, seen in counts if over.role == "key"]
    patterns = [counting(interface.pattern, seen) for seen in over_keys or [seen for _, seen in counts]]
    search = Search(interface, dict(claim.where), inside=False)
    sign, compare = COMPARED[claim.comparison]

    def attempt(case: Case) -> Counterexample | bool:
        bound = bound_of(claim, case.symbols())
        if bound is None:
            return False

        def judge(found: list[Tensor], bound: float = bound) -> tuple[Tensor, str, Tensor]:
            good = torch.stack([compare(count, bound) for count in found]).all(0)
            worst = reduce(torch.maximum, found)
            return good, f"sees {{count}} keys, which is not {sign} {shown(bound)}", worst

        return _attempt(interface, case, patterns, lambda found, _: judge(found))

    return searched(interface, claim, search.cases(), attempt)


def bound_of(claim: Claim, symbols: Mapping[str, Number]) -> float | None:
    """The number a claim compares with; None where it has no value in this call."""
    if claim.bound is None:
        return None
    try:
        return float(number(claim.bound, symbols))
    except (NotKnown, ArithmeticError):
        return None


Judge = Callable[[list[Tensor], Case], tuple[Tensor, str, Tensor]]
"""From the counts [B, H, NQ] of each pattern: where all is well, what is said where it is not, and the counts shown."""


def _attempt(interface: Interface, case: Case, patterns: list[Pattern], judge: Judge) -> Counterexample | bool:
    if not fits(interface.pattern, case, len(KINDS)):
        return False
    read = frozenset(read.source for pattern in patterns for read in reads(pattern))
    for seed in range(SEEDS if read & set(interface.tensors) else 1):
        tensors = draw(interface.pattern, case, (*KINDS[seed:], *KINDS[:seed]), seed=10 * seed + 5)
        found = count_of(interface, case, patterns, tensors)
        if found is None:
            return False
        good, said, counts = judge(found, case)
        hits = (~good).nonzero().tolist()
        for entry, head, row in sorted(hits, key=lambda hit: (hit[2], hit[1], hit[0]))[:1]:
            one = _entry(interface, tensors, entry)
            query = row + case.q_offset
            text = f"q = {query} {said.format(count=int(counts[entry, head, row]))}"
            at = {"b": 0, "h": head, "q": query}
            return counterexample(case, at, text, one, small_values(interface, one, read))
    return True


def _entry(interface: Interface, tensors: Mapping[str, Tensor], entry: int) -> dict[str, Tensor]:
    """The call of one batch entry."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        declared = interface.tensors.get(name)
        axes = ["b"] if declared is None else [axis.index for axis in declared.axes]
        found[name] = tensor.narrow(axes.index("b"), entry, 1) if "b" in axes else tensor
    return found


# ------------------------------------------------------------------------------------------------- counting


def counted(interface: Interface, claim: Claim) -> list[tuple[Axis, Expr]]:
    """The visibilities that make up the result, over rows (b, h, q) and one axis each; those over the keys as one.

    Raises ClaimNotMeant where no attention of queries enters the output.
    """
    pattern = interface.pattern
    found: dict[Axis, list[Expr]] = {}
    for stage in _result_attentions(pattern):
        if stage.rows[-1:] == pattern.axes[2:3]:
            found.setdefault(stage.over, []).append(Apply("and", (stage.mask, stage.sparsity)))
    if not found:
        raise not_meant(interface, claim, "no attention of queries enters its output")
    return [(axis, reduce(lambda a, b: Apply("or", (a, b)), seen)) for axis, seen in found.items()]


def counting(pattern: Pattern, seen: Expr, over: Axis | None = None) -> Pattern:
    """The pattern whose output is the number of visible entries, in every feature."""
    raise AssertionError


def _result_attentions(pattern: Pattern) -> list[Attention]:
    """The attentions whose results the output reads, through merges and tables too."""
    stages = {stage.name: stage for stage in pattern.stages}
    found: list[Attention] = []
    queue = _sources(pattern.output)
    seen: set[str] = set()
    while queue:
        name = queue.pop(0)
        if name in seen or name not in stages:
            continue
        seen.add(name)
        match stages[name]:
            case Attention() as stage:
                found.append(stage)
            case Merge(_, parts):
                queue += list(parts)
            case _:
                pass
    return found


def _sources(expr: Expr) -> list[str]:
    """The stages an expression reads, without what they are read by."""
    own = [expr.source.partition(".")[0]] if isinstance(expr, Read) else []
    return own + [name for child in children(expr) for name in _sources(child)]
