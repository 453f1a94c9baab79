"""Block lengths of a kernel: a table of what compiles without spills, found by compiling ahead of time."""

from __future__ import annotations

from dataclasses import dataclass

from attnlang.ir.kernel import Assign, Kernel, Load, Loop, Op, Statement, walk
from attnlang.ir.plan import Decision, Tile
from attnlang.passes.typed import walk as walk_expr
from attnlang.targets import Target

# (family, half types?) → by the longer padded feature length up to 64, 128, 256: queries, keys, warps, stages.
# Full-precision float32 has no tensor cores, so that its accumulators must stay small.
TILES: dict[tuple[str, bool], tuple[Tile, Tile, Tile]] = {
    ("hopper", True): (Tile(128, 128, 8, 2), Tile(128, 64, 8, 3), Tile(128, 64, 8, 2)),
    ("ampere", True): (Tile(128, 64, 8, 2), Tile(128, 32, 8, 3), Tile(64, 32, 8, 2)),
    ("hip", True): (Tile(128, 32, 4, 1), Tile(64, 32, 4, 1), Tile(32, 32, 4, 1)),
    ("hopper", False): (Tile(64, 32, 8, 2), Tile(64, 16, 8, 2), Tile(32, 16, 8, 2)),
    ("ampere", False): (Tile(64, 32, 8, 2), Tile(32, 32, 8, 2), Tile(32, 16, 8, 2)),
    ("hip", False): (Tile(64, 32, 4, 1), Tile(32, 32, 4, 1), Tile(16, 16, 4, 1)),
}

MANY = 24
"""Masks of more operations leave no registers for 64 keys at head sizes beyond 64."""


@dataclass(frozen=True)
class PairWork:
    """What is done for every pair of query and key of a masked tile: values loaded, operations besides the dots."""

    loads: int = 0
    operations: int = 0


def pair_work(kernel: Kernel) -> PairWork:
    """That of the last loop of a forward kernel, whose tiles are masked if any are."""
    parts = [
        part
        for statement in walk(last_loop(kernel))
        if isinstance(statement, Assign)
        for part in walk_expr(statement.value)
        if part.shape[:2] == ("M", "N")
    ]
    loads = sum(isinstance(part, Load) for part in parts)
    return PairWork(loads, sum(isinstance(part, Op) for part in parts))


def last_loop(kernel: Kernel) -> tuple[Statement, ...]:
    """What the last loop over keys does; nothing where no query sees any. Loops over keys are pipelined."""
    loops = [statement for statement in kernel.body if isinstance(statement, Loop) and statement.pipelined]
    return loops[-1].body if loops else ()


def choose_tile(
    target: Target, dtype: str, features: int, rows_limit: int, pairs: PairWork, exact: bool, listed: bool
) -> tuple[Tile, Decision]:
    """The tile for the longer of the padded feature lengths. `rows_limit`: the class of the number of queries
    (`rows_class`); `pairs`: the work for every pair of query and key; `exact`: ranges say all that the predicate says,
    so that few tiles are masked; `listed`: the kernel reads its tiles from lists."""
    if target.name == "interpret":
        tile = Tile(min(rows_limit, 32), 32, 4, 1)
        return tile, _decision(
            tile, "small, so that the interpreter shows tails and borders at short lengths"
        )
    if target.kind == "cpu" and rows_limit <= few_rows(dtype):
        tile = Tile(rows_limit, 256, 1, 1)
        return tile, _decision(tile, "few queries: vectors of keys, and keys and values that stream by once")
    if target.kind == "cpu":
        tile = Tile(min(max(rows_limit, 16), 64), 192 if features <= 128 else 96, 1, 1)
        return tile, _decision(tile, "vectors of queries; so many visible keys at a time stay in the cache")
    family = "hip" if target.name.startswith("hip") else "hopper" if target.shared >= 200 * 1024 else "ampere"
    base = TILES[family, dtype != "fp32"][0 if features <= 64 else 1 if features <= 128 else 2]
    rows = min(base.rows, rows_limit)
    columns = max(16, base.columns >> min(pairs.loads, 2))
    if not exact and family == "hopper":
        columns = min(columns, 32 if pairs.operations > MANY else 64)
    stages = max(base.stages, 3) if listed and family == "hopper" else base.stages
    tile = Tile(rows, columns, base.warps if rows == base.rows else min(base.warps, 4), stages)
    reason = "from the table of what fits; compile() reports registers and spills"
    if pairs.loads:
        reason += f"; fewer keys, for the {pairs.loads} value(s) that every pair loads"
    if not exact and columns < base.columns >> min(pairs.loads, 2):
        reason += f"; fewer keys, for the mask's {pairs.operations} operations on every pair"
    if stages > base.stages:
        reason += "; a stage more, for tile numbers that are loaded before the keys"
    if rows < base.rows:
        reason += f"; no more rows than the class of at most {rows_limit} queries has"
    return tile, _decision(tile, reason)


def _decision(tile: Tile, reason: str) -> Decision:
    choice = f"{tile.rows} queries × {tile.columns} keys"
    if tile.warps > 1:
        choice += f", {tile.warps} warps, {tile.stages} stages"
    return Decision("tile", choice, reason)


def few_rows(dtype: str) -> int:
    """Up to how many rows a tile has vectors along the keys, on the CPU: fewer, where these must be widened for it."""
    return {"fp32": 16, "fp64": 1}.get(dtype, 8)


def rows_class(queries: int, target: str) -> int:
    """The class of a number of queries, of which the tile is a function; on the CPU there are more for few queries."""
    few = (1, 2, 4, 8) if target.partition(":")[0] == "cpu" else ()
    return next((limit for limit in (*few, 16, 32, 64) if queries <= limit), 128)
