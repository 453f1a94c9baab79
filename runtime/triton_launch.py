"""Launches a kernel: on CUDA through Triton's own JIT, or on the CPU through its interpreter."""

from __future__ import annotations

from typing import Any

import torch

from attnlang.artifact import KernelSource

from .arguments import Arguments, LaunchError, checked
from .triton_errors import compile_error, first_line, require
from .triton_home import ensure_cache
from .triton_interpret import Progress
from .triton_interpret import interpret as run_interpreted
from .triton_load import load
from .triton_lock import TRITON

GRID_LIMITS = (2**31 - 1, 65535, 65535)


def launch(
    source: KernelSource,
    grid: tuple[int, int, int],
    arguments: Arguments,
    *,
    interpret: bool,
    progress: Progress | None = None,
) -> None:
    """Run `source` once for every program of `grid`; it writes its results into its tensor arguments.

    `arguments` has exactly the names of `source.arguments`; every tensor has the declared dtype, every
    scalar fits the declared type, None is no tensor. On CUDA the call returns when the kernel is queued on
    the current stream of the tensors' device. A grid with a zero does nothing. `progress(done, total)` is
    for the interpreter. Raises `LaunchError`, `TritonCompileError`, `TritonMissing`.
    """
    values = checked(source, arguments)
    if 0 in grid:
        return
    if interpret:
        run_interpreted(source, grid, values, progress=progress)
    else:
        _launch_compiled(source, grid, values)


def _launch_compiled(source: KernelSource, grid: tuple[int, int, int], arguments: Arguments) -> None:
    device = _device(source, arguments)
    for axis, size, limit in zip("xyz", grid, GRID_LIMITS, strict=True):
        if not 0 < size <= limit:
            reason = f"grid axis {axis} has {size} programs, the device takes 1 to {limit}"
            raise LaunchError(kernel=source.name, reason=reason)
    function = load(source)
    resources: Any = require("triton.runtime.errors").OutOfResources
    values = {**arguments, **dict(source.constants), "num_warps": source.warps, "num_stages": source.stages}
    ensure_cache()
    with torch.cuda.device(device), TRITON.shared():
        try:
            function[grid](**values)
        except resources as error:
            raise LaunchError(kernel=source.name, reason=first_line(error)) from error
        except Exception as error:
            raise compile_error(source.name, str(device), error) from error


def _device(source: KernelSource, arguments: Arguments) -> torch.device:
    """The one CUDA device that holds all tensors."""
    devices = {value.device for value in arguments.values() if isinstance(value, torch.Tensor)}
    if len(devices) == 1 and next(iter(devices)).type == "cuda":
        return devices.pop()
    told = ", ".join(sorted(str(device) for device in devices)) or "none"
    reason = f"its tensors must be on one CUDA device, they are on {told}"
    raise LaunchError(kernel=source.name, reason=reason)
