"""What a call costs before and after its kernel: a call of a pattern at N = 16 beside its bare launches by ctypes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch.nn.functional import scaled_dot_product_attention

from attnlang.bench_timing import interleaved
from attnlang.execute_programs import kernel_cache
from attnlang.runtime import cpp_load
from attnlang.runtime.cpp_launch import CppKernel
from attnlang.runtime.cpp_wrapper import HEADER, pointers
from benchmarks.cpu_cases import CASES, DTYPES, inputs, ours
from benchmarks.cpu_passes import Setting

BATCH = 50
"""Calls in one timed run: the clock itself costs a tenth of a microsecond."""


RESULTS = ("out", "lse", "part", "part_lse")
"""Arguments of kernels that are written; they get memory of their own, of so many bytes."""

ROOM = 1 << 20


@dataclass(frozen=True)
class Launch:
    """One packed launch as it went to a kernel's library, its results going to `results` instead."""

    run: Callable[[bytes], int]
    packed: bytes
    results: Mapping[str, torch.Tensor]


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Every launch inside the block, with results of at most ROOM bytes. The tensors that the calls read must live as
    long as the launches are used."""
    launches: list[Launch] = []
    go = CppKernel._go  # pyright: ignore[reportPrivateUsage]

    def recording(kernel: CppKernel, slots: bytes, *more: Any) -> None:
        run = cpp_load.load(kernel.source, kernel_cache())
        names = [argument.name for argument in pointers(kernel.source)]
        results = {name: torch.zeros(ROOM, dtype=torch.uint8) for name in names if name in RESULTS}
        addresses = list(struct.unpack_from(f"={len(names)}Q", slots))
        for name, room in results.items():
            addresses[names.index(name)] = room.data_ptr()
        redirected = struct.pack(f"={len(names)}Q", *addresses) + slots[8 * len(names) :]

        def remembered(packed: bytes) -> int:
            launches.append(Launch(run, packed[: HEADER.size] + redirected, results))
            return run(packed)

        with patch.object(kernel, "_run", remembered):
            go(kernel, slots, *more)

    with patch.object(CppKernel, "_go", recording):
        yield launches


def overhead(tokens: int, features: int, dtype: str, setting: Setting) -> dict[str, Any]:
    """Microseconds of a call, of its launches alone, and of scaled_dot_product_attention."""
    case = CASES["causal"](tokens, setting.heads)
    q, k, v = inputs(tokens, features, DTYPES[dtype], setting.heads)
    attend = ours(case, setting.target).attend
    row: dict[str, Any] = {"case": case.name, "N": tokens, "D": features, "dtype": dtype}
    with torch.no_grad():
        attend(q, k, v)
        with recorded() as launches:
            attend(q, k, v)
        if not launches:
            return row | {"failed": f"target {setting.target!r} launches no C++ kernel"}
        calls: dict[str, Callable[[], Any]] = {
            "attnlang": lambda: attend(q, k, v),
            "ctypes": lambda: [launch.run(launch.packed) for launch in launches],
            "sdpa": lambda: scaled_dot_product_attention(q, k, v, is_causal=True),
        }
        times = interleaved(
            {name: _repeated(call) for name, call in calls.items()}, "cpu", setting.most, setting.seconds
        )
    found = {name: round(each.median / BATCH * 1e6, 2) for name, each in times.items()}
    least = {name: round(each.least / BATCH * 1e6, 2) for name, each in times.items()}
    above = round(found["attnlang"] - found["ctypes"], 2)
    return row | {"launches": len(launches), "median_us": found, "least_us": least, "above_ctypes_us": above}


def _repeated(call: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(BATCH):
            call()

    return run
