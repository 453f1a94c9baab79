"""`attnlang compile`: kernels ahead of time for GPUs that need not be here, with their registers and spills."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlang import Pattern
from attnlang.cli_console import Column, complain, print_json, print_table, progress, say, size_text
from attnlang.cli_load import called, load_pattern, parameters_of
from attnlang.cli_options import Pair, add_file, add_json, add_numbers
from attnlang.cli_write import write_file
from attnlang.errors import Diagnostic
from attnlang.ir.text import pattern_text
from attnlang.targets import target_ahead

if TYPE_CHECKING:
    from attnlang.execute_ahead import Compiled

STAGES = ("ir", "plan", "triton", "ptx", "cubin")
DEFAULT_TARGET = "cuda:90"
DEFAULT = "triton,ptx,cubin"
PLAN_LENGTH, PLAN_HEADS = 4096, 16


class NoCppYet(Diagnostic):
    """C++ was asked for, which no printer writes yet."""

    code = "E607"
    message = "--emit cpp comes with the native CPU kernels, which are not there yet"
    hint = "there are {stages} and all"


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
        help="cuda:80, cuda:90, cuda:100 or hip:gfx942 (cuda:90); repeatable",
    )  # fmt: skip
    add_numbers(parser, 128, "bf16")
    parser.add_argument(
        "--emit",
        metavar="STAGES",
        default=DEFAULT,
        help=f"what is written, of {', '.join(STAGES)}, all ({DEFAULT})",
    )
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
    emit: str,
    as_json: bool,
) -> int:
    """Compile for every target, write the stages, and say what the kernels need."""
    stages = stages_of(emit)
    places = targets_of(targets or [DEFAULT_TARGET])
    chosen = load_pattern(file, pattern)
    parameters = parameters_of(chosen, pairs, all_needed="plan" in stages)
    request = Request(chosen, parameters, head_dim, value_dim, dtype, stages, Path(output))
    files: list[Path] = []
    compiled: list[Compiled] = []
    if "ir" in stages:
        files.append(write_file(request.folder / f"{chosen.name}.ir.txt", pattern_text(chosen.ir)))
    for target in places:
        with progress(f"compiling {chosen.name} for {target}"):
            result = chosen.compile(
                target=target, head_dim=head_dim, value_dim=value_dim, dtype=dtype, **parameters
            )
        compiled.append(result)
        files += _write(request, result)
    if as_json:
        kernels = [figures for result in compiled for figures in kernel_figures(result)]
        print_json(
            {"ok": True, "pattern": chosen.name, "kernels": kernels, "files": [str(path) for path in files]}
        )
        return 0
    shape = f"D = {head_dim}" + (f", DV = {value_dim}" if value_dim else "")
    say(f"{called(chosen, request.parameters)}, {dtype}, {shape}")
    print_kernels(compiled)
    for result in compiled:
        for problem in result.problems():
            complain(f"{result.target}: warning: {problem}")
    for path in files:
        say(f"{path}  {size_text(path.stat().st_size)}")
    return 0


def stages_of(emit: str) -> frozenset[str]:
    """The stages that `--emit` names. Raises NoCppYet, UnknownStage."""
    words = [word.strip() for word in emit.split(",") if word.strip()]
    stages = ", ".join(STAGES)
    for word in words:
        if word == "cpp":
            raise NoCppYet(stages=stages)
        if word not in (*STAGES, "all"):
            raise UnknownStage(stage=word, stages=stages)
    return frozenset(STAGES) if "all" in words or not words else frozenset(words)


def targets_of(names: Sequence[str]) -> list[str]:
    """The targets that are named, each once. Raises UnknownTarget, NothingToCompile."""
    return list(dict.fromkeys(target_ahead(name) for name in names))


def _write(request: Request, result: Compiled) -> list[Path]:
    """The files of one target, named `pattern.target.stage`."""
    amd = result.target.startswith("hip:")
    place = f"{request.pattern.name}.{result.target.replace(':', '-')}"
    written: list[Path] = []

    def write(suffix: str, content: str | bytes) -> None:
        written.append(write_file(request.folder / f"{place}.{suffix}", content))

    if "plan" in request.stages:
        write("plan.txt", f"{_plan(request, result.target)}\n")
    if "triton" in request.stages:
        write("py", result.source)
    for kernel in result.kernels:
        part = f"{kernel.name}." if len(result.kernels) > 1 else ""
        if "ptx" in request.stages:
            write(f"{part}{'amdgcn' if amd else 'ptx'}", kernel.ptx)
        if "cubin" in request.stages:
            write(f"{part}{'hsaco' if amd else 'cubin'}", kernel.cubin)
    return written


def _plan(request: Request, target: str) -> str:
    """The plan at a usual size; kernels themselves are made for every size."""
    report = request.pattern.plan(
        PLAN_LENGTH, PLAN_LENGTH, heads=PLAN_HEADS, head_dim=request.head_dim, value_dim=request.value_dim,
        dtype=request.dtype, target=target, **request.parameters,
    )  # fmt: skip
    return str(report)


def print_kernels(compiled: Sequence[Compiled]) -> None:
    """What kernels need of their targets, as a table."""
    columns = (
        Column("target"), Column("kernel"), Column("registers", number=True), Column("spills", number=True),
        Column("shared", number=True), Column("of", number=True), Column("warps", number=True),
        Column("wgmma", number=True), Column("mma", number=True), Column("CTAs/SM", number=True),
    )  # fmt: skip
    rows = [
        (
            kernel.target,
            kernel.name,
            str(kernel.registers),
            f"{kernel.spill_stores_bytes} B",
            size_text(kernel.shared_bytes),
            size_text(kernel.shared_limit_bytes),
            str(kernel.warps),
            str(kernel.wgmma_count),
            str(kernel.mma_count),
            str(kernel.ctas_per_sm),
        )
        for result in compiled
        for kernel in result.kernels
    ]
    print_table(columns, rows)


def kernel_figures(result: Compiled) -> list[dict[str, Any]]:
    """The figures of each kernel, for programs: bytes, and counts per thread or in the code."""
    names = (
        "name", "target", "registers", "spill_stores_bytes", "spill_loads_bytes", "stack_bytes", "shared_bytes",
        "shared_limit_bytes", "warps", "wgmma_count", "mma_count", "hot_loop_spills", "ctas_per_sm",
    )  # fmt: skip
    return [
        {**{name: getattr(kernel, name) for name in names}, "problems": kernel.problems()}
        for kernel in result.kernels
    ]
