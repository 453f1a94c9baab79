"""The levels of vector instructions a kernel can be made for ahead of time, also where this machine lacks them.

A level that the machine has is compiled as its own calls compile it, and found by them in the cache. For any other the
same compiler is told which instructions to use, and asked whether it knows them.
"""

from __future__ import annotations

import platform
from dataclasses import replace

from attnlang.settings import CPU_LEVELS, CpuLevel, options

from .cache import Cache
from .cpp_compiler import X86, Compiler, find_compiler, level_of, macros_of, predefined
from .cpp_errors import CompilerMissing, LevelMissing, LevelNotCompiled
from .key import content_key, cpu_flags

_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
_FLAGS: dict[CpuLevel, tuple[str, ...]] = {
    "portable": (),
    "avx2": _AVX2,
    "avx512": _AVX512,
    "avx512bf16": (*_AVX512, "-mavx512bf16"),
}
"""What names the instructions of a level to a compiler for any processor of the family."""


def compiler_for(level: CpuLevel, cache: Cache) -> Compiler:
    """The compiler of this machine with the flags for a level. Raises CompilerMissing, LevelNotCompiled."""
    try:
        return find_compiler(cache, level)
    except LevelMissing:
        return _crossed(level, cache)


def _crossed(level: CpuLevel, cache: Cache) -> Compiler:
    basic = find_compiler(cache, "portable")
    flags = (*basic.flags, *_FLAGS[level])
    macros, reason = predefined(basic.words, flags)
    if not macros or CPU_LEVELS.index(level_of(macros_of(macros))) < CPU_LEVELS.index(level):
        reason = reason or f"it has no flags for them on {platform.machine()}"
        raise LevelNotCompiled(level=level, compiler=basic.version, reason=reason)
    return replace(basic, level=level, flags=flags, identity=content_key({"macros": macros}))


def printed_level(cache: Cache) -> CpuLevel:
    """The level of this machine's kernels. Without a compiler it is what the system says of the processor: enough to
    print for. Raises LevelMissing, and CompilerMissing where the system does not say it."""
    try:
        return find_compiler(cache).level
    except CompilerMissing:
        level = options().cpu_level or listed_level(cpu_flags(), platform.machine())
        if level is None:
            raise
        return level


def listed_level(flags: str, machine: str) -> CpuLevel | None:
    """The widest level of a processor by its flags as Linux lists them; None where they are no such list."""
    if machine.lower() not in X86:
        return "portable"
    named = flags.split()
    if "sse2" not in named:  # which they all have: this is the name of a processor
        return None
    return level_of({f"__{flag.replace('_', '').upper()}__": "1" for flag in named})
