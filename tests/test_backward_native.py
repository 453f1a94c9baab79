"""Backward kernels as C++: every instruction set, element type, border and form, against float64 and autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from attnlang import execute_tilings, load, parse
from attnlang.execute_backward import Form, form_for, shares_for
from attnlang.execute_programs import native_level
from attnlang.ir.plan import Tile
from tests.backward_calls import call_of, check_backward, dense, kernels
from tests.catalogue import EXAMPLES
from tests.cpp_printed import ISAS
from tests.definitions import cases
from tests.kernel_calls import error, inputs, narrowed, rounding
from tests.test_cpp_printer import needs_compiler
from tests.test_kernels import pattern_of

pytestmark = needs_compiler
CAUSAL, FULL, SOFTCAP, WINDOW = (
    load(EXAMPLES / f"{name}.attn") for name in ("causal", "full", "softcap", "sliding_window")
)
FORMS: tuple[Form, Form] = ("split", "fused")
SMALL = (Tile(32, 24, 1, 1), Tile(32, 24, 1, 1))
"""Several tiles of each side in a short call."""


def native() -> str:
    """The target of this machine."""
    return f"cpu:{native_level()}"


@pytest.mark.parametrize("form", FORMS)
def test_float64(form: Form) -> None:
    q, k, v = inputs(150, 170, H=4, HK=2, D=16, DV=24, dtype=torch.float64)
    call = call_of(CAUSAL, q, k, v, {})
    exact, _ = dense(call, CAUSAL.ir, torch.float64)
    for name, value in kernels(call, CAUSAL.ir, form, target=native()).items():
        assert error(value, exact[name]) < 1e-12, name


@pytest.mark.parametrize("form", FORMS)
def test_float32(form: Form) -> None:
    q, k, v = inputs(150, 170, H=2, D=32)
    check_backward(call_of(SOFTCAP, q, k, v, {}), form, target=native())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize(("D", "DV"), ((64, 64), (24, 40)))
def test_instruction_sets(isa: str, dtype: torch.dtype, D: int, DV: int) -> None:
    q, k, v = inputs(75, 90, H=4, HK=2, D=D, DV=DV, dtype=dtype)
    check_backward(call_of(WINDOW, q, k, v, {"window": 20}), "fused", SMALL, target=f"cpu:{isa}")


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
@pytest.mark.parametrize(("queries", "keys"), ((1, 70), (70, 1), (97, 64), (33, 150)))
def test_fewer_or_more_queries_than_keys(queries: int, keys: int, dtype: torch.dtype) -> None:
    q, k, v = inputs(queries, keys, B=2, H=2, D=40, DV=16, dtype=dtype, seed=queries)
    check_backward(call_of(FULL, q, k, v, {}), "fused", target=native())
    check_backward(call_of(CAUSAL, q, k, v, {}), "fused", target=native())


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_rows_that_see_nothing(dtype: torch.dtype) -> None:
    pattern = parse("pattern holes():\n    tensor on[q]: bool\n    mask on[q] and k < q\n")
    q, k, v = inputs(100, 100, dtype=dtype)
    on = torch.arange(100) % 3 != 0
    check_backward(call_of(pattern, q, k, v, {"on": on}), "fused", SMALL, target=native())
    call = call_of(pattern, q, k, v, {"on": torch.zeros(100, dtype=torch.bool)})
    assert all(not grad.any() for grad in kernels(call, pattern.ir, "fused", target=native()).values())


@pytest.mark.parametrize("name", ("additive", "gaussian_mixture", "distance_bias", "cosine"))
def test_scores_beyond_one_product(name: str) -> None:
    case = cases(name)[0]
    low = narrowed(case.make_inputs(0), torch.float32)
    q, k, v = (low.pop(tensor) for tensor in "qkv")
    given = {**low, **case.params, "scale": case.scale, "q_offset": case.q_offset}
    check_backward(call_of(pattern_of(name), q, k, v, given), "fused", SMALL, target=native())


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_the_same_each_time(dtype: torch.dtype) -> None:
    q, k, v = (x.requires_grad_() for x in inputs(300, 300, B=2, H=3, D=32, dtype=dtype))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = (torch.autograd.grad(CAUSAL(q, k, v).square().sum(), (q, k, v)) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_lists_of_tiles() -> None:
    pattern = load(EXAMPLES / "document.attn")
    q, k, v = (x.requires_grad_() for x in inputs(700, 700, H=2, HK=1, D=32, seed=3))
    ids = torch.arange(700)[None] // 150
    dout = torch.randn(q.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(pattern(q, k, v, ids=ids), (q, k, v), dout)
    wanted = torch.autograd.grad(pattern(q, k, v, ids=ids, target="eager"), (q, k, v), dout)
    for own, dense_one in zip(found, wanted, strict=True):
        assert error(own, dense_one.double()) < 20 * rounding(dense_one, torch.float32)


@pytest.mark.parametrize(("rows", "columns"), [(700, 700), (193, 461), (386, 203)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_lists_with_holes(rows: int, columns: int, dtype: torch.dtype) -> None:
    pattern = parse("pattern p():\n    tensor a[n]: int\n    mask a[k] == (q // 40) mod 5 or a[k] == 3")
    make = torch.Generator().manual_seed(rows)
    q, k, v = (x.requires_grad_() for x in inputs(rows, columns, H=2, HK=1, D=32, dtype=dtype, seed=3))
    given: dict[str, Any] = {"a": torch.randint(0, 5, (20,), generator=make).repeat_interleave(40)[:columns]}
    dout = torch.randn(q.shape, generator=make).to(dtype)
    execute_tilings.forget()
    found = torch.autograd.grad(pattern(q, k, v, **given, target="cpu"), (q, k, v), dout)
    assert any(walk.tiling is not None for walks in execute_tilings.kept() for walk in walks)
    same = torch.autograd.grad(pattern(q, k, v, **given, target="eager"), (q, k, v), dout)
    high = [x.detach().double().requires_grad_() for x in (q, k, v)]
    wanted = torch.autograd.grad(pattern(*high, **given, target="eager"), high, dout.double())
    for kernel, same_type, exact in zip(found, same, wanted, strict=True):
        assert error(kernel, exact) <= 2 * error(same_type, exact) + rounding(exact, dtype)


def test_the_form_and_its_shares() -> None:
    assert form_for("cpu:avx2", "QKV") == form_for("cpu:avx2", "KV") == "fused"
    assert form_for("cpu:avx2", "Q") == form_for("cuda:90", "QKV") == "split"
    assert [shares_for(2, heads, 64) for heads in (1, 2, 3, 8, 9)] == [2, 1, 2, 1, 1]
    assert shares_for(8, 1, 3) == 3 and shares_for(16, 0, 10) == 1 and shares_for(4, 8, 0) == 1
