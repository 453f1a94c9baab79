"""Loads a compiled kernel into the process: once for each content, for as long as the process lives."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, cast

from attnlang.artifact import KernelSource

from .cache import Cache
from .cache_memory import Entry
from .cpp_build import LIBRARY, build
from .cpp_errors import CppLoadError
from .cpp_wrapper import entry_name

Run: TypeAlias = Callable[[bytes], int]

_libraries: dict[str, ctypes.CDLL] = {}


def load(source: KernelSource, cache: Cache) -> Run:
    """The function that runs a launch of `source`: it takes a packed launch and releases the interpreter lock.

    There is no lock to be left held by a fork: two threads at once load the same file, which is one library.
    Raises what `build` raises, and `CppLoadError`.
    """
    entry = build(source, cache)
    library = _libraries.get(entry.key)
    if library is None:
        library = _libraries.setdefault(entry.key, _opened(source.name, entry))
    run = library[entry_name(source)]
    run.argtypes = [ctypes.c_char_p]
    run.restype = ctypes.c_int64
    return cast("Run", run)


def _opened(kernel: str, entry: Entry) -> ctypes.CDLL:
    """The library from where the cache keeps it; from a file of its own where that is gone, or may hold no programs."""
    if entry.path is not None:
        try:
            return ctypes.CDLL(str(entry.path / LIBRARY))
        except OSError:
            return _opened_apart(kernel, entry)
    return _opened_apart(kernel, entry)


def _opened_apart(kernel: str, entry: Entry) -> ctypes.CDLL:
    try:
        with tempfile.TemporaryDirectory(prefix="attnlang-cpp-", ignore_cleanup_errors=True) as folder:
            file = Path(folder, LIBRARY)
            file.write_bytes(entry.files[LIBRARY])
            return ctypes.CDLL(str(file))
    except OSError as error:
        raise CppLoadError(kernel=kernel, reason=str(error)) from error
