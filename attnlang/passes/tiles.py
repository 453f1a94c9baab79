"""Block lengths of a kernel: a table of what compiles without spills, found by compiling ahead of time."""

from __future__ import annotations

from attnlang.ir.plan import Decision, Tile
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


def choose_tile(
    target: Target, dtype: str, features: int, rows_limit: int, pair_loads: int
) -> tuple[Tile, Decision]:
    """The tile for the longer of the padded feature lengths. `rows_limit`: the class of the number of queries (16, 32,
    64 or 128); `pair_loads`: how many values per pair of query and key the score or mask loads."""
    if target.name == "interpret":
        tile = Tile(min(rows_limit, 32), 32, 4, 1)
        return tile, _decision(
            tile, "small, so that the interpreter shows tails and borders at short lengths"
        )
    family = "hip" if target.name.startswith("hip") else "hopper" if target.shared >= 200 * 1024 else "ampere"
    base = TILES[family, dtype != "fp32"][0 if features <= 64 else 1 if features <= 128 else 2]
    rows = min(base.rows, rows_limit)
    columns = max(16, base.columns >> min(pair_loads, 2))
    tile = Tile(rows, columns, base.warps if rows == base.rows else min(base.warps, 4), base.stages)
    reason = "from the table of what fits; compile() reports registers and spills"
    if pair_loads:
        reason += f"; fewer keys, for the {pair_loads} value(s) that every pair loads"
    if rows < base.rows:
        reason += f"; no more rows than the class of at most {rows_limit} queries has"
    return tile, _decision(tile, reason)


def _decision(tile: Tile, reason: str) -> Decision:
    choice = f"{tile.rows} queries × {tile.columns} keys, {tile.warps} warps, {tile.stages} stages"
    return Decision("tile", choice, reason)


def rows_class(queries: int) -> int:
    """The class of a number of queries, of which the tile is a function."""
    return next((limit for limit in (16, 32, 64) if queries <= limit), 128)
