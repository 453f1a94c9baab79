"""Runs a generated kernel on CPU tensors under Triton's interpreter, without environment variables.

The kernel's functions are rewritten once (as Triton's own interpreter does it). During a launch, and only
then, the builtins of `triton.language` are bound to the mended interpreter of `triton_numbers`; everything
is put back when the launch ends, so kernels can be compiled between interpreted launches. Launches take
turns with each other and with compilations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from attnlang.artifact import Argument, KernelSource

from . import triton_numbers as numbers
from .arguments import LaunchError
from .triton_device import builder, device_function, interpreted, typed_range
from .triton_errors import TritonCompileError, first_line
from .triton_load import file_name, line_of, load, type_name
from .triton_lock import TRITON

Progress = Callable[[int, int], None]

tl: Any = numbers.tl
_missing = object()


def interpret(
    source: KernelSource,
    grid: tuple[int, int, int],
    arguments: Mapping[str, torch.Tensor | int | float],
    *,
    progress: Progress | None = None,
) -> None:
    """Run every program of `grid`, one after the other, on CPU tensors; results are written into them.

    `arguments` must already have been checked against `source.arguments` (`triton_launch.launch` does it).
    `progress(done, total)` is called after each program. Raises `LaunchError` for a tensor that is
    not on the CPU, `TritonCompileError` with the offending line for anything that goes wrong inside.
    """
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) and value.device.type != "cpu":
            reason = f"the interpreter works on CPU tensors, but {name} is on {value.device}"
            raise LaunchError(kernel=source.name, reason=reason)
    entry = load(source)
    with TRITON.exclusive():
        function = device_function(entry).fn
        tensors = [value for value in arguments.values() if isinstance(value, torch.Tensor)]
        builder.memory = numbers.Memory([_extent(tensor) for tensor in tensors])
        values: dict[str, Any] = dict(source.constants)
        values |= {argument.name: _value(argument, arguments[argument.name]) for argument in source.arguments}
        builder.set_grid_dim(*grid)
        with _interpreting(), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            _run_grid(source, function, grid, values, progress)


def _run_grid(
    source: KernelSource,
    function: Callable[..., object],
    grid: tuple[int, int, int],
    values: dict[str, Any],
    progress: Progress | None,
) -> None:
    total = grid[0] * grid[1] * grid[2]
    done = 0
    for z in range(grid[2]):
        for y in range(grid[1]):
            for x in range(grid[0]):
                builder.set_grid_idx(x, y, z)
                try:
                    function(**values)
                except Exception as error:
                    line = f"{type(error).__name__}: {first_line(error)}"
                    place = _failing_line(source, error)
                    raise TritonCompileError(source.name, "interpret", line, place) from error
                done += 1
                if progress is not None:
                    progress(done, total)


def _failing_line(source: KernelSource, error: BaseException) -> str:
    """The innermost line of the kernel's own text on the traceback."""
    name, number, trace = file_name(source), 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            number = trace.tb_lineno
        trace = trace.tb_next
    return line_of(source, number)


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The addresses from a tensor's first byte to behind its last, strides of either sign."""
    if tensor.numel() == 0:
        return (0, 0)
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def _value(argument: Argument, value: torch.Tensor | int | float) -> Any:
    """A run-time argument as a tensor of the interpreter, of exactly the declared type."""
    dtype = tl.str_to_ty(type_name(argument), None)
    if isinstance(value, torch.Tensor):
        return tl.tensor(numbers.TensorHandle(np.array([value.data_ptr()], dtype=np.uint64), dtype), dtype)
    if argument.dtype == "bf16":
        return tl.tensor(builder.get_bf16(value), dtype)
    data = np.array([value], dtype=numbers.upstream._get_np_dtype(dtype))
    return tl.tensor(numbers.TensorHandle(data, dtype), dtype)


# --- the language during a launch --------------------------------------------------------------------------


@contextmanager
def _interpreting() -> Generator[None]:
    """Binds the builtins of `triton.language` to the interpreter and restores every one of them."""
    changes: list[tuple[Any, str, Any]] = []

    def change(owner: Any, name: str, value: Any) -> None:
        changes.append((owner, name, owner.__dict__.get(name, _missing)))
        setattr(owner, name, value)

    try:
        modules = (tl, tl.core, tl.math, tl.standard, tl.random)
        for owner in (*modules, tl.tensor, tl.core.tensor_descriptor_base):
            members: dict[str, Any] = dict(owner.__dict__)
            for name, member in members.items():
                replacement = interpreted(member)
                if replacement is not member:
                    change(owner, name, replacement)
        scope = _ChangeScope(change)
        numbers.upstream._patch_lang_tensor(tl.tensor, scope)
        for module in (tl, tl.core):
            numbers.upstream._patch_lang_core(module, scope)
            change(module, "range", typed_range)
            change(module, "reduce", numbers.reduce)
            change(module, "associative_scan", numbers.scan)
        change(tl.tensor, "__index__", _index)
        yield
    finally:
        for owner, name, value in reversed(changes):
            if value is _missing:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


class _ChangeScope:
    """The interface of upstream's patching functions, recording into our own list."""

    def __init__(self, change: Callable[[Any, str, Any], None]) -> None:
        self.set_attr = change


def _index(tensor: Any) -> int:
    return int(tensor.handle.data.item())
