"""Whose threads run kernels: those of the OpenMP runtime that PyTorch has loaded, or the kernel's own.

A second pool beside PyTorch's would have its threads wait for work on the same cores, which was measured to make
alternating calls 15 times slower. GNU's OpenMP runtime waits for ever in a child that was forked after its parent had
used threads; there, and where PyTorch uses another runtime, a kernel starts and joins plain threads for each launch.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

import torch


def parallel() -> int:
    """The address of `GOMP_parallel` in the runtime that PyTorch uses; 0: a kernel makes threads of its own."""
    return 0 if _forked else _entry()


def default_threads() -> int:
    """How many threads PyTorch's own operations use here: what `torch.set_num_threads` said last."""
    return torch.get_num_threads()


_forked: list[int] = []


@cache
def _entry() -> int:
    if not torch.backends.openmp.is_available():
        return 0
    try:
        function = ctypes.CDLL(None)["GOMP_parallel"]
    except (
        AttributeError,
        OSError,
        TypeError,
    ):  # TypeError: Windows has no library of everything that is loaded
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _forked.append(os.getpid()))
