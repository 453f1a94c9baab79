"""Times calls on CUDA by events and elsewhere by the clock: interleaved rounds, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

Call = Callable[[], Any]


def medians(
    calls: Mapping[str, Call], device: str, rounds: int, budget_ms: float = 200.0
) -> dict[str, float]:
    """Median milliseconds of each call. The calls take turns, so that a drifting clock harms all alike; on CUDA the
    second-level cache is overwritten before each call."""
    for call in calls.values():
        call()
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device=device) if device == "cuda" else None
    found: dict[str, list[float]] = {name: [] for name in calls}
    for name, call in calls.items():
        found[name].append(_once(call, flush))
    slowest = max(times[0] for times in found.values())
    for _ in range(max(3, min(rounds, int(budget_ms / max(slowest, 1e-3))))):
        for name, call in calls.items():
            found[name].append(_once(call, flush))
    return {name: median(times[1:]) for name, times in found.items()}


def _once(call: Call, flush: torch.Tensor | None) -> float:
    if flush is None:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3
    flush.zero_()
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last))
