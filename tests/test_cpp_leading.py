"""Large scores in float32: the pairs that lead their rows are computed in double, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from attnlang import Pattern, load, parse
from attnlang.codegen.cpp_kernel import print_cpp
from attnlang.codegen.cpp_leading_text import LEADING_MARKS
from attnlang.ir.plan import Specialization
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import needs_compiler
from tests.cpp_printed import ISAS, kernels, printed_for, tiled
from tests.definitions import DEFINITIONS, Case, cases
from tests.kernel_calls import error, inputs, narrowed, rounding

NAMES = sorted(name for name, definition in DEFINITIONS.items() if definition.section in "AB")
TILES = ((64, 48), (32, 32), (1, 64), (16, 96), (4, 32))
MOST_ERROR = 2e-6

FULL = "pattern f():\n    score Q[q] @ K[k] * scale"
CAUSAL = "pattern c():\n    mask causal"
WINDOW = "pattern w(window: int = 60):\n    mask q - k < window and k <= q"
BIASED = "pattern b():\n    mask causal\n    score Q[q] @ K[k] * scale - 0.03 * (q - k)"
CAPPED = "pattern s():\n    mask causal\n    score 50.0 * tanh(Q[q] @ K[k] * scale / 50.0)"
GROUPS = "pattern g():\n    mask q // 70 == k // 70"


def scaled_to(largest: float, q: Tensor, k: Tensor) -> Tensor:
    """The queries times a number, so that the largest score is this."""
    shared = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    return q * (largest * q.shape[-1] ** 0.5 / float((q @ shared.mT).abs().max()))


def missed(pattern: Pattern, q: Tensor, k: Tensor, v: Tensor, target: str = "cpu", **given: Any) -> float:
    """By how much an output misses float64."""
    exact = pattern.reference(q.double(), k.double(), v.double(), **given)
    return error(pattern(q, k, v, target=target, **given), exact)


@needs_compiler
@pytest.mark.parametrize("text", [FULL, CAUSAL, WINDOW, BIASED, CAPPED, GROUPS])
@pytest.mark.parametrize(("tokens", "features"), [(517, 64), (333, 128)])
def test_large_scores_miss_float64_by_little(text: str, tokens: int, features: int) -> None:
    q, k, v = inputs(tokens, tokens, B=1, H=4, HK=2, D=features)
    for largest in (12.0, 30.0):
        assert missed(parse(text), scaled_to(largest, q, k), k, v) <= MOST_ERROR


@needs_compiler
@pytest.mark.parametrize("rows", [1, 5])
def test_few_rows_of_large_scores(rows: int) -> None:
    q, k, v = inputs(rows, 900, B=2, H=4, HK=2, D=64)
    assert missed(parse(CAUSAL), scaled_to(30.0, q, k), k, v, q_offset=900 - rows) <= MOST_ERROR


@needs_compiler
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("tile", [(64, 192), (4, 64)])
def test_every_instruction_set(isa: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    printed_for(monkeypatch, isa, *tile)
    q, k, v = inputs(150, 210, B=1, H=2, D=64)
    assert missed(parse(BIASED), scaled_to(30.0, q, k), k, v, "interpret") <= MOST_ERROR


@needs_compiler
@pytest.mark.parametrize(
    ("case", "isa", "tile"),
    [
        pytest.param(cases(name)[i % len(cases(name))], ISAS[i % 4], TILES[i % 5], id=f"{name}-{ISAS[i % 4]}")
        for i, name in enumerate(NAMES)
    ],
)
def test_every_pattern_as_if_its_scores_were_large(
    case: Case, isa: str, tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LEADING_MARKS, "@large@", "-1.0f")
    definition, pattern = DEFINITIONS[case.name], load(EXAMPLES / f"{case.name}.attn")
    low = narrowed(case.make_inputs(0), torch.float32)
    exact = narrowed(low, torch.float64)
    wanted = definition.function(**exact, **case.params, scale=case.scale, q_offset=case.q_offset)
    q, k, v = (low.pop(name) for name in "qkv")
    given: Any = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}
    dense = pattern(q, k, v, **given, target="eager")
    printed_for(monkeypatch, isa, *tile)
    out = pattern(q, k, v, **given, target="interpret")
    assert error(out, wanted.out) <= 2 * error(dense, wanted.out) + rounding(wanted.out, torch.float32)


@needs_compiler
def test_scores_that_are_large_and_alike() -> None:
    """Rows that nothing leads: all their pairs are near the maximum, and stay in the tile."""
    q, k, v = inputs(200, 400, B=1, H=2, D=64)
    q, k = q * 0.2 + 2.0, k * 0.2 + 1.0
    pattern = parse(FULL)
    assert missed(pattern, q, k, v) <= 2 * missed(pattern, q, k, v, "eager") + 2e-7


@needs_compiler
@pytest.mark.parametrize("tile", [(64, 96), (1, 64)])
def test_rows_that_see_nothing_and_numbers_that_are_none(
    tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed_for(monkeypatch, "avx512", *tile)
    q, k, v = inputs(70, 70, B=1, H=2, D=32)
    q, pattern = scaled_to(30.0, q, k), parse("pattern e():\n    mask k < q - 9 and k >= 5")
    q[0, 0, 40], k[0, 1, 50, 3] = torch.nan, torch.nan
    out, dense = (pattern(q, k, v, target=target) for target in ("interpret", "eager"))
    assert not out[:, :, :15].any() and torch.equal(out.isnan(), dense.isnan())
    assert float((out - dense).nan_to_num().abs().max()) <= 1e-5


@needs_compiler
def test_an_infinite_value_stays_infinite() -> None:
    q, k, v = inputs(64, 192, B=1, H=1, D=64)
    q = scaled_to(30.0, q, k)
    weights = (q @ k.mT / 8).softmax(-1)[0, 0]
    row, column = divmod(int(weights.argmax()), 192)
    v[0, 0, column, 5] = torch.inf
    out = parse(FULL)(q, k, v, target="cpu")
    assert out[0, 0, row, 5] == torch.inf and bool(out[..., :5].isfinite().all())


@needs_compiler
def test_gradients_with_large_scores() -> None:
    """A backward pass has the errors that it had: the forward pass that it follows on sums its scores as it does."""
    q, k, v = inputs(300, 300, B=1, H=2, D=64)
    q, pattern = scaled_to(30.0, q, k), parse(CAUSAL)
    upstream = torch.randn(q.shape, generator=torch.Generator().manual_seed(3))

    def gradients(target: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        return torch.autograd.grad(pattern(*leaves, target=target), leaves, upstream.to(dtype))

    exact, dense = gradients("eager", torch.float64), gradients("eager", torch.float32)
    for found, wanted, other in zip(gradients("cpu", torch.float32), exact, dense, strict=True):
        assert error(found, wanted) <= 2 * error(other, wanted) + rounding(wanted, torch.float32)


@pytest.mark.parametrize(
    ("tile", "special", "name"),
    [
        ((64, 192), Specialization("cpu:avx512", "fp32", 64, 64), "take_leading_across("),
        ((4, 64), Specialization("cpu:avx512", "fp32", 64, 64), "take_leading_along("),
        ((64, 192), Specialization("cpu:avx512", "fp32", 64, 64, lse=True), None),
        ((64, 192), Specialization("cpu:avx512", "bf16", 64, 64), None),
    ],
    ids=["rows", "few rows", "statistics", "half type"],
)
def test_which_kernels_take_pairs_out(
    tile: tuple[int, int], special: Specialization, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiled(monkeypatch, *tile)
    (kernel,) = kernels(load(EXAMPLES / "softcap.attn"), special, tile[0])
    text = print_cpp(kernel, "avx512").text
    assert ("take_leading" in text) == (name is not None)
    if name is not None:
        assert name in text and "tanh(dot * (double)scale / (double)cap)" in text
