"""`assert equal(other)`: both patterns give the same output; parameters and tensors go together by name."""

from __future__ import annotations

from torch import Tensor, float64

from attnlang.call_interface import Interface
from attnlang.call_numbers import Number
from attnlang.claims import Counterexample, Verdict
from attnlang.claims_cases import Case, Search
from attnlang.claims_inputs import Kind, call_inputs, differ, draw, first_place, fits, one_entry
from attnlang.claims_verdicts import counterexample, searched
from attnlang.ir.interpret import evaluate
from attnlang.ir.pattern import Claim

KINDS: tuple[Kind, ...] = ("usual", "ties", "sharp", "usual")


def equal(interface: Interface, claim: Claim, other: Interface) -> Verdict:
    """The verdict on `assert equal(other)`, at the calls that both accept."""
    search = Search(interface, dict(claim.where), inside=False)
    return searched(interface, claim, search, lambda case: _attempt(interface, other, case))


def _attempt(interface: Interface, other: Interface, case: Case) -> Counterexample | bool:
    parameters = {**case.parameters, **_defaults(interface, other)}
    case = Case(case.sizes, parameters, case.q_offset)
    if not fits(interface.pattern, case, len(KINDS)):
        return False
    tensors = draw(interface.pattern, case, KINDS, seed=7)
    outputs: list[Tensor] = []
    for one in (interface, other):
        own = {name: value for name, value in case.parameters.items() if name in one.parameters}
        inputs = call_inputs(one, Case(case.sizes, own, case.q_offset), tensors)
        if inputs is None:
            return False
        outputs.append(evaluate(one.pattern, inputs, dtype=float64).out)
    place = first_place(differ(*outputs))
    if place is not None:
        entry, head, row, feature = place
        first, second = (float(output[place]) for output in outputs)
        query = row + case.q_offset
        found = (
            f"output[{feature}] of q = {query} is {first:.6g}, that of '{other.pattern.name}' is {second:.6g}"
        )
        at = {"b": 0, "h": head, "q": query}
        return counterexample(case, at, found, one_entry(interface.pattern, tensors, entry))
    return True


def _defaults(interface: Interface, other: Interface) -> dict[str, Number]:
    """Parameters that only one of them has: they stay at their defaults."""
    alone = {**interface.parameters, **other.parameters}
    return {
        name: parameter.default
        for name, parameter in alone.items()
        if parameter.default is not None and not (name in interface.parameters and name in other.parameters)
    }
