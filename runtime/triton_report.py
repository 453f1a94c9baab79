"""What a compiled kernel costs, read back from its machine code without a GPU."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .triton_loops import Instruction, amd_instructions, innermost_loops, sass_instructions

_WGMMA = ("HGMMA", "IGMMA", "QGMMA", "BGMMA")
_MMA = ("HMMA", "IMMA", "DMMA", "QMMA", "OMMA", "UTCHMMA", "UTCIMMA", "UTCQMMA", "UTCOMMA", "UTCMMA")
_LOCAL = ("LDL", "STL")
_DOT = re.compile(r"tt\.dot [^:]*?(?:inputPrecision = (\w+))?[^:]*: tensor<(\d+)x\d+x(\w+), ")
_WGMMA_TYPES = ("f16", "bf16", "f8E4M3FN", "f8E5M2", "i8")


@dataclass(frozen=True)
class MachineCode:
    """Facts counted in the machine code and in its assembler's log. Spills in bytes for each thread."""

    registers: int
    spill_stores_bytes: int
    spill_loads_bytes: int
    stack_bytes: int
    wgmma_count: int
    mma_count: int
    wgmma_serialized: bool
    hot_loop_spills: int


def read_sass(sass: str, ptxas_log: str, resources: str) -> MachineCode:
    """From `cuobjdump -sass`, `ptxas -v` and `cuobjdump -res-usage` of one kernel."""
    code = sass_instructions(sass)
    opcodes = [instruction.opcode.split(".")[0] for instruction in code]
    return MachineCode(
        registers=_number(r"REG:(\d+)", resources),
        spill_stores_bytes=_number(r"(\d+) bytes spill stores", ptxas_log),
        spill_loads_bytes=_number(r"(\d+) bytes spill loads", ptxas_log),
        stack_bytes=_number(r"STACK:(\d+)", resources),
        wgmma_count=sum(opcode in _WGMMA for opcode in opcodes),
        mma_count=sum(opcode in _MMA for opcode in opcodes),
        wgmma_serialized="wgmma.mma_async instructions are serialized" in ptxas_log,
        hot_loop_spills=_hot_spills(code, _LOCAL),
    )


def read_amd(assembly: str) -> MachineCode:
    """From the assembly and metadata that LLVM prints for an AMD kernel."""
    code = amd_instructions(assembly)
    opcodes = [instruction.opcode for instruction in code]
    stack = _number(r"\.private_segment_fixed_size: *(\d+)", assembly)
    stores = sum(opcode.startswith("scratch_store") for opcode in opcodes)
    spilled = 4 * _number(r"\.vgpr_spill_count: *(\d+)", assembly)
    return MachineCode(
        registers=_number(r"\.vgpr_count: *(\d+)", assembly),
        spill_stores_bytes=spilled if stores else 0,
        spill_loads_bytes=spilled if any(opcode.startswith("scratch_load") for opcode in opcodes) else 0,
        stack_bytes=stack,
        wgmma_count=0,
        mma_count=sum(opcode.startswith(("v_mfma", "v_smfmac", "v_wmma")) for opcode in opcodes),
        wgmma_serialized=False,
        hot_loop_spills=_hot_spills(code, ("scratch_load", "scratch_store")),
    )


def cuda_ctas(registers: int, warps: int, shared_bytes: int, shared_per_sm: int, most_warps: int) -> int:
    """CTAs that fit on one SM by registers (allocated by 256 a warp), shared memory (1 KiB is the system's
    own) and warps; at most 32."""
    by_registers = 65536 // (-(-32 * max(registers, 1) // 256) * 256) // warps
    return min(by_registers, shared_per_sm // (shared_bytes + 1024), most_warps // warps, 32)


def amd_ctas(assembly: str, warps: int, shared_bytes: int, shared_per_cu: int) -> int:
    """Work-groups that fit on one compute unit: LLVM's waves per SIMD on four SIMDs, and local memory."""
    waves = 4 * _number(r"; Occupancy: (\d+)", assembly)
    return min(waves // warps, shared_per_cu // shared_bytes if shared_bytes else waves)


def dots_fit_wgmma(ttgir: str) -> bool:
    """Whether a dot that was not made a warp-group one could have been: 64 rows and a 16-bit or 8-bit
    type or tf32 (and, then, a multiple of four warps)."""
    for match in _DOT.finditer(ttgir):
        rows, dtype, precision = int(match[2]), match[3], match[1]
        suits = dtype in _WGMMA_TYPES or (dtype == "f32" and precision == "tf32")
        if suits and rows >= 64:
            return True
    return False


def _hot_spills(code: list[Instruction], spilling: tuple[str, ...]) -> int:
    return sum(
        instruction.opcode.startswith(spilling) for loop in innermost_loops(code) for instruction in loop
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0
