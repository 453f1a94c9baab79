"""Claims about a pattern, tried at many small calls: refuted by a counterexample, or held so far as was searched.

    for verdict in attnlang.load("window.attn").check():
        print(verdict)

Nothing is proved here: `held` says at how many calls, and up to which sizes, no counterexample was found. The search
is the same every time.
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

Outcome = OneOf["held", "refuted", "undecided"]


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
    """What the search says of a claim of `pattern`. `cases`: calls tried; `reason`: up to where, or why nothing is
    decided."""

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
    """The verdict on one claim. Raises ClaimNotMeant."""
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

            return equal(interface, claim, Interface(others[claim.other]))
        case _:
            assert_never(claim.kind)


def not_meant(interface: Interface, claim: Claim, reason: str) -> ClaimNotMeant:
    """The report on a claim that cannot be asked."""
    written = claim.span.text or claim_text(claim)
    span = claim.span if claim.span.source.text else None
    return ClaimNotMeant(span, claim=written, pattern=interface.pattern.name, reason=reason)
