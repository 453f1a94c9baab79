"""Classification of tiles from the declaration: is it sound, how tight, how fast, and beside FlexAttention.

    python benchmarks/sparsity.py                       everything but the rival, half an hour on two cores
    python benchmarks/sparsity.py scale rival           some parts only

soundness: sections A to F at small sizes, against every pair (sparsity_soundness.py). programs: 10,000 random ones.
tightness: at about 4096 tokens, tiles of 128 × 128 and 64 × 64, against every pair. scale: time and memory for up to
1,048,576 tokens. summaries: from least and greatest values of blocks alone. indices: lists for kernels, and the time
they take. order: tiles in the order of tokens that is found (sparsity_order.py). rival: `create_block_mask`
of PyTorch, eager and compiled, beside ours (sparsity_rival.py). No GPU.
"""

from __future__ import annotations

import argparse
import json
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
from attnlang.passes.classify import Tiles  # noqa: E402
from attnlang.passes.summaries import Summary  # noqa: E402
from attnlang.passes.tile_lists import lists, transposed_lists  # noqa: E402
from attnlang.runtime.summaries import blocks_of, extremes  # noqa: E402
from benchmarks import machine  # noqa: E402
from benchmarks.sparsity_order import order  # noqa: E402
from benchmarks.sparsity_rival import rival  # noqa: E402
from benchmarks.sparsity_soundness import every_size, programs  # noqa: E402
from benchmarks.sparsity_tiles import GRIDS, Tensors, compared, load, seen_by, tiles_of, timed  # noqa: E402

PARTS = ("soundness", "programs", "tightness", "scale", "summaries", "indices", "order", "rival")
LONG = 1 << 20


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
        for heads in (1, 8):
            yield name, LONG, heads, {}, {}, 20.0, 32.0
    yield "sharded", LONG, 32, {}, {}, none, none
    yield "strided_blocks", LONG, 8, {}, {}, none, none
    yield "causal", LONG, 1, {}, {}, none, none
    yield "shifted_groups", LONG, 2, {}, {}, none, none
    yield "neighborhood_3d", LONG, 1, {"frames": 128, "height": 128, "width": 64}, {}, 500.0, none
    yield "radial", 64 * 4096, 1, {"frames": 64, "tokens": 4096}, {}, 500.0, none
    ids = np.sort(np.random.default_rng(0).integers(0, 10_000, (1, LONG)))
    yield "document", LONG, 1, {}, {"ids": ids}, 50.0, none


def summarized(repetitions: int) -> dict[str, Any]:
    """10,000 documents at the most tokens, from the least and greatest id of every tile alone, found by torch."""
    ids = torch.from_numpy(np.sort(np.random.default_rng(0).integers(0, 10_000, (1, LONG))))
    pattern, block = load("document"), blocks_of((1, LONG), 128)

    def plan() -> Tiles:
        low, high = extremes(ids, block)
        some = Summary(low, high, block, tuple(ids.shape))
        tiles = tiles_of(pattern, LONG, LONG, 1, (128, 128), {"ids": some})
        _ = tiles.counts
        return tiles

    milliseconds = min(timed(plan) for _ in range(repetitions))
    counts = plan().counts
    all_ids = tiles_of(pattern, LONG, LONG, 1, (128, 128), {"ids": ids.numpy()}).counts
    row = {
        "pattern": "document", "tokens": LONG, "from": "least and greatest ids of 128 tokens each",
        "milliseconds": round(milliseconds, 2), "full": counts.full, "partial": counts.partial, "empty": counts.empty,
        "as_from_all_ids": counts == all_ids, "met": milliseconds <= 50.0 and counts == all_ids,
    }  # fmt: skip
    print("" if row["met"] else "BAR MISSED ", row, flush=True)
    return row


def indices(repetitions: int) -> list[dict[str, Any]]:
    """Lists for kernels by query tile and by key tile, from tiles that are known, at 65,536 tokens."""
    rows: list[dict[str, Any]] = []
    for name in ("sliding_window", "streaming", "dilated_window", "sharded", "strided_blocks", "causal"):
        tiles = tiles_of(load(name), 1 << 16, 1 << 16, 8, (128, 128), {})
        found = lists(tiles)
        row = {
            "pattern": name, "tokens": 1 << 16, "heads": 8, "maps": len(tiles.maps), "visited": len(found.columns),
            "MiB": round(found.nbytes / 2**20, 3),
            "milliseconds": round(min(timed(lambda t=tiles: lists(t)) for _ in range(repetitions)), 2),
            "transposed_milliseconds": round(
                min(timed(lambda t=tiles: transposed_lists(t)) for _ in range(repetitions)), 2),
        }  # fmt: skip
        rows.append(row)
        print(row, flush=True)
    return rows


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

        times = sorted(timed(plan) for _ in range(repetitions))
        worked = min(timed(plan, time.process_time) for _ in range(repetitions))
        tracemalloc.start()
        tiles = plan()
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        counts = tiles.counts
        row = {
            "pattern": name, "tokens": tokens, "heads": heads, "given": given, "milliseconds": round(times[0], 2),
            "processor_milliseconds": round(worked, 2),
            "median_milliseconds": round(times[len(times) // 2], 2), "peak_MiB": round(peak, 2),
            "index_MiB": round(tiles.nbytes / 2**20, 3), "full": counts.full, "partial": counts.partial,
            "empty": counts.empty, "met": times[0] <= most_time and peak <= most_memory,
        }  # fmt: skip
        rows.append(row)
        print("" if row["met"] else "BAR MISSED ", row, flush=True)
    return rows


def written(data: dict[str, Any], folder: Path) -> Path:
    """Puts parts into sparsity.json, each with the machine it was measured on; other parts stay as they were."""
    path = folder / "sparsity.json"
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    here = machine.describe()
    known = {part: before[part] for part in PARTS if "machine" in before.get(part, {})}
    return machine.write(
        "sparsity", known | {part: {"machine": here, "found": each} for part, each in data.items()}, folder
    )


def main(arguments: list[str] | None = None) -> int:
    """0 when nothing is unsound and every bar is met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"some of {', '.join(PARTS)} (default: all but rival)")
    parser.add_argument("--every", type=int, default=1, help="only each n-th pair of lengths (soundness)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (soundness)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", type=int, default=10_000, help="random programs")
    parser.add_argument("--repetitions", type=int, default=7, help="of each timing (scale)")
    parser.add_argument("--longest", type=int, default=LONG, help="tokens (rival)")
    parser.add_argument(
        "--seconds", type=float, default=120, help="the longest that one length may take (rival)"
    )
    parser.add_argument(
        "--gibibytes", type=float, default=12, help="the most that a process may hold (rival)"
    )
    parser.add_argument("--output", type=Path, default=machine.RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    parts: list[str] = options.parts or list(PARTS[:-1])
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    limits = {"seconds": options.seconds, "gibibytes": options.gibibytes, "longest": options.longest}
    measure: dict[str, Callable[[], Any]] = {
        "soundness": lambda: {
            "lengths": f"one of {options.every} pairs of 1 to 64 × 1 to 64",
            "attentions": every_size(options.seed, options.every, options.jobs),
        },
        "programs": lambda: programs(options.programs),
        "tightness": tightness,
        "scale": lambda: scale(options.repetitions),
        "summaries": lambda: summarized(options.repetitions),
        "indices": lambda: indices(options.repetitions),
        "order": lambda: order(options.repetitions),
        "rival": lambda: {"limits": limits, "rows": rival(**limits)},
    }
    data = {part: measure[part]() for part in parts}
    print(written(data, options.output))
    unsound = any(row["unsound"] for row in data.get("soundness", {}).get("attentions", []))
    measured = [row for part in ("tightness", "scale", "order") for row in data.get(part, [])]
    missed = any(not row["met"] for row in [*measured, data.get("summaries", {"met": True})])
    return 1 if unsound or missed else 0


if __name__ == "__main__":
    sys.exit(main())
