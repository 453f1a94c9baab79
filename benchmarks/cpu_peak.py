"""The processor's own peak: loops of nothing but fused multiply-adds, or bfloat16 dots, on one thread and on all.

    python benchmarks/cpu_peak.py

The loops are compiled, loaded and launched like every CPU kernel, so that a share of the peak compares like with like.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from attnlang.artifact import Argument, KernelSource
from attnlang.execute_programs import kernel_cache
from attnlang.runtime.cpp_compiler import find_compiler
from attnlang.runtime.cpp_launch import prepare
from attnlang.settings import CpuLevel

VECTOR_BYTES: dict[CpuLevel, int] = {"portable": 16, "avx2": 32, "avx512": 64, "avx512bf16": 64}
CHAINS: dict[CpuLevel, int] = {"portable": 12, "avx2": 12, "avx512": 24, "avx512bf16": 24}
"""Vectors that do not wait for one another: more than latency times units, fewer than there are registers."""

ROUNDS = 200_000  # under a millisecond: some runs pass undisturbed even on a busy machine


@dataclass(frozen=True)
class Peak:
    """10⁹ floating-point operations a second; `bf16` is None where the processor has no bfloat16 dot."""

    threads: int
    fp32: float
    bf16: float | None


def fma_loop(level: CpuLevel) -> KernelSource:
    """Rounds of x ← x·a + b in vectors of float32."""
    return _loop("fma_loop", level, "chain = chain * a + b;")


def dot_loop() -> KernelSource:
    """Rounds of x ← x + a₀·b₀ + a₁·b₁ in vectors of float32, a and b of pairs of bfloat16."""
    return _loop("dot_loop", "avx512bf16", 'asm("vdpbf16ps %2, %1, %0" : "+v"(chain) : "v"(a), "v"(b));')


def _loop(name: str, level: CpuLevel, step: str) -> KernelSource:
    chains = [f"x{number}" for number in range(CHAINS[level])]
    made = "\n        ".join(f"lanes {chain} = a + {number};" for number, chain in enumerate(chains))
    steps = "\n            ".join(step.replace("chain", chain) for chain in chains)
    text = f"""#include <stdint.h>

typedef float lanes __attribute__((vector_size({VECTOR_BYTES[level]}), aligned(4)));

extern "C" int64_t {name}_scratch() {{ return 0; }}

extern "C" void {name}(const void* const* arguments, int64_t first, int64_t last, void*) {{
    for (int64_t program = first; program < last; ++program) {{
        const lanes a = *(const lanes*)arguments[0], b = *(const lanes*)arguments[1];
        {made}
        for (int64_t round = *(const int64_t*)arguments[3]; round > 0; --round) {{
            {steps}
        }}
        ((lanes*)arguments[2])[program] = {" + ".join(chains)};
    }}
}}
"""
    tensors = tuple(Argument(tensor, "pointer", "fp32") for tensor in ("a", "b", "out"))
    return KernelSource("cpp", name, text, (*tensors, Argument("rounds", "scalar", "i64")), (), 1, 1)


@dataclass(frozen=True)
class Loop:
    """A launch of one loop on every thread, and how many floating-point operations it does."""

    call: Callable[[], None]
    operations: int


def loop(dtype: str, threads: int, seconds: float = 0.01) -> Loop | None:
    """The loop of "float32" or "bfloat16", launched as kernels are, on all threads at once, for about so long: what a
    kernel that did nothing but its products would take. None where the processor has no bfloat16 dot."""
    found = _source(dtype)
    if found is None:
        return None
    source, each = found
    kernel = prepare(source, kernel_cache())
    given = {"a": torch.full((16,), 0.5), "b": torch.full((16,), 0.5), "out": torch.empty(16 * threads)}

    def run(rounds: int) -> None:
        kernel((threads, 1, 1), {**given, "rounds": rounds}, threads=threads)

    start = time.perf_counter()
    run(ROUNDS)
    rounds = max(1, int(ROUNDS * seconds / (time.perf_counter() - start)))
    return Loop(lambda: run(rounds), rounds * threads * each)


def peak(threads: int, seconds: float = 0.3) -> Peak:
    """The best of each loop on `threads` threads at once, each loop repeated for so many seconds.

    Threads are Python's, and each takes its own best run: what the team of a launch loses on a busy machine, where all
    wait for the last, is no part of the processor's peak.
    """
    single, dots = _source("float32"), _source("bfloat16")
    assert single is not None
    bf16 = None if dots is None else _together(*dots, threads, seconds)
    return Peak(threads, _together(*single, threads, seconds), bf16)


def _source(dtype: str) -> tuple[KernelSource, int] | None:
    """The loop of a type on this machine, and the operations of a round; None where it has no bfloat16 dot."""
    level = find_compiler(kernel_cache()).level
    operations = CHAINS[level] * VECTOR_BYTES[level]
    if dtype == "float32":
        return fma_loop(level), operations // 2
    return (dot_loop(), operations) if level == "avx512bf16" else None


def _together(source: KernelSource, operations: int, threads: int, seconds: float) -> float:
    """10⁹ operations a second of all threads, where each round counts as so many."""
    kernel, ready = prepare(source, kernel_cache()), Barrier(threads)

    def alone() -> float:
        arguments = {
            "a": torch.full((16,), 0.5),
            "b": torch.full((16,), 0.5),
            "out": torch.empty(16),
            "rounds": ROUNDS,
        }
        ready.wait()
        best, end = float("inf"), time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            kernel((1, 1, 1), arguments, threads=1)
            best = min(best, time.perf_counter() - start)
        return ROUNDS * operations / best / 1e9

    with ThreadPoolExecutor(threads) as pool:
        return sum(future.result() for future in [pool.submit(alone) for _ in range(threads)])


def main() -> None:
    compiler = find_compiler(kernel_cache())
    print(f"{compiler.version}, {compiler.level}")
    for threads in sorted({1, torch.get_num_threads()}):
        found = peak(threads)
        dots = "no bfloat16 dot" if found.bf16 is None else f"bf16 dot {found.bf16:.0f} GF/s"
        print(f"{threads} thread{'s' * (threads > 1)}: fp32 {found.fp32:.0f} GF/s, {dots}")


if __name__ == "__main__":
    main()
