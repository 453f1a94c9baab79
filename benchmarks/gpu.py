"""Checks every generated kernel on a GPU against its reference, and times attnlang beside SDPA and FlexAttention.

    python benchmarks/gpu.py --quick        under three minutes on a CUDA machine
    python benchmarks/gpu.py                more cases, more rounds

Without a GPU the same steps run at tiny sizes through Triton's interpreter. Needs torch, triton and lark, no network.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import attnlang
from benchmarks import correctness, machine, rivals, timing

TIMED = ("full", "causal", "sliding_window", "alibi", "softcap")
SLOW_TO_INTERPRET = ("additive", "music", "variate")  # a loop over features for every tile


def main(arguments: list[str] | None = None) -> int:
    """0 when every kernel agrees with its reference."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="bf16 and few cases: under three minutes on a GPU"
    )
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="of the random inputs (default: new ones)"
    )
    parser.add_argument("--patterns", nargs="*", help="check only these")
    parser.add_argument("--no-timing", action="store_true", help="check, but time nothing")
    parser.add_argument("--output", type=Path, default=machine.RESULTS, help="where the JSON goes")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    data: dict[str, Any] = {"machine": machine.describe(), "seed": options.seed, "quick": options.quick}
    with _pool(device) as pool:
        checks = _start_checks(pool, options, device)
        warm = (
            [] if options.no_timing or pool is None else [pool.submit(_warm, *p) for p in _problems(device)]
        )
        data["checks"] = _finish_checks(checks)
        for future in warm:
            future.result()
    if not options.no_timing:
        data["timings"] = [
            _time(*problem, device, 20 if options.quick else 100) for problem in _problems(device)
        ]
    data["seconds"] = round(time.perf_counter() - start, 1)
    name = f"gpu-{'quick-' if options.quick else ''}{_slug(data['machine']['device'])}"
    path = machine.write(name if device == "cuda" else "gpu-interpreted", data, options.output)
    failed = [check for check in data["checks"] if not check["passed"]]
    print(
        f"{len(data['checks']) - len(failed)} of {len(data['checks'])} checks passed in {data['seconds']} s; {path}"
    )
    return 1 if failed else 0


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


# -------------------------------------------------------------------------------------------- correctness


class _Serial:
    """Stands in for a pool where one process is enough."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def _pool(device: str) -> ProcessPoolExecutor | _Serial:
    """Workers that compile side by side: Triton compiles on the CPU, and its disk cache is shared."""
    if device == "cpu":
        return _Serial()
    return ProcessPoolExecutor(max(2, min(8, (os.cpu_count() or 4) // 2)), mp_context=get_context("spawn"))


def _start_checks(pool: ProcessPoolExecutor | None, options: argparse.Namespace, device: str) -> list[Any]:
    names = options.patterns or correctness.patterns()
    dtypes = ["bfloat16"] if options.quick else ["bfloat16", "float16", "float32"]
    if device == "cpu":
        names = [name for name in names if options.patterns or name not in SLOW_TO_INTERPRET]
        tasks = [(name, device, "interpret", dtypes, options.seed, 1) for name in names]
        return [correctness.check_pattern(*task) for task in tasks]
    assert pool is not None
    most = 4 if options.quick else 100
    return [
        pool.submit(correctness.check_pattern, name, device, None, dtypes, options.seed, most)
        for name in names
    ]


def _finish_checks(started: list[Any]) -> list[dict[str, Any]]:
    checks: list[dict[str, Any]] = []
    for entry in started:
        checks += entry.result() if isinstance(entry, Future) else entry
    for check in checks:
        if not check["passed"]:
            errors = f"{check['error']:.2e} ({check['dense_error']:.2e} dense)"
            print(f"FAILED {check['case']} {check['dtype']}: {errors} {check['note']}")
    return checks


# ----------------------------------------------------------------------------------------------- timing


def _problems(device: str) -> list[tuple[str, int, int, int, int]]:
    """Pattern, batch, heads, length, features: 16k tokens and a width of 2048 in all."""
    if device == "cpu":
        return [(name, 1, 2, 128, 32) for name in TIMED]
    return [
        (name, 16384 // length, 2048 // features, length, features)
        for name in TIMED
        for features in (64, 128)
        for length in (4096, 16384)
    ]


def _attnlang(problem: rivals.Problem, target: str | None) -> tuple[rivals.Attend, int]:
    """The call, and how many pairs are visible in all."""
    pattern = attnlang.load(Path(__file__).resolve().parent.parent / "examples" / f"{problem.pattern}.attn")
    extra: dict[str, Any] = {
        "sliding_window": {"window": rivals.WINDOW},
        "alibi": {"slopes": problem.slopes},
        "softcap": {"cap": rivals.CAP},
    }.get(problem.pattern, {})
    q = problem.q
    parameters = {name: value for name, value in extra.items() if not isinstance(value, torch.Tensor)}
    plan = pattern.plan(
        q.shape[2], q.shape[2], heads=q.shape[1], head_dim=q.shape[3], dtype="bf16", **parameters
    )
    assert plan.density is not None
    pairs = round(plan.density * q.shape[2] ** 2) * q.shape[0] * q.shape[1]
    return (lambda: pattern(q, problem.k, problem.v, target=target, **extra)), pairs


def _warm(name: str, batch: int, heads: int, length: int, features: int) -> None:
    """Compiles what the timing will run, into the caches on disk."""
    del batch, heads
    problem = rivals.Problem.random(name, 16384 // length, 2048 // features, length, features, "cuda")
    _attnlang(problem, None)[0]()
    rivals.flex(problem)()


def _time(
    name: str, batch: int, heads: int, length: int, features: int, device: str, rounds: int
) -> dict[str, Any]:
    problem = rivals.Problem.random(name, batch, heads, length, features, device)
    ours, pairs = _attnlang(problem, None if device == "cuda" else "interpret")
    calls = {"attnlang": ours, "flex": rivals.flex(problem)}
    library = rivals.sdpa(problem)
    if library is not None:
        calls["sdpa"] = library
    row: dict[str, Any] = {"pattern": name, "B": batch, "H": heads, "N": length, "D": features}
    times = timing.medians(calls, device, rounds if device == "cuda" else 1)
    flops = 4 * pairs * features
    row["ms"] = {who: round(value, 4) for who, value in times.items()}
    row["tflops"] = {who: round(flops / value / 1e9, 2) for who, value in times.items()}
    row["ratio"] = {who: round(times[who] / times["attnlang"], 3) for who in times if who != "attnlang"}
    shown = "  ".join(
        f"{who} {value:.3f} ms {row['tflops'][who]:.0f} TFLOP/s" for who, value in times.items()
    )
    print(f"{name:15} N={length:<6} D={features:<4} {shown}", flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
