"""Compilers as scripts around the machine's own: one that counts what it compiles, and some that know less."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from shutil import which

import pytest

from attnlang.runtime.cpp_compiler import NAMES, X86

needs_scripts = pytest.mark.skipif(os.name != "posix", reason="shell scripts")
needs_x86 = pytest.mark.skipif(platform.machine().lower() not in X86, reason="vector levels of x86")


def real() -> str:
    """The machine's compiler."""
    return next(path for path in map(which, NAMES) if path)


@dataclass(frozen=True)
class Counting:
    """A compiler that notes each library that it makes."""

    command: str
    log: Path

    @property
    def compiled(self) -> int:
        """How many libraries were made."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def counting(folder: Path) -> Counting:
    """The machine's compiler, counted."""
    log = folder / "compiled.txt"
    script = _script(folder, f'case " $* " in *" -shared "*) echo "$*" >> {log};; esac\nexec {real()} "$@"')
    return Counting(script, log)


def narrow(folder: Path, *, refuses: str = "", ignores: str = "no-flag") -> str:
    """A compiler on a processor with AVX2 only; it may end with an error on a flag, or leave flags out unsaid."""
    refusal = f'"{refuses}") echo "error: unrecognized option {refuses}" >&2; exit 1;;' if refuses else ""
    lines = [
        "flags=",
        'for word in "$@"; do case "$word" in',
        '"-march=native"|"-mcpu=native") flags="$flags -march=haswell";;',
        refusal,
        f"{ignores}) ;;",
        '*) flags="$flags $word";;',
        "esac; done",
        f"exec {real()} $flags",
    ]
    return _script(folder, "\n".join(lines))


def _script(folder: Path, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)
