"""The prover: what it shows for every size, what it must not show, and the claims that follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest

import attnlang
from attnlang.call_interface import Interface
from attnlang.claims import Verdict
from attnlang.claims_proof import proof
from attnlang.ir.pattern import Attention, Claim, Pattern
from attnlang.passes.prove import Prover
from attnlang.passes.prove_linear import (
    Effort,
    Poly,
    constant,
    contradictory,
    note,
    plus,
    scaled,
    term,
    times,
)

EXAMPLES = Path(__file__).parent.parent / "examples"
PARAMETERS = "m: int >= 1 = 4, r: int >= 0 = 1, w: int >= 1 = 3"


def written(*lines: str, parameters: str = PARAMETERS) -> Pattern:
    """A pattern of these lines."""
    return attnlang.parse(f"pattern t({parameters}):\n" + "".join(f"    {line}\n" for line in lines)).ir


def implied(known: str, wanted: str, *lines: str, inside: bool = True) -> bool:
    """Whether one condition on (q, k) is proved to follow from another."""
    pattern = written(*lines, f"mask {known}", f"sparsity {wanted}")
    stage = pattern.stages[-1]
    assert isinstance(stage, Attention)
    prover = Prover(pattern, inside=inside)
    return prover.valid(prover.terms.formula(stage.sparsity, {}), [prover.terms.formula(stage.mask, {})])


def proved(claim: str, *lines: str, parameters: str = PARAMETERS) -> str | None:
    """The argument for a claim on a pattern, with the full effort."""
    pattern = written(*lines, f"assert {claim}", parameters=parameters)
    return proof(Interface(pattern), pattern.claims[0], None, quick=False)


def verdict(*lines: str, parameters: str = PARAMETERS) -> Verdict:
    """The verdict on the one claim of a pattern."""
    text = f"pattern t({parameters}):\n" + "".join(f"    {line}\n" for line in lines)
    (found,) = attnlang.parse(text).check()
    return found


# ------------------------------------------------------------------------------------------ linear arithmetic

X, Y = term(0), term(1)


def cannot(*polys: Poly) -> bool:
    """Whether polynomials cannot all be at least 0."""
    return contradictory({}, polys, Effort(10_000))


def test_inequalities_are_tightened_to_whole_numbers() -> None:
    assert cannot(plus(scaled(X, 3), constant(-1)), plus(constant(2), scaled(X, -3)))  # 1 ≤ 3x ≤ 2
    assert not cannot(plus(scaled(X, 3), constant(-1)), plus(constant(3), scaled(X, -3)))


def test_equations_are_used_first() -> None:
    difference = plus(X, scaled(Y, 4), -1)  # x = 4y
    between = (plus(X, constant(-1)), plus(constant(3), X, -1))  # 1 ≤ x ≤ 3
    assert cannot(difference, scaled(difference, -1), *between)
    assert not cannot(difference, scaled(difference, -1), between[0])


def test_products_are_terms() -> None:
    assert times(plus(X, constant(1)), plus(X, constant(-1))) == plus(times(X, X), constant(1), -1)
    assert not cannot(times(X, Y), scaled(X, -1))


def test_an_inequality_that_says_nothing_new() -> None:
    rows: dict[tuple[tuple[tuple[int, ...], int], ...], int] = {}
    assert note(rows, plus(X, constant(-2)))
    assert not note(rows, plus(X, constant(-1)))
    assert note(rows, plus(X, constant(-3)))


# ---------------------------------------------------------------------------------------------- implications

IMPLIED = [
    ("causal", "k <= q"),
    ("window(w)", "q - w + 1 <= k <= q"),
    ("local(r)", "abs(k - q) <= r"),
    ("k // 64 < q // 64", "k < q"),
    ("k // m < q // m", "k < q"),
    ("k <= q", "k // m <= q // m"),
    ("k // m == q // m", "abs(k - q) < m"),
    ("k <= q", "(k + m) // m <= q // m + 1"),
    ("(q - k) mod 4 == 0 and 0 < q - k < 6", "q - k == 4"),
    ("q mod m == k mod m and q // m == k // m", "q == k"),
    ("true", "min(q, k) + max(q, k) == q + k"),
    ("k == (q if q > w else w)", "k >= w"),
    ("min(q - w, NK - 1) >= k", "k <= q - w"),
    ("k < max(q // m * m, 1) and k > 0", "k < q"),
    ("q == k", "neighbors(q, k, NK, w, 1, true)"),
    ("true", "0 <= 2 ** r"),
]
NOT_IMPLIED = [
    ("k // m <= q // m", "k <= q"),
    ("q - k < 4", "abs(q - k) < 4"),
    ("q mod m == k mod m", "q == k"),
    ("k < q", "k // m < q // m"),
    ("k <= q", "k < q"),
    ("k * m <= q * m", "k < q"),
    ("k * r <= q * r", "k <= q"),
    ("k mod r == q mod r", "r > 0"),
    ("max(q, k) <= w", "q == k"),
]


@pytest.mark.parametrize(("known", "wanted"), IMPLIED)
def test_what_follows_is_proved(known: str, wanted: str) -> None:
    assert implied(known, wanted)


@pytest.mark.parametrize(("known", "wanted"), NOT_IMPLIED)
def test_what_does_not_follow_is_not(known: str, wanted: str) -> None:
    assert not implied(known, wanted)


def test_a_divisor_may_be_zero() -> None:
    """`q // r` and `q mod r` are 0 then: nothing of a remainder may be used before r > 0 is known."""
    assert not implied("true", "q mod r < r")
    assert implied("r > 0", "0 <= q mod r < r")
    assert implied("r == 0", "q // r == 0 and q mod r == 0")


def test_the_same_element_is_the_same_value() -> None:
    ids = "tensor ids[b, n]: int"
    assert implied("k == q", "ids[b, k] == ids[b, q]", ids)
    assert implied("k // m == q // m and k mod m == q mod m", "ids[b, k] == ids[b, q]", ids)
    assert not implied("k // m == q // m", "ids[b, k] == ids[b, q]", ids)
    assert not implied("ids[b, k] == ids[b, q]", "k == q", ids)


def test_grids_go_by_their_requirements() -> None:
    grid = ("grid q, k as (y: m, x: w)",)
    assert implied("q.y == k.y and q.x == k.x", "q == k", *grid)
    assert implied("k.y < q.y", "k < q", *grid)
    assert implied("true", "0 <= k.y < m and 0 <= k.x < w", *grid)
    assert not implied("k.x < q.x", "k < q", *grid)


def test_queries_need_not_be_keys() -> None:
    assert implied("true", "q >= 0")
    assert not implied("true", "q >= 0", inside=False)
    assert implied("k <= q", "q >= 0", inside=False)


# ---------------------------------------------------------------------------------------------------- causal

COARSE = ["blocks c of k by m", "let KC[c] = mean(K[k] for k in c)", "let VC[c] = mean(V[k] for k in c)"]
CAUSAL = {
    "values of a window": ["mask causal", "value mean(V[n] for n in keys if q - w < n <= k)"],
    "groups that are over": [
        *COARSE,
        "branch coarse over c:",
        "    mask c.last < q",
        "    score Q[q] @ KC[c]",
        "    value VC[c]",
        "output coarse",
    ],
    "a choice by earlier groups": [
        "mask causal",
        *COARSE,
        "select near[q] = top(2) c by Q[q] @ KC[c] where c.last <= q",
        "sparsity near(q, k) or window(w)",
    ],
    "the own group is taken whatever it holds": [
        "mask causal",
        *COARSE,
        "select near[q] = top(2) c by Q[q] @ KC[c] where c <= block(q) always c == block(q)",
        "sparsity near(q, k)",
    ],
    "merged": ["branch a:", "    mask window(w)", "branch z:", "    mask k < q - w", "output merge(a, z)"],
    "a scan": ["scan s2[n] = 0.5 * s2[n - 1] + V[n]", "require D == DV", "mask causal", "value s2[k]"],
    "a state": ["state S[d, e]", "step S = S + outer(K[k], V[k])", "output Q[q] @ S"],
    "entmax": ["mask causal", "normalize entmax(1.5)"],
    "only the largest": ["mask causal", "normalize top(3) | softmax"],
    "labels of earlier tokens": ["tensor ids[b, n]: int", "mask ids[b, k] == ids[b, q] and causal"],
}
NOT_CAUSAL = {
    "a mean that goes on": ["mask causal", "value mean(V[n] for n in keys if n <= k + 1)"],
    "a group that goes on": [
        *COARSE,
        "branch coarse over c:",
        "    mask c.first <= q",
        "    score Q[q] @ KC[c]",
        "    value VC[c]",
        "output coarse",
    ],
    "a choice by the own group": [
        "mask causal",
        *COARSE,
        "select near[q] = top(2) c by Q[q] @ KC[c] where c <= block(q)",
        "sparsity near(q, k)",
    ],
    "shares of a total with the own group": [
        "mask causal",
        *COARSE,
        "select near[q] = mass(0.5) c by exp(Q[q] @ KC[c]) where c <= block(q) always c == block(q)",
        "sparsity near(q, k)",
    ],
    "a row per group of queries": [
        "mask causal",
        "blocks i of q by m",
        "let QC[i] = mean(Q[q] for q in i)",
        "score QC[block(q, i)] @ K[k]",
    ],
    "a scan over later tokens": [
        "scan s2[n] = 0.5 * s2[n - 1] + V[n]",
        "require D == DV",
        "mask causal",
        "value s2[min(k + 1, NK - 1)]",
    ],
    "columns": ["mask causal", "normalize exp(s) / sum(exp(s)) over q"],
    "labels that count": [
        "tensor ids[b, n]: int",
        "mask causal",
        "reweight w * count(ids[b, n] == ids[b, q] for n in keys)",
    ],
    "one branch": ["branch a:", "    mask causal", "branch z:", "    mask k <= q + 1", "output a + z"],
}


@pytest.mark.parametrize("lines", CAUSAL.values(), ids=CAUSAL.keys())
def test_causality_is_proved_through(lines: list[str]) -> None:
    assert proved("causal", *lines) is not None


@pytest.mark.parametrize("lines", NOT_CAUSAL.values(), ids=NOT_CAUSAL.keys())
def test_causality_is_not_proved_but_refuted_for(lines: list[str]) -> None:
    assert proved("causal", *lines) is None
    assert verdict(*lines, "assert causal").outcome == "refuted"


def test_the_argument_names_the_route() -> None:
    assert proved("causal", "mask causal") == "every key that is visible has k <= q"
    assert (
        proved("causal", *CAUSAL["groups that are over"])
        == "what 'coarse' reads of Q, K and V is at positions up to q"
    )
    chosen = proved("causal", *CAUSAL["a choice by earlier groups"])
    assert chosen is not None
    assert chosen.startswith(
        "'near' is chosen by Q and K at positions up to q; every key that 'attention' sees"
    )


# --------------------------------------------------------------------------------- nonempty, rows and density


@pytest.mark.parametrize(
    ("lines", "argument"),
    [
        (["mask causal"], "every query sees k = q"),
        (["mask k == 0 or k < q - w"], "every query sees k = 0"),
        (["mask causal", "sparsity q < w and k == q or k < w"], "every query sees k = 0"),
        (["mask k <= q - 1 or q < 1 and k == NK - 1"], "every query sees k = NK - 1 or k = q - 1"),
        (
            ["mask causal", "select near[q] = top(w) k by Q[q] @ K[k] where k <= q", "sparsity near(q, k)"],
            "every query sees a key that 'near' has chosen",
        ),
    ],
)
def test_some_key_is_always_visible(lines: list[str], argument: str) -> None:
    assert proved("nonempty", *lines) == argument


@pytest.mark.parametrize(
    "lines",
    [
        ["mask k < q"],
        ["tensor seen[b, n]: bool", "mask seen[b, k]"],
        ["select near[q] = top(r) k by Q[q] @ K[k]", "sparsity near(q, k)"],
        ["select near[q] = top(w) k by Q[q] @ K[k] where k < q", "sparsity near(q, k)"],
        ["select near[q] = above(0.5) k by Q[q] @ K[k]", "sparsity near(q, k)"],
    ],
)
def test_a_row_may_be_empty(lines: list[str]) -> None:
    assert proved("nonempty", *lines) is None


ROWS = [
    ("w", ["mask window(w)"]),
    ("w + r", ["mask causal", "sparsity window(w) or sinks(r)"]),
    ("w", ["mask causal", "sparsity dilated(w, m)"]),
    ("2 * r + 1", ["sparsity local(r)"]),
    ("m", ["mask causal", "sparsity q // m == k // m"]),
    ("w * m", ["blocks c of k by m", "select near[q] = top(w) c by 1.0", "sparsity near(q, k)"]),
    (
        "max(w, 1) * m",
        ["blocks c of k by m", "select near[q] = top(w) c by 1.0 always c == 0", "sparsity near(q, k)"],
    ),
    ("m * w", ["grid q, k as (y: m, x: w)"]),
    (
        "(2 * r + 1) ** 2",
        ["grid q, k as (y: m, x: w)", "sparsity abs(q.y - k.y) <= r and abs(q.x - k.x) <= r"],
    ),
    ("w", ["mask (window(w) if h < H // 2 else k == q)"]),
    ("w", ["sparsity (k - r) mod NK // w == (q - r) mod NK // w"]),
    ("NK", []),
    ("(NK + 1) // 2", ["sparsity (k + r) mod 2 == 0"]),
]


@pytest.mark.parametrize(("bound", "lines"), ROWS)
def test_rows_are_bounded(bound: str, lines: list[str]) -> None:
    assert proved(f"rows <= {bound}", *lines) is not None


@pytest.mark.parametrize(
    ("bound", "lines"),
    [
        ("w - 1", ["mask window(w)"]),
        ("w", ["mask window(w) or k == 0"]),
        ("w - 1", ["mask causal", "sparsity dilated(w, m)"]),
        ("w", ["select near[q] = top(w) k by 1.0 always k < r", "sparsity near(q, k)"]),
        ("w", ["select near[q] = mass(0.5) k by 1.0", "sparsity near(q, k)"]),
        ("NK // 2", ["sparsity (k + r) mod 2 == 0"]),
        ("w", ["sparsity k mod (w + 1) // w == 0"]),
        ("(NK - 1) // r + 1", ["sparsity k mod r == 0"]),
        ("w", ["select near[q] = top(w) k by 1.0", "sparsity near(q, max(k - r, 0))"]),
        ("w", ["select near[q] = top(w) k by 1.0", "sparsity near(q, k - r)"]),
    ],
)
def test_rows_may_be_longer(bound: str, lines: list[str]) -> None:
    assert proved(f"rows <= {bound}", *lines) is None


def test_densities_follow_from_rows_and_from_their_sum() -> None:
    assert proved("density <= w / NK", "mask window(w)") is not None
    assert proved("density <= 1", "mask causal") is not None
    half = "density <= (NK + 1) / (2 * NK) where NQ = NK"
    assert proved(half, "mask causal") == "each query sees only 0 <= k <= q, summed over all queries"
    assert proved("density <= 1 / 2 where NQ = NK", "mask causal") is None
    assert proved("density < w / NK", "mask window(w)") is None
    turned = "mask (k <= q if q < NQ // 2 else k <= NQ - 1 - q)"
    assert proved(half, turned) is None, "half of the queries in each case"
    assert (
        proved("density <= 0.1 where NK = 1000", "mask window(m)", parameters="m: int >= 1 = 100") is not None
    )
    assert proved("density <= 0.1 where NK = 1000", "mask window(m)", parameters="m: int >= 1 = 101") is None


def test_density_that_depends_on_the_number_of_heads_is_searched_unless_it_is_given() -> None:
    lines = ["require H mod 8 == 0", "mask (k <= q if h < 8 else true)"]
    found = verdict(*lines, "assert density <= 0.51 where NK = 512")
    assert found.outcome == "searched", "sixteen heads see more"
    assert verdict(*lines, "assert density <= 0.51 where NK = 512, H = 8").outcome == "proved"
    assert verdict(*lines, "assert density <= 0.51 where NK = 512, H = 16").outcome == "refuted"


def test_claims_on_no_call_are_not_proved() -> None:
    assert proved("causal", "require NK < 0", "mask causal") is None
    assert proved("nonempty where NK = 0", "mask causal") is None
    assert proved("rows <= 1 where w = 0", "mask causal") is None


# ----------------------------------------------------------------------------------------------------- equal


def equal(one: str, other: str) -> str | None:
    """The argument that two patterns are equal."""
    text = f"pattern one({PARAMETERS}):\n{one}    assert equal(two)\n\npattern two({PARAMETERS}):\n{other}"
    first, second = (attnlang.parse(text, name).ir for name in ("one", "two"))
    return proof(Interface(first), first.claims[0], Interface(second), quick=False)


EQUAL = [
    ("    mask causal\n    sparsity window(w)\n", "    mask 0 <= q - k < w\n"),
    ("    mask causal\n", "    sparsity not k > q\n    score scale * (K[k] @ Q[q])\n"),
    ("    mask causal\n    score Q[q] @ K[k] - (q - k)\n", "    mask causal\n    score Q[q] @ K[k] - abs(q - k)\n"),
    ("    mask k // m == q // m\n", "    mask k // m * m <= q < k // m * m + m\n"),
    ("    let A[q] = mean(Q[n] for n in queries if n <= q)\n    score A[q] @ K[k]\n",
     "    score mean(Q[n] for n in queries if not n > q) @ K[k]\n"),
]  # fmt: skip
UNEQUAL = [
    ("    mask window(w)\n", "    mask window(w + 1)\n"),
    ("    mask causal\n", "    mask causal\n    normalize softmax_one\n"),
    ("    mask causal\n    value V[k]\n", "    mask causal\n    value V[q]\n"),
    ("    score Q[q] @ K[k] - (q - k)\n", "    score Q[q] @ K[k] - abs(q - k)\n"),
    ("    score Q[q] @ K[k]\n", "    score Q[k] @ K[q]\n    require NQ == NK\n"),
    ("    mask causal\n    reweight w * 2\n", "    mask causal\n"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_patterns_are_proved_equal(one: str, other: str) -> None:
    assert equal(one, other) is not None
    assert equal(other, one) is not None


@pytest.mark.parametrize(("one", "other"), UNEQUAL)
def test_other_patterns_are_not(one: str, other: str) -> None:
    assert equal(one, other) is None


# -------------------------------------------------------------------------------------------------- examples

PROVED_CAUSAL = (
    "affine_scaled", "alibi", "based", "block_topk", "causal", "chunk_recurrent",
    "combiner", "compensated", "composed_heads", "core_context", "delta", "dilated_window",
    "document", "dropped", "dynamic_mask", "entmax", "error_free_delta", "extra_tokens",
    "gated_linear", "hash_buckets", "key_driven_groups", "learned_gate", "linear", "local_block",
    "mixture_of_heads", "music", "native_sparse", "page_topk", "relu", "retention",
    "selective", "sharded", "short_long_heads", "sigmoid", "sink_softmax", "sliding_window",
    "softcap", "softmax_one", "softplus_reweighted", "sparsemax", "streaming", "strided_blocks",
    "t5", "talking_heads", "taylor", "temporal_latent", "top_k", "visual_isolated",
    "windowed_query",
)  # fmt: skip
NO_ROWS = {"delta", "error_free_delta", "gated_linear"}
MAY_BE_EMPTY = {"diagonal_masked", "dropped", "expert_choice", "pyramid", "routing", "sharded"}
NOT_SHOWN = {"region_routing"}
"""No empty row is known, nor a proof that there is none."""


def example(name: str) -> Interface:
    """A pattern of examples/."""
    return Interface(attnlang.load(EXAMPLES / f"{name}.attn").ir)


def names() -> list[str]:
    """All patterns of examples/."""
    return sorted(path.stem for path in EXAMPLES.glob("*.attn"))


@pytest.mark.parametrize("name", PROVED_CAUSAL)
def test_examples_are_proved_causal(name: str) -> None:
    assert proof(example(name), Claim("causal"), None, quick=True) is not None


@pytest.mark.parametrize("name", sorted({*names()} - {*PROVED_CAUSAL}))
def test_the_other_examples_are_not(name: str) -> None:
    assert proof(example(name), Claim("causal"), None, quick=True) is None


@pytest.mark.parametrize("name", sorted({*names()} - NO_ROWS - MAY_BE_EMPTY - NOT_SHOWN))
def test_examples_are_proved_nonempty(name: str) -> None:
    assert proof(example(name), Claim("nonempty"), None, quick=False) is not None


@pytest.mark.parametrize("name", sorted(MAY_BE_EMPTY))
def test_empty_rows_are_not_proved_away(name: str) -> None:
    assert proof(example(name), Claim("nonempty"), None, quick=True) is None


EXAMPLE_ROWS = {
    "sliding_window": "window", "streaming": "window + sinks", "dilated_window": "window", "local": "2 * radius + 1",
    "block_topk": "keep * block", "native_sparse": "keep * block + window", "local_block": "block",
    "dynamic_mask": "keep", "space": "tokens", "time": "frames", "swin": "window ** 2", "cosine": "window ** 2",
    "halo": "(block + 2 * halo) ** 2", "shifted_groups": "group", "expert_choice": "keep",
    "unidirectional_blocks": "4 * block ** 2", "core_context": "window + group - 1", "learned_gate": "keep * block",
    "tile_topk": "keep * tile", "page_topk": "sinks + near + (keep + 1) * page - 1",
}  # fmt: skip


@pytest.mark.parametrize(("name", "bound"), EXAMPLE_ROWS.items())
def test_examples_have_short_rows(name: str, bound: str) -> None:
    text = (EXAMPLES / f"{name}.attn").read_text(encoding="utf-8")
    pattern = attnlang.parse(f"{text.rstrip()}\n    assert rows <= {bound}\n").ir
    assert proof(Interface(pattern), pattern.claims[-1], None, quick=True) is not None
    tighter = attnlang.parse(f"{text.rstrip()}\n    assert rows < {bound}\n").ir
    assert proof(Interface(tighter), tighter.claims[-1], None, quick=True) is None


def test_shifted_groups_are_refuted_with_a_pair() -> None:
    text = (EXAMPLES / "shifted_groups.attn").read_text(encoding="utf-8")
    (found,) = attnlang.parse(f"{text.rstrip()}\n    assert causal\n").check()
    example = found.counterexample
    assert found.outcome == "refuted"
    assert example is not None
    assert example.at["k"] > example.at["q"]
    assert set(example.sizes) == {"H", "HK", "NQ", "NK", "D", "DV"}


def test_what_is_spent_has_an_end() -> None:
    pattern = attnlang.load(EXAMPLES / "neighborhood_1d.attn").ir
    (stage,) = pattern.stages
    assert isinstance(stage, Attention)
    prover = Prover(pattern, inside=True, effort=500)
    assert not prover.valid(
        prover.terms.formula(stage.sparsity, {stage.over: prover.terms.index(pattern.axes[2])})
    )
    assert 0 < prover.spent <= 1000
