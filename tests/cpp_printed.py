"""Patterns run by printed C++ for any instruction set and any tile, whatever plans would choose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from attnlang import Pattern, execute, execute_programs
from attnlang.artifact import Program
from attnlang.execute_programs import plan_for
from attnlang.ir.kernel import Kernel
from attnlang.ir.pattern import Pattern as PatternIR
from attnlang.ir.plan import Decision, Specialization, Tile
from attnlang.passes import planning
from attnlang.passes.specialize import static_parameters

ISAS = ("avx512bf16", "avx512", "avx2", "portable")


def tiled(patch: pytest.MonkeyPatch, rows: int, columns: int) -> None:
    """Every plan has this tile."""
    tile = Tile(rows, columns, 4, 1)

    def chosen(*_: object) -> tuple[Tile, Decision]:
        return tile, Decision("tile", f"{rows} × {columns}", "a test says so")

    patch.setattr(planning, "choose_tile", chosen)


def printed_for(patch: pytest.MonkeyPatch, isa: str, rows: int, columns: int) -> None:
    """Until the test ends, target "interpret" means C++ for `isa`, made anew for every call."""
    tiled(patch, rows, columns)

    build: Any = getattr(execute_programs, "_build")  # noqa: B009 (past the kernel cache)

    def program(pattern: PatternIR, specialization: Specialization, limit: int) -> Program:
        return build(pattern, replace(specialization, target=f"cpu:{isa}"), limit)

    patch.setattr(execute, "program_for", program)


def kernels(pattern: Pattern, special: Specialization, rows_limit: int = 64) -> list[Kernel]:
    """The kernels of a pattern with its default parameters."""
    statics = tuple((p, pattern.params[p].default) for p in static_parameters(pattern.ir))
    known = tuple((p, value) for p, value in statics if value is not None)
    plan = plan_for(pattern.ir, replace(special, statics=known), rows_limit)
    return [branch.kernel for branch in plan.branches]
