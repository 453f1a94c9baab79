"""The arguments of a launch: whether each fits what the kernel declares."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attnlang.artifact import Argument, KernelSource
from attnlang.errors import Diagnostic

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


class LaunchError(Diagnostic):
    """A kernel was called with arguments that do not fit it, or does not fit the device."""

    code = "E542"
    message = "the kernel {kernel} cannot be launched: {reason}"
    hint = ""


def checked(source: KernelSource, arguments: Arguments) -> dict[str, torch.Tensor | int | float]:
    """The value of each declared argument; `LaunchError` where one does not fit, is missing or is not declared."""
    values = {argument.name: _checked(source, argument, arguments) for argument in source.arguments}
    if len(arguments) != len(values):
        extra = sorted(set(arguments) - set(values))
        raise LaunchError(kernel=source.name, reason=f"it has no argument called {', '.join(extra)}")
    return values


def _checked(source: KernelSource, argument: Argument, arguments: Arguments) -> torch.Tensor | int | float:
    """The value of one argument; `LaunchError` where it does not fit."""
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
    raise LaunchError(kernel=source.name, reason=f"its argument {argument.name} must be {wanted}, {found}")
