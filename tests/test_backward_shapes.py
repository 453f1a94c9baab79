"""Backward kernels at every border: tails, masks, offsets, groups of heads, feature lengths, layouts, element types."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from torch import Tensor

from attnlang import AttnlangError, Pattern, load, parse
from attnlang.ir.bounds import Facts
from attnlang.ir.pattern import KEY, NK, NQ, Q_OFFSET, Expr, Literal, Symbol
from attnlang.ir.plan import Tile
from attnlang.ir.rewrite import simplify, substitute
from attnlang.passes.lower_backward_walk import ROW, query_bands
from attnlang.passes.ranges import key_range
from tests.backward_calls import call_of, check_backward, kernels
from tests.catalogue import EXAMPLES
from tests.kernel_calls import inputs, randoms
from tests.predicates import PARAMETERS
from tests.test_derivative import attention_of
from tests.test_random_kernels import TENSORS, VALUES, masks, scores, tensors

WINDOW, LOCAL, STREAMING, FULL, CAUSAL, BLOCK, SOFTCAP, PREFIX = (
    load(EXAMPLES / f"{name}.attn")
    for name in (
        "sliding_window",
        "local",
        "streaming",
        "full",
        "causal",
        "local_block",
        "softcap",
        "prefix_lm",
    )
)
FORMS: tuple[Any, ...] = ("split", "fused")
SQUARE = (Tile(16, 16, 4, 1), Tile(16, 16, 4, 1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", (1, 17, 32, 65))
def test_borders(length: int, form: Any) -> None:
    q, k, v = inputs(length, length, seed=length)
    for pattern, numbers in (
        (WINDOW, {"window": 16}),
        (LOCAL, {"radius": 9}),
        (STREAMING, {"window": 5, "sinks": 17}),
    ):
        check_backward(call_of(pattern, q, k, v, numbers), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("queries", "keys"), ((1, 70), (70, 1), (33, 50), (50, 33)))
def test_fewer_or_more_queries_than_keys(queries: int, keys: int, form: Any) -> None:
    q, k, v = inputs(queries, keys, B=2, H=4, HK=2, D=24, DV=40, seed=queries + keys)
    check_backward(call_of(FULL, q, k, v, {}), form)
    check_backward(call_of(WINDOW, q, k, v, {"window": 20}), form, SQUARE)


@pytest.mark.parametrize("offset", (-33, -1, 0, 20, 31, 64, 200))
def test_offsets(offset: int) -> None:
    q, k, v = inputs(33, 40, seed=offset + 100)
    for place, (pattern, numbers) in enumerate(
        ((CAUSAL, {}), (WINDOW, {"window": 9}), (BLOCK, {"block": 7}))
    ):
        check_backward(call_of(pattern, q, k, v, {"q_offset": offset, **numbers}), FORMS[place % 2])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16))
def test_heads_that_share_keys(dtype: torch.dtype, form: Any) -> None:
    q, k, v = inputs(40, 40, B=2, H=6, HK=2, D=32, DV=16, dtype=dtype)
    check_backward(call_of(CAUSAL, q, k, v, {}), form)
    q, k, v = inputs(40, 40, H=3, HK=1, D=16, dtype=dtype)
    check_backward(call_of(SOFTCAP, q, k, v, {}, lse=False), form)


@pytest.mark.parametrize("form", FORMS)
def test_rows_that_see_nothing(form: Any) -> None:
    text = "pattern holes():\n    tensor on[q]: bool\n    mask on[q] and k < q\n"
    q, k, v = inputs(50, 50)
    on = torch.arange(50) % 3 != 0
    check_backward(call_of(parse(text), q, k, v, {"on": on}), form)
    call = call_of(parse(text), q, k, v, {"on": torch.zeros(50, dtype=torch.bool)})
    found = kernels(call, call.pattern.ir, form)
    assert all(not grad.any() for grad in found.values())


def test_no_queries_or_no_keys() -> None:
    q, k, v = randoms((1, 2, 0, 16), (1, 2, 5, 16), (1, 2, 5, 16))
    found = kernels(call_of(CAUSAL, q, k, v, {}), CAUSAL.ir)
    assert found["Q"].shape == q.shape and not found["K"].any() and not found["V"].any()
    q, k, v = randoms((1, 2, 5, 16), (1, 2, 0, 16), (1, 2, 0, 16))
    found = kernels(call_of(CAUSAL, q, k, v, {}), CAUSAL.ir)
    assert not found["Q"].any() and found["K"].shape == k.shape


def test_layouts() -> None:
    q, k, v = inputs(37, 45, B=2, H=2, D=32)

    def heads_inside(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous().transpose(1, 2)

    def features_first(x: Tensor) -> Tensor:
        return x.transpose(2, 3).contiguous().transpose(2, 3)

    def spread(x: Tensor) -> Tensor:
        return torch.stack((x, torch.zeros_like(x)), -1).flatten(-2)[..., ::2]

    for place, change in enumerate((heads_inside, features_first, spread)):
        check_backward(call_of(WINDOW, change(q), change(k), change(v), {"window": 20}), FORMS[place % 2])
    call = call_of(CAUSAL, q, k, v, {})
    one = call.dout[:1, :1, :1, :1].expand(call.dout.shape)
    check_backward(type(call)(call.pattern, call.inputs, one, call.dlse))


@pytest.mark.parametrize("wanted", ("Q", "K", "V", "QV"))
@pytest.mark.parametrize("form", FORMS)
def test_only_what_is_wanted(wanted: str, form: Any) -> None:
    q, k, v = inputs(20, 36)
    call = call_of(CAUSAL, q, k, v, {})
    assert set(kernels(call, CAUSAL.ir, form, wanted=wanted)) == set(wanted)
    check_backward(call, form, wanted=wanted)


# ------------------------------------------------------------------------- what a pattern may call its tensors


def test_tensors_named_like_arguments() -> None:
    text = "pattern named():\n    tensor delta[h]\n    tensor dQ[b, h, k]\n    tensor dout[h]\n"
    text += "    score Q[q] @ K[k] * scale * delta[h] + dQ[b, h, k]\n    value V[k] * dout[h]\n"
    q, k, v = inputs(20, 36, H=2)
    delta, bias, dout = randoms((2,), (1, 2, 36), (2,))
    check_backward(call_of(parse(text), q, k, v, {"delta": delta, "dQ": bias, "dout": dout}))


# ----------------------------------------------------------------------------------- which tiles are visited


def number(expr: Expr, values: dict[Expr, Expr]) -> int:
    """An expression with every symbol known."""
    found = simplify(substitute(expr, values))
    assert isinstance(found, Literal), found
    return int(found.value)


TIGHT: list[tuple[Pattern, dict[str, int]]] = [
    (CAUSAL, {}), (WINDOW, {"window": 9}), (LOCAL, {"radius": 4}), (STREAMING, {"window": 6, "sinks": 11}),
    (BLOCK, {"block": 7}), (FULL, {}),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "given"), TIGHT, ids=lambda it: getattr(it, "name", ""))
@pytest.mark.parametrize("offset", (-7, 0, 13))
def test_queries_of_a_tile_of_keys(pattern: Pattern, given: dict[str, int], offset: int) -> None:
    queries, keys, side = 50, 60, 8
    seen = pattern.mask(queries, keys, q_offset=offset, **given)[0, 0]
    meaning = pattern.ir
    facts = Facts.of(meaning.parameters)
    found = query_bands(attention_of(meaning), facts)
    assert found and all(band.exact for band in found)
    values: dict[Expr, Expr] = {Symbol(name, "int"): Literal(value) for name, value in given.items()}
    values |= {NQ: Literal(queries), NK: Literal(keys), Q_OFFSET: Literal(offset)}
    first, last = Symbol("first", "int"), Symbol("last", "int")
    for start in range(0, keys, side):
        stop = min(start + side, keys)
        values |= {first: Literal(start), last: Literal(stop - 1)}
        some: set[int] = set()
        every: set[int] = set()
        for band in found:
            rows = key_range(band, KEY, ROW, first, last, facts)
            some |= set(range(number(rows.first, values), number(rows.stop, values)))
            assert rows.full_first is not None and rows.full_stop is not None
            every |= set(range(number(rows.full_first, values), number(rows.full_stop, values)))
        tile = seen[:, start:stop]
        assert some == set(tile.any(-1).nonzero().flatten().tolist())
        assert every <= set(tile.all(-1).nonzero().flatten().tolist())


def test_full_tiles_of_queries_are_found() -> None:
    (band,) = query_bands(attention_of(CAUSAL.ir), Facts.of(()))
    rows = key_range(band, KEY, ROW, Literal(8), Literal(15), Facts.of(()))
    assert rows.full_first is not None
    assert number(rows.full_first, {NQ: Literal(50), Q_OFFSET: Literal(0)}) == 15


# -------------------------------------------------------------------------------------------- random patterns

SIZES = st.sampled_from(
    ((2, 2, 1, 19, 37, 16), (1, 3, 3, 40, 40, 24), (1, 2, 2, 1, 35, 8), (2, 4, 2, 33, 34, 16))
)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(
    mask=masks(), score=scores(), value=VALUES, sizes=SIZES, a=st.integers(1, 9), c=st.integers(-6, 12),
    form=st.sampled_from(FORMS),
)  # fmt: skip
def test_random_patterns(
    mask: str, score: str, value: str, sizes: tuple[int, ...], a: int, c: int, form: Any
) -> None:
    B, H, HK, NQ, NK, D = sizes
    lines = [line for line in TENSORS.splitlines() if line.strip()]
    used = [line for line in lines if line.split()[1].split("[")[0] + "[" in mask + score + value]
    text = "\n".join(
        (
            f"pattern random({PARAMETERS}):",
            *used,
            f"    mask {mask}",
            f"    score {score}",
            f"    value {value}",
            "",
        )
    )
    note(text)
    try:
        pattern = parse(text)
    except AttnlangError as mistake:  # a text that means nothing, such as a score that is a whole number
        note(str(mistake))
        assume(False)
        raise
    contents = {n: t for n, t in tensors(B, H, HK, NQ, NK, D).items() if n in pattern.tensors}
    q, k, v = inputs(NQ, NK, B=B, H=H, HK=HK, D=D, seed=NQ + NK)
    check_backward(call_of(pattern, q, k, v, {"a": a, "c": c, **contents}), form)
