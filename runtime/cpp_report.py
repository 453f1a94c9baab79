"""What a compiled kernel's machine code does most: counted in its disassembly, where the machine has a disassembler."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .cpp_compiler import X86

NAMES = ("objdump", "llvm-objdump")
_MULTIPLY_ADD = re.compile(r"\tvfn?m(?:add|sub)\d{3}[ps][sd]\b")
_BF16_DOT = re.compile(r"\tvdpbf16ps\b")


@dataclass(frozen=True)
class Instructions:
    """How many stand in the code, each once however often it runs: fused multiply-adds, and dots of bfloat16 pairs."""

    multiply_adds: int
    bf16_dots: int


def instructions_of(library: bytes) -> Instructions | None:
    """The counts of a shared library; None without a disassembler, and on other processors than x86."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None or platform.machine().lower() not in X86:
        return None
    with tempfile.TemporaryDirectory(prefix="attnlang-cpp-") as folder:
        file = Path(folder, "kernel.so")
        file.write_bytes(library)
        done = subprocess.run(
            [program, "-d", "--no-show-raw-insn", str(file)],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode != 0:
        return None
    return Instructions(len(_MULTIPLY_ADD.findall(done.stdout)), len(_BF16_DOT.findall(done.stdout)))
