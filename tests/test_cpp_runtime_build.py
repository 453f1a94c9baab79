"""The compiler of CPU kernels: found, asked, limited to a level, its results kept and shared, its failures told."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from shutil import which

import pytest
import torch
from cpp_kernels import COUNT, SUM_ROWS, kernel, needs_compiler, pointer

from attnlang.errors import AttnlangError, Diagnostic
from attnlang.runtime import cpp_compiler, cpp_load, key
from attnlang.runtime.cache import Cache
from attnlang.runtime.cache_memory import Entry
from attnlang.runtime.cpp_build import LIBRARY, TEXT, build
from attnlang.runtime.cpp_compiler import find_compiler, is_foreign, level_of, macros_of, version_of
from attnlang.runtime.cpp_errors import CompilerMissing, CppCompileError, CppLoadError, LevelMissing
from attnlang.runtime.cpp_launch import CppKernel
from attnlang.settings import CPU_LEVELS, BadSetting, CpuLevel, Options, override

ROOT = Path(__file__).resolve().parent.parent
ROOM = 1 << 30


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "kernels", ROOM)


def program(path: Path, script: str) -> Path:
    """A shell script that can be run by its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def sums(source_cache: Cache) -> None:
    """Compiles and runs a kernel, and looks at what comes out."""
    x, out = torch.ones(5, 21), torch.zeros(5)
    CppKernel(SUM_ROWS, source_cache)((5, 1, 1), {"x": x, "out": out, "width": 21})
    assert out.tolist() == [21.0] * 5


# ------------------------------------------------------------------------------------ what a compiler says

GCC = """#define __VERSION__ "12.2.0"
#define __cplusplus 201703L
#define __AVX2__ 1
#define __FMA__ 1
#define __F16C__ 1
#define __EMPTY__
"""
AVX512 = "".join(f"#define __AVX512{part}__ 1\n" for part in ("F", "BW", "DQ", "VL"))
ARM_CLANG = """#define __VERSION__ "Apple LLVM 15.0.0 (clang-1500.3.9.4)"
#define __clang_major__ 15
#define __clang_minor__ 0
#define __clang_patchlevel__ 0
#define __ARM_NEON 1
"""


def test_the_level_is_the_widest_that_is_complete() -> None:
    assert level_of(macros_of(GCC)) == "avx2"
    assert level_of(macros_of(GCC + AVX512)) == "avx512"
    assert level_of(macros_of(GCC + AVX512 + "#define __AVX512BF16__ 1\n")) == "avx512bf16"
    assert level_of(macros_of(GCC + "#define __AVX512F__ 1\n#define __AVX512BF16__ 1\n")) == "avx2"
    assert level_of(macros_of(GCC.replace("__FMA__", "__OTHER__"))) == "portable"
    assert level_of(macros_of(ARM_CLANG)) == "portable"


def test_compilers_are_called_by_their_name() -> None:
    assert version_of(macros_of(GCC)) == "g++ 12.2.0"
    assert version_of(macros_of(ARM_CLANG)) == "clang++ 15.0.0"
    assert macros_of(GCC)["__EMPTY__"] == ""


def test_a_compiler_for_another_processor_is_noticed() -> None:
    here = {"__x86_64__": "1", "__SIZEOF_POINTER__": "8"}
    there = {"__aarch64__": "1", "__SIZEOF_POINTER__": "8"}
    assert not is_foreign(here, "x86_64") and not is_foreign(here, "AMD64") and not is_foreign(there, "arm64")
    assert is_foreign(here, "aarch64") and is_foreign(there, "x86_64")
    assert is_foreign(here | {"__SIZEOF_POINTER__": "4"}, "x86_64")
    assert not is_foreign({"__SIZEOF_POINTER__": "8"}, "riscv64")


def test_settings_name_compiler_and_level() -> None:
    given = Options.from_environment({"CXX": " ccache g++ ", "ATTNLANG_CPU_LEVEL": " AVX2 "})
    assert (given.compiler, given.cpu_level) == ("ccache g++", "avx2")
    empty = Options.from_environment({"CXX": " ", "ATTNLANG_CPU_LEVEL": ""})
    assert (empty.compiler, empty.cpu_level) == (None, None)
    with pytest.raises(
        BadSetting, match=r"no such level; there are portable, avx2, avx512, avx512bf16\n.*'avx2'"
    ):
        Options.from_environment({"ATTNLANG_CPU_LEVEL": "avx3"})


# ----------------------------------------------------------------------------------- finding a compiler


def test_without_a_compiler(cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        override(compiler=None),
        pytest.raises(CompilerMissing, match=r"no C\+\+ compiler on this machine") as told,
    ):
        build(COUNT, cache)
    assert 'target="eager"' in str(told.value)
    assert {"linux": "apt install g++", "darwin": "xcode-select"}.get(sys.platform, "install") in str(
        told.value
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/nowhere/g++", "CXX='/nowhere/g\\+\\+': there is no such program"),
        ("g++ 'quoted", "a quotation mark is missing"),
        (f"{sys.executable} -c 1", "is no usable C\\+\\+ compiler: status 0"),
    ],
)
def test_cxx_that_is_no_compiler(cache: Cache, named: str, said: str) -> None:
    with override(compiler=named), pytest.raises(CompilerMissing, match=said):
        find_compiler(cache)


@needs_compiler
@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
def test_the_first_name_that_works_is_taken(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = next(path for path in map(which, cpp_compiler.NAMES) if path)
    program(tmp_path / "bin" / "g++", "echo 'g++: not really' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    program(tmp_path / "bin" / "clang++", f'exec {real} "$@"')
    with override(compiler=None):
        assert find_compiler(cache).words == ("clang++",)
        sums(cache)
        (tmp_path / "bin" / "clang++").unlink()
        program(tmp_path / "bin" / "clang++", "exit 3")
        program(tmp_path / "bin" / "c++", "exit 3")
        with pytest.raises(CompilerMissing, match=r"c\+\+ is no usable C\+\+ compiler: status 3"):
            find_compiler(Cache(tmp_path / "other", ROOM))


@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
def test_cxx_for_another_processor(cache: Cache, tmp_path: Path) -> None:
    script = program(
        tmp_path / "bin" / "cross", "echo '#define __cplusplus 201703L'; echo '#define __SIZEOF_POINTER__ 2'"
    )
    with (
        override(compiler=str(script)),
        pytest.raises(CompilerMissing, match="cross compiles for other processors"),
    ):
        build(COUNT, cache)


# ------------------------------------------------------------------------------------------------ levels


@needs_compiler
@pytest.mark.parametrize("level", CPU_LEVELS)
def test_every_level_of_this_machine_compiles(cache: Cache, level: CpuLevel) -> None:
    with override(cpu_level=None):
        widest = find_compiler(cache).level
    with override(cpu_level=level):
        if CPU_LEVELS.index(level) > CPU_LEVELS.index(widest):
            with pytest.raises(
                LevelMissing, match=f"ATTNLANG_CPU_LEVEL={level}.* no wider vectors than {widest}"
            ):
                find_compiler(cache)
            return
        assert find_compiler(cache).level == level
        sums(cache)


@needs_compiler
def test_levels_use_only_their_own_instructions(cache: Cache) -> None:
    """What the compiler would use under the flags of a level, asked of the compiler."""
    with override(cpu_level=None):
        widest = find_compiler(cache).level
    for level in CPU_LEVELS[: CPU_LEVELS.index(widest) + 1]:
        with override(cpu_level=level):
            compiler = find_compiler(cache)
        command = [*compiler.words, *compiler.flags, "-dM", "-E", "-x", "c++", os.devnull]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert level_of(macros_of(listing)) == level


@needs_compiler
def test_a_level_that_the_machine_lacks(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_compiler, "level_of", lambda macros: "avx2")
    with override(cpu_level="avx512"), pytest.raises(LevelMissing, match="no wider vectors than avx2"):
        find_compiler(cache)


# -------------------------------------------------------------------------------------------------- keys


@needs_compiler
def test_unlike_machines_share_nothing(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [build(COUNT, cache).key, build(SUM_ROWS, cache).key]
    assert build(COUNT, cache).key == keys[0]
    with override(cpu_level="portable"):
        keys.append(build(COUNT, cache).key)
    with monkeypatch.context() as patch:
        patch.setattr(key, "cpu_flags", lambda: "another machine")
        keys.append(build(COUNT, cache).key)
    compiler = find_compiler(cache)
    for changed in (replace(compiler, identity="13"), replace(compiler, words=("ccache", *compiler.words))):
        with monkeypatch.context() as patch:
            patch.setattr("attnlang.runtime.cpp_build.find_compiler", lambda cache, changed=changed: changed)
            patch.setattr(
                "attnlang.runtime.cpp_build._compiled", lambda name, text, compiler: b"machine code"
            )
            keys.append(build(COUNT, cache).key)
    assert len(set(keys)) == len(keys)


@needs_compiler
@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
def test_a_changed_compiler_is_asked_again(cache: Cache, tmp_path: Path) -> None:
    real = next(path for path in map(which, cpp_compiler.NAMES) if path)
    script = program(tmp_path / "bin" / "cc", f'echo asked >> {tmp_path}/log; exec {real} "$@"')
    log = tmp_path / "log"
    with override(compiler=str(script)):
        first = find_compiler(cache)
        cpp_compiler._found.clear()  # pyright: ignore[reportPrivateUsage]  as in a later process
        assert find_compiler(cache) == first
        assert log.read_text().split() == ["asked"]
        cpp_compiler._found.clear()  # pyright: ignore[reportPrivateUsage]
        program(script, f'echo asked >> {log}; exec {real} -DNEWER "$@"')
        assert find_compiler(cache).identity != first.identity


# -------------------------------------------------------------------------------- compiling and loading


@needs_compiler
def test_a_kernel_that_does_not_compile(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = kernel("broken", (pointer("out"),), "out[0] = 1;")
    with pytest.raises(CppCompileError) as told:
        build(source, cache)
    error = told.value
    assert "failed on the kernel broken: kernel.cpp:7:" in str(error)
    assert "please report the kernel" in str(error)
    kept = Path(error.fields["file"])
    assert list(tmp_path.glob("attnlang-*")) == [kept.parent], "what is no use to a report is removed"
    assert "out[0] = 1;" in kept.read_text()
    report = (kept.parent / "report.txt").read_text()
    assert "-O3" in report.splitlines()[0]
    assert "error" in report
    assert [entry for entry in cache.entries() if entry.note["kind"] != "compiler"] == []


@needs_compiler
def test_one_library_for_one_content(cache: Cache) -> None:
    entry = build(COUNT, cache)
    assert set(entry.files) == {LIBRARY, TEXT}
    assert entry.note["pattern"] == "count"
    cpp_load.load(COUNT, cache)
    before = dict(cpp_load._libraries)  # pyright: ignore[reportPrivateUsage]
    cpp_load.load(COUNT, cache)
    assert before == cpp_load._libraries  # pyright: ignore[reportPrivateUsage]


@needs_compiler
def test_a_cache_without_a_disk(tmp_path: Path) -> None:
    sums(Cache(tmp_path / "none", 0))
    assert not (tmp_path / "none").exists()


@needs_compiler
def test_a_library_that_another_process_removed(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = build(SUM_ROWS, cache)
    assert entry.path is not None
    (entry.path / LIBRARY).unlink()
    monkeypatch.setattr(cpp_load, "_libraries", {})
    sums(cache)


@needs_compiler
def test_a_library_of_another_machine(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(source: object, cache: object) -> Entry:
        return Entry("0" * 64, {LIBRARY: b"\x7fELF of another kind"}, {}, None, "built")

    monkeypatch.setattr(cpp_load, "build", foreign)
    with pytest.raises(CppLoadError, match=r"the compiled kernel count cannot be loaded: .*kernel\.so"):
        cpp_load.load(COUNT, cache)


SHARED = """
import sys
from pathlib import Path
from cpp_kernels import COUNT
from attnlang.runtime.cache import Cache
from attnlang.runtime.cpp_build import build

print("ready", flush=True)
sys.stdin.readline()
entry = build(COUNT, Cache(Path(sys.argv[1]), 1 << 30))
print(entry.origin in sys.argv[2:], "torch" in sys.modules)
"""


@needs_compiler
@pytest.mark.skipif(os.name != "posix", reason="shell scripts")
def test_two_processes_compile_once(tmp_path: Path) -> None:
    """The compiler is a script that writes down its calls: one question and one compilation, whoever asks."""
    real = next(path for path in map(which, cpp_compiler.NAMES) if path)
    log = tmp_path / "log"
    script = program(tmp_path / "bin" / "cc", f'echo "$*" >> {log}; sleep 0.3; exec {real} "$@"')
    where = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    for origins in (("built", "disk"), ("disk",)):  # the second time in new processes, which only load
        children = [
            subprocess.Popen(
                [sys.executable, "-c", SHARED, str(tmp_path / "kernels"), *origins],
                env=os.environ | {"PYTHONPATH": where, "CXX": str(script)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        assert [child.communicate("go\n", timeout=120)[0] for child in children] == ["True False\n"] * 2
        calls = log.read_text().splitlines()
        assert len([call for call in calls if "-shared" in call]) == 1
        assert len([call for call in calls if "-dM" in call]) == 1


# ------------------------------------------------------------------------------------------------- errors


def test_errors_travel_between_processes() -> None:
    errors: list[Diagnostic] = [
        CompilerMissing("there is no C++ compiler"),
        CppCompileError(kernel="k", compiler="g++ 12", line="3: error", file="kernel.cpp"),
        LevelMissing(asked="ATTNLANG_CPU_LEVEL=avx2", compiler="g++ 12", widest="portable"),
        CppLoadError(kernel="k", reason="invalid ELF header"),
    ]
    for error in errors:
        assert isinstance(error, AttnlangError)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
