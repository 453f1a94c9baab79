"""Launches a kernel: on CUDA through Triton's own JIT, or on the CPU through its interpreter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attnlang.artifact import Argument, KernelSource

from .triton_errors import TritonLaunchError, compile_error, first_line, require
from .triton_home import ensure_cache
from .triton_interpret import Progress
from .triton_interpret import interpret as run_interpreted
from .triton_load import load
from .triton_lock import TRITON

Arguments = Mapping[str, torch.Tensor | int | float]

TORCH_DTYPES: dict[str, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
    "fp64": torch.float64,
    "i1": torch.bool,
    "i8": torch.int8,
    "i32": torch.int32,
    "i64": torch.int64,
    "u8": torch.uint8,
}
INTEGER_BOUNDS = {"i8": (-(2**7), 2**7), "u8": (0, 2**8), "i32": (-(2**31), 2**31), "i64": (-(2**63), 2**63)}
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
    for the interpreter. Raises `TritonLaunchError`, `TritonCompileError`, `TritonMissing`.
    """
    checked = {argument.name: _checked(source, argument, arguments) for argument in source.arguments}
    if len(arguments) != len(checked):
        extra = sorted(set(arguments) - set(checked))
        raise TritonLaunchError(kernel=source.name, reason=f"it has no argument called {', '.join(extra)}")
    if 0 in grid:
        return
    if interpret:
        run_interpreted(source, grid, checked, progress=progress)
    else:
        _launch_compiled(source, grid, checked)


def _checked(source: KernelSource, argument: Argument, arguments: Arguments) -> torch.Tensor | int | float:
    """The value of one argument; `TritonLaunchError` where it does not fit."""
    value: object = arguments.get(argument.name)
    if argument.kind == "pointer":
        if isinstance(value, torch.Tensor) and value.dtype == TORCH_DTYPES[argument.dtype]:
            return value
        told = str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        wanted = f"a tensor of {TORCH_DTYPES[argument.dtype]}"
    else:
        bounds = INTEGER_BOUNDS.get(argument.dtype)
        if argument.dtype == "i1" and isinstance(value, bool):
            return value
        if bounds and isinstance(value, int) and bounds[0] <= value < bounds[1]:
            return int(value)
        if bounds is None and argument.dtype != "i1" and isinstance(value, (int, float)):
            return float(value)
        told = f"{value!r}" if isinstance(value, (int, float)) else type(value).__name__
        wanted = f"a number of type {argument.dtype}"
    found = f"not {told}" if argument.name in arguments else "but is missing"
    raise TritonLaunchError(
        kernel=source.name, reason=f"its argument {argument.name} must be {wanted}, {found}"
    )


def _launch_compiled(source: KernelSource, grid: tuple[int, int, int], arguments: Arguments) -> None:
    device = _device(source, arguments)
    for axis, size, limit in zip("xyz", grid, GRID_LIMITS, strict=True):
        if not 0 < size <= limit:
            reason = f"grid axis {axis} has {size} programs, the device takes 1 to {limit}"
            raise TritonLaunchError(kernel=source.name, reason=reason)
    function = load(source)
    resources: Any = require("triton.runtime.errors").OutOfResources
    values = {**arguments, **dict(source.constants), "num_warps": source.warps, "num_stages": source.stages}
    ensure_cache()
    with torch.cuda.device(device), TRITON.shared():
        try:
            function[grid](**values)
        except resources as error:
            raise TritonLaunchError(kernel=source.name, reason=first_line(error)) from error
        except Exception as error:
            raise compile_error(source.name, str(device), error) from error


def _device(source: KernelSource, arguments: Arguments) -> torch.device:
    """The one CUDA device that holds all tensors."""
    devices = {value.device for value in arguments.values() if isinstance(value, torch.Tensor)}
    if len(devices) == 1 and next(iter(devices)).type == "cuda":
        return devices.pop()
    told = ", ".join(sorted(str(device) for device in devices)) or "none"
    reason = f"its tensors must be on one CUDA device, they are on {told}"
    raise TritonLaunchError(kernel=source.name, reason=reason)
