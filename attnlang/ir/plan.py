"""Plan: every decision on how a pattern will run, as data, each with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from typing import Literal as OneOf

from attnlang.ir.kernel import Kernel, Type
from attnlang.ir.live_keys import LiveKeys
from attnlang.ir.pattern import Attention, Expr, Let, Pattern

WalkKind = OneOf["ranges", "lists", "ordered"]
"""How a kernel finds its tiles of keys: closed-form ranges, lists made for the call, lists over tokens in another
order."""


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
    the whole numbers of mask and score may go beyond 32 bits; `walks`: how each attention finds its tiles (empty: all
    by ranges); `split`: the keys of a row are shared out among `splits` programs, whose results are then combined;
    `packed`: the query heads of a key/value head are rows of one tile, each query with all of them.
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
    walks: tuple[WalkKind, ...] = ()
    split: bool = False
    packed: bool = False


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
    """How one attention runs: key ranges per tile of queries, the tile, the kernel; `combine`: the one that puts the
    shares of split keys together; `packed`: rows of a tile are queries of all heads of a key/value head; `listed`: the
    keys behind each number of its lists, where it reads some."""

    attention: Attention
    bands: tuple[Band, ...]
    tile: Tile
    heavy_first: bool
    kernel: Kernel
    walk: WalkKind = "ranges"
    combine: Kernel | None = None
    packed: bool = False
    listed: int = 0


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

    `tiles` are over all heads of one batch entry. `density` is the exact share of visible pairs, None where only
    `density_bounds` (least, most) are known; `missing` are the tensors that visibility reads and that were not given.
    `flops` are those of the two products over all visited tiles, `bytes` what must be read and written at least,
    `index_bytes` the lists of tiles that kernels read. `compute_seconds` and `memory_seconds` are at the target's
    sustained throughputs (None: nobody has measured them for us), `seconds` the longer of both.
    """

    pattern: str
    target: str
    sizes: dict[str, int]
    parameters: dict[str, bool | int | float]
    algorithm: str
    tiles: tuple[TileCount, ...]
    density: float | None
    density_bounds: tuple[float, float]
    missing: tuple[str, ...]
    flops: int
    bytes: int
    index_bytes: int
    compute_seconds: float | None
    memory_seconds: float | None
    decisions: tuple[Decision, ...]
    obstacles: tuple[Obstacle, ...]
    recompiles_with: tuple[str, ...]
    live: Callable[[int], tuple[LiveKeys, ...]] = field(repr=False, compare=False)

    @property
    def seconds(self) -> float | None:
        """A bound of the time from below: the longer of computing and moving."""
        if self.compute_seconds is None or self.memory_seconds is None:
            return None
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bytes_moved(self) -> int:
        """Tensors and index lists."""
        return self.bytes + self.index_bytes

    @property
    def intensity(self) -> float:
        """FLOPs for each byte that is moved."""
        return self.flops / max(1, self.bytes_moved)

    def kv_live(self, position: int) -> tuple[LiveKeys, ...]:
        """The keys that a decoder at this position may still need, as `Pattern.kv_live` gives them, with the NK,
        heads, parameters and tensors of the plan. Raises a Diagnostic for what is no position."""
        return self.live(position)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "live"}
        return plain | {
            "tiles": [{**asdict(count), "visited": count.visited} for count in self.tiles],
            "density_bounds": list(self.density_bounds),
            "missing": list(self.missing),
            "intensity": self.intensity,
            "seconds": self.seconds,
            "decisions": [asdict(each) for each in self.decisions],
            "obstacles": [asdict(each) for each in self.obstacles],
            "recompiles_with": list(self.recompiles_with),
        }

    def __str__(self) -> str:
        from attnlang.ir.report_text import text

        return text(self)
