"""Backward kernels compiled ahead of time: tensor cores are used, and no loop spills registers."""

from __future__ import annotations

import pytest

pytest.importorskip("triton")

from attnlang import load
from attnlang.execute_ahead import aligned
from attnlang.execute_backward import Wanted, backward_program
from attnlang.ir.plan import Specialization
from attnlang.runtime.triton_aot import aot_compile
from tests.catalogue import EXAMPLES
from tests.triton_kernels import own_triton_cache

pytestmark = pytest.mark.usefixtures(own_triton_cache.__name__)


@pytest.mark.parametrize(
    ("name", "target", "size"),
    (
        ("causal", "cuda:90", 64),
        ("sliding_window", "cuda:90", 128),
        ("softcap", "cuda:80", 64),
        ("causal", "hip:gfx942", 64),
    ),
)
def test_no_loop_spills(name: str, target: str, size: int) -> None:
    pattern = load(EXAMPLES / f"{name}.attn").ir
    specialization = Specialization(target, "bf16", size, size, lse=True)
    program = backward_program(pattern, specialization, Wanted("QKV", True, False))
    (launches,) = program.values()
    assert [launch.over for launch in launches] == ["NQ", "NQ", "NK"]
    for launch in launches:
        kernel = aot_compile(launch.source, target, divisible_by_16=aligned(launch.source))
        assert kernel.problems() == [] and kernel.hot_loop_spills == 0
        assert (kernel.wgmma_count > 0) == (target == "cuda:90" and launch is not launches[0])
