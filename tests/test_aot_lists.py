"""Kernels that read lists of tiles, compiled ahead of time for a Hopper GPU: no spills in loops, wgmma in flight."""

from __future__ import annotations

import pytest

import attnlang
from attnlang.execute_ahead import aligned
from attnlang.execute_programs import plan_for, printed
from attnlang.ir.plan import Specialization, WalkKind
from attnlang.passes.specialize import static_parameters
from attnlang.runtime.triton_aot import aot_compile
from tests.catalogue import EXAMPLES

CASES: list[tuple[str, int, WalkKind]] = [
    ("document", 64, "lists"),
    ("document", 128, "ordered"),
    ("dilated_window", 64, "ordered"),
    ("neighborhood_2d", 64, "lists"),
    ("neighborhood_2d", 128, "ordered"),
]


@pytest.mark.parametrize(("name", "width", "walk"), CASES)
def test_lists_cost_no_registers_and_no_pipeline(name: str, width: int, walk: WalkKind) -> None:
    pattern = attnlang.load(EXAMPLES / f"{name}.attn").ir
    statics = tuple((each, False) for each in static_parameters(pattern))
    specialization = Specialization("cuda:90", "bf16", width, width, statics, walks=(walk,))
    ((_, source, _),) = printed(plan_for(pattern, specialization, 128))
    kernel = aot_compile(source, "cuda:90", divisible_by_16=aligned(source))
    assert kernel.problems() == []
    assert kernel.ptx.count("wgmma.mma_async") >= 16
