"""Patterns written by hand in the IR, their inputs, and what torch says about them: for the tests of meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attnlang.ir import interpret
from attnlang.ir.interpret import Inputs, evaluate
from attnlang.ir.pattern import (
    BATCH,
    FEATURE,
    HEAD,
    KEY,
    NK,
    QUERY,
    SCALE,
    TRUE,
    VALUE_FEATURE,
    Apply,
    Attention,
    Axis,
    D,
    DType,
    Expr,
    Formula,
    H,
    Index,
    Let,
    Literal,
    Pattern,
    Read,
    Recurrence,
    Reduce,
    Stage,
    Step,
    kv_head_of,
    storage,
)

ROWS = (BATCH, HEAD, QUERY)


SOFTMAX = Formula(Literal(0), "softmax")


OUT, EVERYTHING = frozenset(("out",)), frozenset(("out", "lse", "weights"))


def op(name: str, *args: Expr | int | float | bool) -> Expr:
    """An operation; numbers may stand for literals."""
    return Apply(name, tuple(Literal(arg) if isinstance(arg, (bool, int, float)) else arg for arg in args))


def read(name: str, *at: Axis | Expr, dtype: DType = "float") -> Read:
    """A read at axes (their storage) or expressions."""
    places = tuple(storage(one) if isinstance(one, Axis) else one for one in at)
    return Read(name, places, dtype)


b, h, q, k, d, e = (Index(axis) for axis in (BATCH, HEAD, QUERY, KEY, FEATURE, VALUE_FEATURE))


CAUSAL = op("le", k, q)


G = kv_head_of(h)


DOT = op(
    "mul",
    SCALE,
    Reduce("sum", (FEATURE,), op("mul", read("Q", *ROWS, FEATURE), read("K", BATCH, G, KEY, FEATURE))),
)


VALUE = read("V", BATCH, G, KEY, VALUE_FEATURE)


def attention(name: str = "attention", **changes: Any) -> Attention:
    """Causal softmax attention with some parts changed."""
    plain = Attention(name, ROWS, KEY, VALUE_FEATURE, CAUSAL, TRUE, DOT, (SOFTMAX,), None, VALUE)
    return replace(plain, **changes)


def formula(body: Expr) -> tuple[Step, ...]:
    return (Formula(body),)


def pattern(*stages: Stage, output: Expr | None = None, result: str = "attention") -> Pattern:
    axes = (BATCH, HEAD, QUERY, VALUE_FEATURE)
    return Pattern("test", "", (), (), (), axes, stages, output or read(result, *axes), result)


def inputs(
    *, B: int = 2, heads: int = 4, kv: int = 2, nq: int = 6, nk: int = 9, dim: int = 5, dv: int = 3,
    seed: int = 0, offset: int | None = None, grad: bool = False, scalars: dict[str, float] | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> Inputs:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, heads, nq, dim), (B, kv, nk, dim), (B, kv, nk, dv))
    Q, K, V = (
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_(grad) for shape in shapes
    )
    sizes = {"B": B, "H": heads, "HK": kv, "NQ": nq, "NK": nk, "D": dim, "DV": dv}
    extra = {"q_offset": nk - nq if offset is None else offset, "scale": dim**-0.5, **(scalars or {})}
    return Inputs(Q, K, V, sizes, extra, tensors or {})


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


def run(
    p: Pattern, given: Inputs, want: frozenset[str] = OUT, dtype: torch.dtype = torch.float64
) -> interpret.Result:
    return evaluate(p, given, dtype=dtype, want=want)


def close(found: Tensor | None, expected: Tensor, tolerance: float = 1e-10) -> None:
    assert found is not None
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=tolerance, atol=tolerance)


S0 = read("attention.step0", *ROWS, KEY)


SEEN = read("attention.visible", *ROWS, KEY, dtype="bool")


SOFTMAX_ONE = op("div", op("exp", S0), op("add", 1, Reduce("sum", (KEY,), op("exp", S0), SEEN)))


def talking_heads() -> Pattern:
    m, n = Axis("m", H, "head"), Axis("n", H, "head")
    mixed = Reduce("sum", (m,), op("mul", read("pre", HEAD, m), read("plain.scores", BATCH, m, QUERY, KEY)))
    post = Reduce(
        "sum", (n,), op("mul", read("post", HEAD, n), read("attention.normalized", BATCH, n, QUERY, KEY))
    )
    return pattern(attention("plain"), attention(score=mixed, reweight=post))


GROUPS = Axis("c", op("floordiv", op("add", NK, 2), 3), "group")


c = Index(GROUPS)


MEMBER = op("eq", op("floordiv", k, 3), c)


KV = Axis("g", Apply("floordiv", (H, Literal(2))), "kv_head")


def means(name: str, feature: Axis) -> Let:
    """Means of K or V over groups of three keys."""
    source = "K" if feature is FEATURE else "V"
    body = Reduce("mean", (KEY,), read(source, BATCH, KV, KEY, feature), MEMBER)
    return Let(name, (BATCH, KV, GROUPS, feature), body)


COARSE_SCORE = op(
    "mul",
    SCALE,
    Reduce("sum", (FEATURE,), op("mul", read("Q", *ROWS, FEATURE), read("KC", BATCH, G, GROUPS, FEATURE))),
)


COARSE = attention(
    "coarse", over=GROUPS, mask=op("lt", op("mul", 3, op("add", c, 1)), op("add", q, 1)), score=COARSE_SCORE,
    value=read("VC", BATCH, G, GROUPS, VALUE_FEATURE),
)  # fmt: skip


COARSE_TABLES = (means("KC", FEATURE), means("VC", VALUE_FEATURE))


def grouped(given: Inputs, tensor: Tensor) -> Tensor:
    return torch.stack([part.mean(2) for part in tensor.split(3, 2)], 2)


def delta_rule() -> Pattern:
    d2 = Axis("d2", D, "feature")
    state = (BATCH, HEAD, FEATURE, VALUE_FEATURE)
    key = read("K", BATCH, G, KEY, FEATURE)
    beta = read("beta", BATCH, HEAD, KEY)
    inner = Reduce(
        "sum",
        (d2,),
        op("mul", read("K", BATCH, G, KEY, d2), read("S.previous", BATCH, HEAD, d2, VALUE_FEATURE)),
    )
    step = op("add", read("S.previous", *state), op("mul", beta, op("mul", key, op("sub", VALUE, inner))))
    stage = Recurrence("S", state, KEY, 2, step)
    at = read("S", BATCH, HEAD, q, FEATURE, VALUE_FEATURE)
    return pattern(
        stage, output=Reduce("sum", (FEATURE,), op("mul", read("Q", *ROWS, FEATURE), at)), result=""
    )
