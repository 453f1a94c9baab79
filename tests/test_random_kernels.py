"""Random small patterns, written as texts: their kernels agree with the reference."""

from __future__ import annotations

import torch
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from torch import Tensor

from attnlang import AttnlangError, parse
from tests.kernel_calls import check_call, inputs
from tests.predicates import PARAMETERS, comparisons, predicates

TENSORS = """
    tensor ids[b, n]: int
    tensor on[b, h, k]: bool
    tensor alive[q]: bool
    tensor slopes[h]
    tensor row[b, h, q]
    tensor column[b, h, k]
    tensor bias[b, h, q, k]
    tensor table[h, 9]
    tensor left[b, h, q, 3]
    tensor right[b, g, k, 3]
    tensor other[b, g, k, d]
    tensor coat[h, d]
    tensor wide[b, h, q, 20]
    tensor tall[b, g, k, 20]
"""

MASK_ATOMS = st.sampled_from(
    (
        "ids[b, q] == ids[b, k]", "ids[b, k] <= 2", "on[b, h, k]", "alive[q]", "h mod 2 == 0", "h < b + 1",
        "slopes[h] > 0", "row[b, h, q] > column[b, h, k]", "bias[b, h, q, k] > -1", "k <= q", "q - k < 7",
    )
)  # fmt: skip

SCORE_ATOMS = st.sampled_from(
    (
        "Q[q] @ K[k] * scale", "Q[q] @ K[k] * scale", "Q[q] @ other[b, g, k] * scale", "Q[q] @ coat[h]",
        "coat[h] @ K[k]", "slopes[h] * (q - k)", "row[b, h, q]", "column[b, h, k]", "bias[b, h, q, k]",
        "table[h, min(abs(q - k), 8)]", "table[h, (q + k) mod 9]", "table[h, ids[b, k]]",
        "sum(left[b, h, q, r] * right[b, g, k, r] for r in 3)", "abs(q - k) / 8", "ln(abs(q - k) + 1.5)",
        "sum(wide[b, h, q, r] * tall[b, g, k, r] for r in 20)", "cosine(Q[q], K[k])",
        "sum(tanh(left[b, h, q, r] + right[b, g, k, r]) for r in 3)", "max(left[b, h, q, r] for r in 3)",
        "(Q[q] + coat[h]) @ K[k] * scale", "(Q[q] * coat[h]) @ K[k] * scale", "0.5", "h * 0.25", "k / NK",
    )
)  # fmt: skip


def scores() -> SearchStrategy[str]:
    """Sums, products and bounded functions of the atoms."""
    return st.recursive(
        SCORE_ATOMS,
        lambda smaller: st.one_of(
            st.tuples(smaller, st.sampled_from(("+", "-", "+", "*")), smaller).map(
                lambda t: f"({t[0]} {t[1]} {t[2]})"
            ),
            st.tuples(st.sampled_from(("tanh", "sigmoid", "sin", "cos", "softplus")), smaller).map(
                lambda t: f"{t[0]}({t[1]})"
            ),
            smaller.map(lambda part: f"3 * tanh(({part}) / 3)"),
            smaller.map(lambda part: f"sqrt(1 + ({part}) ** 2)"),
            smaller.map(lambda part: f"exp(-abs({part}))"),
            st.tuples(smaller, comparisons(), smaller).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
            st.tuples(st.sampled_from(("min", "max")), smaller, smaller).map(
                lambda t: f"{t[0]}({t[1]}, {t[2]})"
            ),
        ),
        max_leaves=4,
    )


def masks() -> SearchStrategy[str]:
    """Predicates over positions and tensors."""
    return st.tuples(predicates(), st.sampled_from(("and", "or")), MASK_ATOMS).map(
        lambda t: f"{t[0]} {t[1]} ({t[2]})"
    ) | st.tuples(MASK_ATOMS, st.sampled_from(("and", "or")), MASK_ATOMS).map(
        lambda t: f"({t[0]}) {t[1]} ({t[2]})"
    )


VALUES = st.sampled_from(("V[k]", "V[k]", "V[k] * column[b, h, k]", "V[k] + 0.5", "V[k] * (k + 1) / NK"))


def tensors(B: int, H: int, HK: int, NQ: int, NK: int, D: int) -> dict[str, Tensor]:
    """Contents for every declared tensor."""
    g = torch.Generator().manual_seed(NQ * 100 + NK)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    return {
        "ids": torch.randint(0, 4, (B, NK), generator=g), "on": normal(B, H, NK) > -0.5, "alive": normal(NQ) > -1,
        "slopes": normal(H) / 4, "row": normal(B, H, NQ), "column": normal(B, H, NK), "bias": normal(B, H, NQ, NK),
        "table": normal(H, 9), "left": normal(B, H, NQ, 3), "right": normal(B, HK, NK, 3),
        "other": normal(B, HK, NK, D), "coat": normal(H, D) / 2, "wide": normal(B, H, NQ, 20) / 2,
        "tall": normal(B, HK, NK, 20) / 2,
    }  # fmt: skip


SIZES = st.sampled_from(
    (
        (2, 2, 1, 19, 37, 16),
        (1, 3, 3, 40, 40, 24),
        (1, 2, 2, 1, 35, 8),
        (2, 4, 2, 33, 34, 16),
        (1, 1, 1, 17, 65, 40),
    )
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(mask=masks(), score=scores(), value=VALUES, sizes=SIZES, a=st.integers(1, 9), c=st.integers(-6, 12))
def test_kernel_is_the_reference(
    mask: str, score: str, value: str, sizes: tuple[int, int, int, int, int, int], a: int, c: int
) -> None:
    B, H, HK, NQ, NK, D = sizes
    used = [
        line
        for line in TENSORS.splitlines()
        if any(_name(line) + "[" in text for text in (mask, score, value))
    ]
    text = "\n".join(
        [
            f"pattern random({PARAMETERS}):",
            *used,
            f"    mask {mask}",
            f"    score {score}",
            f"    value {value}",
            "",
        ]
    )
    note(text)
    try:
        pattern = parse(text)
    except AttnlangError as mistake:  # a text that means nothing, such as a score that is a whole number
        note(str(mistake))
        assume(False)
        raise
    given_tensors = {n: t for n, t in tensors(B, H, HK, NQ, NK, D).items() if n in pattern.tensors}
    q, k, v = inputs(NQ, NK, B=B, H=H, HK=HK, D=D, seed=NQ + NK)
    check_call(pattern, q, k, v, a=a, c=c, **given_tensors)


def _name(line: str) -> str:
    return line.split("[")[0].removeprefix("    tensor ") if line else "\0"
