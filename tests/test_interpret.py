"""The interpreter of the pattern IR against torch written out by hand, and its corners."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from typing import Literal as OneOf

import pytest
import torch
from torch import Tensor

from attnlang.ir import interpret
from attnlang.ir.interpret import Inputs, MissingInput, NoKeyAttention, table, visible
from attnlang.ir.pattern import (
    BATCH,
    FALSE,
    FEATURE,
    HEAD,
    KEY,
    NK,
    TRUE,
    VALUE_FEATURE,
    Axis,
    Index,
    Let,
    Literal,
    Merge,
    Recurrence,
    Select,
    Threshold,
)
from tests.hand_patterns import (
    COARSE,
    COARSE_SCORE,
    COARSE_TABLES,
    DOT,
    EVERYTHING,
    GROUPS,
    KV,
    OUT,
    ROWS,
    SOFTMAX,
    SOFTMAX_ONE,
    G,
    attention,
    c,
    close,
    delta_rule,
    dots,
    formula,
    grouped,
    inputs,
    k,
    means,
    op,
    parts,
    pattern,
    q,
    read,
    run,
    softmax,
    talking_heads,
)


def test_causal_attention_with_groups_of_heads() -> None:
    given = inputs()
    _, _, V, mask = parts(given)
    result = run(pattern(attention()), given, EVERYTHING)
    weights = softmax(dots(given), mask)
    close(result.out, weights @ V)
    close(result.weights, weights)
    close(result.lse, torch.logsumexp(dots(given).masked_fill(~mask, -torch.inf), -1))


def test_rows_that_see_nothing() -> None:
    given = inputs(offset=-3, grad=True)
    result = run(pattern(attention()), given, EVERYTHING)
    assert result.lse is not None
    assert (result.out[:, :, :3] == 0).all() and (result.lse[:, :, :3] == -torch.inf).all()
    result.out.sum().backward()
    assert given.q is not None and given.q.grad is not None
    assert (given.q.grad[:, :, :3] == 0).all() and given.q.grad.isfinite().all()


def test_alibi_reads_a_tensor() -> None:
    slopes = torch.rand(4, dtype=torch.float64)
    given = inputs(tensors={"slopes": slopes})
    score = op("sub", DOT, op("mul", read("slopes", HEAD), op("sub", q, k)))
    _, _, V, mask = parts(given)
    distance = torch.arange(6)[:, None] + 3 - torch.arange(9)
    close(
        run(pattern(attention(score=score)), given).out,
        softmax(dots(given) - slopes[:, None, None] * distance, mask) @ V,
    )


def test_empty_sequences() -> None:
    assert run(pattern(attention()), inputs(nq=0), EVERYTHING).out.shape == (2, 4, 0, 3)
    result = run(pattern(attention()), inputs(nk=0, offset=0), EVERYTHING)
    assert (result.out == 0).all() and result.lse is not None and (result.lse == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_types_round_the_result(dtype: torch.dtype) -> None:
    given = inputs()
    exact = run(pattern(attention()), given, EVERYTHING)
    found = run(pattern(attention()), given, EVERYTHING, dtype)
    assert found.out.dtype == dtype and found.lse is not None and found.lse.dtype == torch.float32
    close(found.out, exact.out, 2e-2 if dtype == torch.bfloat16 else 2e-3)


def test_pieces_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = talking_heads()
    given = inputs(nq=9, tensors={"pre": torch.rand(4, 4).double(), "post": torch.rand(4, 4).double()})
    whole = [run(p, given, EVERYTHING) for p in (pattern(attention()), mixed)]
    monkeypatch.setattr(interpret, "BUDGET", 3000)
    for p, expected in zip((pattern(attention()), mixed), whole, strict=True):
        found = run(p, given, EVERYTHING)
        close(found.out, expected.out, 1e-13)
        assert expected.weights is not None
        close(found.weights, expected.weights, 1e-13)


def test_softmax_one() -> None:
    given = inputs()
    _, _, V, mask = parts(given)
    s = dots(given).masked_fill(~mask, -torch.inf)
    weights = s.exp() / (1 + s.exp().sum(-1, keepdim=True))
    close(run(pattern(attention(normalize=formula(SOFTMAX_ONE))), given).out, weights @ V)


@pytest.mark.parametrize("scale", [300.0, -300.0])
def test_a_formula_with_large_exponents_is_right_in_single_precision(scale: float) -> None:
    given = inputs(grad=True)
    given = replace(given, scalars={**given.scalars, "scale": scale})
    p = pattern(attention(normalize=formula(SOFTMAX_ONE)))
    exact = run(p, given).out
    found = run(p, given, OUT, torch.float32).out
    close(found, exact, 1e-4)
    found.sum().backward()
    assert given.q is not None and given.q.grad is not None and given.q.grad.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "alpha"), [("sparsemax", 2.0), ("entmax", 1.5), ("entmax", 1.1), ("entmax", 3.0)]
)
def test_entmax_satisfies_its_equation(kind: OneOf["sparsemax", "entmax"], alpha: float) -> None:
    given = inputs(grad=True)
    given = replace(given, scalars={**given.scalars, "scale": 3.0})
    steps = (Threshold(kind, Literal(alpha)),)
    weights = run(pattern(attention(normalize=steps)), given, EVERYTHING).weights
    mask = parts(given)[3]
    assert weights is not None
    close(weights.sum(-1), torch.ones(2, 4, 6))
    z, support = (alpha - 1) * dots(given), weights > 0
    threshold = (z - weights ** (alpha - 1))[support]
    rows = torch.where(support, z - weights ** (alpha - 1), torch.nan)
    spread = rows.nan_to_num(-torch.inf).amax(-1) - rows.nan_to_num(torch.inf).amin(-1)
    assert threshold.isfinite().all() and spread.abs().max() < 1e-9
    highest = rows.nan_to_num(-torch.inf).amax(-1, keepdim=True)
    assert (torch.where(mask & ~support, z - highest, -1.0) <= 1e-9).all()


def test_top_keeps_the_lower_index_among_equals() -> None:
    given = inputs(heads=1, kv=1, B=1, nq=1, nk=4)
    score = op("where", op("eq", k, 1), 2.0, 1.0)
    steps = (Threshold("top", Literal(2)), SOFTMAX)
    result = run(pattern(attention(score=score, normalize=steps)), given, EVERYTHING)
    assert result.weights is not None
    assert (result.weights[0, 0, 0] > 0).tolist() == [True, True, False, False]
    close(result.weights.sum(), torch.tensor(1.0))


def test_sinkhorn_normalizes_queries_and_keys() -> None:
    given = inputs(nq=7, nk=7)
    result = run(
        pattern(attention(mask=TRUE, normalize=(Threshold("sinkhorn", Literal(60)),))), given, EVERYTHING
    )
    assert result.weights is not None
    close(result.weights.sum(-1), torch.ones(2, 4, 7))
    close(result.weights.sum(-2), torch.ones(2, 4, 7), 1e-6)


def test_talking_heads() -> None:
    pre, post = torch.randn(4, 4).double(), torch.randn(4, 4).double()
    given = inputs(tensors={"pre": pre, "post": post})
    _, _, V, mask = parts(given)
    weights = softmax(torch.einsum("mn,bnqk->bmqk", pre, dots(given)), mask)
    close(run(talking_heads(), given).out, torch.einsum("mn,bnqk->bmqk", post, weights) @ V)


def test_coarse_branch_over_means() -> None:
    given = inputs(nk=11)
    Q, K, V, _ = parts(given)
    assert given.k is not None
    s = torch.einsum("bhqd,bhcd->bhqc", Q, grouped(given, K)) * given.scalars["scale"]
    mask = (3 * (torch.arange(4) + 1)) < torch.arange(6)[:, None] + 5 + 1
    result = run(pattern(*COARSE_TABLES, COARSE, result="coarse"), given, EVERYTHING)
    close(result.out, softmax(s, mask) @ grouped(given, V))
    close(
        table(pattern(means("KC", FEATURE)), "KC", given),
        grouped(given, given.k),
    )  # type: ignore[union-attr]


def test_merge_is_one_softmax_over_the_union() -> None:
    given = inputs(nk=11)
    Q, K, V, mask = parts(given)
    both = Merge("both", ("fine", "coarse"))
    p = pattern(*COARSE_TABLES, COARSE, attention("fine"), both, result="both")
    coarse = torch.einsum("bhqd,bhcd->bhqc", Q, grouped(given, K)) * given.scalars["scale"]
    seen = (3 * (torch.arange(4) + 1)) < torch.arange(6)[:, None] + 5 + 1
    scores, masks = torch.cat((dots(given), coarse), -1), torch.cat((mask, seen), -1)
    result = run(p, given, frozenset(("out", "lse")))
    close(result.out, softmax(scores, masks) @ torch.cat((V, grouped(given, V)), 2))
    close(result.lse, torch.logsumexp(scores.masked_fill(~masks, -torch.inf), -1))


def chosen(**changes: Any) -> Select:
    own = op("eq", c, op("floordiv", q, 3))
    plain = Select(
        "near", ROWS, (GROUPS,), "top", Literal(2), COARSE_SCORE, op("le", c, op("floordiv", q, 3)), own
    )
    return replace(plain, **changes)


def test_top_blocks_always_with_the_own() -> None:
    given = inputs(nk=12, nq=12)
    near = read("near", *ROWS, op("floordiv", k, 3), dtype="bool")
    p = pattern(means("KC", FEATURE), chosen(), attention(sparsity=near))
    Q, K, V, mask = parts(given)
    by = torch.einsum("bhqd,bhcd->bhqc", Q, grouped(given, K))
    kept = torch.zeros(2, 4, 12, 4, dtype=torch.bool)
    for row in range(12):
        own = row // 3
        kept[:, :, row, own] = True
        if own:
            kept[:, :, row].scatter_(-1, by[:, :, row, :own].argmax(-1, keepdim=True), True)
    seen = kept.repeat_interleave(3, -1) & mask
    close(run(p, given).out, softmax(dots(given), seen) @ V)
    assert torch.equal(visible(p, given), seen)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_mass_takes_the_fewest_that_reach_the_share(share: float) -> None:
    candidates = Axis("i", Literal(6), "range")
    by = torch.tensor([0.1, 0.3, 0.05, 0.3, 0.05, 0.2], dtype=torch.float64)
    stage = Select("kept", (), (candidates,), "mass", Literal(share), read("by", candidates), TRUE, FALSE)
    body = op("where", read("kept", candidates, dtype="bool"), 1.0, 0.0)
    p = pattern(stage, Let("shown", (candidates,), body), attention())
    found = table(p, "shown", inputs(tensors={"by": by})).tolist()
    expected = {0.3: [0, 1, 0, 0, 0, 0], 0.7: [0, 1, 0, 1, 0, 1], 1.0: [1, 1, 1, 1, 1, 1]}
    assert found == expected[share]


def delta_by_hand(given: Inputs, beta: Tensor) -> Tensor:
    Q, K, V, _ = parts(given)
    S = torch.zeros(2, 4, Q.shape[-1], V.shape[-1], dtype=torch.float64)
    found: list[Tensor] = []
    for t in range(K.shape[2]):
        seen = torch.einsum("bhd,bhde->bhe", K[:, :, t], S)
        S = S + beta[:, :, t, None, None] * K[:, :, t, :, None] * (V[:, :, t] - seen)[:, :, None]
        found.append(S)
    first = int(given.scalars["q_offset"])
    return torch.stack(
        [torch.einsum("bhd,bhde->bhe", Q[:, :, i], found[first + i]) for i in range(Q.shape[2])],
        2,
    )


def test_delta_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    beta = torch.rand(2, 4, 9, dtype=torch.float64)
    given = inputs(tensors={"beta": beta})
    close(run(delta_rule(), given).out, delta_by_hand(given, beta))
    monkeypatch.setattr(interpret, "BUDGET", 3000)
    close(run(delta_rule(), given).out, delta_by_hand(given, beta))


def test_scan_with_restart_read_at_other_tokens() -> None:
    axes = (BATCH, KV, VALUE_FEATURE)
    own = read("V", BATCH, KV, KEY, VALUE_FEATURE)
    stage = Recurrence(
        "run",
        axes,
        KEY,
        2,
        op("add", op("mul", 0.5, read("run.previous", *axes)), own),
        op("eq", op("mod", k, 4), 0),
    )
    last = op("sub", op("mul", op("add", op("floordiv", k, 4), 1), 4), 1)
    value = read("run", BATCH, G, op("min", last, op("sub", NK, 1)), VALUE_FEATURE)
    given = inputs()
    _, _, V, mask = parts(given)
    rows: list[Tensor] = []
    for t in range(9):
        rows.append(V[:, :, t] + (0.5 * rows[-1] if t % 4 else 0))
    taken = torch.stack([rows[min(t // 4 * 4 + 3, 8)] for t in range(9)], 2)
    close(run(pattern(stage, attention(value=value)), given).out, softmax(dots(given), mask) @ taken)


def test_visibility_needs_no_inputs_where_the_predicate_does_not() -> None:
    given = inputs()
    bare = Inputs(None, None, None, given.sizes, given.scalars, {})
    assert visible(pattern(attention()), bare).shape == (1, 1, 6, 9)
    assert torch.equal(visible(pattern(attention()), bare)[0, 0], parts(given)[3])
    two = pattern(
        attention("a", sparsity=op("lt", k, 2)), attention("b", sparsity=op("eq", k, q)), result="a"
    )
    places = torch.arange(9)
    rows = torch.arange(6)[:, None] + 3
    assert torch.equal(visible(two, bare)[0, 0], (places < 2) | (places == rows))
    assert visible(pattern(attention(mask=TRUE)), bare).all()
    narrowed = pattern(attention(normalize=(Threshold("top", Literal(2)), SOFTMAX)))
    assert torch.equal(visible(narrowed, bare)[0, 0], parts(given)[3])
    near = read("near", *ROWS, op("floordiv", k, 3), dtype="bool")
    with pytest.raises(MissingInput, match="depends on Q"):
        visible(pattern(means("KC", FEATURE), chosen(), attention(sparsity=near)), bare)
    with pytest.raises(NoKeyAttention, match="no mask"):
        visible(pattern(COARSE, result="coarse"), bare)


def test_tables_of_parameters_are_in_double_precision() -> None:
    axis = Axis("i", Literal(5), "range")
    stage = Let("t", (axis,), op("log", op("add", Index(axis), 1)))
    found = table(pattern(stage, attention()), "t", inputs())
    assert found.dtype == torch.float64 and found.tolist() == [math.log(i + 1) for i in range(5)]
