"""The name of a compiled kernel: a digest of everything that its code depends on, and of nothing else."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias, cast

CACHE_FORMAT = 1
"""Number of the layout on disk; raise it whenever `cache_store` writes something else than before."""

Part: TypeAlias = "bool | int | float | str | bytes | Sequence[Part] | Mapping[str, Part] | None"

_SOURCE_SUFFIXES = (".py", ".lark", ".attn")
_DISTRIBUTIONS = {
    "attnlang": ("attnlang",),
    "torch": ("torch",),
    "triton": ("triton", "pytorch-triton", "pytorch-triton-rocm", "pytorch-triton-xpu", "triton-windows"),
}


def content_key(parts: Mapping[str, Part]) -> str:
    """The SHA-256 of `parts` in a canonical encoding, as 64 hexadecimal digits.

        >>> content_key({"target": "cpu", "head_dim": 64}) == content_key({"head_dim": 64, "target": "cpu"})
        True

    Two mappings have the same key exactly when they hold the same names and, under each, values of the same
    type and content: `1`, `1.0`, `True` and `"1"` differ, and so do `0.0` and `-0.0`; a list and a tuple with
    equal items do not. Neither the order of a mapping nor the process' hash seed plays a part.
    TypeError: a value of another type, or a name that is not a string.
    """
    digest = hashlib.sha256()
    for piece in _encoded(parts):
        digest.update(piece)
    return digest.hexdigest()


def _encoded(parts: Part) -> Iterator[bytes]:
    """`parts` as a sequence of tagged, self-delimiting pieces; only memory limits its depth."""
    waiting: list[Part] = [parts]
    while waiting:
        part = waiting.pop()
        match part:
            case None:
                yield b"n"
            case bool():
                yield b"t" if part else b"f"
            case int():
                yield b"i%s;" % format(part, "x").encode()
            case float():
                yield b"d" + struct.pack(">d", math.nan if math.isnan(part) else part)
            case str():
                text = part.encode("utf-8", "surrogatepass")
                yield b"s%d:%s" % (len(text), text)
            case bytes():
                yield b"b%d:%s" % (len(part), part)
            case Mapping():
                yield b"m%d:" % len(part)
                for name in sorted(_names(part), reverse=True):
                    waiting += (part[name], name)
            case Sequence() if not isinstance(part, bytearray | memoryview):
                yield b"l%d:" % len(part)
                waiting.extend(reversed(part))
            case _:
                raise TypeError(f"a kernel's key cannot be made of a {type(part).__name__}")


def _names(part: Mapping[str, Part]) -> list[str]:
    names = list(cast("Mapping[object, Part]", part))
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"a name in a kernel's key is a string, not a {type(name).__name__}")
    return cast("list[str]", names)


def environment_parts(target: str) -> dict[str, str]:
    """What a kernel for `target` ("cuda:90", "cpu", …) owes to this installation, as parts of its key.

    Kernels of two environments that differ in any of these never stand for each other. Versions come from the
    packages' metadata: neither torch nor triton is imported. A package that is not installed is "absent".
    """
    parts = {name: _version(distributions) for name, distributions in _DISTRIBUTIONS.items()}
    parts["attnlang_source"] = _source_digest()
    parts["python"] = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}"
    parts["platform"] = sysconfig.get_platform()
    parts["cache_format"] = str(CACHE_FORMAT)
    if target.partition(":")[0] == "cpu":
        parts["cpu_flags"] = cpu_flags()
    return parts


def _version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "absent"


@cache
def _source_digest() -> str:
    """A digest of attnlang's own files: work on a checkout changes its code, not its version."""
    spec = importlib.util.find_spec("attnlang")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    return content_key({str(number): _sources(Path(folder)) for number, folder in enumerate(sorted(folders))})


def _sources(folder: Path) -> dict[str, bytes]:
    """Every source file below `folder`, by relative name; links are followed, for a checkout has three."""
    found: dict[str, bytes] = {}
    for parent, below, names in os.walk(folder, followlinks=True):
        below[:] = [name for name in below if name != "__pycache__"]
        for name in names:
            if name.endswith(_SOURCE_SUFFIXES):
                path = Path(parent, name)
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


@cache
def cpu_flags() -> str:
    """The instruction sets that every core of this machine has, in a stable order, separated by spaces.

    Where the system does not list them, the processor's full name, which determines them.
    """
    try:
        listing = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _processor_name()
    return flags_of_listing(listing) or _processor_name()


def flags_of_listing(listing: str) -> str:
    """The flags common to all cores in the text of Linux' /proc/cpuinfo; "" when it names none."""
    lines = {line for line in listing.splitlines() if line.partition(":")[0].strip() in ("flags", "Features")}
    cores = [set(line.partition(":")[2].split()) for line in lines]
    return " ".join(sorted(set[str].intersection(*cores))) if cores else ""


def _processor_name() -> str:
    if sys.platform == "darwin":
        command = ("sysctl", "-n", "machdep.cpu.brand_string")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
            return done.stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return platform.machine()
    return platform.processor() or platform.machine()
