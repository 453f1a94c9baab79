"""Median milliseconds of calls that take turns: what the GPU benchmark needs of attnlang/bench_timing.py."""

from __future__ import annotations

from collections.abc import Mapping

from attnlang.bench_timing import Call, interleaved


def medians(
    calls: Mapping[str, Call], device: str, rounds: int, budget_ms: float = 200.0
) -> dict[str, float]:
    """Median milliseconds of each call, at most so many rounds and about so much time for each."""
    times = interleaved(calls, device, rounds, budget_ms / 1e3)
    return {name: found.median * 1e3 for name, found in times.items()}
