"""Kernels at every border: tails, masks, offsets, heads, feature lengths, layouts, element types, huge strides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnlang import Pattern, load, parse
from attnlang.execute import execute, specialization_of
from attnlang.execute_programs import plan_for, program_for
from attnlang.ir.interpret import Inputs
from attnlang.ir.kernel import Assign, Load, Store, walk
from attnlang.passes.typed import walk as parts_of
from tests.catalogue import EXAMPLES
from tests.kernel_calls import check_call, inputs, randoms

WINDOW, LOCAL, STREAMING, FULL, CAUSAL, BLOCK = (
    load(EXAMPLES / f"{name}.attn")
    for name in ("sliding_window", "local", "streaming", "full", "causal", "local_block")
)
EDGES = (1, 2, 15, 16, 17, 31, 32, 33, 64, 65)
"""Lengths around the sides of the tiles, which are 16 or 32 × 32 here."""


# ------------------------------------------------------------------------------------ tails and mask borders


@pytest.mark.parametrize("length", EDGES)
def test_window_borders(length: int) -> None:
    q, k, v = inputs(length, length, seed=length)
    for window in (1, 2, 16, 31, 32, 33, 64, 2**31 - 1):
        check_call(WINDOW, q, k, v, window=window)


@pytest.mark.parametrize("length", (1, 17, 32, 33, 65))
@pytest.mark.parametrize("pattern", (LOCAL, STREAMING, BLOCK), ids=lambda pattern: pattern.name)
def test_other_borders(pattern: Pattern, length: int) -> None:
    q, k, v = inputs(length, length, seed=length)
    for size in (1, 31, 32, 33):
        arguments = {"local": {"radius": size}, "local_block": {"block": size}}
        check_call(pattern, q, k, v, **arguments.get(pattern.name, {"window": 5, "sinks": size}))


@pytest.mark.parametrize("queries", (1, 2, 16, 17, 33))
@pytest.mark.parametrize("keys", (1, 31, 32, 33, 70))
def test_fewer_or_more_queries_than_keys(queries: int, keys: int) -> None:
    q, k, v = inputs(queries, keys, H=2, HK=1, seed=queries + keys)
    check_call(FULL, q, k, v)
    check_call(CAUSAL, q, k, v)
    check_call(WINDOW, q, k, v, window=20)


@pytest.mark.parametrize("offset", (-100, -33, -17, -1, 0, 1, 20, 31, 32, 33, 64, 200))
def test_offsets(offset: int) -> None:
    q, k, v = inputs(33, 40, seed=offset + 100)
    for pattern, arguments in (
        (CAUSAL, {}),
        (WINDOW, {"window": 9}),
        (LOCAL, {"radius": 4}),
        (BLOCK, {"block": 7}),
    ):
        out, lse = check_call(pattern, q, k, v, q_offset=offset, **arguments)
        seen = pattern.mask(33, 40, q_offset=offset, **arguments)[0, 0].any(-1)
        assert bool((out[0, 0, ~seen] == 0).all()) and bool((lse[0, 0, ~seen] == -torch.inf).all())
        assert bool(lse[0, 0, seen].isfinite().all())


def test_empty_rows_among_others() -> None:
    text = "pattern holes():\n    tensor on[q]: bool\n    mask on[q] and k < q\n"
    q, k, v = inputs(50, 50)
    on = torch.arange(50) % 3 != 0
    out, lse = check_call(parse(text), q, k, v, on=on)
    empty = ~on | (torch.arange(50) == 0)
    assert bool((out[0, 0, empty] == 0).all()) and bool((lse[0, 0, empty] == -torch.inf).all())
    out, lse = check_call(parse(text), q, k, v, on=torch.zeros(50, dtype=torch.bool))
    assert not out.any() and bool((lse == -torch.inf).all())


def test_false_masks_see_nothing() -> None:
    q, k, v = inputs(20, 40)
    for condition in ("k < k", "q > q and k >= 0", "k > NK", "k < 0"):
        out, lse = check_call(parse(f"pattern nothing():\n    mask {condition}\n"), q, k, v)
        assert not out.any() and bool((lse == -torch.inf).all())


def test_infinite_scores() -> None:
    """A bias of −inf hides a pair; rows of nothing else see nothing."""
    q, k, v = inputs(20, 40)
    bias = torch.zeros(20, 40)
    bias[3] = -torch.inf
    bias[5, 7:] = -torch.inf
    text = "pattern biased():\n    tensor bias[q, k]\n    score Q[q] @ K[k] * scale + bias[q, k]\n"
    out, lse = check_call(parse(text), q, k, v, bias=bias)
    assert not out[0, 0, 3].any() and lse[0, 0, 3] == -torch.inf


# ----------------------------------------------------------------------------------------- heads and features


@pytest.mark.parametrize(("heads", "groups"), ((1, 1), (4, 4), (4, 2), (6, 2), (5, 1)))
def test_heads(heads: int, groups: int) -> None:
    q, k, v = inputs(18, 35, B=2, H=heads, HK=groups)
    check_call(CAUSAL, q, k, v)
    (slopes,) = randoms((heads,))
    check_call(load(EXAMPLES / "alibi.attn"), q, k, v, slopes=slopes.abs())


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=("f32", "bf16"))
@pytest.mark.parametrize("size", (8, 24, 40, 64, 96, 256))
def test_feature_lengths(size: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(19, 37, D=size, dtype=dtype)
    check_call(CAUSAL, q, k, v)


@pytest.mark.parametrize(
    ("size", "values"), ((8, 64), (64, 8), (24, 40), (16, 17), (33, 1), (1, 3), (100, 256))
)
def test_values_of_another_length(size: int, values: int) -> None:
    q, k, v = inputs(19, 37, D=size, DV=values)
    check_call(CAUSAL, q, k, v)


@pytest.mark.parametrize("size", (3, 5, 8, 12))
def test_short_features(size: int) -> None:
    q, k, v = inputs(19, 37, D=size)
    check_call(FULL, q, k, v)


# ---------------------------------------------------------------------------------------------------- layouts


def transposed(tensor: Tensor) -> Tensor:
    """As [B, N, H, D] in memory."""
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def expanded(tensor: Tensor) -> Tensor:
    """The first batch entry for all of them."""
    return tensor[:1].expand(tensor.shape)


def by_columns(tensor: Tensor) -> Tensor:
    """Features far apart, tokens side by side."""
    return tensor.transpose(2, 3).contiguous().transpose(2, 3)


def sliced(tensor: Tensor) -> Tensor:
    """Part of a larger tensor, every second token."""
    B, H, N, D = tensor.shape
    large = torch.full((B, H + 1, 2 * N + 3, D + 5), torch.nan, dtype=tensor.dtype)
    view = large[:, 1:, 2 : 2 * N + 2 : 2, 3 : D + 3]
    view.copy_(tensor)
    return view


def spaced(tensor: Tensor) -> Tensor:
    """Every third feature of a larger tensor."""
    large = torch.full((*tensor.shape[:-1], 3 * tensor.shape[-1]), torch.nan, dtype=tensor.dtype)
    view = large[..., 1::3]
    view.copy_(tensor)
    return view


LAYOUTS = (transposed, expanded, by_columns, sliced, spaced)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize("where", ("qkv", "q", "k", "v"))
def test_layouts(layout: Any, where: str) -> None:
    tensors = inputs(20, 37, B=2, H=4, HK=2, D=24, DV=40)
    q, k, v = (layout(t) if name in where else t for name, t in zip("qkv", tensors, strict=True))
    check_call(CAUSAL, q, k, v)


def test_one_number_for_all_tokens() -> None:
    """Strides of 0 along tokens and features."""
    q, k, v = inputs(20, 37)
    check_call(
        CAUSAL, q[:, :, :1].expand(q.shape), k[..., :1].expand(k.shape), v[:, :, :1, :1].expand(v.shape)
    )


PAIRS = """pattern pairs():
    tensor seen[b, h, q, k]: bool
    tensor bias[b, h, q, k]
    mask seen[b, h, q, k]
    score Q[q] @ K[k] * scale + bias[b, h, q, k]
"""


def test_layouts_of_declared_tensors() -> None:
    q, k, v = inputs(20, 37, B=2, H=2)
    (bias,) = randoms((2, 2, 20, 37), seed=1)
    seen = bias > -0.5
    for layout in LAYOUTS:
        check_call(
            parse(PAIRS),
            q,
            k,
            v,
            seen=layout(seen) if layout not in (sliced, spaced) else seen,
            bias=layout(bias),
        )
    wide = torch.zeros(2, 2, 20, 74, dtype=torch.bool)
    wide[..., ::2] = seen
    check_call(parse(PAIRS), q, k, v, seen=wide[..., ::2], bias=bias)


# ----------------------------------------------------------------------------------------------- element types


@pytest.mark.parametrize("dtype", (torch.int64, torch.int32, torch.int16, torch.uint8), ids=str)
def test_integer_tensors(dtype: torch.dtype) -> None:
    text = "pattern coloured():\n    tensor colour[b, n]: int\n    mask colour[b, q] == colour[b, k]\n"
    q, k, v = inputs(40, 40, B=2, H=2)
    colour = torch.randint(0, 3, (2, 40), generator=torch.Generator().manual_seed(1)).to(dtype)
    check_call(parse(text), q, k, v, colour=colour)


def test_large_integers_stay_apart() -> None:
    """Numbers that agree in their lower 32 bits are different."""
    text = "pattern coloured():\n    tensor colour[n]: int\n    mask colour[q] == colour[k]\n"
    q, k, v = inputs(20, 20)
    check_call(parse(text), q, k, v, colour=(torch.arange(20) % 3) * 2**32 + 5)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float16), ids=str)
@pytest.mark.parametrize("other", (torch.float32, torch.bfloat16, torch.float16), ids=str)
def test_floats_of_another_type(dtype: torch.dtype, other: torch.dtype) -> None:
    q, k, v = inputs(20, 37, H=2, dtype=dtype)
    (slopes,) = randoms((2,), dtype=other)
    check_call(load(EXAMPLES / "alibi.attn"), q, k, v, slopes=slopes.abs())


def test_gathered_values() -> None:
    """Indices out of a tensor, clamped into the tensor they index."""
    text = """pattern gathered():
    tensor place[b, k]: int
    tensor table[h, 7]
    score Q[q] @ K[k] * scale + table[h, place[b, k]]
"""
    q, k, v = inputs(20, 37, B=2, H=2)
    (table,) = randoms((2, 7))
    place = torch.randint(0, 7, (2, 37), generator=torch.Generator().manual_seed(2))
    check_call(parse(text), q, k, v, place=place, table=table)


# --------------------------------------------------------------------------------------------- 64-bit offsets


def given(q: Tensor, k: Tensor, v: Tensor, **tensors: Tensor) -> Inputs:
    """The call of a pattern without parameters."""
    B, H, NQ, D = q.shape
    sizes = {"B": B, "H": H, "HK": k.shape[1], "NQ": NQ, "NK": k.shape[2], "D": D, "DV": v.shape[3]}
    return Inputs(q, k, v, sizes, {"q_offset": k.shape[2] - NQ, "scale": D**-0.5}, tensors)


def test_wide_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every offset in 64 bits the result is the same to the bit."""
    q, k, v = inputs(40, 70, B=2, H=4, HK=2, D=24)
    call, want = given(q, k, v), frozenset(("out", "lse"))
    narrow = execute(CAUSAL.ir, call, "interpret", want)
    assert not specialization_of(CAUSAL.ir, call, "interpret", want).wide
    monkeypatch.setattr("attnlang.execute.MOST_ELEMENTS", 1)
    assert specialization_of(CAUSAL.ir, call, "interpret", want).wide
    wide = execute(CAUSAL.ir, call, "interpret", want)
    assert torch.equal(narrow.out, wide.out)
    assert narrow.lse is not None and wide.lse is not None and torch.equal(narrow.lse, wide.lse)


def test_wide_offsets_are_computed_in_64_bits() -> None:
    call = given(*inputs(40, 70))
    narrow = specialization_of(CAUSAL.ir, call, "cuda:90", frozenset(("out",)))
    for wide in (False, True):
        kernel = plan_for(CAUSAL.ir, replace(narrow, wide=wide), 128).branches[0].kernel
        offsets = [s.offset for s in walk(kernel.body) if isinstance(s, Store)]
        assigned = [s.value for s in walk(kernel.body) if isinstance(s, Assign)]
        loads = [part for value in assigned for part in parts_of(value) if isinstance(part, Load)]
        offsets += [load.offset for load in loads if load.shape]
        assert {offset.type for offset in offsets} == {"i64" if wide else "i32"}


@pytest.mark.parametrize("axis", (2, 3))
def test_elements_beyond_two_to_the_31(axis: int) -> None:
    """Two tokens (or features) 2^31 elements apart: memory that is reserved, and only touched where it is read."""
    apart = 2**31 + 64
    storage = torch.empty(apart + 16 * 16, dtype=torch.bfloat16)  # untouched pages cost nothing
    strides = (1, 1, apart, 1) if axis == 2 else (1, 1, 1, apart)
    shape = (1, 1, 2, 16) if axis == 2 else (1, 1, 16, 2)
    k = storage.as_strided(shape, strides)
    k.copy_(randoms(shape, dtype=torch.bfloat16)[0])
    q, _, v = inputs(3, shape[2], D=shape[3], dtype=torch.bfloat16)
    assert specialization_of(FULL.ir, given(q, k, v), "interpret", frozenset(("out",))).wide
    check_call(FULL, q, k, v)


def test_a_head_beyond_two_to_the_31() -> None:
    """Heads may lie far apart: their bases are 64-bit in every kernel."""
    apart = 2**31 + 64
    storage = torch.empty(apart + 64 * 16, dtype=torch.bfloat16)
    k = storage.as_strided((1, 2, 20, 16), (1, apart, 16, 1))
    k.copy_(randoms((1, 2, 20, 16), dtype=torch.bfloat16)[0])
    q, _, v = inputs(3, 20, H=2, dtype=torch.bfloat16)
    check_call(FULL, q, k, v)


# ------------------------------------------------------------------------------------------------- large numbers


def test_huge_numbers_do_not_overflow() -> None:
    q, k, v = inputs(40, 40)
    check_call(LOCAL, q, k, v, radius=2**31 - 1)
    check_call(STREAMING, q, k, v, window=2**31 - 1, sinks=2**31 - 1)
    dilated = load(EXAMPLES / "dilated_window.attn")
    check_call(dilated, q, k, v, window=2**20, dilation=2**12)
    check_call(dilated, q, k, v, window=2**20, dilation=2**11 + 1)
    product = parse("pattern product(a: int = 1):\n    mask (q + 1) * a >= (k + 1) * (a - 1)\n")
    for a in (3, 2**26, 2**30, 2**31 - 1):
        check_call(product, q, k, v, a=a)


def test_squares_of_positions() -> None:
    """A product of two indices leaves 32 bits long before the indices do."""
    pattern = parse("pattern squares():\n    mask q * q >= k * k\n")
    q, k, v = inputs(20, 20)
    check_call(pattern, q, k, v)
    check_call(pattern, q, k, v, q_offset=50_000)
    check_call(pattern, q, k, v, q_offset=-100_000)


def test_programs_are_kept() -> None:
    """The same specialization of the same pattern is the same program."""
    special = specialization_of(CAUSAL.ir, given(*inputs(40, 70)), "interpret", frozenset(("out",)))
    assert program_for(CAUSAL.ir, special, 32) is program_for(CAUSAL.ir, special, 32)
