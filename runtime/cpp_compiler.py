"""The machine's C++ compiler: which one, what it makes of this processor, and the flags that kernels get.

    compiler = find_compiler(cache)
    compiler.level                          # "avx512bf16": what to print for
    compiler.command("kernel.cpp", "kernel.so")

What a compiler knows is asked of its preprocessor once and kept in the kernel cache for later processes: the macros
that it predefines for this processor name its version and every instruction set that it would use.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from attnlang.settings import CPU_LEVELS, CpuLevel, options

from . import key
from .cache import Built, Cache
from .cpp_errors import CompilerMissing, LevelMissing

NAMES = ("g++", "clang++", "c++")

X86 = ("x86_64", "amd64", "i686", "x86")
_FAMILIES = {
    "x86_64": "__x86_64__",
    "amd64": "__x86_64__",
    "aarch64": "__aarch64__",
    "arm64": "__aarch64__",
}
"""What a compiler for a machine of that name defines."""

_NATIVE = (("-march=native",), ("-mcpu=native",), ())
"""How this processor is asked for; ARM compilers understand the second, some the first too."""

_NEEDS: dict[CpuLevel, tuple[str, ...]] = {
    "avx512bf16": (
        "__AVX512BF16__",
        "__AVX512F__",
        "__AVX512BW__",
        "__AVX512DQ__",
        "__AVX512VL__",
        "__FMA__",
    ),
    "avx512": (
        "__AVX512F__",
        "__AVX512BW__",
        "__AVX512DQ__",
        "__AVX512VL__",
        "__AVX2__",
        "__FMA__",
        "__F16C__",
    ),
    "avx2": ("__AVX2__", "__FMA__", "__F16C__"),
    "portable": (),
}
_WITHOUT: dict[CpuLevel, tuple[str, ...]] = {
    "avx512bf16": (),
    "avx512": ("-mno-avx512bf16",),
    "avx2": ("-mno-avx512f",),
    "portable": (),
}
"""What takes the wider instructions away from a processor that has them."""

_FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fno-exceptions",
    "-fno-rtti",
    "-fvisibility=hidden",
    "-w",
    "-shared",
)
"""Rounding, NaN and infinities stay as the kernel says; only errno and traps, which nobody reads, are given up."""

_GCC_FLAGS = ("-fno-split-loops",)
"""Kernels have split their loops themselves; looking for more was measured at a quarter of a compilation's time."""


@dataclass(frozen=True)
class Compiler:
    """`words` start it; `version` names it to a reader; `level` is the widest vector form that it may be given;
    `flags` choose the instructions of that level; `identity` is a digest of all that it predefines."""

    words: tuple[str, ...]
    version: str
    level: CpuLevel
    flags: tuple[str, ...]
    identity: str

    def command(self, text: str, library: str) -> list[str]:
        """What compiles the file `text` to the shared library `library`."""
        position = () if sys.platform == "win32" else ("-fPIC",)
        return [*self.words, *_FLAGS, *position, *self.flags, text, "-o", library]

    @property
    def parts(self) -> dict[str, key.Part]:
        """What a kernel's key owes to the compiler and the processor."""
        return {
            "compiler": self.identity,
            "command": self.command("", ""),
            "cpu": key.cpu_flags(),
            "platform": f"{sys.platform}-{platform.machine()}",
        }


def find_compiler(cache: Cache, wanted: CpuLevel | None = None) -> Compiler:
    """The compiler that CXX names, else the first of g++, clang++ and c++ that is installed and runs.

    `wanted`: a level in place of ATTNLANG_CPU_LEVEL. CompilerMissing: there is none. LevelMissing: the processor has
    less than the level.
    """
    named, level = options().compiler, wanted or options().cpu_level
    question = (named, level, cache.path)
    if question not in _found:
        _found[question] = _limited(_first(named, cache), level)
    return _found[question]


_found: dict[tuple[str | None, CpuLevel | None, Path], Compiler] = {}


@dataclass(frozen=True)
class _Known:
    """The answer of a compiler about itself and this processor."""

    words: tuple[str, ...]
    version: str
    native: tuple[str, ...]
    level: CpuLevel
    identity: str


def _first(named: str | None, cache: Cache) -> _Known:
    if named is not None:
        try:
            words = tuple(shlex.split(named))
        except ValueError:
            raise CompilerMissing(f"CXX={named!r} is not a command: a quotation mark is missing") from None
        if not words or shutil.which(words[0]) is None:
            raise CompilerMissing(f"CXX={named!r}: there is no such program")
        return _known(words, cache)
    trouble = "there is no C++ compiler on this machine (looked for g++, clang++ and c++)"
    for name in NAMES:
        if shutil.which(name) is None:
            continue
        try:
            return _known((name,), cache)
        except CompilerMissing as error:  # a name without a compiler behind it: the next may be a real one
            trouble = error.fields["problem"]
    raise CompilerMissing(trouble)


def _known(words: tuple[str, ...], cache: Cache) -> _Known:
    """What the compiler says of itself, from the cache as long as the program and the processor are the same."""
    parts: dict[str, key.Part] = {"kind": "compiler", "words": words, "programs": _programs(words)}
    parts |= {"cpu": key.cpu_flags(), "platform": f"{sys.platform}-{platform.machine()}"}

    def build() -> Built:
        native, macros = _ask(words)
        answer = json.dumps({"native": native, "macros": macros})
        return {"compiler.json": answer.encode()}, {"pattern": shlex.join(words), "kind": "compiler"}

    entry = cache.get_or_build(key.content_key(parts), build)
    answer = json.loads(entry.files["compiler.json"])
    macros: str = answer["macros"]
    defined = macros_of(macros)
    if is_foreign(defined, platform.machine()):
        told = f"{shlex.join(words)} compiles for other processors than this one ({platform.machine()})"
        raise CompilerMissing(told)
    return _Known(
        words,
        version_of(defined),
        tuple(answer["native"]),
        level_of(defined),
        key.content_key({"macros": macros}),
    )


def _programs(words: Sequence[str]) -> list[list[str | int]]:
    """Which files the words start, with size and time of change: a compiler that was exchanged is asked again."""
    found: list[list[str | int]] = []
    for word in words:
        if path := shutil.which(word):
            real = Path(path).resolve()
            status = real.stat()
            found.append([str(real), status.st_size, status.st_mtime_ns])
    return found


def _ask(words: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """The flags for this processor that the compiler understands, and its macros under them."""
    reason = ""
    for native in _NATIVE:
        macros, reason = predefined(words, native)
        if macros:
            return native, macros
    raise CompilerMissing(f"{shlex.join(words)} is no usable C++ compiler: {reason}")


def ran(command: Sequence[str], name: str) -> subprocess.CompletedProcess[str]:
    """A run of the compiler, which errors call `name`, with what it said. Raises CompilerMissing."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, stdin=subprocess.DEVNULL
        )
    except OSError as error:
        raise CompilerMissing(f"{name} does not start: {error.strerror}") from None


def predefined(words: Sequence[str], flags: Sequence[str]) -> tuple[str, str]:
    """The macros that a compiler predefines under some flags, by `-dM -E`; nothing and why, where it refuses them."""
    done = ran([*words, *flags, "-dM", "-E", "-x", "c++", os.devnull], f"the C++ compiler {words[0]}")
    if done.returncode == 0 and "#define __cplusplus " in done.stdout:
        return done.stdout, ""
    told = (line.strip() for line in done.stderr.splitlines() if line.strip())
    return "", next(told, f"status {done.returncode}")


def macros_of(listing: str) -> dict[str, str]:
    """The macros of a listing by `-dM -E`, by name."""
    rows = (line.split(None, 2) for line in listing.splitlines() if line.startswith("#define "))
    return {row[1]: row[2] if len(row) > 2 else "" for row in rows}


def version_of(macros: Mapping[str, str]) -> str:
    """The name of the compiler as one says it: `g++ 12.2.0`, `clang++ 18.1.3`."""
    if "__clang_major__" in macros:
        numbers = (macros[f"__clang_{part}__"] for part in ("major", "minor", "patchlevel"))
        return f"clang++ {'.'.join(numbers)}"
    return f"g++ {macros.get('__VERSION__', '').strip(chr(34))}".rstrip()


def level_of(macros: Mapping[str, str]) -> CpuLevel:
    """The widest level all of whose instructions the compiler would use."""
    return next(level for level in reversed(CPU_LEVELS) if all(name in macros for name in _NEEDS[level]))


def is_foreign(macros: Mapping[str, str], machine: str) -> bool:
    """Whether a compiler makes code that this process on a machine of that name cannot load."""
    bytes_of_pointer = macros.get("__SIZEOF_POINTER__", "")
    family = _FAMILIES.get(machine.lower())
    other = family is not None and family not in macros
    return other or (bytes_of_pointer != "" and int(bytes_of_pointer) != struct.calcsize("P"))


def _limited(known: _Known, wanted: CpuLevel | None) -> Compiler:
    level = wanted or known.level
    if CPU_LEVELS.index(level) > CPU_LEVELS.index(known.level):
        asked = f"ATTNLANG_CPU_LEVEL={level}"
        raise LevelMissing(asked=asked, compiler=known.version, widest=known.level)
    flags = known.native if level == known.level else (*known.native, *_WITHOUT[level])
    if level == "portable" and platform.machine().lower() in X86:
        flags = ()  # what every processor of this family has
    extra = _GCC_FLAGS if known.version.startswith("g++") else ()
    return Compiler(known.words, known.version, level, (*extra, *flags), known.identity)
