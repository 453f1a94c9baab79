"""Ahead of time for a CPU: a pattern's C++ for one level of vector instructions, and the libraries that calls load.

Both come from where a call has them, and stay in the kernel cache: a call on this machine finds them there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, cast

from attnlang.artifact import KernelSource, Program
from attnlang.execute_ahead import shaping
from attnlang.execute_programs import kernel_cache, no_kernel, program_for
from attnlang.ir.kernel import Type
from attnlang.ir.pattern import DType, Pattern
from attnlang.ir.plan import Specialization, WalkKind
from attnlang.settings import CpuLevel

if TYPE_CHECKING:
    from attnlang.runtime.cpp_report import Instructions

CpuTarget = Literal["cpu", "cpu:portable", "cpu:avx2", "cpu:avx512", "cpu:avx512bf16"]
MANY_QUERIES = 128
"""The class of calls with 65 queries or more (`passes.tiles.rows_class`); on a CPU the one below has the same tiles."""
_STORED: dict[DType, Type] = {"float": "fp32", "int": "i64", "bool": "i1"}
"""What PyTorch makes of numbers if nothing else is said."""


@dataclass(frozen=True)
class CppText:
    """One kernel as a complete C++ file, which a compiler makes a shared library of; `name` is its function."""

    name: str
    target: str
    source: KernelSource

    @cached_property
    def text(self) -> str:
        """The file."""
        from attnlang.runtime.cpp_wrapper import whole_text

        return whole_text(self.source)

    @property
    def vector_bytes(self) -> int:
        """Of one vector of its code."""
        from attnlang.codegen.cpp_isa import ISAS

        return ISAS[level_named(self.target)].bytes


@dataclass(frozen=True)
class CppLibrary(CppText):
    """One kernel with its shared library. `seconds` were needed to get it: to compile it where `origin` is "built",
    else to find it in the cache."""

    library: bytes
    compiler: str
    seconds: float
    origin: Literal["memory", "disk", "built"]

    @cached_property
    def instructions(self) -> Instructions | None:
        """What stands in the machine code; None on a machine without a disassembler."""
        from attnlang.runtime.cpp_report import instructions_of

        return instructions_of(self.library)


@dataclass(frozen=True)
class PrintedCpp:
    """A pattern's C++ for a target `cpu:LEVEL`: a kernel for each attention and each way to walk its tiles."""

    pattern: str
    target: str
    kernels: tuple[CppText, ...]

    def compiled(self) -> CompiledCpp:
        """The same with its libraries, from the cache or compiled now. Raises CompilerMissing, LevelNotCompiled,
        CppCompileError."""
        return CompiledCpp(self.pattern, self.target, tuple(map(_compiled, self.kernels)))


@dataclass(frozen=True)
class CompiledCpp:
    """A pattern compiled ahead of time for a CPU, `target` being `cpu:LEVEL`.

    `kernels` has one for each attention: where the tiles that it visits have no exact closed form, also those that read
    lists of tiles, in the order of the tokens and in another, of which a call takes what is fastest. They are those of
    calls with 33 queries or more. Fewer queries have kernels with smaller tiles, that share the keys of long caches out
    among threads, and gradients those of the backward pass: they are made by the first such call.
    """

    pattern: str
    target: str
    kernels: tuple[CppLibrary, ...]

    @property
    def source(self) -> str:
        """The C++ of all kernels, one complete file after another."""
        return "\n\n".join(kernel.text for kernel in self.kernels)

    @property
    def library(self) -> bytes:
        """The shared library of the first kernel."""
        return self.kernels[0].library


def print_cpu(
    pattern: Pattern,
    target: str,
    head_dim: int,
    value_dim: int,
    dtype: Type,
    parameters: Mapping[str, bool | int | float],
    *,
    lse: bool = False,
) -> PrintedCpp:
    """The kernels of calls with 33 queries or more, innermost strides 1, and other tensors of PyTorch's own types
    (float32, int64, bool), for `cpu` (this machine's level) or `cpu:LEVEL`. Needs no compiler where the level is known.

    Raises MissingArgument, NoKernel, LevelMissing; CompilerMissing where nothing tells the level.
    """
    from attnlang.passes.specialize import reads_lse
    from attnlang.runtime.cpp_cross import printed_level

    if target == "cpu":
        target = f"cpu:{printed_level(kernel_cache())}"
    stored: dict[DType, Type] = _STORED if dtype != "fp64" else {**_STORED, "float": dtype}
    types: list[tuple[str, Type]] = [(tensor.name, stored[tensor.dtype]) for tensor in pattern.tensors]
    others = tuple(each for each in types if each[1] != dtype)
    specialization = Specialization(
        target,
        dtype,
        head_dim,
        value_dim,
        shaping(pattern, parameters),
        others,
        lse=lse or reads_lse(pattern),
    )
    program = program_for(pattern, specialization, MANY_QUERIES)
    if not program.launches:
        raise no_kernel(pattern, target, program.reason)
    programs = [program, *_by_lists(pattern, specialization, program)]
    sources = {launch.source.name: launch.source for each in programs for launch in each.launches}
    texts = tuple(CppText(name, target, source) for name, source in sources.items())
    return PrintedCpp(pattern.name, target, texts)


def _by_lists(pattern: Pattern, specialization: Specialization, program: Program) -> list[Program]:
    """The programs whose kernels read lists of tiles, where closed-form ranges are not exact."""
    if all(launch.exact for launch in program.launches):
        return []
    kinds: tuple[WalkKind, ...] = ("lists", "ordered")
    walks = [tuple("ranges" if launch.exact else kind for launch in program.launches) for kind in kinds]
    return [program_for(pattern, replace(specialization, walks=each), MANY_QUERIES) for each in walks]


def level_named(target: str) -> CpuLevel:
    """The level of a target `cpu:LEVEL`."""
    return cast("CpuLevel", target.removeprefix("cpu:"))


def _compiled(kernel: CppText) -> CppLibrary:
    from attnlang.runtime.cpp_build import LIBRARY, build
    from attnlang.runtime.cpp_cross import compiler_for

    cache = kernel_cache()
    compiler = compiler_for(level_named(kernel.target), cache)
    start = time.perf_counter()
    entry = build(kernel.source, cache, compiler)
    seconds = time.perf_counter() - start
    return CppLibrary(
        kernel.name,
        kernel.target,
        kernel.source,
        entry.files[LIBRARY],
        compiler.version,
        seconds,
        entry.origin,
    )
