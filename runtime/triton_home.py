"""A place where Triton can keep what it compiles, also where the user's home cannot be written."""

from __future__ import annotations

import os
import tempfile
import warnings
from functools import cache
from pathlib import Path

from .triton_errors import require


@cache
def ensure_cache() -> None:
    """Once in a process: where Triton's cache folder cannot be written, one warning and a temporary one."""
    knobs = require("triton.knobs")
    folder = Path(str(knobs.cache.dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if writable:
        return
    warnings.warn(
        f"Triton's cache folder {folder} cannot be written; kernels are kept in memory only. "
        "TRITON_CACHE_DIR names another folder.",
        RuntimeWarning,
        stacklevel=2,
    )
    knobs.cache.dir = _temporary_folder().name


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Lives, and is removed, with the process."""
    return tempfile.TemporaryDirectory(prefix="attnlang-triton-")
