"""Plan: every decision on how a pattern will run, as data, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from attnlang.ir.kernel import Kernel, Type
from attnlang.ir.pattern import Attention, Expr, Let, Pattern


@dataclass(frozen=True)
class Band:
    """One alternative of a predicate: keys with every lower ≤ k ≤ every upper, where `guard` (free of q and k) holds.

    `exact`: the predicate holds for all of them; else for some at most.
    """

    lower: tuple[Expr, ...]
    upper: tuple[Expr, ...]
    guard: Expr
    exact: bool


@dataclass(frozen=True)
class KeyRange:
    """Keys of one tile of queries, half-open: `first … stop` hold every visible key of the band, `full_first …
    full_stop` only keys that every query of the tile sees (None: no such range is known)."""

    first: Expr
    stop: Expr
    full_first: Expr | None
    full_stop: Expr | None


@dataclass(frozen=True)
class Decision:
    """What was chosen on a subject, why, and what else could have been."""

    subject: str
    choice: str
    reason: str
    alternative: str = ""


@dataclass(frozen=True)
class Tile:
    """Block lengths of a kernel, and how it is launched."""

    rows: int
    columns: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Specialization:
    """All that shapes the code: another value of any of these is another kernel. Everything else is an argument.

    `statics`: parameters that are numbers in the code; `tensors`: element types that differ from `dtype`; `strided`:
    tensors whose innermost stride is not 1; `wide`: a head spans 2^31 elements or more; `nonnegative`: q ≥ 0.
    """

    target: str
    dtype: Type
    head_dim: int
    value_dim: int
    statics: tuple[tuple[str, bool | int | float], ...] = ()
    tensors: tuple[tuple[str, Type], ...] = ()
    strided: tuple[str, ...] = ()
    lse: bool = False
    wide: bool = False
    nonnegative: bool = True


@dataclass(frozen=True)
class Obstacle:
    """A construct that has no kernel on a target yet; `place` is `file:line:column` where it is known."""

    construct: str
    reason: str
    place: str = ""


@dataclass(frozen=True)
class BranchPlan:
    """How one attention runs: key ranges per tile of queries, the tile, the kernel."""

    attention: Attention
    bands: tuple[Band, ...]
    tile: Tile
    heavy_first: bool
    kernel: Kernel


@dataclass(frozen=True)
class Plan:
    """A pattern for one specialization. `branches` are kernels; `tables` are evaluated once per call before them in
    float64 and handed over as tensors; `combine` is what PyTorch does with their results (None: nothing)."""

    pattern: Pattern
    specialization: Specialization
    algorithm: str
    branches: tuple[BranchPlan, ...] = ()
    tables: tuple[Let, ...] = ()
    combine: Expr | None = None
    obstacles: tuple[Obstacle, ...] = ()
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class TileCount:
    """Tiles of one branch over all heads of a batch entry: visited = full + partial."""

    branch: str
    rows: int
    columns: int
    full: int
    partial: int
    empty: int

    @property
    def visited(self) -> int:
        """Tiles that the kernel computes."""
        return self.full + self.partial


@dataclass(frozen=True)
class Report:
    """A plan at a size, for people (`str`) and programs (`to_dict`)."""

    pattern: str
    target: str
    sizes: dict[str, int]
    parameters: dict[str, bool | int | float]
    algorithm: str
    tiles: tuple[TileCount, ...]
    density: float | None
    flops: int
    bytes: int
    seconds: float | None
    decisions: tuple[Decision, ...]
    recompiles_with: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict[str, Any])
