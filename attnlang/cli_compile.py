"""`attnlang compile`: kernels ahead of time, for GPUs that need not be here and for CPUs, with what they need."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from attnlang import Pattern, compiler
from attnlang.call_ahead import bind_ahead
from attnlang.call_interface import Interface
from attnlang.cli_compile_figures import Result, figures_of, print_kernels, problems_of
from attnlang.cli_console import complain, print_json, progress, say, size_text
from attnlang.cli_load import called, load_pattern, parameters_of
from attnlang.cli_options import Pair, add_file, add_json, add_numbers
from attnlang.cli_write import write_file
from attnlang.errors import Diagnostic
from attnlang.execute_ahead import Compiled
from attnlang.execute_ahead_cpu import CompiledCpp, CppLibrary, PrintedCpp
from attnlang.ir.text import pattern_text
from attnlang.targets import target_ahead, target_of

FORMS = ("ir", "plan")
GPU, CPU = ("triton", "ptx", "cubin"), ("cpp", "so")
STAGES = (*FORMS, *GPU, *CPU)
DEFAULT_TARGET = "cuda:90"
PLAN_LENGTH, PLAN_HEADS = 4096, 16


class NoTargetHasStage(Diagnostic):
    """`--emit` names a stage that none of the targets has."""

    code = "E607"
    message = "--emit {stage}: there is none for {targets}"
    hint = "it is made for {family}; add --target {example}"


class UnknownStage(Diagnostic):
    """`--emit` names no stage."""

    code = "E608"
    message = "--emit knows no '{stage}'"
    hint = "there are {stages} and all"


@dataclass(frozen=True)
class Request:
    """What to compile: a pattern, the numbers that shape its kernels, and the stages that are written."""

    pattern: Pattern
    parameters: dict[str, Any]
    head_dim: int
    value_dim: int | None
    dtype: str
    stages: frozenset[str]
    folder: Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_file(parser)
    parser.add_argument("-o", "--output", metavar="DIR", default=".", help="where the files go (here)")
    parser.add_argument(
        "--target", dest="targets", metavar="TARGET", action="append",
        help="cuda:80, cuda:90, cuda:100, hip:gfx942, cpu (the vectors of this machine), or cpu:portable, cpu:avx2, "
        "cpu:avx512, cpu:avx512bf16 (cuda:90); repeatable",
    )  # fmt: skip
    add_numbers(parser, 128, "bf16", double=True)
    parser.add_argument(
        "--emit", metavar="STAGES",
        help=f"what is written, of {', '.join(STAGES)}, all ({','.join(GPU)} for a GPU, {','.join(CPU)} for a CPU)",
    )  # fmt: skip
    add_json(parser)


def run(
    file: str,
    pattern: str | None,
    pairs: Sequence[Pair],
    output: str,
    targets: Sequence[str] | None,
    head_dim: int,
    value_dim: int | None,
    dtype: str,
    emit: str | None,
    as_json: bool,
) -> int:
    """Compile for every target, write the stages, and say what the kernels need."""
    places = targets_of(targets or [DEFAULT_TARGET])
    stages = stages_of(emit, places)
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs, all_needed="plan" in stages)
    request = Request(chosen, parameters, head_dim, value_dim, dtype, stages, Path(output))
    files: list[Path] = []
    results: dict[str, Result] = {}
    if "ir" in stages:
        files.append(write_file(request.folder / f"{chosen.name}.ir.txt", pattern_text(chosen.ir)))
    for target in places:
        with progress(f"compiling {chosen.name} for {target}"):
            result = _made(request, target)
        if result.target not in results:  # `cpu` may be a level that is asked for by name too
            results[result.target] = result
            files += _write(request, result)
    if as_json:
        kernels = [figures for result in results.values() for figures in figures_of(result)]
        print_json(
            {"ok": True, "pattern": chosen.name, "kernels": kernels, "files": [str(path) for path in files]}
        )
        return 0
    shape = f"D = {head_dim}" + (f", DV = {value_dim}" if value_dim else "")
    say(f"{called(chosen, request.parameters)}, {dtype}, {shape}")
    print_kernels(list(results.values()))
    for result in results.values():
        for problem in problems_of(result):
            complain(problem)
    for path in files:
        say(f"{path}  {size_text(path.stat().st_size)}")
    return 0


def targets_of(names: Sequence[str]) -> list[str]:
    """The targets that are named, each once. Raises UnknownTarget, NothingToCompile."""
    return list(dict.fromkeys(target_ahead(name) for name in names))


def stages_of(emit: str | None, targets: Sequence[str]) -> frozenset[str]:
    """The stages that `--emit` names, or those that targets have by default. Raises UnknownStage, NoTargetHasStage."""
    words = [word.strip() for word in (emit or "").split(",") if word.strip()]
    unknown = [word for word in words if word not in (*STAGES, "all")]
    if unknown:
        raise UnknownStage(stage=unknown[0], stages=", ".join(STAGES))
    there = {_is_cpu(target) for target in targets}
    for stages, cpu, family, example in ((GPU, False, "a GPU", DEFAULT_TARGET), (CPU, True, "a CPU", "cpu")):
        missing = [word for word in words if word in stages and cpu not in there]
        if missing:
            named = ", ".join(targets)
            raise NoTargetHasStage(stage=missing[0], targets=named, family=family, example=example)
    if "all" in words:
        return frozenset(STAGES)
    return frozenset(words or (*GPU, *CPU))


def _is_cpu(target: str) -> bool:
    return target_of(target).kind == "cpu"


def _made(request: Request, target: str) -> Result:
    """The kernels for a target; those of a CPU are compiled only where their libraries are wanted."""
    pattern, head_dim, value_dim, dtype = request.pattern, request.head_dim, request.value_dim, request.dtype
    if not _is_cpu(target) or "so" in request.stages:
        return pattern.compile(
            target=target, head_dim=head_dim, value_dim=value_dim, dtype=dtype, **request.parameters
        )
    interface = Interface(pattern.ir)
    calls = bind_ahead(interface, head_dim, value_dim, dtype, return_lse=False, arguments=request.parameters)
    return compiler.print_ahead(pattern.ir, target, calls)


def _write(request: Request, result: Result) -> list[Path]:
    """The files of one target, named `pattern.target.stage`, or `pattern.target.kernel.stage` of several kernels."""
    place = f"{request.pattern.name}.{result.target.replace(':', '-')}"
    parts: dict[str, str | bytes] = {}
    if "plan" in request.stages:
        parts["plan.txt"] = f"{_plan(request, result.target)}\n"
    match result:
        case Compiled():
            parts |= _gpu_parts(request.stages, result)
        case CompiledCpp() | PrintedCpp():
            parts |= _cpu_parts(request.stages, result)
        case _:
            assert_never(result)
    return [write_file(request.folder / f"{place}.{suffix}", content) for suffix, content in parts.items()]


def _gpu_parts(stages: frozenset[str], result: Compiled) -> dict[str, str | bytes]:
    """Suffixes and contents."""
    assembly, binary = ("amdgcn", "hsaco") if result.target.startswith("hip:") else ("ptx", "cubin")
    parts: dict[str, str | bytes] = {"py": result.source} if "triton" in stages else {}
    for kernel in result.kernels:
        part = f"{kernel.name}." if len(result.kernels) > 1 else ""
        if "ptx" in stages:
            parts[f"{part}{assembly}"] = kernel.ptx
        if "cubin" in stages:
            parts[f"{part}{binary}"] = kernel.cubin
    return parts


def _cpu_parts(stages: frozenset[str], result: CompiledCpp | PrintedCpp) -> dict[str, str | bytes]:
    """Suffixes and contents."""
    parts: dict[str, str | bytes] = {}
    for kernel in result.kernels:
        part = f"{kernel.name}." if len(result.kernels) > 1 else ""
        if "cpp" in stages:
            parts[f"{part}cpp"] = kernel.text
        if "so" in stages and isinstance(kernel, CppLibrary):
            parts[f"{part}so"] = kernel.library
    return parts


def _plan(request: Request, target: str) -> str:
    """The plan at a usual size; kernels themselves are made for every size."""
    report = request.pattern.plan(
        PLAN_LENGTH, PLAN_LENGTH, heads=PLAN_HEADS, head_dim=request.head_dim, value_dim=request.value_dim,
        dtype=request.dtype, target=target, **request.parameters,
    )  # fmt: skip
    return str(report)
