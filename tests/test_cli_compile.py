"""`attnlang compile --target cpu`: the files it writes, what it says of them, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from shutil import which

import pytest

from attnlang import settings
from attnlang.execute_programs import native_level
from attnlang.runtime import cpp_report
from tests.command_line import Run, runner
from tests.cpp_kernels import needs_compiler

SMALL = ("--head-dim", "16")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command inside a folder of its own."""
    (tmp_path / "packed.attn").write_text(
        "pattern packed():\n    tensor ids[b, n]: int\n    mask document(ids)\n"
    )
    (tmp_path / "sparse.attn").write_text("pattern sparse():\n    mask causal\n    normalize sparsemax\n")
    return runner(capsys, tmp_path, monkeypatch)


def names(folder: Path) -> set[str]:
    """The files that were written."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@needs_compiler
def test_text_and_library_are_written(run: Run, tmp_path: Path) -> None:
    place = f"near.cpu-{native_level()}"
    done = run("compile", "near.attn", "-o", "build", *SMALL, "--target", "cpu", "--target", "cpu:portable")
    assert (done.code, done.err) == (0, "")
    both = {f"{place}.cpp", f"{place}.so", "near.cpu-portable.cpp", "near.cpu-portable.so"}
    assert names(tmp_path / "build") == both
    assert "pattern near(window: int >= 1 = 8):" in (tmp_path / "build" / f"{place}.cpp").read_text()
    assert f"cpu:{native_level()}   near_forward" in done.out and "16 B" in done.out
    assert "near(window=8), bf16, D = 16" in done.out


@needs_compiler
def test_all_is_what_each_target_has(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    words = ("--emit", "all", "--target", "cpu:avx2", "--target", "cuda:80", "-o", "build")
    done = run("compile", "near.attn", *SMALL, *words)
    assert (done.code, done.err) == (0, "")
    cpu = {f"near.cpu-avx2.{stage}" for stage in ("plan.txt", "cpp", "so")}
    gpu = {f"near.cuda-80.{stage}" for stage in ("plan.txt", "py", "ptx", "cubin")}
    assert names(tmp_path / "build") == {"near.ir.txt"} | cpu | gpu
    assert "plan of near on cpu:avx2" in (tmp_path / "build" / "near.cpu-avx2.plan.txt").read_text()


@needs_compiler
def test_several_kernels_have_files_of_their_own(run: Run, tmp_path: Path) -> None:
    done = run(
        "compile",
        "packed.attn",
        "-o",
        "build",
        *SMALL,
        "--target",
        "cpu:portable",
        "--dtype",
        "fp64",
        "--json",
    )
    found = [kernel["name"] for kernel in done.json["kernels"]]
    assert found == ["packed_forward", "packed_forward_lists", "packed_forward_ordered"]
    files = {f"packed.cpu-portable.{name}.{stage}" for name in found for stage in ("cpp", "so")}
    assert names(tmp_path / "build") == files and len(done.json["files"]) == len(files)
    assert "fp64, D=16" in (tmp_path / "build" / "packed.cpu-portable.packed_forward.cpp").read_text()


@needs_compiler
def test_a_level_that_is_named_twice_is_written_once(run: Run, tmp_path: Path) -> None:
    level = native_level()
    done = run(
        "compile", "near.attn", *SMALL, "--target", "cpu", "--target", f"cpu:{level}", "--json", "-o", "build"
    )
    assert [kernel["target"] for kernel in done.json["kernels"]] == [f"cpu:{level}"]
    assert len(done.json["files"]) == 2


@needs_compiler
def test_figures_are_those_of_the_library(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("compile", "near.attn", *SMALL, "--target", "cpu:avx2", "--dtype", "fp16", "-o", "build")
    counted = {"multiply_adds", "bf16_dots"} if any(map(which, cpp_report.NAMES)) else set[str]()
    with settings.override(cache_directory=tmp_path / "kernels"):
        (first,) = run(*words, "--json").json["kernels"]
        (second,) = run(*words, "--json").json["kernels"]
        shown = run(*words).out
        monkeypatch.setattr(cpp_report, "NAMES", ("no-such-disassembler",))
        (blind,) = run(*words, "--json").json["kernels"]
        assert "FMAs" not in run(*words).out
    assert first["library_bytes"] == (tmp_path / "build" / "near.cpu-avx2.so").stat().st_size
    assert first["vector_bytes"] == 32 and first["compiler"].startswith(("g++", "clang++"))
    assert first["origin"] == "built" and 0.01 < first["compile_seconds"] < 100
    assert second["origin"] == "memory" and "compile_seconds" not in second and "earlier" in shown
    assert set(second) - set(blind) == counted and ("FMAs" in shown) == bool(counted)


def test_text_alone_needs_no_compiler(run: Run, tmp_path: Path) -> None:
    words = ("compile", "near.attn", *SMALL, "--target", "cpu:avx512", "-o", "build")
    with settings.override(compiler="no-such-compiler"):
        done = run(*words, "--emit", "cpp", "--json")
        assert (done.code, names(tmp_path / "build")) == (0, {"near.cpu-avx512.cpp"})
        assert done.json["kernels"] == [{"name": "near_forward", "target": "cpu:avx512", "vector_bytes": 64}]
        done = run(*words)
        assert done.code == 1 and "error[E550]" in done.err and "no-such-compiler" in done.err


def test_a_stage_that_no_target_has(run: Run, tmp_path: Path) -> None:
    done = run("compile", "near.attn", "--emit", "ir,ptx", "--target", "cpu", "--target", "cpu:avx2")
    assert (done.code, done.err) == (
        1, "error[E607]: --emit ptx: there is none for cpu, cpu:avx2\n  it is made for a GPU; add --target cuda:90\n",
    )  # fmt: skip
    done = run("compile", "near.attn", "--emit", "so")
    assert (done.code, done.err) == (
        1, "error[E607]: --emit so: there is none for cuda:90\n  it is made for a CPU; add --target cpu\n",
    )  # fmt: skip
    assert not list(tmp_path.glob("*.txt"))


def test_what_has_no_kernel_writes_nothing(run: Run, tmp_path: Path) -> None:
    done = run("compile", "sparse.attn", "--target", "cpu:portable", "--emit", "cpp", "-o", "build")
    assert done.code == 1 and "error[E401]" in done.err and names(tmp_path / "build") == set()
    done = run("compile", "near.attn", "--target", "cpu:avx3", "--emit", "cpp")
    assert done.code == 1 and "the levels of a CPU are portable, avx2, avx512, avx512bf16" in done.err
    done = run("compile", "near.attn", "--target", "cpu:portable", "--emit", "cpp", "-p", "window=0")
    assert done.code == 1 and "'window' must be ≥ 1" in done.err
