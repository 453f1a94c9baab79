"""From a C++ kernel's text to a shared library in the kernel cache; of several processes that ask, one compiles."""

from __future__ import annotations

import tempfile
from pathlib import Path

from attnlang.artifact import KernelSource

from .cache import Built, Cache
from .cache_memory import Entry
from .cpp_compiler import Compiler, find_compiler, ran
from .cpp_errors import CppCompileError
from .cpp_wrapper import whole_text
from .key import content_key

LIBRARY = "kernel.so"
TEXT = "kernel.cpp"


def build(source: KernelSource, cache: Cache, compiler: Compiler | None = None) -> Entry:
    """The cache entry of `source`, with the files LIBRARY and TEXT; compiled if it is not there, by the compiler given
    or else by the one of this machine's calls.

    Its key holds the whole text, the compiler with its flags, and what the compiler knows of the processor: a
    library is never taken by a machine that is unlike the one for which it was made. Raises `CompilerMissing`,
    `LevelMissing`, `CppCompileError`; ValueError for a source that is no C++.
    """
    if source.language != "cpp":
        raise ValueError(f"{source.name} is {source.language}, not C++")
    compiler = compiler or find_compiler(cache)
    text = whole_text(source)
    key = content_key({"kind": "cpp", "text": text, **compiler.parts})

    def make() -> Built:
        library = _compiled(source.name, text, compiler)
        note = {"pattern": source.name, "target": f"cpu:{compiler.level}", "kind": "binary"}
        return {LIBRARY: library, TEXT: text.encode()}, note

    return cache.get_or_build(key, make)


def _compiled(kernel: str, text: str, compiler: Compiler) -> bytes:
    with tempfile.TemporaryDirectory(prefix="attnlang-cpp-") as folder:
        file, library = Path(folder, TEXT), Path(folder, LIBRARY)
        file.write_text(text, encoding="utf-8")
        done = ran(compiler.command(str(file), str(library)), compiler.version)
        if done.returncode == 0 and library.is_file():
            return library.read_bytes()
    report = (done.stderr + done.stdout).replace(f"{folder}/", "")
    raise _failure(kernel, text, compiler, report, done.returncode)


def _failure(kernel: str, text: str, compiler: Compiler, report: str, status: int) -> CppCompileError:
    """The error of a failed compilation; text and report are kept for whoever looks into it."""
    lines = [line.strip() for line in report.splitlines() if line.strip()]
    told = [line for line in lines if "error" in line.lower()] or lines
    ended = f"it was ended by signal {-status}" if status < 0 else f"status {status}, without a word"
    kept = Path(tempfile.mkdtemp(prefix="attnlang-failed-"))
    command = " ".join(compiler.command(TEXT, LIBRARY))
    (kept / TEXT).write_text(text, encoding="utf-8")
    (kept / "report.txt").write_text(f"{compiler.version}: {command}\n{report}", encoding="utf-8")
    line = told[0] if told else ended
    return CppCompileError(kernel=kernel, compiler=compiler.version, line=line, file=str(kept / TEXT))
