"""Plan: every decision on how a pattern will run, as data, each with its reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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

    def __str__(self) -> str:
        other = f"; else {self.alternative}" if self.alternative else ""
        return f"{self.subject}: {self.choice} ({self.reason}{other})"


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
    tensors whose innermost stride is not 1; `wide`: a head spans 2^31 elements or more; `nonnegative`: q ≥ 0; `long`:
    the whole numbers of mask and score may go beyond 32 bits.
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
    long: bool = False


@dataclass(frozen=True)
class Obstacle:
    """A construct that has no kernel on a target yet; `place` is `file:line:column` where it is known."""

    construct: str
    reason: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.construct}: {self.reason}" + (f" ({self.place})" if self.place else "")


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
    """A plan at a size, for people (`str`) and programs (`to_dict`).

    `tiles` are over all heads of one batch entry; `density` is the share of visible pairs (None: not known in closed
    form); `flops` are those of the two products over all visited tiles, `bytes` what must be read and written at
    least; `seconds` the longer of both at the target's sustained throughput (None: nobody has measured them for us).
    """

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
    obstacles: tuple[Obstacle, ...] = ()
    recompiles_with: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        tiles = [{**asdict(count), "visited": count.visited} for count in self.tiles]
        return {**asdict(self), "tiles": tiles}

    def __str__(self) -> str:
        sizes = " ".join(f"{name}={value}" for name, value in self.sizes.items())
        parameters = "".join(f" {name}={value}" for name, value in self.parameters.items())
        lines = [
            f"plan of {self.pattern} on {self.target}",
            f"  at {sizes}{parameters}",
            f"  runs as {self.algorithm}",
        ]
        for count in self.tiles:
            total = count.visited + count.empty
            lines.append(
                f"  {count.branch}: {count.visited:,} of {total:,} tiles of {count.rows} × {count.columns} visited"
                f" ({count.full:,} full, {count.partial:,} partial, {count.empty:,} empty)"
            )
        if self.density is not None:
            lines.append(f"  density {self.density:.4%} of all pairs")
        lines.append(f"  {_engineering(self.flops)}FLOP, {_engineering(self.bytes)}B at least")
        if self.seconds is not None:
            lines.append(
                f"  at least {_engineering(self.seconds)}s on the target (the longer of computing and moving)"
            )
        lines += [f"  {decision}" for decision in self.decisions]
        lines += [f"  no kernel: {obstacle}" for obstacle in self.obstacles]
        lines.append(f"  another kernel for another: {', '.join(self.recompiles_with)}")
        return "\n".join(lines)


def _engineering(value: float) -> str:
    """A number with three digits and the prefix that fits, a blank before the unit."""
    for prefix, size in (
        ("P", 1e15),
        ("T", 1e12),
        ("G", 1e9),
        ("M", 1e6),
        ("k", 1e3),
        ("", 1.0),
        ("m", 1e-3),
        ("µ", 1e-6),
    ):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value / 1e-9:.3g} n"
