"""States: vectors that scale a matrix, what is read before the first and behind the last key, what they have seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import attnlang
from attnlang.errors import Diagnostics
from attnlang.ir.interpret import Inputs, NoKeyAttention, evaluate, visible
from attnlang.ir.pattern import Pattern
from tests.test_elaborate import body

KEYS = 7


def given(
    pattern: Pattern, queries: int = KEYS, offset: int = 0, value_features: int = 3, **tensors: Tensor
) -> Inputs:
    """A call of two heads, four features and seven keys."""
    make = torch.Generator().manual_seed(3)
    q = torch.randn(1, 2, queries, 4, generator=make, dtype=torch.float64)
    k = torch.randn(1, 2, KEYS, 4, generator=make, dtype=torch.float64)
    v = torch.randn(1, 2, KEYS, value_features, generator=make, dtype=torch.float64)
    sizes = {"B": 1, "H": 2, "HK": 2, "NQ": queries, "NK": KEYS, "D": 4, "DV": value_features}
    return Inputs(q, k, v, sizes, {"q_offset": offset, "scale": 0.5}, tensors)


def rates(features: int) -> Tensor:
    """[1, 2, 7, features] between 0.2 and 0.9."""
    make = torch.Generator().manual_seed(4)
    return torch.rand(1, 2, KEYS, features, generator=make, dtype=torch.float64) * 0.7 + 0.2


# text of the step, feature of the rates, and the state before it scaled as it should be
SCALED = [
    ("rate[b, h, k] * S", "d", lambda S, x: x[:, None] * S),
    ("S * rate[b, h, k]", "d", lambda S, x: S * x[:, None]),
    ("rate[b, h, k] * S", "e", lambda S, x: S * x[None, :]),
    ("S / (1 + rate[b, h, k])", "d", lambda S, x: S / (1 + x[:, None])),
    ("S / (1 + rate[b, h, k])", "e", lambda S, x: S / (1 + x[None, :])),
    ("0.5 * (sqrt(rate[b, h, k]) * S) * sigmoid(V[k] * 0 + 1)", "d",
     lambda S, x: 0.5 * x.sqrt()[:, None] * S * torch.sigmoid(torch.ones(())).double()),
]  # fmt: skip


@pytest.mark.parametrize(("text", "axis", "scaled"), SCALED, ids=[f"{case[0]} {case[1]}" for case in SCALED])
def test_a_vector_scales_rows_or_columns(text: str, axis: str, scaled) -> None:  # type: ignore[no-untyped-def]
    pattern = body(
        f"tensor rate[b, h, n, {axis}]",
        "state S[d, e]",
        f"step S = {text} + outer(K[k], V[k])",
        "output Q[q] @ S",
    )
    rate = rates(4 if axis == "d" else 3)
    call = given(pattern, rate=rate)
    assert call.q is not None and call.k is not None and call.v is not None
    rows: list[Tensor] = []
    for head in range(2):
        S = torch.zeros(4, 3, dtype=torch.float64)
        for n in range(KEYS):
            S = scaled(S, rate[0, head, n]) + torch.outer(call.k[0, head, n], call.v[0, head, n])
            rows.append(call.q[0, head, n] @ S)
    wanted = torch.stack(rows).reshape(2, KEYS, 3)
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0], wanted)


def test_a_vector_beside_a_matrix_outside_of_steps() -> None:
    pattern = body("let M[n] = outer(K[n], V[n])", "mask k == q", "weight 1", "value Q[q] @ (K[k] * M[k])")
    call = given(pattern)
    assert call.q is not None and call.k is not None and call.v is not None
    wanted = (call.q * call.k * call.k).sum(-1, keepdim=True) * call.v
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out, wanted)


STATE = ("state S[d, e]", "step S = 0.5 * S + outer(K[k], V[k])", "output Q[q] @ S")


@pytest.mark.parametrize("offset", [0, -3, 4, 6, 7, 30, -40])
def test_states_are_zero_before_the_first_key_and_stay_behind_the_last(offset: int) -> None:
    pattern = body(*STATE)
    call = given(pattern, 5, offset)
    assert call.q is not None and call.k is not None and call.v is not None
    after = [torch.zeros(2, 4, 3, dtype=torch.float64)]
    for n in range(KEYS):
        after.append(0.5 * after[-1] + call.k[0, :, n, :, None] * call.v[0, :, n, None])
    rows = [
        torch.einsum("hd,hde->he", call.q[0, :, row], after[min(max(offset + row + 1, 0), KEYS)])
        for row in range(5)
    ]
    torch.testing.assert_close(evaluate(pattern, call, dtype=torch.float64).out[0], torch.stack(rows, 1))
    parsed = attnlang.parse("pattern p():\n" + "".join(f"    {line}\n" for line in STATE))
    out = parsed.reference(call.q, call.k, call.v, q_offset=offset)
    torch.testing.assert_close(out[0], torch.stack(rows, 1))


@pytest.mark.parametrize("offset", [0, -3, 4, 30])
def test_a_state_has_seen_the_keys_up_to_its_query(offset: int) -> None:
    seen = visible(body(*STATE), given(body(*STATE), 5, offset))
    wanted = torch.arange(KEYS)[None] <= torch.arange(offset, offset + 5)[:, None]
    assert torch.equal(seen, wanted[None, None])


@pytest.mark.parametrize(
    ("lines", "seen"),
    [
        (("state S[d, e]", "state z[d]", "step S = S + outer(K[k], V[k])", "step z = z + K[k]",
          "output Q[q] @ S / (1 + (Q[q] @ z) ** 2)"), True),
        (("tensor a[n]", "let f[n] = a[n] * 2", "state S[e]", "step S = f[k] * S + V[k]", "output S"), True),
        (("state S[e]", "step S = S + V[k]", "output S + V[q]"), False),
        (("state S[e]", "step S = S + V[max(k - 1, 0)]", "output S"), False),
        (("let f[n] = mean(K[m] for m in keys)", "state S[e]", "step S = S * sum(f[k]) + V[k]", "output S"), False),
        (("let f[n] = mean(K[m] for m in keys)", "state S[e]", "step S = S + V[k]", "output S * sum(f[0])"), False),
    ],
)  # fmt: skip
def test_what_a_state_has_seen_is_known_where_it_takes_in_one_token_after_the_other(
    lines: tuple[str, ...], seen: bool
) -> None:
    pattern = body(*lines)
    call = given(pattern, a=torch.ones(KEYS, dtype=torch.float64))
    if seen:
        causal = torch.ones(KEYS, KEYS, dtype=torch.bool).tril()
        assert torch.equal(visible(pattern, call), causal[None, None])
    else:
        with pytest.raises(NoKeyAttention):
            visible(pattern, call)


def test_attentions_with_rows_of_their_own_are_seen_in_any_of_them() -> None:
    pattern = body(
        "tensor group[3, n]: int",
        "branch part[c in 3, q]:",
        "    mask     causal",
        "    sparsity group[c, q] == 1 and group[c, k] == 1",
        "output sum(part[c, q] for c in 3)",
    )
    group = torch.tensor([[1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1]])
    seen = visible(pattern, given(pattern, group=group))
    wanted = ((group[:, :, None] == 1) & (group[:, None, :] == 1)).any(0).tril()
    assert torch.equal(seen, wanted[None, None])


# ------------------------------------------------------------------------------- positions of running values


def refused(lines: tuple[str, ...], offset: int, queries: int = 5) -> str:
    """What a call says, '' where it runs."""
    pattern = attnlang.parse("pattern p():\n" + "".join(f"    {line}\n" for line in lines))
    q, k = torch.randn(1, 1, queries, 4), torch.randn(1, 1, KEYS, 4)
    try:
        pattern(q, k, k, q_offset=offset)
    except Diagnostics as caught:
        return "; ".join(error.text for error in caught.errors)
    return ""


SCAN = ("scan x[n] = x[n - 1] + 1.0", "score x[q] - x[k]")
TABLE = ("let y[n] = n * 1.0", "score y[q] - y[k]")


@pytest.mark.parametrize(("lines", "name"), [(SCAN, "x"), (TABLE, "y")], ids=["scan", "let"])
def test_running_values_and_tables_are_read_at_positions_only(lines: tuple[str, ...], name: str) -> None:
    reads = f"'p' reads axis 'n' of '{name}' at the queries, "
    assert refused(("mask causal", *lines), 2) == ""
    assert refused(("mask causal", *lines), 3) == f"{reads}3 … 7, but it has length 7"
    assert refused(("mask causal", *lines), -2) == ""
    assert refused(("mask k < 4", *lines), -2) == f"{reads}-2 … 2, but it has length 7"


def test_a_table_over_queries_is_read_at_queries_only() -> None:
    lines = ("require NQ == NK", "let y[q] = q * 1.0", "score y[k]")
    assert refused(lines, 0, KEYS) == ""
    assert refused(lines, 1, KEYS) == "'p' reads axis 'q' of 'y' at the keys, -1 … 5, but it has length 7"


GATES = ("tensor gate[n]", "mask causal")


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ("gate[q] * attention", False),
        ("-attention / gate[q] if gate[q] > 2 else sum(gate[q] * attention for i in 3)", False),
        ("attention + gate[q] * V[max(q, 0)]", True),
        ("attention + y[q]", True),
        ("attention * exp(y[q])", False),
        ("attention + Q[q]", False),
    ],
)
def test_rows_that_see_nothing_give_zero_or_are_refused(output: str, shown: bool) -> None:
    lines = (*GATES, "require DV == D", "let y[q] = gate[q] * 2", f"output {output}")
    pattern = attnlang.parse("pattern p():\n" + "".join(f"    {line}\n" for line in lines))
    q, k = torch.randn(1, 1, 5, 4), torch.randn(1, 1, KEYS, 4)
    gate = torch.rand(KEYS)
    pattern(q, k, k, gate=gate, q_offset=1)
    if shown:
        with pytest.raises(Diagnostics, match="reads axis 'n' of 'gate' at the queries, -2 … 2"):
            pattern(q, k, k, gate=gate, q_offset=-2)
    else:
        out = pattern(q, k, k, gate=gate, q_offset=-2)
        assert torch.equal(out[:, :, :2], q[:, :, :2] if "Q[q]" in output else torch.zeros(1, 1, 2, 4))


def test_a_mask_needs_no_tensor_to_refuse_positions() -> None:
    pattern = attnlang.parse("pattern p():\n    mask causal\n" + "".join(f"    {line}\n" for line in SCAN))
    assert pattern.mask(5, KEYS).shape == (1, 1, 5, KEYS)
    with pytest.raises(Diagnostics, match="of 'x' at the queries"):
        pattern.mask(5, KEYS, q_offset=3)
