"""What the tests of the kernel cache share: caches on one directory, and builders that count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from attnlang.runtime.cache import Built, Cache
from attnlang.runtime.cache_manifest import JSON, MANIFEST
from attnlang.runtime.key import content_key


class OpenCache(Protocol):
    """Opens a new cache on the test's one directory, as another process would."""

    def __call__(
        self, limit_bytes: int = ..., lock_seconds: float = ..., memory_bytes: int = ...
    ) -> Cache: ...


ROOM = 1 << 30
ROOT = Path(__file__).resolve().parents[1]
FILES = {"kernel.cubin": b"\x7fELF" * 100, "kernel.py": b"def kernel(): ...\n"}
NOTE: Mapping[str, JSON] = {"pattern": "window", "target": "cuda:90", "registers": [64, 0.5, None]}
HOURS_AGO = 7200

A, B, C = (content_key({"name": name}) for name in "abc")


class Builder:
    """A builder that counts how often it was asked."""

    def __init__(self, files: Mapping[str, bytes] = FILES) -> None:
        self.files = files
        self.calls = 0

    def __call__(self) -> Built:
        self.calls += 1
        return self.files, NOTE


def never() -> Built:
    raise AssertionError("this kernel is in the cache already")


def opener(root: Path, said: list[str]) -> OpenCache:
    """Opens caches on `root`; what they have to say is appended to `said`."""

    def opened(limit_bytes: int = ROOM, lock_seconds: float = 30.0, memory_bytes: int = ROOM) -> Cache:
        return Cache(root, limit_bytes, said.append, memory_bytes=memory_bytes, lock_seconds=lock_seconds)

    return opened


def entry_path(cache: Cache, key: str) -> Path:
    return cache.path / "v1" / key[:2] / key


def last_use(cache: Cache, key: str, seconds_ago: float) -> None:
    stamp = time.time() - seconds_ago
    os.utime(entry_path(cache, key) / MANIFEST, (stamp, stamp))


def kept(cache: Cache) -> set[str]:
    return {info.key for info in cache.entries()}


def script(text: str, *arguments: object) -> subprocess.Popen[str]:
    """A separate Python process that runs `text`; `root` is its first argument there."""
    imports = "import os, sys, time, pathlib\nfrom attnlang.runtime.cache import Cache"
    code = f"{imports}\nroot = pathlib.Path(sys.argv[1])\n{text}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
