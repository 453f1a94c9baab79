"""The loops that measure a processor's peak: what they compute, and that they count what they do."""

from __future__ import annotations

import pytest
import torch
from cpp_kernels import needs_compiler

from attnlang.execute_programs import kernel_cache
from attnlang.runtime.cpp_compiler import find_compiler
from attnlang.runtime.cpp_launch import prepare
from attnlang.settings import override
from benchmarks import cpu_peak

pytestmark = needs_compiler


def test_the_loop_is_not_optimized_away() -> None:
    """After three rounds each chain has the value of the recurrence, and their sum is what the kernel stores."""
    level = find_compiler(kernel_cache()).level
    out = torch.zeros(16)
    given = {"a": torch.full((16,), 0.5), "b": torch.full((16,), 0.25), "out": out, "rounds": 3}
    prepare(cpu_peak.fma_loop(level), kernel_cache())((1, 1, 1), given, threads=1)
    expected = 0.0
    for chain in range(cpu_peak.CHAINS[level]):
        value = 0.5 + chain
        for _ in range(3):
            value = value * 0.5 + 0.25
        expected += value
    lanes = cpu_peak.VECTOR_BYTES[level] // 4
    torch.testing.assert_close(out[:lanes], torch.full((lanes,), expected))


def test_the_bfloat16_loop_multiplies_pairs() -> None:
    if find_compiler(kernel_cache()).level != "avx512bf16":
        pytest.skip("no bfloat16 dot on this processor")
    pairs = torch.full((32,), 0.5, dtype=torch.bfloat16).view(torch.float32)
    out = torch.zeros(16)
    prepare(cpu_peak.dot_loop(), kernel_cache())(
        (1, 1, 1), {"a": pairs, "b": pairs, "out": out, "rounds": 4}, threads=1
    )
    chains = cpu_peak.CHAINS["avx512bf16"]
    started = pairs * chains + sum(range(chains))
    torch.testing.assert_close(out, started + chains * 4 * 2 * 0.25, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_peak_is_a_number_of_operations(threads: int) -> None:
    found = cpu_peak.peak(threads, seconds=0.05)
    assert found.threads == threads
    assert 0.5 < found.fp32 < 2000 * threads
    with override(cpu_level="portable"):
        assert cpu_peak.peak(threads, seconds=0.05).bf16 is None
