"""Times calls beside one another: they take turns in one process, so that a machine that slows down harms all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import torch

Call = Callable[[], Any]
FEWEST = 3
"""Runs of a call however long it takes: fewer have no median."""


@dataclass(frozen=True)
class Times:
    """Seconds of the runs of one call, in their order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What a run usually takes."""
        return median(self.seconds)

    @property
    def least(self) -> float:
        """What a run takes that nothing disturbed."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """The middle half of the runs, from its first to its last, as a share of the median."""
        low, _, high = quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / self.median

    def to_dict(self) -> dict[str, float]:
        """Milliseconds for JSON."""
        return {
            "median_ms": self.median * 1e3, "least_ms": self.least * 1e3, "spread": self.spread,
            "runs": len(self.seconds),
        }  # fmt: skip


def interleaved(
    calls: Mapping[str, Call], device: str, most: int = 100, budget: float = 0.2
) -> dict[str, Times]:
    """Runs every call in turn, round after round; one that takes long sits out some rounds, evenly spread.

    Each gets `budget` seconds and at most `most` runs, never fewer than FEWEST; one run before warms it up, one or two
    measure how often it can run. On CUDA, times are the device's, and the second-level cache is overwritten before
    each run.
    """
    flush = torch.empty(64 * 2**20, dtype=torch.int32, device=device) if device == "cuda" else None
    for call in calls.values():
        call()
    runs = {name: _runs(call, flush, most, budget) for name, call in calls.items()}
    rounds = max(runs.values(), default=0)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds):
        for name, call in calls.items():
            if (turn + 1) * runs[name] // rounds > turn * runs[name] // rounds:
                found[name].append(_once(call, flush))
    return {name: Times(tuple(times)) for name, times in found.items()}


def _runs(call: Call, flush: torch.Tensor | None, most: int, budget: float) -> int:
    """How many runs fit; a run that leaves room for another may have been disturbed, and the shorter of two counts."""
    seconds = _once(call, flush)
    if seconds * FEWEST < budget:
        seconds = min(seconds, _once(call, flush))
    return max(FEWEST, min(most, int(budget / max(seconds, 1e-7))))


def _once(call: Call, flush: torch.Tensor | None) -> float:
    """Seconds of one run."""
    if flush is None:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    flush.zero_()
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    call()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1e3
