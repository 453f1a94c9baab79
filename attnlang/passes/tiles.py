"""Block lengths of a kernel, from the target's shared memory and registers: a rule, not a search."""

from __future__ import annotations

from attnlang.ir.plan import Decision, Tile
from attnlang.targets import Target

ACCUMULATOR_LIMIT = 96  # float32 registers a thread may spend on scores and results before kernels spill


def choose_tile(
    target: Target, dtype: str, head_block: int, value_block: int, rows_limit: int
) -> tuple[Tile, Decision]:
    """The tile for padded feature lengths; `rows_limit`: the class of the number of queries (16, 32, 64 or 128).

    Shared memory of a forward kernel: the query tile once, key and value tiles once per stage.
    """
    if target.name == "interpret":
        tile = Tile(min(rows_limit, 32), 32, 4, 1)
        return tile, _decision(
            tile, "small, so that the interpreter shows tails and borders at short lengths"
        )
    width = 4 if dtype == "fp32" else 2
    best = Tile(min(rows_limit, 16), 16, 4, 1)
    for rows, columns, warps, stages in _candidates(target, dtype):
        if rows > max(rows_limit, 16):
            continue
        shared = width * (rows * head_block + stages * columns * (head_block + value_block))
        accumulators = (rows * value_block + rows * columns) / (32 * warps)
        if shared <= target.shared * 0.95 and accumulators <= ACCUMULATOR_LIMIT + (32 if rows < 128 else 0):
            best = Tile(rows, columns, warps, stages)
            break
    return best, _decision(best, "the largest that fits shared memory and registers without spilling")


def _candidates(target: Target, dtype: str) -> list[tuple[int, int, int, int]]:
    """Rows, columns, warps, stages, best first."""
    if dtype == "fp32":
        return [
            (64, 64, 4, 2),
            (64, 32, 4, 2),
            (64, 32, 8, 2),
            (32, 32, 4, 2),
            (32, 32, 4, 1),
            (16, 32, 4, 1),
        ]
    if target.name.startswith("hip"):
        return [
            (128, 64, 4, 1),
            (128, 32, 4, 1),
            (64, 32, 4, 1),
            (32, 32, 4, 1),
            (16, 32, 4, 1),
            (16, 16, 4, 1),
        ]
    if target.shared >= 200 * 1024:
        large = [
            (128, 128, 8, 2),
            (128, 64, 8, 3),
            (128, 64, 8, 2),
            (64, 64, 4, 3),
            (64, 64, 4, 2),
            (64, 64, 8, 2),
        ]
    else:
        large = [(128, 64, 8, 2), (128, 32, 8, 2), (64, 64, 4, 2), (64, 32, 4, 2), (64, 32, 8, 2)]
    return [*large, (32, 64, 4, 2), (32, 32, 4, 2), (16, 64, 4, 2), (16, 32, 4, 2), (16, 16, 4, 1)]


def _decision(tile: Tile, reason: str) -> Decision:
    choice = f"{tile.rows} queries × {tile.columns} keys, {tile.warps} warps, {tile.stages} stages"
    return Decision("tile", choice, reason)


def rows_class(queries: int) -> int:
    """The class of a number of queries, of which the tile is a function."""
    return next((limit for limit in (16, 32, 64) if queries <= limit), 128)
