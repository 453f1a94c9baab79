"""What compiled kernels need, as `attnlang compile` tells it: tables for people, figures for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, assert_never

from attnlang.cli_console import Column, print_table, size_text, time_text
from attnlang.execute_ahead import Compiled
from attnlang.execute_ahead_cpu import CompiledCpp, CppLibrary, CppText, PrintedCpp

Result: TypeAlias = Compiled | CompiledCpp | PrintedCpp

_GPU_FIGURES = (
    "name", "target", "registers", "spill_stores_bytes", "spill_loads_bytes", "stack_bytes", "shared_bytes",
    "shared_limit_bytes", "warps", "wgmma_count", "mma_count", "hot_loop_spills", "ctas_per_sm",
)  # fmt: skip
_GPU_COLUMNS = (
    Column("target"), Column("kernel"), Column("registers", number=True), Column("spills", number=True),
    Column("shared", number=True), Column("of", number=True), Column("warps", number=True),
    Column("wgmma", number=True), Column("mma", number=True), Column("CTAs/SM", number=True),
)  # fmt: skip
_CPU_COLUMNS = (
    Column("target"), Column("kernel"), Column("vectors", number=True), Column("library", number=True),
    Column("compiled in", number=True),
)  # fmt: skip
_COUNTED = (Column("FMAs", number=True), Column("bf16 dots", number=True))
"""Columns of what stands in the machine code, where the machine can look into it."""


def print_kernels(results: Sequence[Result]) -> None:
    """A table of the kernels for GPUs, and one of those for CPUs."""
    gpu = [_gpu_row(result) for result in results if isinstance(result, Compiled)]
    if gpu:
        print_table(_GPU_COLUMNS, [row for rows in gpu for row in rows])
    libraries = [kernel for result in results if isinstance(result, CompiledCpp) for kernel in result.kernels]
    if libraries:
        counted = [_counts(kernel) for kernel in libraries]
        columns = (*_CPU_COLUMNS, *_COUNTED) if all(counted) else _CPU_COLUMNS
        rows = [
            (*_cpu_row(kernel), *(str(count) for count in counts.values() if all(counted)))
            for kernel, counts in zip(libraries, counted, strict=True)
        ]
        print_table(columns, rows)


def _gpu_row(result: Compiled) -> list[tuple[str, ...]]:
    return [
        (
            kernel.target,
            kernel.name,
            str(kernel.registers),
            f"{kernel.spill_stores_bytes} B",
            size_text(kernel.shared_bytes),
            size_text(kernel.shared_limit_bytes),
            str(kernel.warps),
            str(kernel.wgmma_count),
            str(kernel.mma_count),
            str(kernel.ctas_per_sm),
        )
        for kernel in result.kernels
    ]


def _cpu_row(kernel: CppLibrary) -> tuple[str, ...]:
    took = time_text(kernel.seconds) if kernel.origin == "built" else "earlier"
    vectors = f"{kernel.vector_bytes} B"
    return (kernel.target, kernel.name, vectors, size_text(len(kernel.library)), took)


def _counts(kernel: CppLibrary) -> dict[str, int]:
    """What stands in the machine code, by name; nothing on a machine that cannot look into it."""
    found = kernel.instructions
    return {"multiply_adds": found.multiply_adds, "bf16_dots": found.bf16_dots} if found else {}


def problems_of(result: Result) -> list[str]:
    """What kernels lose on their target, a sentence each."""
    match result:
        case Compiled():
            return [f"{result.target}: warning: {problem}" for problem in result.problems()]
        case CompiledCpp() | PrintedCpp():
            return []
        case _:
            assert_never(result)


def figures_of(result: Result) -> list[dict[str, Any]]:
    """The figures of each kernel, for programs: bytes, seconds, and counts per thread or in the code."""
    match result:
        case Compiled():
            return [
                {**{name: getattr(kernel, name) for name in _GPU_FIGURES}, "problems": kernel.problems()}
                for kernel in result.kernels
            ]
        case CompiledCpp():
            return [_cpu_figures(kernel) for kernel in result.kernels]
        case PrintedCpp():
            return [_text_figures(kernel) for kernel in result.kernels]
        case _:
            assert_never(result)


def _text_figures(kernel: CppText) -> dict[str, Any]:
    return {"name": kernel.name, "target": kernel.target, "vector_bytes": kernel.vector_bytes}


def _cpu_figures(kernel: CppLibrary) -> dict[str, Any]:
    compiled = {"compile_seconds": kernel.seconds} if kernel.origin == "built" else {}
    size = {"library_bytes": len(kernel.library), "compiler": kernel.compiler, "origin": kernel.origin}
    return {**_text_figures(kernel), **size, **compiled, **_counts(kernel)}
