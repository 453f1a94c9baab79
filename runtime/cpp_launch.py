"""Launches a C++ kernel on the CPU: arguments checked and packed, programs shared among threads, Ctrl-C heard.

What a kernel's text defines, for `source.name` NAME, as one self-contained C++17 file without headers of a framework:

    extern "C" void NAME(const void* const* arguments, int64_t first, int64_t last, void* scratch);
    extern "C" int64_t NAME_scratch();

`NAME` runs the programs first … last − 1 one after another on the calling thread, and keeps nothing between calls.
`arguments[i]` belongs to `source.arguments[i]`: for a pointer it is the tensor's first element, for a scalar it points
to a value of its type (`i1` as uint8_t, `i8`, `u8`, `i32`, `i64` as the integer of that width, `fp32` as float, `fp64`
as double). Programs are numbered x + X·(y + Y·z) for a grid of X × Y × Z. `scratch` is `NAME_scratch()` bytes of memory
of this thread alone, aligned to 64 bytes, with arbitrary content. Names that start with `attnlang_` are the runtime's.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Any, cast

import torch

from attnlang.artifact import Argument, KernelSource

from .arguments import TORCH_DTYPES, Arguments, LaunchError, checked
from .cache import Cache
from .cpp_load import load
from .cpp_team import default_threads, parallel
from .cpp_wrapper import HEADER, OUT_OF_MEMORY, pointers, scalars, slots_of

SLICE_NANOSECONDS = 200_000_000
"""A launch comes back to Python so often, to be interrupted there; each time the threads wait for one another."""

_CHUNKS_PER_THREAD = 64
_LARGEST_CHUNK = 4

_WHOLE = frozenset({int})
_KINDS = {"i1": frozenset({bool}), "fp32": frozenset({int, float}), "fp64": frozenset({int, float})}


def launch(
    source: KernelSource,
    grid: tuple[int, int, int],
    arguments: Arguments,
    cache: Cache,
    *,
    tasks: torch.Tensor | None = None,
    threads: int | None = None,
) -> None:
    """Run `source` once for every program of `grid`; it writes its results into its tensor arguments.

    `arguments` has exactly the names of `source.arguments`; every tensor has the declared dtype and is on the CPU,
    every scalar fits the declared type. `cache` keeps the compiled kernel. `tasks`, a contiguous int64 tensor [n]
    on the CPU, names the programs to run in the order in which they are to be begun, the heavy ones first; without
    it all are run. `threads` is at most how many work, by default as many as PyTorch uses. The interpreter lock is
    released meanwhile; Ctrl-C ends a launch between two programs, its results half written. A grid with a zero does
    nothing. Raises `LaunchError`, MemoryError, and what `load` raises.
    """
    kernel = _kernels.get(source.digest) or prepare(source, cache)
    kernel(grid, arguments, tasks, threads)


def prepare(source: KernelSource, cache: Cache) -> CppKernel:
    """The kernel of a source, compiled and loaded; raises what `load` raises."""
    kernel = _kernels.get(source.digest)
    if kernel is None:
        kernel = _kernels.setdefault(source.digest, CppKernel(source, cache))
    return kernel


class CppKernel:
    """A loaded kernel and everything about its calls that does not change between them."""

    def __init__(self, source: KernelSource, cache: Cache) -> None:
        self.source = source
        self._run = load(source, cache)
        self._pack = slots_of(source).pack
        self._tensors = [(argument.name, TORCH_DTYPES[argument.dtype]) for argument in pointers(source)]
        self._numbers = [(argument.name, _KINDS.get(argument.dtype, _WHOLE)) for argument in scalars(source)]

    def __call__(
        self,
        grid: tuple[int, int, int],
        arguments: Arguments,
        tasks: torch.Tensor | None = None,
        threads: int | None = None,
    ) -> None:
        """`launch`, without the search for the kernel."""
        self._go(self._slots(arguments), grid, tasks, threads)

    def bound(
        self, grid: tuple[int, int, int], arguments: Arguments, threads: int | None = None
    ) -> Callable[..., None]:
        """The launch of these arguments as a function of the tensors' addresses, in the order of `source.arguments`:
        for calls that differ in nothing else, of which nothing is checked again."""
        count = len(self._tensors)
        rest = self._slots(arguments)[8 * count :]
        pack = struct.Struct(f"={count}Q").pack

        def run(*addresses: int) -> None:
            self._go(pack(*addresses) + rest, grid, None, threads)

        return run

    def _go(
        self, slots: bytes, grid: tuple[int, int, int], tasks: torch.Tensor | None, threads: int | None
    ) -> None:
        programs = grid[0] * grid[1] * grid[2]
        if tasks is None:
            order, count = 0, programs
        else:
            order, count = self._order(tasks), tasks.numel()
        if programs <= 0 or not count:
            return
        team = default_threads() if threads is None else threads
        if team < 1:
            raise self._unfit(f"it needs at least one thread, not {team}")
        chunk = 1 if order else max(1, min(count // (team * _CHUNKS_PER_THREAD), _LARGEST_CHUNK))
        team = min(team, -(-count // chunk))
        position, entry = 0, parallel()
        while position < count:
            header = _HEADER(entry, order, position, count, programs, chunk, team, SLICE_NANOSECONDS)
            position = self._run(header + slots)
            if position < 0:
                raise self._failure(position)

    def _slots(self, arguments: Arguments) -> bytes:
        """The addresses of the tensors, then the scalars, packed; `LaunchError` where one does not fit."""
        values: list[Any] = []
        try:
            for name, dtype in self._tensors:
                tensor: Any = arguments[name]
                if tensor.dtype is not dtype or not tensor.is_cpu:
                    return self._examined(arguments)
                values.append(tensor.data_ptr())
            for name, kinds in self._numbers:
                number = arguments[name]
                if type(number) not in kinds:
                    return self._examined(arguments)
                values.append(number)
            packed = self._pack(*values)
        except (KeyError, AttributeError, struct.error, OverflowError):
            return self._examined(arguments)
        return packed if len(values) == len(arguments) else self._examined(arguments)

    def _examined(self, arguments: Arguments) -> bytes:
        """The same after a look at each: what is unusual but right passes, what is wrong is named."""
        values = checked(self.source, arguments)
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and not value.is_cpu:
                raise self._unfit(f"its tensors must be on the CPU, {name} is on {value.device}")
        tensors = [cast("torch.Tensor", values[name]).data_ptr() for name, _ in self._tensors]
        numbers = [_single(a, values[a.name]) for a in scalars(self.source)]
        return self._pack(*tensors, *numbers)

    def _order(self, tasks: torch.Tensor) -> int:
        """The address of the first task."""
        if (
            tasks.dtype is not torch.int64
            or tasks.dim() != 1
            or not tasks.is_cpu
            or not tasks.is_contiguous()
        ):
            told = f"{tasks.dtype} {list(tasks.shape)} on {tasks.device}"
            raise self._unfit(f"its tasks must be a contiguous int64 tensor [n] on the CPU, not {told}")
        return tasks.data_ptr()

    def _failure(self, status: int) -> Exception:
        if status == OUT_OF_MEMORY:
            return MemoryError(f"no memory for the scratch of {self.source.name}")
        return self._unfit("its tasks name a program that the grid does not have")

    def _unfit(self, reason: str) -> LaunchError:
        return LaunchError(kernel=self.source.name, reason=reason)


def _single(argument: Argument, value: Any) -> bool | int | float:
    """A scalar as it is packed: what is too large for 32 bits becomes infinite, as in any conversion."""
    return ctypes.c_float(value).value if argument.dtype == "fp32" else value


_HEADER = HEADER.pack
_kernels: dict[str, CppKernel] = {}
