"""How busy the machine was with other work while something was measured on it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUIET = 0.15
"""Processors' worth of other work below which a machine counts as quiet."""


@dataclass(frozen=True)
class Watch:
    """The beginning of a measurement: clocks and the load average at that time."""

    wall: float
    own: float
    busy: float | None
    load: tuple[float, float, float] | None

    @staticmethod
    def start() -> Watch:
        """From now on."""
        return Watch(time.perf_counter(), _own(), _busy(), _load())

    def end(self) -> dict[str, Any]:
        """Load averages (1, 5, 15 minutes) at both ends, and how many processors others used in between, where the
        system tells; `under_load`: others took part of the machine, or the load average says they did at the start."""
        seconds = time.perf_counter() - self.wall
        busy, others = _busy(), None
        if self.busy is not None and busy is not None and seconds > 0:
            others = round(max(0.0, (busy - self.busy) - (_own() - self.own)) / seconds, 2)
        loaded = self.load is not None and self.load[0] > 0.5
        return {
            "load_at_start": self.load, "load_at_end": _load(), "processors_used_by_others": others,
            "under_load": loaded if others is None else others > QUIET, "seconds": round(seconds, 1),
        }  # fmt: skip


def _own() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _load() -> tuple[float, float, float] | None:
    return tuple(round(each, 2) for each in os.getloadavg()) if hasattr(os, "getloadavg") else None  # pyright: ignore[reportReturnType]


def _busy() -> float | None:
    """Seconds of processor time of everybody since the machine started; None where /proc does not count for these
    processors."""
    file = Path("/proc/stat")
    if not file.exists():
        return None
    rows = [row.split() for row in file.read_text(encoding="ascii").splitlines() if row.startswith("cpu")]
    if len(rows) - 1 != os.cpu_count():
        return None
    user, nice, system, _, _, interrupts, soft, stolen = (int(each) for each in rows[0][1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")
