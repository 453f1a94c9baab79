"""Compiles a kernel ahead of time for a GPU that need not be there, and says what it costs."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from attnlang.artifact import KernelSource

from .triton_errors import TritonCompileError, TritonMissing, compile_error, require, triton_version
from .triton_home import ensure_cache
from .triton_load import load, type_name
from .triton_lock import TRITON
from .triton_report import MachineCode, amd_ctas, cuda_ctas, dots_fit_wgmma, read_amd, read_sass


@dataclass(frozen=True)
class Machine:
    """A target's limits: shared memory of one CTA and of one SM in bytes, resident warps of one SM."""

    backend: str
    architecture: int | str
    threads_per_warp: int
    shared_limit_bytes: int
    shared_per_sm_bytes: int
    most_warps: int


MACHINES = {
    "cuda:80": Machine("cuda", 80, 32, 163 * 1024, 164 * 1024, 64),
    "cuda:86": Machine("cuda", 86, 32, 99 * 1024, 100 * 1024, 48),
    "cuda:89": Machine("cuda", 89, 32, 99 * 1024, 100 * 1024, 48),
    "cuda:90": Machine("cuda", 90, 32, 227 * 1024, 228 * 1024, 64),
    "cuda:100": Machine("cuda", 100, 32, 227 * 1024, 228 * 1024, 64),
    "cuda:120": Machine("cuda", 120, 32, 99 * 1024, 100 * 1024, 48),
    "hip:gfx942": Machine("hip", "gfx942", 64, 64 * 1024, 64 * 1024, 32),
}


@dataclass(frozen=True)
class AotKernel:
    """A compiled kernel. `ptx` is AMD assembly and `cubin` an HSA code object on `hip` targets; bytes of
    spills and stack are for each thread; `ctas_per_sm` is an estimate from registers, memory and warps."""

    name: str
    target: str
    ptx: str
    cubin: bytes
    ttgir: str
    registers: int
    spill_stores_bytes: int
    spill_loads_bytes: int
    stack_bytes: int
    shared_bytes: int
    shared_limit_bytes: int
    warps: int
    wgmma_count: int
    mma_count: int
    wgmma_serialized: bool
    hot_loop_spills: int
    ctas_per_sm: int

    def problems(self) -> list[str]:
        """What makes this kernel fail to launch or silently slow, a sentence each; empty is good."""
        found: list[str] = []
        if self.shared_bytes > self.shared_limit_bytes:
            found.append(
                f"it needs {self.shared_bytes} bytes of shared memory, {self.target} has "
                f"{self.shared_limit_bytes}: it cannot be launched there"
            )
        if self.hot_loop_spills:
            found.append(
                f"{self.hot_loop_spills} instructions of its innermost loops spill registers "
                f"({self.spill_stores_bytes} bytes stored, {self.spill_loads_bytes} bytes loaded in all)"
            )
        if self.target == "cuda:90" and not self.wgmma_count and dots_fit_wgmma(self.ttgir):
            why = " (they need a multiple of 4 warps)" if self.warps % 4 else ""
            found.append(f"its dots could use the warp-group instructions (wgmma) of cuda:90 but do not{why}")
        if self.wgmma_serialized:
            found.append("ptxas serialized its wgmma instructions, which is a large slowdown")
        return found


def aot_compile(
    source: KernelSource, target: str, *, divisible_by_16: frozenset[str] | None = None
) -> AotKernel:
    """Compile `source` for `target` ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942", …); no GPU is needed.

    `divisible_by_16` names the pointers that are aligned to 16 bytes and the integers that are multiples
    of 16: Triton's launch finds out from the values, here they are promised. None means all pointers.
    Safe to call from several threads. Raises `TritonCompileError`, `TritonMissing`.
    """
    machine = MACHINES.get(target)
    if machine is None:
        raise TritonCompileError(source.name, target, f"no such target, only {', '.join(MACHINES)}")
    if machine.backend == "cuda":
        tool("ptxas-blackwell" if int(machine.architecture) >= 100 else "ptxas")
    compiled = _compile(source, target, machine, divisible_by_16)
    shared, warps = int(compiled.metadata.shared), int(compiled.metadata.num_warps)
    if machine.backend == "cuda":
        text, binary = str(compiled.asm["ptx"]), bytes(compiled.asm["cubin"])
        code = _read_cubin(source.name, target, int(machine.architecture), text, binary)
        ctas = cuda_ctas(code.registers, warps, shared, machine.shared_per_sm_bytes, machine.most_warps)
    else:
        text, binary = str(compiled.asm["amdgcn"]), bytes(compiled.asm["hsaco"])
        code = read_amd(text)
        ctas = amd_ctas(text, warps, shared, machine.shared_per_sm_bytes)
    return AotKernel(
        name=source.name,
        target=target,
        ptx=text,
        cubin=binary,
        ttgir=str(compiled.asm["ttgir"]),
        registers=code.registers,
        spill_stores_bytes=code.spill_stores_bytes,
        spill_loads_bytes=code.spill_loads_bytes,
        stack_bytes=code.stack_bytes,
        shared_bytes=shared,
        shared_limit_bytes=machine.shared_limit_bytes,
        warps=warps,
        wgmma_count=code.wgmma_count,
        mma_count=code.mma_count,
        wgmma_serialized=code.wgmma_serialized,
        hot_loop_spills=code.hot_loop_spills,
        ctas_per_sm=ctas,
    )


def _compile(source: KernelSource, target: str, machine: Machine, aligned: frozenset[str] | None) -> Any:
    """Triton's `CompiledKernel`, from its own cache where that has it."""
    function = load(source)
    triton = require("triton")
    if aligned is None:
        aligned = frozenset(argument.name for argument in source.arguments if argument.kind == "pointer")
    types = {argument.name: type_name(argument) for argument in source.arguments}
    signature = {name: types.get(name, "constexpr") for name in function.arg_names}
    attributes = {
        (place,): [["tt.divisibility", 16]] for place, name in enumerate(signature) if name in aligned
    }
    ast_source = require("triton.compiler").ASTSource(function, signature, dict(source.constants), attributes)
    gpu = require("triton.backends.compiler").GPUTarget(
        machine.backend, machine.architecture, machine.threads_per_warp
    )
    options = {"num_warps": source.warps, "num_stages": source.stages}
    ensure_cache()
    with TRITON.shared():
        try:
            return triton.compile(ast_source, target=gpu, options=options)
        except Exception as error:
            raise compile_error(source.name, target, error) from error


def _read_cubin(kernel: str, target: str, architecture: int, ptx: str, cubin: bytes) -> MachineCode:
    """ptxas once more for its log (Triton shows it to nobody), cuobjdump for resources and instructions."""
    assembler = tool("ptxas-blackwell" if architecture >= 100 else "ptxas")
    extra = ["--regAllocOptLevel=2"] if triton_version() >= (3, 7) else []
    with tempfile.TemporaryDirectory(prefix="attnlang-aot-") as folder:
        text, binary = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        scratch = Path(folder, "scratch.cubin")
        text.write_text(ptx)
        binary.write_bytes(cubin)
        gpu = f"sm_{architecture}{'a' if architecture >= 90 else ''}"
        log = _run([assembler, "-v", "-lineinfo", *extra, f"--gpu-name={gpu}", str(text), "-o", str(scratch)])
        resources = _run([tool("cuobjdump"), "-res-usage", str(binary)])
        sass = _run([tool("cuobjdump"), "-sass", str(binary)])
    if "REG:" not in resources or "/*0000*/" not in sass:
        raise TritonCompileError(kernel, target, "cuobjdump could not read the compiled kernel")
    return read_sass(sass, log, resources)


def _run(command: Sequence[str]) -> str:
    """Standard output and error of a tool; what it could not do shows in what is missing from them."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


@cache
def tool(name: str) -> str:
    """The path of a CUDA tool that ships with Triton; `TritonMissing` where it does not run."""
    field = name.replace("-", "_")
    try:
        return str(getattr(require("triton.knobs").nvidia, field).path)
    except (RuntimeError, OSError):
        raise TritonMissing(what=f"the CUDA tool {name}, part of Triton's wheel,", detail="") from None
