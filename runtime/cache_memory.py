"""Compiled kernels in memory: what one process has used lately."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from .cache_manifest import JSON

Origin: TypeAlias = Literal["memory", "disk", "built"]

_STAMP_SECONDS = 3600.0


@dataclass(frozen=True)
class Entry:
    """A compiled kernel. `files` are whole and checked; `path` is where they lie on disk too, or None.

    Another process may evict or clear `path` at any time, so whoever needs a file there must be able to write
    it somewhere from `files`. `origin`: "memory" and "disk" tell where it was found, "built" that it is new.
    """

    key: str
    files: Mapping[str, bytes]
    note: Mapping[str, JSON]
    path: Path | None
    origin: Origin

    @property
    def size(self) -> int:
        """Bytes in all files together."""
        return sum(map(len, self.files.values()))


class Memory:
    """Entries in memory, the latest use last, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._mutex = threading.Lock()
        self._entries: OrderedDict[str, tuple[Entry, float]] = OrderedDict()

    def find(self, key: str) -> tuple[Entry, bool] | None:
        """The entry, and whether its use should be stamped on disk again; None if absent."""
        with self._mutex:
            if key not in self._entries:
                return None
            entry, stamped = self._entries[key]
            now = time.monotonic()
            stamp_is_old = entry.path is not None and now - stamped > _STAMP_SECONDS
            self._entries[key] = (entry, now if stamp_is_old else stamped)
            self._entries.move_to_end(key)
            return entry, stamp_is_old

    def keep(self, entry: Entry) -> None:
        with self._mutex:
            self._entries[entry.key] = (entry, time.monotonic())
            self._entries.move_to_end(entry.key)
            total = sum(kept.size for kept, _ in self._entries.values())
            while total > self._limit_bytes and len(self._entries) > 1:
                _, (oldest, _) = self._entries.popitem(last=False)
                total -= oldest.size

    def clear(self) -> None:
        with self._mutex:
            self._entries.clear()

    def forget_locks(self) -> None:
        self._mutex = threading.Lock()
