"""Tiles of a few queries: lanes along keys, keys and values read once where they lie; against the definitions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from attnlang import load, parse
from attnlang.codegen.cpp_kernel import print_cpp
from attnlang.ir.plan import Specialization
from attnlang.passes.tiles import rows_class
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import needs_compiler
from tests.cpp_printed import ISAS, kernels, printed_for
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import error, inputs, narrowed, rounding

NAMES = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
TILES = ((1, 64), (1, 256), (2, 64), (4, 32), (8, 256), (16, 64))
SPECIAL = Specialization("cpu:avx512", "fp32", 64, 64)


def chosen() -> list[tuple[Case, torch.dtype, str, tuple[int, int]]]:
    """Of each pattern one case, each in another precision, for another instruction set, with another tile."""
    found: list[tuple[Case, torch.dtype, str, tuple[int, int]]] = []
    for place, name in enumerate(NAMES):
        case = cases(name)[(place + 1) % len(cases(name))]
        found.append((case, DTYPES[(place + 1) % 3], ISAS[place // 2 % 4], TILES[place % len(TILES)]))
    return found


@needs_compiler
@pytest.mark.parametrize(
    ("case", "dtype", "isa", "tile"),
    [pytest.param(c, d, i, t, id=f"{c.id}-{str(d)[6:]}-{i}-{t[0]}") for c, d, i, t in chosen()],
)
def test_every_pattern_by_few_queries_is_the_definition(
    case: Case, dtype: torch.dtype, isa: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    definition, pattern = DEFINITIONS[case.name], load(EXAMPLES / f"{case.name}.attn")
    low = narrowed(case.make_inputs(0), dtype)
    exact = narrowed(low, torch.float64)
    wanted = definition.function(**exact, **case.params, scale=case.scale, q_offset=case.q_offset)
    q, k, v = (low.pop(name) for name in "qkv")
    given: Any = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}

    def call(target: str) -> tuple[Tensor, Tensor | None]:
        result = pattern(q, k, v, **given, target=target, return_lse=definition.has_lse)
        return result if definition.has_lse else (result, None)

    dense, dense_lse = call("eager")
    printed_for(monkeypatch, isa, *tile)
    out, lse = call("interpret")
    assert error(out, wanted.out) <= 2 * error(dense, wanted.out) + rounding(wanted.out, dtype)
    if lse is not None and dense_lse is not None and wanted.lse is not None:
        assert error(lse, wanted.lse) <= 2 * error(dense_lse, wanted.lse) + rounding(wanted.lse, dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("features", [16, 40, 64, 128, 208])
@pytest.mark.parametrize("keys", [1, 77, 1500])
def test_one_query_against_keys_of_any_length_and_any_strides(
    keys: int, features: int, dtype: torch.dtype
) -> None:
    q, k, v = inputs(1, keys, B=2, H=4, HK=2, D=features, dtype=dtype)
    pattern = parse(
        "pattern w(window: int = 400):\n    mask q - k < window and k <= q\n    score Q[q] @ K[k] * scale"
    )
    apart = k.transpose(1, 2).contiguous().transpose(1, 2)
    wanted = pattern(q.double(), k.double(), v.double(), q_offset=keys - 1, target="eager")
    dense = pattern(q, k, v, q_offset=keys - 1, target="eager")
    for each in (k, apart):
        out = pattern(q, each, v, q_offset=keys - 1, target="cpu")
        assert error(out, wanted) <= 2 * error(dense, wanted) + rounding(wanted, dtype)


def test_one_query_reads_rows_where_they_lie() -> None:
    pattern = parse("pattern f():\n    score Q[q] @ K[k] * scale")
    for dtype in ("fp32", "bf16", "fp16"):
        (kernel,) = kernels(pattern, replace(SPECIAL, dtype=dtype), rows_class(1, "cpu:avx512"))
        text = print_cpp(kernel, "avx512").text
        assert "dots_1_64(" in text and "weighted_1_64(" in text
        assert "pack(" not in text


def test_only_the_cpu_has_classes_of_few_queries() -> None:
    assert [rows_class(n, "cpu:avx2") for n in (1, 2, 3, 5, 9, 17, 65)] == [1, 2, 4, 8, 16, 32, 128]
    assert rows_class(1, "cuda:90") == rows_class(1, "interpret") == 16
