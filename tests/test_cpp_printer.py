"""Printed C++ against the independent definitions: every pattern of sections A and B, every instruction set."""

from __future__ import annotations

import re
from shutil import which
from typing import Any

import pytest
import torch
from torch import Tensor

from attnlang import Pattern, load, parse
from attnlang.codegen.cpp_kernel import print_cpp
from attnlang.execute_launch import run
from attnlang.ir.plan import Specialization
from attnlang.passes.widen import in_double
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import NAMES as COMPILERS
from tests.cpp_printed import ISAS, kernels, printed_for, tiled
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import check_call, error, inputs, narrowed, rounding

NAMES = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TILES = ((64, 48), (32, 32), (16, 96))
needs_compiler = pytest.mark.skipif(not any(map(which, COMPILERS)), reason="there is no C++ compiler")


def chosen() -> list[tuple[Case, torch.dtype, str, tuple[int, int]]]:
    """Of each pattern one case, each in another precision, for another instruction set, with another tile."""
    found: list[tuple[Case, torch.dtype, str, tuple[int, int]]] = []
    for place, name in enumerate(NAMES):
        case = cases(name)[place % len(cases(name))]
        found.append((case, DTYPES[place % 3], ISAS[place // 3 % 4], TILES[place // 2 % 3]))
    return found


def test_every_kind_is_among_them() -> None:
    kinds = {(dtype, isa) for _, dtype, isa, _ in chosen()}
    assert kinds == {(dtype, isa) for dtype in DTYPES for isa in ISAS}


@needs_compiler
@pytest.mark.parametrize(
    ("case", "dtype", "isa", "tile"),
    [pytest.param(c, d, i, t, id=f"{c.id}-{str(d)[6:]}-{i}") for c, d, i, t in chosen()],
)
def test_printed_code_is_the_definition(
    case: Case, dtype: torch.dtype, isa: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    definition, pattern = DEFINITIONS[case.name], load(EXAMPLES / f"{case.name}.attn")
    low = narrowed(case.make_inputs(0), dtype)
    wanted = definition.function(
        **narrowed(low, torch.float64), **case.params, scale=case.scale, q_offset=case.q_offset
    )
    q, k, v = (low.pop(name) for name in "qkv")

    def call(target: str) -> tuple[Tensor, Tensor | None]:
        given: Any = {**low, **case.params}
        result = pattern(
            q, k, v, **given, scale=case.scale, q_offset=case.q_offset,
            target=target, return_lse=definition.has_lse,
        )  # fmt: skip
        return result if definition.has_lse else (result, None)

    dense, dense_lse = call("eager")
    printed_for(monkeypatch, isa, *tile)
    out, lse = call("interpret")
    assert error(out, wanted.out) <= 2 * error(dense, wanted.out) + rounding(wanted.out, dtype)
    if lse is not None and dense_lse is not None and wanted.lse is not None:
        assert error(lse, wanted.lse) <= 2 * error(dense_lse, wanted.lse) + rounding(wanted.lse, dtype)


WINDOW = "pattern w(window: int >= 1 = 7):\n    mask causal\n    sparsity window(window)"
CAPPED = "pattern c():\n    score 3.0 * tanh(Q[q] @ K[k] / 3.0) + abs(q - k) * 0.1"


@needs_compiler
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("text", [WINDOW, CAPPED], ids=["window", "capped"])
@pytest.mark.parametrize(("dtype", "D", "DV"), [(torch.float32, 24, 40), (torch.bfloat16, 17, 33)])
def test_shapes(
    text: str, isa: str, dtype: torch.dtype, D: int, DV: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grouped heads, other lengths of keys than of queries, odd head sizes, tiles that end anywhere."""
    printed_for(monkeypatch, isa, 32, 48)
    q, k, v = inputs(45, 75, B=2, H=4, HK=2, D=D, DV=DV, dtype=dtype)
    check_call(parse(text), q, k, v)


@needs_compiler
@pytest.mark.parametrize("isa", ["avx512bf16", "avx2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_strides(isa: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    printed_for(monkeypatch, isa, 32, 48)
    q, k, v = inputs(50, 50, B=2, H=2, D=24, dtype=dtype)
    heads_inside = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    features_outside = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)]
    assert features_outside[1].stride(-1) != 1
    check_call(parse(WINDOW), *heads_inside)
    check_call(parse(WINDOW), *features_outside)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_see_nothing(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    printed_for(monkeypatch, "avx512bf16", 16, 32)
    q, k, v = inputs(40, 20, D=16, dtype=dtype)
    pattern = parse("pattern e():\n    mask k < q - 9")
    out, lse = check_call(pattern, q, k, v)
    assert bool((out[:, :, :10] == 0).all()) and bool((lse[:, :, :10] == -torch.inf).all())


@needs_compiler
def test_what_no_query_sees_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that are left out may hold anything, also inside a tile that is computed."""
    printed_for(monkeypatch, "avx512bf16", 32, 64)
    pattern = parse("pattern h():\n    tensor ids[n]: int\n    mask ids[q] == ids[k]")
    q, k, v = inputs(64, 64, D=16)
    ids = torch.arange(64) // 32
    plain = pattern(q, k, v, ids=ids, target="interpret")
    k[:, :, 32:], v[:, :, 32:] = torch.nan, torch.nan
    found = pattern(q, k, v, ids=ids, target="interpret")
    assert torch.equal(found[:, :, :32], plain[:, :, :32])


@needs_compiler
def test_names_that_mean_something_in_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    printed_for(monkeypatch, "avx512bf16", 16, 32)
    names = "pattern p(double: float = 0.5, new: int = 3, load: float = 1.0):\n    tensor auto[h]\n"
    pattern = parse(names + "    mask k <= q + new\n    score Q[q] @ K[k] * double + auto[h] * load")
    q, k, v = inputs(20, 30, H=2)
    check_call(pattern, q, k, v, auto=torch.tensor([1.0, 2.0]))


BETWEEN = """pattern b():
    tensor on[b, h, k]: bool
    tensor column[b, h, k]
    mask (h mod 2 == 0 or q > 3) and on[b, h, k]
    score Q[q] @ K[k]
    value V[k] * column[b, h, k]
"""


@needs_compiler
@pytest.mark.parametrize("isa", ISAS)
def test_values_of_keys_that_are_computed_where_they_are_used(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed_for(monkeypatch, isa, 16, 48)
    q, k, v = inputs(40, 50, H=2, D=24)
    generator = torch.Generator().manual_seed(1)
    on, column = torch.rand(1, 2, 50, generator=generator) > 0.5, torch.randn(1, 2, 50, generator=generator)
    check_call(parse(BETWEEN), q, k, v, on=on, column=column)


def text_of(pattern: Pattern, isa: str, special: Specialization) -> str:
    (kernel,) = kernels(pattern, special)
    return print_cpp(kernel, isa).text


SPECIAL = Specialization("cpu:avx512", "fp32", 64, 64)


def test_code_is_the_same_each_time_and_says_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(monkeypatch, 64, 192)
    pattern = load(EXAMPLES / "sliding_window.attn")
    text = text_of(pattern, "avx512bf16", SPECIAL)
    assert text == text_of(pattern, "avx512bf16", SPECIAL)
    assert text.startswith("// Generated by attnlang")
    assert "//     sparsity window(window)" in text and "// partial tiles: the mask is applied" in text
    assert re.findall(r"#include <(.*)>", text) == ["stdint.h"]


def test_the_score_is_finished_in_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows on the product of a full tile is one function, called with sums that have not been in memory."""
    tiled(monkeypatch, 64, 192)
    text = text_of(load(EXAMPLES / "softcap.attn"), "avx512", SPECIAL)
    body = text[text.index("// full tiles") : text.index("// partial tiles")]
    epilogue = body[body.index("take_dot = ") : body.index("rows_4x6_float_and_max(")]
    assert "tanh(" in epilogue and "return row_max;" in epilogue
    assert len(re.findall(r"const floats \w+ = .*tanh\(", body)) == 1


def test_padded_lanes_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(monkeypatch, 64, 64)
    text = text_of(load(EXAMPLES / "causal.attn"), "avx512", Specialization("interpret", "fp32", 40, 24))
    assert "in_D < 64" not in text and "in_E < 32" not in text
    assert re.search(r"rows_4x6_float_and_max\(\w+, 64, 40,", text)


@needs_compiler
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("text", [WINDOW, CAPPED], ids=["window", "capped"])
def test_float64(text: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels in double precision, as differences of functions need them."""
    tiled(monkeypatch, 32, 48)
    pattern = parse(text)
    (kernel,) = kernels(pattern, Specialization("interpret", "fp32", 24, 40, lse=True))
    q, k, v = (x.double() for x in inputs(45, 75, B=2, H=4, HK=2, D=24, DV=40))
    out, lse = torch.empty(2, 4, 45, 40, dtype=torch.float64), torch.empty(2, 4, 45, dtype=torch.float64)
    tensors = {"Q": q, "K": k, "V": v, "out": out, "lse": lse}
    numbers = {
        "B": 2,
        "D": 24,
        "DV": 40,
        "NQ": 45,
        "NK": 75,
        "H": 4,
        "HK": 2,
        "q_offset": 30,
        "scale": 24**-0.5,
        "window": 7,
    }
    run(print_cpp(in_double(kernel), isa), 2 * 2 * 4, tensors, numbers, "cpu")
    wanted, wanted_lse = pattern.reference(q, k, v, return_lse=True)
    assert error(out, wanted) <= 1e-13 and error(lse, wanted_lse) <= 1e-13
