"""Parts of a tile that see none of its columns are not multiplied, and rows are asked for before they are read."""

from __future__ import annotations

import re
from shutil import which
from typing import Literal

import pytest
import torch

from attnlang import load, parse
from attnlang.codegen.cpp_isa import AHEAD, ISAS, MOST_ROWS
from attnlang.codegen.cpp_kernel import print_cpp
from attnlang.ir.plan import Specialization
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import NAMES as COMPILERS
from tests.cpp_printed import kernels, printed_for, tiled
from tests.kernel_calls import check_call, inputs

MASKS = {
    "later parts see nothing": "mask k < 20 and q mod 64 < 20",
    "few rows in the middle": "mask (q mod 64 == 40 and k mod 50 == 41) or k == q",
    "only the ends of the columns": "mask (q mod 64 >= 32 and (k < 5 or k > 70)) or k == 60",
    "parts in turn": "mask q // 16 mod 2 == k // 8 mod 2",
    "odd numbers of columns": "mask q - k < 37 and k <= q",
    "nothing": "mask k > q + 1000",
    "conditions on keys alone beside one on queries": "mask q >= 32 and (k < 5 or k > 70)",
}
"""Conditions on pairs, by which columns the parts of a tile of queries see."""

needs_compiler = pytest.mark.skipif(not any(map(which, COMPILERS)), reason="there is no C++ compiler")


def printed(name: str, isa: str, dtype: Literal["fp32", "bf16"], head_dim: int) -> str:
    special = Specialization(f"cpu:{isa}", dtype, head_dim, head_dim)
    (kernel,) = kernels(load(EXAMPLES / f"{name}.attn"), special)
    return print_cpp(kernel, isa).text


@needs_compiler
@pytest.mark.parametrize("isa", ["avx512bf16", "avx512", "avx2"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_results_where_parts_see_different_columns(
    mask: str, isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed_for(monkeypatch, isa, 64, 96)
    dtype = torch.bfloat16 if isa == "avx512bf16" else torch.float32
    for queries, keys, head_dim in ((150, 133, 24), (64, 96, 32)):
        q, k, v = inputs(queries, keys, H=2, HK=1, D=head_dim, dtype=dtype)
        check_call(parse(f"pattern p():\n    {mask}"), q, k, v)


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_multiplied_cannot_reach_a_result(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the first 32 queries do not see holds infinities: their scores and sums stay finite."""
    printed_for(monkeypatch, "avx512bf16", 64, 96)
    q, k, v = inputs(64, 64, H=1, D=16, dtype=dtype)
    pattern = parse("pattern p():\n    mask causal")
    plain = pattern(q, k, v, target="interpret")
    k[..., 40, :], v[..., 40, :] = float("inf"), float("inf")
    found = pattern(q, k, v, target="interpret")
    assert torch.equal(found[..., :32, :], plain[..., :32, :])
    assert bool(found[..., 40:, :].isnan().any())


@pytest.mark.parametrize("isa", ["avx512", "avx512bf16", "avx2"])
def test_both_products_of_masked_tiles_are_cut(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(monkeypatch, 64, 192)
    text = printed("sliding_window", isa, "bf16" if ISAS[isa].bf16 else "fp32", 64)
    full, partial = text[text.index("// full tiles") :].split("// partial tiles")
    cut = r"\b(rows|columns)_\w+_seen\("
    assert not re.search(cut, full)
    assert set(re.findall(cut, partial)) == {"rows", "columns"}
    assert text.count("seen_by_part(") == 2  # its definition, and one call


def test_two_vectors_are_not_asked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(monkeypatch, 32, 96)
    assert "seen_by_part" not in printed("causal", "avx512", "fp32", 64)


def test_rows_are_asked_for_and_none_behind_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys before their scores, values on the way; of long rows the beginning, and of long values nothing."""
    tiled(monkeypatch, 64, 192)
    for isa in ISAS.values():
        assert isa.most_down >= AHEAD + MOST_ROWS
        assert f"[{192 + isa.most_down}]" in printed("causal", isa.name, "fp32", 64)
    short = printed("full", "avx512", "fp32", 64)
    assert f"ahead(K_rows[n + {AHEAD}], 0, 64);" in short
    assert f"ahead(V_rows[n + {AHEAD}], 0, 64);" in short
    long = printed("full", "avx512", "fp32", 128)
    assert f"ahead(K_rows[n + {AHEAD}], 0, 64);" in long
    assert "ahead(V_rows" not in long


def test_values_are_put_in_pairs_beside_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(monkeypatch, 64, 192)
    text = printed("causal", "avx512bf16", "bf16", 64)
    body = text[text.index("// full tiles") :]
    assert body.count("interleave(V_pairs + n / 2 * 64, V_rows[n], V_rows[n + 1], 64)") == 2
    assert body.count("interleave(") == 2
