"""Block lengths of the kernels of a backward pass: a table of what compiles without spills in the loops."""

from __future__ import annotations

from dataclasses import replace

from attnlang.ir.plan import Tile
from attnlang.targets import Target

# (family, half types?) → by the longer padded feature length up to 64, 128, 256: the tile of a program that owns
# queries, and of one that owns keys: own tokens, tokens walked over, warps, stages.
TILES: dict[tuple[str, bool], tuple[tuple[Tile, Tile], ...]] = {
    ("hopper", True): (
        (Tile(128, 128, 8, 2), Tile(128, 64, 8, 3)),  # with two stages Triton 3.6 has its wgmma serialized
        (Tile(128, 64, 8, 2), Tile(128, 32, 8, 3)),
        (Tile(64, 32, 8, 2), Tile(32, 64, 8, 1)),
    ),
    ("ampere", True): (
        (Tile(64, 64, 4, 2), Tile(64, 32, 4, 2)),
        (Tile(64, 64, 8, 2), Tile(64, 64, 8, 2)),
        (Tile(32, 32, 4, 2), Tile(32, 32, 8, 1)),
    ),
    ("hip", True): (
        (Tile(64, 32, 4, 1), Tile(64, 32, 4, 1)),
        (Tile(64, 32, 4, 1), Tile(32, 32, 4, 1)),
        (Tile(32, 32, 4, 1), Tile(32, 16, 4, 1)),
    ),
    ("hopper", False): (
        (Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
        (Tile(64, 16, 8, 2), Tile(64, 16, 8, 2)),
        (Tile(32, 16, 8, 2), Tile(32, 16, 8, 2)),
    ),
    ("ampere", False): (
        (Tile(64, 32, 8, 2), Tile(64, 32, 8, 2)),
        (Tile(64, 16, 8, 2), Tile(64, 16, 8, 2)),
        (Tile(32, 16, 8, 2), Tile(32, 16, 8, 2)),
    ),
    ("hip", False): (
        (Tile(32, 32, 4, 1), Tile(32, 32, 4, 1)),
        (Tile(32, 16, 4, 1), Tile(32, 16, 4, 1)),
        (Tile(16, 16, 4, 1), Tile(16, 16, 4, 1)),
    ),
}


def backward_tiles(
    target: Target, dtype: str, features: int, pair_loads: int, masked: bool
) -> tuple[Tile, Tile]:
    """The tile of a program that owns queries and of one that owns keys, for the longer padded feature length.
    `pair_loads`: how many values per pair of query and key the score or mask loads. `masked`: whether there are pairs
    that do not count, of which a large tile computes more."""
    if target.name == "interpret":
        return Tile(16, 32, 4, 1), Tile(32, 16, 4, 1)
    if target.kind == "cpu":
        large = dtype == "bf16" and not masked
        return Tile(64, 96, 1, 1), Tile(128, 72, 1, 1) if large else Tile(64, 96, 1, 1)
    family = "hip" if target.name.startswith("hip") else "hopper" if target.shared >= 200 * 1024 else "ampere"
    queries, keys = TILES[family, dtype != "fp32"][0 if features <= 64 else 1 if features <= 128 else 2]
    return _narrow(queries, pair_loads), _narrow(keys, pair_loads)


def _narrow(tile: Tile, pair_loads: int) -> Tile:
    """Fewer tokens to walk over, for the values that every pair loads."""
    return replace(tile, columns=max(16, tile.columns >> min(pair_loads, 2)))
