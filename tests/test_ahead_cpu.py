"""Kernels of CPUs ahead of time: for every level of vector instructions, and found by the calls that come later."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest

import attnlang
from attnlang import Pattern, compiler, settings
from attnlang.call_ahead import bind_ahead
from attnlang.call_interface import Interface
from attnlang.errors import AttnlangError
from attnlang.errors_driver import MissingArgument
from attnlang.execute_ahead_cpu import CompiledCpp
from attnlang.execute_programs import NoKernel, kernel_cache, native_level
from attnlang.runtime import cpp_cross, cpp_report
from attnlang.runtime.cpp_build import LIBRARY, TEXT
from attnlang.runtime.cpp_compiler import X86
from attnlang.runtime.cpp_cross import listed_level, printed_level
from attnlang.runtime.cpp_errors import CompilerMissing, LevelNotCompiled
from attnlang.settings import CPU_LEVELS, CpuLevel
from tests.ahead_compilers import counting, narrow, needs_scripts, needs_x86, real
from tests.catalogue import EXAMPLES
from tests.cpp_kernels import needs_compiler
from tests.kernel_calls import error, inputs

needs_disassembler = pytest.mark.skipif(not any(map(which, cpp_report.NAMES)), reason="no disassembler here")
WINDOW = attnlang.load(EXAMPLES / "sliding_window.attn")
DOCUMENT = attnlang.load(EXAMPLES / "document.attn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path) -> Iterator[None]:
    """A cache for each test."""
    with settings.override(cache_directory=tmp_path / "kernels", compiler=None, cpu_level=None):
        yield


def printed(pattern: Pattern, target: str, dtype: str = "bf16") -> str:
    """The C++ of a pattern, not compiled."""
    calls = bind_ahead(Interface(pattern.ir), 32, None, dtype, False, {})
    return compiler.print_ahead(pattern.ir, target, calls).kernels[0].text


# ------------------------------------------------------------------------------------ found by later calls

CALLS = """
import sys, torch, attnlang
from pathlib import Path

examples, (dim,) = Path(sys.argv[1]), map(int, sys.argv[2:])

def call(name, dtype, n, lse=False, **arguments):
    q, k, v = (torch.randn(1, 2, n, dim).to(dtype) for _ in range(3))
    attnlang.load(examples / f"{name}.attn")(q, k, v, target="cpu", return_lse=lse, **arguments)

ids = torch.arange(2048)[None] // 100
call("sliding_window", torch.bfloat16, 200, window=64)
call("sliding_window", torch.bfloat16, 333, window=7)
call("sliding_window", torch.float64, 200, window=64)
call("alibi", torch.float16, 100, True, slopes=torch.rand(2))
call("document", torch.float32, 100, ids=ids[:, :100])     # so short that ranges will do
call("document", torch.float32, 2048, ids=ids)             # by lists of tiles
call("neighborhood_2d", torch.float32, 4096, height=64, width=64)  # in another order of tokens
call("windowed_query", torch.float32, 100)
"""
AHEAD = (
    ("sliding_window", "bf16", {}, 1),
    ("sliding_window", "fp64", {}, 1),
    ("alibi", "fp16", {"return_lse": True}, 1),
    ("document", "fp32", {}, 3),
    ("neighborhood_2d", "fp32", {}, 3),
    ("windowed_query", "fp32", {}, 2),
)
"""Pattern, type, arguments, and how many kernels it has: three where calls choose how tiles are found."""


@needs_compiler
@needs_scripts
def test_calls_of_later_processes_compile_nothing(tmp_path: Path) -> None:
    counted = counting(tmp_path)
    with settings.override(compiler=counted.command):
        for name, dtype, arguments, kernels in AHEAD:
            pattern = attnlang.load(EXAMPLES / f"{name}.attn")
            made = pattern.compile(target="cpu", head_dim=32, dtype=dtype, **arguments)
            assert [kernel.origin for kernel in made.kernels] == ["built"] * kernels
    total = sum(kernels for *_, kernels in AHEAD)
    assert counted.compiled == total
    assert called(counted.command, tmp_path, 32) == 0
    assert counted.compiled == total
    assert called(counted.command, tmp_path, 16) == 0  # another shape class: nothing is there for it
    assert counted.compiled > total


def called(compiler: str, folder: Path, dim: int) -> int:
    """Makes the calls in another process."""
    environment = {"CXX": compiler, "ATTNLANG_CACHE_DIR": str(folder / "kernels")}
    command = [sys.executable, "-c", CALLS, str(EXAMPLES), str(dim)]
    root = Path(__file__).resolve().parent.parent
    return subprocess.run(command, env={**os.environ, **environment}, cwd=root, check=False).returncode


@needs_compiler
@needs_scripts
def test_a_call_of_this_process_compiles_nothing(tmp_path: Path) -> None:
    counted = counting(tmp_path)
    pattern = attnlang.parse("pattern p():\n    mask q - k <= 4321 and k <= q + 1234\n")
    q, k, v = inputs(80, 80, D=24)
    with settings.override(compiler=counted.command):
        pattern.compile(target="cpu", head_dim=24, dtype="fp32")
        assert counted.compiled == 1
        out = pattern(q, k, v, target="cpu")
        assert counted.compiled == 1
        pattern(q[:, :, -33:], k, v, target="cpu")
        assert counted.compiled == 1
        pattern(q[:, :, -32:], k, v, target="cpu")  # up to 32 queries are a class of their own
        assert counted.compiled == 2
    assert error(out, pattern.reference(q, k, v)) <= 1e-5


@needs_compiler
def test_the_library_is_the_one_in_the_cache() -> None:
    made = WINDOW.compile(target="cpu", head_dim=32)
    entries = [kernel_cache().get(info.key) for info in kernel_cache().entries() if is_binary(info.note)]
    (files,) = [entry.files for entry in entries if entry is not None]
    assert (files[LIBRARY], files[TEXT].decode()) == (made.library, made.source)
    again = WINDOW.compile(target="cpu", head_dim=32)
    assert (again.library, again.kernels[0].origin) == (made.library, "memory")


def is_binary(note: Any) -> bool:
    """Whether an entry of the cache is a library."""
    return note["kind"] == "binary"


@needs_compiler
@needs_scripts
def test_the_text_is_all_that_a_compiler_needs(tmp_path: Path) -> None:
    made = DOCUMENT.compile(target="cpu:portable", head_dim=16, dtype="fp32")
    assert [kernel.name for kernel in made.kernels] == [
        "document_forward", "document_forward_lists", "document_forward_ordered",
    ]  # fmt: skip
    for kernel in made.kernels:
        file, library = tmp_path / f"{kernel.name}.cpp", tmp_path / f"{kernel.name}.so"
        file.write_text(kernel.text)
        subprocess.run([real(), "-w", "-shared", "-fPIC", str(file), "-o", str(library)], check=True)
        assert hasattr(ctypes.CDLL(str(library)), f"{kernel.name}_run")
        assert kernel.text in made.source and "mask document(ids)" in kernel.text


# ------------------------------------------------------------------------------------------------ levels


def levels_here() -> tuple[CpuLevel, ...]:
    """Those that this machine has."""
    return CPU_LEVELS[: CPU_LEVELS.index(native_level()) + 1]


@needs_compiler
@needs_disassembler
@needs_x86
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_every_level_uses_its_instructions(dtype: str) -> None:
    assert WINDOW.compile(target="cpu", head_dim=32, dtype=dtype).target == f"cpu:{native_level()}"
    for level, size in zip(CPU_LEVELS, (16, 32, 64, 64), strict=True):
        made = WINDOW.compile(target=f"cpu:{level}", head_dim=32, dtype=dtype)
        assert isinstance(made, CompiledCpp) and made.target == f"cpu:{level}"
        (kernel,) = made.kernels
        assert kernel.vector_bytes == size and made.library.startswith(b"\x7fELF")
        assert kernel.instructions is not None
        assert (kernel.instructions.multiply_adds > 0) == (level != "portable")
        assert (kernel.instructions.bf16_dots > 0) == ((level, dtype) == ("avx512bf16", "bf16"))


@needs_compiler
def test_calls_at_a_narrower_level_find_their_kernel() -> None:
    for level in levels_here():
        named = WINDOW.compile(target=f"cpu:{level}", head_dim=16, dtype="fp32")
        assert isinstance(named, CompiledCpp)
        with settings.override(cpu_level=level):
            here = WINDOW.compile(target="cpu", head_dim=16, dtype="fp32")
            assert (here.target, here.kernels[0].origin) == (named.target, "memory")


@needs_compiler
def test_the_target_of_the_settings_is_the_one_compiled_for() -> None:
    with settings.override(target="cpu", cpu_level="portable"):
        made = WINDOW.compile(head_dim=16)
    assert isinstance(made, CompiledCpp) and made.target == "cpu:portable"


@needs_compiler
@needs_scripts
@needs_x86
def test_a_level_that_the_machine_lacks_is_compiled_all_the_same(tmp_path: Path) -> None:
    with settings.override(compiler=narrow(tmp_path)):
        assert WINDOW.compile(target="cpu", head_dim=32).target == "cpu:avx2"
        for level in ("avx512", "avx512bf16"):
            made = WINDOW.compile(target=f"cpu:{level}", head_dim=32)
            assert isinstance(made, CompiledCpp)
            assert made.target == f"cpu:{level}" and made.kernels[0].origin == "built"
            assert made.source == printed(WINDOW, f"cpu:{level}")


@needs_compiler
@needs_scripts
@needs_x86
@pytest.mark.parametrize(
    ("knows", "reason"),
    [
        ({"refuses": "-mavx512bf16"}, "error: unrecognized option -mavx512bf16"),
        ({"ignores": "-mavx512*"}, f"it has no flags for them on {platform.machine()}"),
    ],
)
def test_a_level_that_the_compiler_does_not_know(tmp_path: Path, knows: dict[str, str], reason: str) -> None:
    with settings.override(compiler=narrow(tmp_path, **knows)):
        with pytest.raises(LevelNotCompiled) as told:
            WINDOW.compile(target="cpu:avx512bf16", head_dim=32)
        assert str(told.value).splitlines()[0].endswith(f" makes no code for cpu:avx512bf16: {reason}")
        assert "--emit cpp" in str(told.value)
        assert "sliding_window_forward_run" in printed(WINDOW, "cpu:avx512bf16")


# ------------------------------------------------------------------------------------ without a compiler


def test_without_a_compiler_there_is_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with settings.override(compiler="no-such-compiler"):
        with pytest.raises(CompilerMissing, match="no-such-compiler"):
            WINDOW.compile(target="cpu:avx2")
        assert "sliding_window_forward_run" in printed(WINDOW, "cpu:avx2")
        monkeypatch.setattr(cpp_cross, "cpu_flags", lambda: "fpu sse2 avx2 fma f16c")
        assert "cpu:avx2" in printed(WINDOW, "cpu") or platform.machine().lower() not in X86
        with settings.override(cpu_level="portable"):
            assert "cpu:portable" in printed(WINDOW, "cpu")
        monkeypatch.setattr(cpp_cross, "listed_level", lambda flags, machine: None)
        with pytest.raises(CompilerMissing):
            printed(WINDOW, "cpu")


def test_the_level_of_a_processor_from_its_flags() -> None:
    wide = "sse2 avx2 fma f16c avx512f avx512bw avx512dq avx512vl"
    assert listed_level(f"{wide} avx512_bf16", "x86_64") == "avx512bf16"
    assert listed_level(wide, "AMD64") == "avx512"
    assert listed_level("sse2 avx2 fma f16c avx512f", "x86_64") == "avx2"
    assert listed_level("sse2 avx2 fma", "x86_64") == "portable"
    assert listed_level("Some Processor @ 2.60GHz", "x86_64") is None
    assert listed_level("asimd fp bf16", "aarch64") == "portable"


@needs_compiler
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="no list of flags")
def test_the_level_of_this_processor_is_that_of_its_compiler() -> None:
    found = native_level()
    with settings.override(compiler="no-such-compiler"):
        assert CPU_LEVELS.index(printed_level(kernel_cache())) >= CPU_LEVELS.index(found)


# ---------------------------------------------------------------------------------------------- mistakes


@needs_compiler
def test_what_cannot_be_compiled_is_told_at_once() -> None:
    with pytest.raises(NoKernel, match="no kernel on cpu yet"):
        attnlang.load(EXAMPLES / "sinkhorn.attn").compile(target="cpu")
    shaped = attnlang.parse("pattern p(wide: bool):\n    mask k <= q or wide\n")
    with pytest.raises(MissingArgument, match="it shapes the code"):
        shaped.compile(target="cpu")
    with pytest.raises(AttnlangError, match="windw"):
        WINDOW.compile(target="cpu", windw=3)
