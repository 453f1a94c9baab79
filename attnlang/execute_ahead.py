"""Ahead of time: a pattern's kernels for a GPU that need not be there, with what they cost, kept in the cache."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from attnlang.artifact import KernelSource
from attnlang.errors_driver import MissingArgument
from attnlang.execute_programs import NoKernel, kernel_cache, plan_for, printed
from attnlang.ir.kernel import Type
from attnlang.ir.pattern import Pattern
from attnlang.ir.plan import Plan, Specialization
from attnlang.watch import debug, dump

if TYPE_CHECKING:
    from attnlang.runtime.cache import Built
    from attnlang.runtime.triton_aot import AotKernel

GpuTarget = Literal["cuda:80", "cuda:86", "cuda:89", "cuda:90", "cuda:100", "cuda:120", "hip:gfx942"]


@dataclass(frozen=True)
class Compiled:
    """A pattern compiled ahead of time. The properties are those of its first kernel; `kernels` has one for each
    attention. Registers are per thread, spills and shared memory in bytes."""

    pattern: str
    target: str
    source: str
    kernels: tuple[AotKernel, ...]
    plan: Plan

    @property
    def ptx(self) -> str:
        """PTX (AMD assembly on hip targets)."""
        return "\n".join(kernel.ptx for kernel in self.kernels)

    @property
    def cubin(self) -> bytes:
        """The machine code of the first kernel."""
        return self.kernels[0].cubin

    @property
    def registers(self) -> int:
        """Registers per thread."""
        return self.kernels[0].registers

    @property
    def spills(self) -> int:
        """Bytes of spill stores per thread."""
        return self.kernels[0].spill_stores_bytes

    @property
    def shared(self) -> int:
        """Bytes of shared memory of one program."""
        return self.kernels[0].shared_bytes

    def problems(self) -> list[str]:
        """What a kernel loses on this target, a sentence each; empty is good."""
        return [f"{kernel.name}: {problem}" for kernel in self.kernels for problem in kernel.problems()]


def compile_ahead(
    pattern: Pattern,
    target: str,
    head_dim: int,
    value_dim: int,
    dtype: Type,
    statics: Mapping[str, bool | int | float],
    *,
    lse: bool = False,
) -> Compiled:
    """Compiles for a target without a GPU, for 65 queries or more, innermost strides 1, aligned to 16 bytes."""
    from attnlang.passes.specialize import reads_lse

    specialization = Specialization(
        target, dtype, head_dim, value_dim, shaping(pattern, statics), lse=lse or reads_lse(pattern)
    )
    plan = plan_for(pattern, specialization, 128)
    if not plan.branches:
        raise NoKernel(None, pattern=pattern.name, target=target, reason=plan.decisions[0].reason)
    sources = [source for _, source, _ in printed(plan)]
    kernels = tuple(_compiled(pattern.name, source, target) for source in sources)
    for kernel in kernels:
        dump(pattern.name, f"7-{kernel.name}.{'ptx' if target.startswith('cuda') else 'amdgcn'}", kernel.ptx)
    return Compiled(pattern.name, target, "\n\n".join(source.text for source in sources), kernels, plan)


def shaping(
    pattern: Pattern, known: Mapping[str, bool | int | float]
) -> tuple[tuple[str, bool | int | float], ...]:
    """The parameters that shape the code, with their values; raises MissingArgument where one is not known."""
    from attnlang.passes.specialize import static_parameters

    names = static_parameters(pattern)
    missing = [name for name in names if name not in known]
    if missing:
        advice = "it shapes the code of the kernel"
        raise MissingArgument(None, advice, pattern=pattern.name, kind="parameter", name=missing[0])
    return tuple((name, known[name]) for name in names)


def _compiled(name: str, source: KernelSource, target: str) -> AotKernel:
    """The machine code of a kernel and its report, from the cache or compiled now."""
    from attnlang.runtime.key import content_key, environment_parts
    from attnlang.runtime.triton_aot import AotKernel, aot_compile

    def build() -> Built:
        kernel = aot_compile(source, target, divisible_by_16=aligned(source))
        numbers = {
            key: value for key, value in asdict(kernel).items() if key not in ("ptx", "cubin", "ttgir")
        }
        files = {
            "report.json": json.dumps(numbers).encode(),
            "kernel.ptx": kernel.ptx.encode(),
            "kernel.cubin": kernel.cubin,
            "kernel.ttgir": kernel.ttgir.encode(),
        }
        return files, {"pattern": name, "target": target, "kind": "machine code"}

    parts = {"kind": "ahead", "source": source.digest, "aligned": sorted(aligned(source)), "target": target}
    entry = kernel_cache().get_or_build(content_key({**parts, **environment_parts(target)}), build)
    debug("cache", f"{source.name} for {target}: {entry.origin}")
    files = entry.files
    numbers: dict[str, Any] = json.loads(files["report.json"])
    ptx, ttgir = files["kernel.ptx"].decode(), files["kernel.ttgir"].decode()
    return AotKernel(**numbers, ptx=ptx, ttgir=ttgir, cubin=files["kernel.cubin"])


def aligned(source: KernelSource) -> frozenset[str]:
    """Pointers to tensors as PyTorch allocates them, and strides of rows: multiples of 16."""
    return frozenset(a.name for a in source.arguments if a.kind == "pointer" or "_stride_" in a.name)
