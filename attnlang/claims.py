"""Claims about a pattern: proved for every call, refuted by a counterexample, or searched as far as is said.

    for verdict in attnlang.load("window.attn").check():
        print(verdict)

A claim is proved where an argument is found for all sizes, offsets, parameters and tensors. Else many small calls are
tried: `searched` says at how many, and up to which sizes, no counterexample was found. Both are the same every time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, assert_never
from typing import Literal as OneOf

from attnlang.call_interface import Interface
from attnlang.call_numbers import Number
from attnlang.errors import Diagnostic, Diagnostics
from attnlang.errors_claims import ClaimNotMeant, ClaimRefuted
from attnlang.ir.pattern import Claim, Pattern
from attnlang.ir.text import claim_text

if TYPE_CHECKING:
    from torch import Tensor

Outcome = OneOf["proved", "refuted", "searched", "undecided"]


@dataclass(frozen=True)
class Counterexample:
    """A call at which a claim fails: `sizes` H HK NQ NK D DV, `parameters`, `q_offset`, and where: `at` holds b and h
    as places, q and k as positions. `tensors`: Q, K, V and the declared ones. `found`: what is wrong there; `call`: the
    call and the place as a line of text."""

    sizes: Mapping[str, int]
    parameters: Mapping[str, Number]
    q_offset: int
    at: Mapping[str, int]
    found: str
    call: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, "Tensor"], compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For editors."""
        return {
            "sizes": dict(self.sizes), "parameters": dict(self.parameters), "q_offset": self.q_offset,
            "at": dict(self.at), "found": self.found, "call": self.call,
        }  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What is known of a claim of `pattern`. `cases`: calls tried, 0 for a proof; `reason`: the argument of the proof,
    how far was searched, or why nothing is decided."""

    pattern: str
    claim: Claim
    outcome: Outcome
    cases: int
    reason: str
    counterexample: Counterexample | None = None

    @property
    def written(self) -> str:
        """The claim as it stands in the file."""
        return self.claim.span.text or claim_text(self.claim)

    def diagnostic(self) -> Diagnostic | None:
        """The report on a refuted claim."""
        if self.counterexample is None:
            return None
        found, call = self.counterexample.found, self.counterexample.call
        span = self.claim.span if self.claim.span.source.text else None
        return ClaimRefuted(span, claim=self.written, pattern=self.pattern, found=found, call=call)

    def to_dict(self) -> dict[str, Any]:
        """For editors."""
        example = self.counterexample
        return {
            "pattern": self.pattern, "claim": self.written, "outcome": self.outcome, "cases": self.cases,
            "reason": self.reason, "counterexample": None if example is None else example.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        if self.counterexample is not None:
            return f"{self.written}: refuted: {self.counterexample.found} ({self.counterexample.call})"
        return f"{self.written}: {self.outcome}: {self.reason}"


def check_claims(pattern: Pattern, others: Mapping[str, Pattern]) -> tuple[Verdict, ...]:
    """A verdict for every claim, in order. `others`: the patterns that `equal` names.

    Raises Diagnostics with every claim that cannot be asked of the pattern.
    """
    verdicts, mistakes = decided(pattern, others)
    if mistakes:
        raise Diagnostics(list(mistakes))
    return verdicts


def decided(
    pattern: Pattern, others: Mapping[str, Pattern]
) -> tuple[tuple[Verdict, ...], tuple[Diagnostic, ...]]:
    """The verdicts on the claims that can be asked of the pattern, and reports on those that cannot."""
    interface = Interface(pattern)
    verdicts: list[Verdict] = []
    mistakes: list[Diagnostic] = []
    for claim in pattern.claims:
        try:
            verdicts.append(check_claim(interface, claim, others))
        except ClaimNotMeant as mistake:
            mistakes.append(mistake)
    return tuple(verdicts), tuple(mistakes)


def check_claim(interface: Interface, claim: Claim, others: Mapping[str, Pattern]) -> Verdict:
    """The verdict on one claim: a short proof, else a search, else a long proof; a density at a given size is counted
    first. Raises ClaimNotMeant."""
    from attnlang.claims_interfaces import check_interfaces
    from attnlang.claims_proof import proof
    from attnlang.claims_seen import at_size

    other = Interface(others[claim.other]) if claim.kind == "equal" else None
    if other is not None:
        check_interfaces(interface, claim, other)
    argument = (
        None if claim.kind == "density" and at_size(claim) else proof(interface, claim, other, quick=True)
    )
    if argument is None:
        found = search_claim(interface, claim, other)
        if found.outcome in ("proved", "refuted"):
            return found
        argument = proof(interface, claim, other, quick=False)
        if argument is None:
            return found
    return Verdict(interface.pattern.name, claim, "proved", 0, argument)


def search_claim(interface: Interface, claim: Claim, other: Interface | None) -> Verdict:
    """What the calls that are tried say of a claim. Raises ClaimNotMeant."""
    match claim.kind:
        case "causal":
            from attnlang.claims_causal import causal

            return causal(interface, claim)
        case "nonempty":
            from attnlang.claims_visible import nonempty

            return nonempty(interface, claim)
        case "rows":
            from attnlang.claims_visible import rows

            return rows(interface, claim)
        case "density":
            from attnlang.claims_density import density

            return density(interface, claim)
        case "equal":
            from attnlang.claims_equal import equal

            assert other is not None
            return equal(interface, claim, other)
        case _:
            assert_never(claim.kind)


def not_meant(interface: Interface, claim: Claim, reason: str) -> ClaimNotMeant:
    """The report on a claim that cannot be asked."""
    written = claim.span.text or claim_text(claim)
    span = claim.span if claim.span.source.text else None
    return ClaimNotMeant(span, claim=written, pattern=interface.pattern.name, reason=reason)
