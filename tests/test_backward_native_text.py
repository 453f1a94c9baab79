"""What the printed C++ of a backward pass does for speed: delta row by row, rows asked for ahead, coarse weights."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from attnlang import load
from attnlang.artifact import KernelSource
from attnlang.codegen.cpp_kernel import print_cpp
from attnlang.execute_backward import Wanted, backward_program
from attnlang.execute_launch import run
from attnlang.execute_programs import plan_for
from attnlang.ir.kernel import Assign, Fold, Kernel, Op, Store, Type, Var
from attnlang.ir.plan import Specialization, Tile
from attnlang.passes.lower_backward_plan import plan_backward
from attnlang.passes.lower_backward_tiles import backward_tiles
from attnlang.targets import target_of
from tests.catalogue import EXAMPLES
from tests.cpp_printed import ISAS
from tests.kernel_calls import error, randoms
from tests.test_cpp_printer import needs_compiler

CAUSAL, FULL = (load(EXAMPLES / f"{name}.attn") for name in ("causal", "full"))
TYPES: dict[Type, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Element types as kernels and as PyTorch call them."""


def sources(isa: str, dtype: Type, width: int = 64) -> tuple[KernelSource, ...]:
    """The kernels of a causal pattern: delta, then all gradients."""
    specialization = Specialization(f"cpu:{isa}", dtype, 64, width, lse=True)
    wanted = Wanted("QKV", False, False, "fused", (Tile(32, 24, 1, 1), Tile(32, 24, 1, 1)))
    (launches,) = backward_program(CAUSAL.ir, specialization, wanted).values()
    return tuple(launch.source for launch in launches)


def body(source: KernelSource) -> str:
    """A kernel's text from its entry on, without the functions that it calls."""
    return source.text[source.text.index('extern "C"') :]


# ------------------------------------------------------------------------------------------------ delta


@needs_compiler
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", (1, 7, 16, 40, 64, 129))
def test_delta_at_every_width(isa: str, dtype: Type, width: int) -> None:
    B, H, NQ = 2, 3, 67
    out, dout = randoms((B, NQ, H, width), (B, H, NQ, width), dtype=TYPES[dtype], seed=width)
    out = out.transpose(1, 2)  # rows that lie apart
    delta = torch.empty(B, H, NQ)
    source = sources(isa, dtype, width)[0]
    programs = -(-NQ // int(dict(source.constants)["BLOCK_M"])) * B * H
    run(source, programs, {"out": out, "dout": dout, "delta": delta}, sizes(B, H, NQ, width), f"cpu:{isa}")
    assert error(delta, (out.double() * dout.double()).sum(-1)) < 1e-5 * width


def sizes(B: int, H: int, NQ: int, DV: int) -> dict[str, int]:
    return {"B": B, "H": H, "HK": H, "NQ": NQ, "NK": NQ, "D": DV, "DV": DV}


@pytest.mark.parametrize("dtype", TYPES)
def test_delta_reads_rows_where_they_lie(dtype: Type) -> None:
    source = sources("avx512bf16", dtype)[0]
    assert "row_products(total_tile" in body(source)
    assert "pack(" not in source.text and re.search(r"_scratch\(\) { return 0; }", source.text)


def test_rows_that_something_else_reads_become_a_tile() -> None:
    delta = delta_kernel()
    (rows,) = (s for s in delta.body if isinstance(s, Assign) and s.name == "out_tile")
    (store,) = (s for s in delta.body if isinstance(s, Store))
    assert "row_products" in print_cpp(delta, "avx2").text
    assert rows.value.shape == ("M", "E")
    wide = Op("cast", (Var(rows.name, rows.value.type, rows.value.shape),), "fp32", rows.value.shape)
    largest = Fold("max", wide, "E", "fp32", ("M",))
    changed = replace(store, value=Op("add", (store.value, Var("largest", "fp32", ("M",))), "fp32", ("M",)))
    body = tuple(s for s in delta.body if s is not store)
    text = print_cpp(replace(delta, body=(*body, Assign("largest", largest), changed)), "avx2").text
    assert "row_products" not in text and "pack(" in text


def delta_kernel() -> Kernel:
    """That of a pattern without a mask, for rows of 64 bfloat16."""
    plan = plan_for(FULL.ir, Specialization("cpu:avx2", "bf16", 64, 64, lse=True), 128)
    (backward,) = plan_backward(plan, form="fused")
    return backward.delta


# ------------------------------------------------------------------------------------- pairs of bfloat16


def test_rows_that_are_added_to_are_asked_for_ahead() -> None:
    text = body(sources("avx512bf16", "bf16")[-1])
    rows = re.findall(
        r"const auto (row_of_\w+) = \[&\].*?ahead\(dQ \+ dQ_base \+ row \* .*?};", text, re.DOTALL
    )
    assert len(rows) == 2  # of full tiles and of partial ones
    assert all(f", {name}, " in text for name in rows)
    assert "ahead(dQ" not in body(sources("avx512bf16", "fp32")[-1])


def test_weights_are_as_exact_as_the_type_they_are_rounded_to() -> None:
    cases: tuple[tuple[str, Type, bool], ...] = (
        ("avx512bf16", "bf16", True),
        ("avx512bf16", "fp32", False),
        ("avx512", "bf16", False),
    )
    for isa, dtype, coarse in cases:
        text = body(sources(isa, dtype)[-1])
        assert ("exp2_coarse(" in text, " exp2(" in text) == (coarse, not coarse)


def test_the_shift_of_a_row_is_computed_once() -> None:
    text = body(sources("avx512bf16", "bf16")[-1])
    assert text.count("== -infinity") == 2  # beside the lse that is read, in full tiles and in partial ones
    assert all("lse[" in before for before in text.split("== -infinity")[:-1])
    assert text.count("- shift_tile[in_N]") == 2


# ------------------------------------------------------------------------------------------ tiles of keys


def test_a_mask_wants_smaller_tiles_of_keys() -> None:
    target = target_of("cpu:avx512bf16")
    large, small = (backward_tiles(target, "bf16", 128, 0, masked)[1] for masked in (False, True))
    assert large.rows > small.rows
    assert backward_tiles(target, "fp32", 128, 0, False) == backward_tiles(target, "fp32", 128, 0, True)


def test_patterns_get_the_tile_of_their_mask() -> None:
    specialization = Specialization("cpu:avx512bf16", "bf16", 64, 64, lse=True)
    wanted = Wanted("QKV", False, False, "fused")
    for pattern, rows in ((FULL, 128), (CAUSAL, 64)):
        (launches,) = backward_program(pattern.ir, specialization, wanted).values()
        assert launches[-1].rows == rows
