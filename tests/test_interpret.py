"""The interpreter of the pattern IR against torch written out by hand, its gradients, and its corners."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from attnlang.ir import interpret
from attnlang.ir.interpret import Inputs, MissingInput, NoKeyAttention, evaluate, table, visible
from attnlang.ir.pattern import (
    BATCH,
    DV,
    FALSE,
    FEATURE,
    HEAD,
    KEY,
    NK,
    NQ,
    QUERY,
    SCALE,
    TRUE,
    VALUE_FEATURE,
    Apply,
    Attention,
    Axis,
    D,
    Expr,
    Formula,
    H,
    Index,
    Let,
    Literal,
    Merge,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Select,
    Stage,
    Step,
    Threshold,
    kv_head_of,
    storage,
)

ROWS = (BATCH, HEAD, QUERY)
SOFTMAX = Formula(Literal(0), "softmax")
OUT, EVERYTHING = frozenset(("out",)), frozenset(("out", "lse", "weights"))


def op(name: str, *args: Expr | int | float | bool) -> Expr:
    """An operation; numbers may stand for literals."""
    return Apply(name, tuple(Literal(arg) if isinstance(arg, (bool, int, float)) else arg for arg in args))


def read(name: str, *at: Axis | Expr, dtype: str = "float") -> Read:
    """A read at axes (their storage) or expressions."""
    places = tuple(storage(one) if isinstance(one, Axis) else one for one in at)
    return Read(name, places, dtype)  # type: ignore[arg-type]


b, h, q, k, d, e = (Index(axis) for axis in (BATCH, HEAD, QUERY, KEY, FEATURE, VALUE_FEATURE))
CAUSAL = op("le", k, q)
G = kv_head_of(h)
DOT = op("mul", SCALE, Reduce("sum", (FEATURE,), op("mul", read("Q", *ROWS, FEATURE), read("K", BATCH, G, KEY, FEATURE))))
VALUE = read("V", BATCH, G, KEY, VALUE_FEATURE)


def attention(name: str = "attention", **changes: object) -> Attention:
    """Causal softmax attention with some parts changed."""
    plain = Attention(name, ROWS, KEY, VALUE_FEATURE, CAUSAL, TRUE, DOT, (SOFTMAX,), None, VALUE)
    return replace(plain, **changes)  # type: ignore[arg-type]


def formula(body: Expr) -> tuple[Step, ...]:
    return (Formula(body),)


def pattern(*stages: Stage, output: Expr | None = None, result: str = "attention") -> Pattern:
    axes = (BATCH, HEAD, QUERY, VALUE_FEATURE)
    return Pattern("test", "", (), (), (), axes, stages, output or read(result, *axes), result)


def inputs(
    *, B: int = 2, heads: int = 4, kv: int = 2, nq: int = 6, nk: int = 9, dim: int = 5, dv: int = 3,
    seed: int = 0, offset: int | None = None, grad: bool = False, scalars: dict[str, float] | None = None, **tensors: Tensor,
) -> Inputs:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, heads, nq, dim), (B, kv, nk, dim), (B, kv, nk, dv))
    Q, K, V = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad) for shape in shapes
    )
    sizes = {"B": B, "H": heads, "HK": kv, "NQ": nq, "NK": nk, "D": dim, "DV": dv}
    extra = {"q_offset": nk - nq if offset is None else offset, "scale": dim**-0.5, **(scalars or {})}
    return Inputs(Q, K, V, sizes, extra, tensors)


def parts(given: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Q, K, V (repeated over the query heads) and the causal mask."""
    assert given.q is not None and given.k is not None and given.v is not None
    group = given.sizes["H"] // given.sizes["HK"]
    K, V = given.k.repeat_interleave(group, 1), given.v.repeat_interleave(group, 1)
    rows = torch.arange(given.sizes["NQ"]) + int(given.scalars["q_offset"])
    return given.q, K, V, rows[:, None] >= torch.arange(given.sizes["NK"])


def dots(given: Inputs) -> Tensor:
    Q, K, _, _ = parts(given)
    return torch.einsum("bhqd,bhkd->bhqk", Q, K) * given.scalars["scale"]


def softmax(s: Tensor, mask: Tensor) -> Tensor:
    return torch.softmax(s.masked_fill(~mask, -torch.inf), -1).nan_to_num(0.0)


def run(p: Pattern, given: Inputs, want: frozenset[str] = OUT, dtype: torch.dtype = torch.float64) -> interpret.Result:
    return evaluate(p, given, dtype=dtype, want=want)


def close(found: Tensor | None, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------------------ one softmax


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
    given = inputs(slopes=slopes)
    score = op("sub", DOT, op("mul", read("slopes", HEAD), op("sub", q, k)))
    _, _, V, mask = parts(given)
    distance = torch.arange(6)[:, None] + 3 - torch.arange(9)
    close(run(pattern(attention(score=score)), given).out, softmax(dots(given) - slopes[:, None, None] * distance, mask) @ V)


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
    given = inputs(nq=9, pre=torch.rand(4, 4).double(), post=torch.rand(4, 4).double())
    whole = [run(p, given, EVERYTHING) for p in (pattern(attention()), mixed)]
    monkeypatch.setattr(interpret, "BUDGET", 3000)
    for p, expected in zip((pattern(attention()), mixed), whole, strict=True):
        found = run(p, given, EVERYTHING)
        close(found.out, expected.out, 1e-13)
        assert expected.weights is not None
        close(found.weights, expected.weights, 1e-13)


# ------------------------------------------------------------------------------------------------ normalizers

S0 = read("attention.step0", *ROWS, KEY)
SEEN = read("attention.visible", *ROWS, KEY, dtype="bool")
SOFTMAX_ONE = op("div", op("exp", S0), op("add", 1, Reduce("sum", (KEY,), op("exp", S0), SEEN)))


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


@pytest.mark.parametrize(("kind", "alpha"), [("sparsemax", 2.0), ("entmax", 1.5), ("entmax", 1.1), ("entmax", 3.0)])
def test_entmax_satisfies_its_equation(kind: str, alpha: float) -> None:
    given = inputs(grad=True)
    given = replace(given, scalars={**given.scalars, "scale": 3.0})
    steps = (Threshold(kind, Literal(alpha)),)  # type: ignore[arg-type]
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
    result = run(pattern(attention(mask=TRUE, normalize=(Threshold("sinkhorn", Literal(60)),))), given, EVERYTHING)
    assert result.weights is not None
    close(result.weights.sum(-1), torch.ones(2, 4, 7))
    close(result.weights.sum(-2), torch.ones(2, 4, 7), 1e-6)


def talking_heads() -> Pattern:
    m, n = Axis("m", H, "head"), Axis("n", H, "head")
    mixed = Reduce("sum", (m,), op("mul", read("pre", HEAD, m), read("plain.scores", BATCH, m, QUERY, KEY)))
    post = Reduce("sum", (n,), op("mul", read("post", HEAD, n), read("attention.normalized", BATCH, n, QUERY, KEY)))
    return pattern(attention("plain"), attention(score=mixed, reweight=post))


def test_talking_heads() -> None:
    pre, post = torch.randn(4, 4).double(), torch.randn(4, 4).double()
    given = inputs(pre=pre, post=post)
    _, _, V, mask = parts(given)
    weights = softmax(torch.einsum("mn,bnqk->bmqk", pre, dots(given)), mask)
    close(run(talking_heads(), given).out, torch.einsum("mn,bnqk->bmqk", post, weights) @ V)


# ---------------------------------------------------------------------------------- tables, choices, merges

GROUPS = Axis("c", op("floordiv", op("add", NK, 2), 3), "group")
c = Index(GROUPS)
MEMBER = op("eq", op("floordiv", k, 3), c)
KV = Axis("g", Apply("floordiv", (H, Literal(2))), "kv_head")


def means(name: str, feature: Axis) -> Let:
    source = "K" if feature is FEATURE else "V"
    body = Reduce("mean", (KEY,), read(source, BATCH, KV, KEY, feature), MEMBER)
    return Let(f"{name}", (BATCH, KV, GROUPS, feature), body)


COARSE_SCORE = op("mul", SCALE, Reduce("sum", (FEATURE,), op("mul", read("Q", *ROWS, FEATURE), read("KC", BATCH, G, GROUPS, FEATURE))))
COARSE = attention(
    "coarse", over=GROUPS, mask=op("lt", op("mul", 3, op("add", c, 1)), op("add", q, 1)), score=COARSE_SCORE,
    value=read("VC", BATCH, G, GROUPS, VALUE_FEATURE),
)  # fmt: skip


def grouped(given: Inputs, tensor: Tensor) -> Tensor:
    return torch.stack([part.mean(2) for part in tensor.split(3, 2)], 2)


def test_coarse_branch_over_means() -> None:
    given = inputs(nk=11)
    Q, K, V, _ = parts(given)
    s = torch.einsum("bhqd,bhcd->bhqc", Q, grouped(given, K)) * given.scalars["scale"]
    mask = (3 * (torch.arange(4) + 1)) < torch.arange(6)[:, None] + 5 + 1
    result = run(pattern(means("KC", FEATURE), means("VC", VALUE_FEATURE), COARSE, result="coarse"), given, EVERYTHING)
    close(result.out, softmax(s, mask) @ grouped(given, V))
    close(table(pattern(means("KC", FEATURE)), "KC", given), torch.stack([x.mean(2) for x in given.k.split(3, 2)], 2))  # type: ignore[union-attr]


def test_merge_is_one_softmax_over_the_union() -> None:
    given = inputs(nk=11)
    Q, K, V, mask = parts(given)
    p = pattern(
        means("KC", FEATURE), means("VC", VALUE_FEATURE), COARSE, attention("fine"), Merge("both", ("fine", "coarse")), result="both"
    )  # fmt: skip
    coarse = torch.einsum("bhqd,bhcd->bhqc", Q, grouped(given, K)) * given.scalars["scale"]
    seen = (3 * (torch.arange(4) + 1)) < torch.arange(6)[:, None] + 5 + 1
    scores, masks = torch.cat((dots(given), coarse), -1), torch.cat((mask, seen), -1)
    result = run(p, given, frozenset(("out", "lse")))
    close(result.out, softmax(scores, masks) @ torch.cat((V, grouped(given, V)), 2))
    close(result.lse, torch.logsumexp(scores.masked_fill(~masks, -torch.inf), -1))


def chosen(**changes: object) -> Select:
    own = op("eq", c, op("floordiv", q, 3))
    plain = Select("near", ROWS, (GROUPS,), "top", Literal(2), COARSE_SCORE, op("le", c, op("floordiv", q, 3)), own)
    return replace(plain, **changes)  # type: ignore[arg-type]


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
    found = table(p, "shown", inputs(by=by)).tolist()
    expected = {0.3: [0, 1, 0, 0, 0, 0], 0.7: [0, 1, 0, 1, 0, 1], 1.0: [1, 1, 1, 1, 1, 1]}
    assert found == expected[share]


# ------------------------------------------------------------------------------------------------ recurrences


def delta_rule() -> Pattern:
    d2 = Axis("d2", D, "feature")
    state = (BATCH, HEAD, FEATURE, VALUE_FEATURE)
    key = read("K", BATCH, G, KEY, FEATURE)
    beta = read("beta", BATCH, HEAD, KEY)
    inner = Reduce("sum", (d2,), op("mul", read("K", BATCH, G, KEY, d2), read("S.previous", BATCH, HEAD, d2, VALUE_FEATURE)))
    step = op("add", read("S.previous", *state), op("mul", beta, op("mul", key, op("sub", VALUE, inner))))
    stage = Recurrence("S", state, KEY, 2, step)
    at = read("S", BATCH, HEAD, q, FEATURE, VALUE_FEATURE)
    return pattern(stage, output=Reduce("sum", (FEATURE,), op("mul", read("Q", *ROWS, FEATURE), at)), result="")


def delta_by_hand(given: Inputs, beta: Tensor) -> Tensor:
    Q, K, V, _ = parts(given)
    S = torch.zeros(2, 4, Q.shape[-1], V.shape[-1], dtype=torch.float64)
    found: list[Tensor] = []
    for t in range(K.shape[2]):
        seen = torch.einsum("bhd,bhde->bhe", K[:, :, t], S)
        S = S + beta[:, :, t, None, None] * K[:, :, t, :, None] * (V[:, :, t] - seen)[:, :, None]
        found.append(S)
    first = int(given.scalars["q_offset"])
    return torch.stack([Q[:, :, i] @ found[first + i] if False else torch.einsum("bhd,bhde->bhe", Q[:, :, i], found[first + i]) for i in range(Q.shape[2])], 2)


def test_delta_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    beta = torch.rand(2, 4, 9, dtype=torch.float64)
    given = inputs(beta=beta)
    close(run(delta_rule(), given).out, delta_by_hand(given, beta))
    monkeypatch.setattr(interpret, "BUDGET", 3000)
    close(run(delta_rule(), given).out, delta_by_hand(given, beta))


def test_scan_with_restart_read_at_other_tokens() -> None:
    axes = (BATCH, KV, VALUE_FEATURE)
    own = read("V", BATCH, KV, KEY, VALUE_FEATURE)
    stage = Recurrence(
        "run", axes, KEY, 2, op("add", op("mul", 0.5, read("run.previous", *axes)), own), op("eq", op("mod", k, 4), 0)
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


# ---------------------------------------------------------------------------------------------- gradients

CASES: dict[str, tuple[Pattern, dict[str, tuple[int, ...]]]] = {
    "causal": (pattern(attention()), {}),
    "softmax one": (pattern(attention(normalize=formula(SOFTMAX_ONE))), {}),
    "talking heads": (talking_heads(), {"pre": (4, 4), "post": (4, 4)}),
    "delta rule": (delta_rule(), {"beta": (2, 4, 5)}),
    "sparsemax": (pattern(attention(normalize=(Threshold("sparsemax", Literal(0)),))), {}),
    "entmax": (pattern(attention(normalize=(Threshold("entmax", Literal(1.3)),))), {}),
    "sinkhorn": (pattern(attention(normalize=(Threshold("sinkhorn", Literal(2)),))), {}),
    "top": (pattern(attention(normalize=(Threshold("top", Literal(2)), SOFTMAX))), {}),
    "coarse": (pattern(means("KC", FEATURE), means("VC", VALUE_FEATURE), COARSE, attention("fine"),
                       Merge("both", ("fine", "coarse")), result="both"), {}),
    "decay": (pattern(attention(normalize=(), score=op("mul", op("pow", read("decay", HEAD), op("sub", q, k)), DOT))),
              {"decay": (4,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradients(name: str) -> None:
    p, shapes = CASES[name]
    torch.manual_seed(1)
    extra = {key: torch.rand(shape, dtype=torch.float64) for key, shape in shapes.items()}
    given = inputs(nq=4, nk=5, dim=3, dv=2, **extra)
    names = ["q", "k", "v", *extra]
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (given.q, given.k, given.v, *extra.values()) if tensor is not None]  # fmt: skip

    def function(*tensors: Tensor) -> Tensor:
        now = dict(zip(names, tensors, strict=True))
        changed = replace(given, q=now.pop("q"), k=now.pop("k"), v=now.pop("v"), tensors=now)
        return run(p, changed).out

    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("everywhere", [True, False])
def test_hidden_entries_do_not_matter(bad: float, everywhere: bool) -> None:
    """Keys 7 and 8 hold NaN: hidden from all rows, or from all but the last two (which are NaN then)."""
    given = inputs(grad=True, offset=1 if everywhere else 3)
    clean = inputs(grad=True, offset=1 if everywhere else 3)
    assert given.k is not None and given.v is not None and clean.q is not None
    with torch.no_grad():
        given.k[:, :, 7:] = bad
        given.v[:, :, 7:] = bad
    rows = 6 if everywhere else 4
    gradients: list[Tensor] = []
    for one in (given, clean):
        out = run(pattern(attention()), one).out[:, :, :rows]
        out.square().sum().backward()
        assert one.q is not None and one.q.grad is not None and one.k is not None and one.k.grad is not None
        assert one.v is not None and one.v.grad is not None
        gradients += [out.detach(), one.q.grad, one.k.grad, one.v.grad]
    close(gradients[0], gradients[4])
    close(gradients[1][:, :, :rows], gradients[5][:, :, :rows])
    if everywhere:
        close(gradients[2], gradients[6])
        close(gradients[3], gradients[7])


def test_steep_functions_of_hidden_entries_have_no_gradient() -> None:
    """1/(q−k) is infinite where k = q, which is hidden; log of a tensor that is 0 there."""
    x = torch.rand(9, dtype=torch.float64)
    x[4] = 0
    given = inputs(nq=9, x=x.requires_grad_(), grad=True)
    score = op("add", DOT, op("div", op("log", read("x", KEY)), op("sub", q, k)))
    hidden = op("and", op("lt", k, q), op("ne", k, 4))
    out = run(pattern(attention(mask=hidden, score=score)), given).out
    assert out.isfinite().all()
    out.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and x.grad[4] == 0 and (x.grad != 0).any()


def test_gradient_of_maximum_at_a_tie_goes_to_the_second() -> None:
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    given = inputs(x=x)
    score = op("add", DOT, op("max", read("x", HEAD), 0.0))
    run(pattern(attention(normalize=(), score=score)), given).out.sum().backward()
    assert x.grad is not None and (x.grad == 0).all()


# ------------------------------------------------------------------------------------------------- masks


def test_visibility_needs_no_inputs_where_the_predicate_does_not() -> None:
    given = inputs()
    bare = Inputs(None, None, None, given.sizes, given.scalars, {})
    assert visible(pattern(attention()), bare).shape == (1, 1, 6, 9)
    assert torch.equal(visible(pattern(attention()), bare)[0, 0], parts(given)[3])
    two = pattern(attention("a", sparsity=op("lt", k, 2)), attention("b", sparsity=op("eq", k, q)), result="a")
    places = torch.arange(9)
    rows = torch.arange(6)[:, None] + 3
    assert torch.equal(visible(two, bare)[0, 0], (places < 2) | (places == rows))
    assert visible(pattern(attention(mask=TRUE)), bare).all()
    with pytest.raises(MissingInput, match="depends on Q"):
        visible(pattern(attention(normalize=(Threshold("top", Literal(2)), SOFTMAX))), bare)
    with pytest.raises(NoKeyAttention, match="no mask"):
        visible(pattern(COARSE, result="coarse"), bare)


def test_tables_of_parameters_are_in_double_precision() -> None:
    axis = Axis("i", Literal(5), "range")
    stage = Let("t", (axis,), op("log", op("add", Index(axis), 1)))
    found = table(pattern(stage, attention()), "t", inputs())
    assert found.dtype == torch.float64 and found.tolist() == [math.log(i + 1) for i in range(5)]
    assert DV is not NQ
