"""Classification of tiles from the declaration: is it sound, how tight, how fast, and beside FlexAttention.

    python benchmarks/sparsity.py                       everything but the rival, a few minutes on two cores
    python benchmarks/sparsity.py scale rival           some parts only

soundness: every section-A pattern at random sizes up to 48 × 48, corner parameters and small tiles, against every pair.
tightness: at about 4096 tokens, tiles of 128 × 128 and 64 × 64, against every pair. scale: time and memory for up to
1,048,576 tokens. rival: `create_block_mask` of PyTorch, eager, for the same predicates. Needs no GPU.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import attnlang  # noqa: E402
from attnlang.errors import AttnlangError  # noqa: E402
from attnlang.ir.pattern import Attention  # noqa: E402
from attnlang.passes.classify import Tiles, classify  # noqa: E402
from benchmarks import machine  # noqa: E402

PARTS = ("soundness", "tightness", "scale", "rival")
EMPTY, PARTIAL, FULL = 0, 1, 2
COUNTED = ("visited", "truly_nonempty", "full", "truly_full", "unsound")
LONG = 1 << 20
Tensors = dict[str, np.ndarray]
GRIDS = {"neighborhood_1d": ("length",), "neighborhood_2d": ("height", "width"), "swin": ("height", "width"),
         "halo": ("height", "width"), "unidirectional_blocks": ("height", "width"),
         "neighborhood_3d": ("frames", "height", "width"), "inward_window": ("frames", "height", "width"),
         "space": ("frames", "tokens"), "time": ("frames", "tokens"), "radial": ("frames", "tokens"),
         "spatial_temporal_heads": ("frames", "tokens")}  # fmt: skip
FREE = ("full", "causal", "sliding_window", "local", "dilated_window", "streaming", "longformer", "strided_blocks",
        "sharded", "shifted_groups", "prefix_lm", "document", "region", "diagonal_masked", "visual_isolated",
        "short_long_heads", "temporal_latent", "local_block")  # fmt: skip


def tiles_of(
    pattern: attnlang.Pattern,
    NQ: int,
    NK: int,
    heads: int,
    tile: tuple[int, int],
    tensors: Tensors,
    **given: Any,
) -> Tiles:
    """The tiles of a pattern; the last query sees the last key."""
    (attention,) = (stage for stage in pattern.ir.stages if isinstance(stage, Attention))
    symbols: dict[str, Any] = {"B": 1, "H": heads, "HK": heads, "NQ": NQ, "NK": NK, "q_offset": NK - NQ}
    symbols |= {name: given.get(name, parameter.default) for name, parameter in pattern.params.items()}
    return classify(attention, symbols, tensors, *tile, pattern.ir.stages)


def kinds(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """EMPTY, PARTIAL or FULL for every tile of a bool array [NQ, NK], pair by pair."""
    tops, lefts = np.arange(0, mask.shape[0], rows), np.arange(0, mask.shape[1], columns)
    visible = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), tops, 0), lefts, 1)
    pairs = np.add.reduceat(np.add.reduceat(np.ones_like(mask, np.int64), tops, 0), lefts, 1)
    return np.where(visible == 0, EMPTY, np.where(visible == pairs, FULL, PARTIAL))


def load(name: str) -> attnlang.Pattern:
    """A pattern of the catalogue."""
    return attnlang.load(ROOT / "examples" / f"{name}.attn", name)


def seen_by(
    pattern: attnlang.Pattern, NQ: int, NK: int, heads: int, tensors: Tensors, **given: Any
) -> np.ndarray:
    """Every pair, by the interpreter: [1, H or 1, NQ, NK]."""
    found = {name: torch.from_numpy(array) for name, array in tensors.items()}
    return pattern.mask(NQ, NK, heads=heads, **found, **given).numpy()


def compared(tiles: Tiles, mask: np.ndarray) -> dict[str, int]:
    """Tiles visited and full as classified and in truth, and those where the classification is wrong."""
    result: dict[str, int] = dict.fromkeys(COUNTED, 0)
    for b in range(mask.shape[0]):
        for h in range(mask.shape[1]):
            found, true = tiles.map(h, b).dense(), kinds(mask[b, h], tiles.rows, tiles.columns)
            wrong = ((found == FULL) & (true != FULL)) | ((found == EMPTY) & (true != EMPTY))
            counts = ((found != EMPTY), (true != EMPTY), (found == FULL), (true == FULL), wrong)
            for key, places in zip(result, counts, strict=True):
                result[key] += int(places.sum())
    return result


# ------------------------------------------------------------------------------------------------- soundness


def soundness(draws: int, seed: int) -> list[dict[str, Any]]:
    """Random small calls of every section-A pattern."""
    draw = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for name in (*FREE, *GRIDS):
        pattern = load(name)
        total: dict[str, int] = dict.fromkeys(COUNTED, 0)
        calls = 0
        for _ in range(1000 * draws):
            if calls == draws:
                break
            extents = _extents(GRIDS.get(name, ("",)), draw)
            keys = int(np.prod(extents))
            queries, heads = int(draw.integers(1, keys + 1)), int(draw.choice((1, 2, 3, 6)))
            given = _corner(pattern, draw) | (
                dict(zip(GRIDS[name], extents, strict=True)) if name in GRIDS else {}
            )
            tensors = _drawn(pattern, keys, heads, draw)
            try:
                mask = seen_by(pattern, queries, keys, heads, tensors, **given)
            except AttnlangError:
                continue
            calls += 1
            tile = int(draw.integers(1, 17)), int(draw.integers(1, 17))
            tiles = tiles_of(pattern, queries, keys, heads, tile, tensors, **given)
            for key, amount in compared(tiles, mask).items():
                total[key] += amount
        rows.append({"pattern": name, "calls": calls, **total})
        print(f"{name:24s} {calls} calls: {total}", flush=True)
    return rows


def _extents(names: tuple[str, ...], draw: np.random.Generator) -> list[int]:
    """Lengths of the axes with a product of at most 48."""
    left = int(draw.integers(1, 49))
    lengths: list[int] = []
    for _ in names[1:]:
        lengths.append(int(draw.integers(1, max(2, round(left ** (1 / 2)) + 2))))
        left = max(1, left // lengths[-1])
    lengths.append(left)
    return [int(length) for length in draw.permutation(lengths)]


def _corner(pattern: attnlang.Pattern, draw: np.random.Generator) -> dict[str, Any]:
    """Parameters at and near the ends of their ranges, small, or far too large."""
    given: dict[str, Any] = {}
    for name, parameter in pattern.params.items():
        if parameter.dtype == "bool":
            given[name] = bool(draw.integers(2))
            continue
        least = max([0, *(int(bound) for sign, bound in parameter.bounds if sign in ("ge", "gt"))])
        far = [7, 8, 16, 100] if pattern.name in FREE else [least] * 4
        given[name] = int(draw.choice([least, least, least + 1, least + 2, least + 4, *far]))
    return given


def _drawn(pattern: attnlang.Pattern, keys: int, heads: int, draw: np.random.Generator) -> Tensors:
    """The int and bool tensors that a mask may read."""
    made: Tensors = {}
    for name, tensor in pattern.tensors.items():
        shape = tuple({"b": 1, "h": heads}.get(axis.index, keys) for axis in tensor.axes)
        if tensor.dtype == "bool":
            made[name] = draw.random(shape) < draw.choice((0.05, 0.5))
        elif tensor.dtype == "int":
            numbers = draw.integers(0, draw.choice((2, 5, keys + 1)), shape)
            made[name] = np.sort(numbers, -1) if draw.integers(2) else numbers
    return made


# ------------------------------------------------------------------------------------------------- tightness


def tight_cases() -> Iterator[tuple[str, dict[str, Any], Tensors]]:
    """Calls at about 4096 tokens: pattern, parameters, tensors."""
    draw = np.random.default_rng(0)
    tokens = 4096
    plain: list[tuple[str, dict[str, Any]]] = [
        ("full", {}), ("causal", {}), ("diagonal_masked", {}), ("short_long_heads", {}),
        *(("sliding_window", {"window": w}) for w in (1, 100, 1024)), *(("local", {"radius": r}) for r in (3, 512)),
        *(("dilated_window", {"window": w, "dilation": d}) for w, d in ((512, 2), (64, 100), (64, 8))),
        ("streaming", {}), ("streaming", {"window": 100, "sinks": 130}),
        ("strided_blocks", {}), ("strided_blocks", {"block": 100}),
        ("sharded", {}), ("sharded", {"block": 48, "near": 3, "period": 5}),
        *(("shifted_groups", {"group": group}) for group in (2048, 256, 200)),
        *(("temporal_latent", {"stride": stride}) for stride in (2, 64, 300)),
        *(("local_block", {"block": block}) for block in (64, 200)),
        ("neighborhood_1d", {"length": 4096}), ("neighborhood_1d", {"length": 4096, "window": 129, "stride": 64}),
        ("neighborhood_1d", {"length": 4096, "window": 33, "dilation": 16}),
        ("neighborhood_1d", {"length": 4096, "window": 65, "stride": 5, "dilation": 3, "causal": True}),
        *(("neighborhood_2d", {"height": 64, "width": 64, **more}) for more in (
            {}, {"window_y": 13, "window_x": 13}, {"dilation_y": 4, "dilation_x": 4}, {"stride_y": 4, "stride_x": 7},
            {"causal_y": True, "window_y": 20, "window_x": 64})),
        ("neighborhood_2d", {"height": 45, "width": 91}),
        ("neighborhood_2d", {"height": 91, "width": 45, "window_y": 12, "window_x": 45}),
        ("neighborhood_3d", {"frames": 16, "height": 16, "width": 16}),
        ("neighborhood_3d", {"frames": 4, "height": 32, "width": 32, "window_t": 3}),
        ("neighborhood_3d", {"frames": 16, "height": 16, "width": 16, "dilation_y": 2, "causal_t": True}),
        ("neighborhood_3d", {"frames": 9, "height": 15, "width": 30}),
        *(("inward_window", {"frames": f, "height": h, "width": w}) for f, h, w in ((4, 32, 32), (3, 27, 50))),
        *(("swin", {"height": h, "width": w, "window": n, "shift": s})
          for h, w, n, s in ((64, 64, 8, 4), (64, 64, 16, 0), (32, 128, 16, 5), (60, 60, 10, 3))),
        ("halo", {"height": 64, "width": 64}), ("halo", {"height": 50, "width": 81, "block": 10, "halo": 4}),
        *(("space", {"frames": f, "tokens": n}) for f, n in ((16, 256), (40, 100))),
        *(("time", {"frames": f, "tokens": n}) for f, n in ((16, 256), (4, 1024), (5, 819))),
        *(("radial", {"frames": f, "tokens": n}) for f, n in ((16, 256), (64, 64), (13, 315))),
        ("unidirectional_blocks", {"height": 64, "width": 64}),
        ("unidirectional_blocks", {"height": 50, "width": 80, "block": 7}),
    ]  # fmt: skip
    for name, given in plain:
        yield name, given, {}
    heads = {"is_temporal": np.array([True, False])}
    yield "spatial_temporal_heads", {"frames": 16, "tokens": 256}, heads
    yield "spatial_temporal_heads", {"frames": 30, "tokens": 136, "near_tokens": 10}, heads
    yield "prefix_lm", {}, {"prefix": np.array([700])}
    for ids in (np.sort(draw.integers(0, 20, (1, tokens))), np.sort(draw.integers(0, 300, (1, tokens)))):
        yield "document", {}, {"ids": ids}
    for ids in (
        draw.integers(0, 5, (1, 64)).repeat(64, -1),
        draw.integers(0, 5, (1, 41)).repeat(100, -1)[:, :4096],
    ):
        yield "region", {}, {"ids": np.ascontiguousarray(ids)}
    for share in (0.001, 0.02):
        yield "longformer", {}, {"is_global": draw.random((1, tokens)) < share}
    yield "visual_isolated", {}, {"is_visual": (np.arange(tokens) // 500 % 2 == 1)[None]}


def tightness() -> list[dict[str, Any]]:
    """Every case at two tile sizes, two heads."""
    rows: list[dict[str, Any]] = []
    for name, given, tensors in tight_cases():
        pattern = load(name)
        tokens = int(np.prod([given[extent] for extent in GRIDS[name]])) if name in GRIDS else 4096
        mask = seen_by(pattern, tokens, tokens, 2, tensors, **given)
        for side in (128, 64):
            start = time.perf_counter()
            tiles = tiles_of(pattern, tokens, tokens, 2, (side, side), tensors, **given)
            milliseconds = round((time.perf_counter() - start) * 1e3, 2)
            found = compared(tiles, mask)
            bar = 1.05 if tensors else 1.02
            met = (
                found["visited"] <= bar * found["truly_nonempty"]
                and found["full"] >= found["truly_full"] * 0.98
            )
            row = {
                "pattern": name,
                "given": given,
                "tokens": tokens,
                "tile": side,
                "milliseconds": milliseconds,
                **found,
            }
            rows.append({**row, "tensors": bool(tensors), "met": met and not found["unsound"]})
            print("" if rows[-1]["met"] else "BAR MISSED ", row, flush=True)
    return rows


# ----------------------------------------------------------------------------------------------------- scale


def scale_cases() -> Iterator[tuple[str, int, int, dict[str, Any], Tensors, float, float]]:
    """Pattern, tokens, heads, parameters, tensors, and the bars: milliseconds and MiB above the baseline."""
    none = float("inf")
    for name in ("sliding_window", "streaming", "dilated_window", "sharded"):
        yield name, LONG, 1, {}, {}, 20.0, 32.0
    yield "sharded", LONG, 8, {}, {}, none, none
    yield "strided_blocks", LONG, 8, {}, {}, none, none
    yield "causal", LONG, 1, {}, {}, none, none
    yield "shifted_groups", LONG, 2, {}, {}, none, none
    yield "neighborhood_3d", LONG, 1, {"frames": 128, "height": 128, "width": 64}, {}, 500.0, none
    yield "radial", 64 * 4096, 1, {"frames": 64, "tokens": 4096}, {}, 500.0, none
    ids = np.sort(np.random.default_rng(0).integers(0, 10_000, (1, LONG)))
    yield "document", LONG, 1, {}, {"ids": ids}, 50.0, none


def scale(repetitions: int) -> list[dict[str, Any]]:
    """The least time of some repetitions, tile 128 × 128, parsing left out, counting the tiles included."""
    rows: list[dict[str, Any]] = []
    for name, tokens, heads, given, tensors, most_time, most_memory in scale_cases():
        pattern = load(name)

        def plan(
            pattern: attnlang.Pattern = pattern, tokens: int = tokens, heads: int = heads,
            tensors: Tensors = tensors, given: dict[str, Any] = given,
        ) -> Tiles:  # fmt: skip
            tiles = tiles_of(pattern, tokens, tokens, heads, (128, 128), tensors, **given)
            _ = tiles.counts
            return tiles

        times = sorted(_timed(plan) for _ in range(repetitions))
        tracemalloc.start()
        tiles = plan()
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        counts = tiles.counts
        row = {
            "pattern": name, "tokens": tokens, "heads": heads, "given": given, "milliseconds": round(times[0], 2),
            "median_milliseconds": round(times[len(times) // 2], 2), "peak_MiB": round(peak, 2),
            "index_MiB": round(tiles.nbytes / 2**20, 3), "full": counts.full, "partial": counts.partial,
            "empty": counts.empty, "met": times[0] <= most_time and peak <= most_memory,
        }  # fmt: skip
        rows.append(row)
        print("" if row["met"] else "BAR MISSED ", row, flush=True)
    return rows


def _timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1e3


# ----------------------------------------------------------------------------------------------------- rival


def rival(longest: int) -> list[dict[str, Any]]:
    """`create_block_mask`, eager, one head; ours for the same predicate and length beside it."""
    from torch.nn.attention.flex_attention import create_block_mask

    def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
        return q >= k

    def sliding_window(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & (q - k < 1024)

    rows: list[dict[str, Any]] = []
    for name, predicate in (("causal", causal), ("sliding_window", sliding_window)):
        tokens = 4096
        create_block_mask(predicate, 1, 1, 256, 256, device="cpu")
        while tokens <= longest:
            theirs = _timed(lambda p=predicate, n=tokens: create_block_mask(p, 1, 1, n, n, device="cpu"))
            ours = min(
                _timed(lambda n=name, t=tokens: tiles_of(load(n), t, t, 1, (128, 128), {})) for _ in range(3)
            )
            row = {
                "pattern": name,
                "tokens": tokens,
                "create_block_mask_ms": round(theirs, 1),
                "ours_ms": round(ours, 2),
            }
            rows.append({**row, "note": "ours with reading and elaborating the file"})
            print(row, flush=True)
            tokens *= 2
    return rows


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing is unsound and every bar is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)} (default: all but rival)")
    parser.add_argument("--draws", type=int, default=60, help="random calls of each pattern (soundness)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repetitions", type=int, default=7, help="of each timing (scale)")
    parser.add_argument("--longest", type=int, default=16384, help="tokens (rival)")
    parser.add_argument("--output", type=Path, default=machine.RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    parts: list[str] = options.parts or list(PARTS[:3])
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    data: dict[str, Any] = {"machine": machine.describe()}
    if "soundness" in parts:
        data["soundness"] = soundness(options.draws, options.seed)
    if "tightness" in parts:
        data["tightness"] = tightness()
    if "scale" in parts:
        data["scale"] = scale(options.repetitions)
    if "rival" in parts:
        data["rival"] = rival(options.longest)
    print(machine.write("sparsity" if len(parts) > 1 else f"sparsity-{parts[0]}", data, options.output))
    unsound = any(row["unsound"] or row["calls"] < options.draws for row in data.get("soundness", []))
    missed = any(not row["met"] for part in ("tightness", "scale") for row in data.get(part, []))
    return 1 if unsound or missed else 0


if __name__ == "__main__":
    sys.exit(main())
