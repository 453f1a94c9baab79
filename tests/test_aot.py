"""The demo's kernel compiled for every target without a GPU: no spills in its loops, tensor cores, enough memory."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("triton")

from triton_kernels import own_triton_cache

from attnlang import load, settings
from attnlang.execute_ahead import Compiled
from attnlang.targets import AHEAD, NothingToCompile, UnknownTarget, target_of
from tests.catalogue import EXAMPLES

pytestmark = pytest.mark.usefixtures(own_triton_cache.__name__)
WINDOW = load(EXAMPLES / "sliding_window.attn")
GPUS = [target for target in AHEAD if target != "cpu"]


def compiled(target: str, head_dim: int, **arguments: Any) -> Compiled:
    """The demo's pattern for a target."""
    result = WINDOW.compile(target=target, head_dim=head_dim, dtype="bf16", **arguments)
    assert isinstance(result, Compiled)
    return result


@pytest.mark.parametrize("head_dim", (64, 128))
@pytest.mark.parametrize("target", GPUS)
def test_the_demo_loses_nothing(target: str, head_dim: int) -> None:
    result = compiled(target, head_dim)
    (kernel,) = result.kernels
    assert result.problems() == []
    assert kernel.hot_loop_spills == 0
    assert 0 < kernel.shared_bytes <= min(kernel.shared_limit_bytes, target_of(target).shared)
    assert kernel.ctas_per_sm >= 1 and kernel.registers > 32
    assert (kernel.wgmma_count > 0) == (target == "cuda:90") and not kernel.wgmma_serialized
    assert kernel.wgmma_count + kernel.mma_count >= 4  # two products in each of two loops
    assert kernel.warps == result.plan.branches[0].tile.warps
    assert (result.registers, result.spills, result.shared) == (
        kernel.registers, kernel.spill_stores_bytes, kernel.shared_bytes,
    )  # fmt: skip
    assert result.cubin.startswith(b"\x7fELF") and "sliding_window_forward" in result.ptx
    assert "@triton.jit\ndef sliding_window_forward(" in result.source


@pytest.mark.parametrize("target", ("cuda:80", "cuda:90"))
def test_rows_are_fetched_ahead_in_pieces_of_16_bytes(target: str) -> None:
    """What an innermost stride of 1 is good for; it is no argument then."""
    result = compiled(target, 64)
    fetched = [
        line
        for line in result.ptx.splitlines()
        if "cp.async.cg.shared" in line or "cp.async.ca.shared" in line
    ]
    assert len(fetched) >= 4 and all(", 0x10" in line for line in fetched)
    assert "Q_stride_3" not in result.source


def test_the_lse_costs_one_store() -> None:
    plain, more = compiled("cuda:90", 64), compiled("cuda:90", 64, return_lse=True)
    assert "lse" not in [argument for argument in _arguments(plain)]
    assert "lse" in _arguments(more) and more.problems() == []


def _arguments(result: Compiled) -> list[str]:
    return [pointer.name for branch in result.plan.branches for pointer in branch.kernel.pointers]


@pytest.mark.parametrize("target", ["eager", "interpret"])
def test_what_has_no_kernels_of_its_own_is_not_compiled(target: str) -> None:
    with pytest.raises(NothingToCompile) as caught:
        WINDOW.compile(target=target)
    assert str(caught.value) == (
        f"error[E609]: there is nothing to compile ahead of time for '{target}'\n"
        "  there are cuda:80, cuda:90, cuda:100, hip:gfx942, cpu"
    )
    with settings.override(target=target), pytest.raises(NothingToCompile):
        WINDOW.compile()


def test_a_level_that_no_cpu_has_is_told_which_there_are() -> None:
    with pytest.raises(UnknownTarget) as caught:
        WINDOW.compile(target="cpu:avx3")
    assert str(caught.value) == (
        "error[E502]: there is no target 'cpu:avx3'\n"
        "  the levels of a CPU are portable, avx2, avx512, avx512bf16"
    )
