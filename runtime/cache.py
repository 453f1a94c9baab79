"""The kernel cache: what was compiled once is found again, in memory or on disk; one process builds it.

    cache = Cache(default_root(), limit_bytes=2 << 30)
    entry = cache.get_or_build(content_key(parts), build)      # build() -> (files, note)
    cubin = entry.files["kernel.cubin"]

A cache that cannot be used never stops a computation: a damaged entry is built again, and where nothing can
be written, kernels are kept in memory. Each of these is said once, as a `CacheWarning`.
"""

from __future__ import annotations

import os
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import filelock
import platformdirs

from .cache_manifest import JSON, Damaged, check_names, manifest_bytes, plain_note
from .cache_memory import Entry, Memory
from .cache_store import Store, remove_entry
from .cache_turns import Turns

Built: TypeAlias = tuple[Mapping[str, bytes], Mapping[str, JSON]]
"""What a builder hands over: the files of a kernel by name, and a note that `attnlang cache ls` shows."""

_said: dict[tuple[str, str], object] = {}


class CacheWarning(UserWarning):
    """The kernel cache could not be used as it should; what was asked of it was done all the same."""


@dataclass(frozen=True)
class EntryInfo:
    """A line of `attnlang cache ls`: size in bytes with the manifest, last use in seconds since 1970."""

    key: str
    bytes: int
    last_use: float
    note: Mapping[str, JSON]


def default_root() -> Path:
    """The user's cache directory for attnlang; one among the temporary files where there is no home."""
    root = Path(platformdirs.user_cache_dir("attnlang", appauthor=False))
    if root.is_absolute():
        return root
    user = str(os.getuid()) if os.name == "posix" else "user"
    return Path(tempfile.gettempdir()) / f"attnlang-cache-{user}"


def warn_user(message: str) -> None:
    """Say `message` as a `CacheWarning`."""
    warnings.warn(message, CacheWarning, stacklevel=2)


class Cache:
    """Kernels by content key, in memory and under `root`; safe for threads, processes and forks.

    `limit_bytes` bounds the directory, the oldest use going first; 0 keeps nothing on disk. `memory_bytes`
    bounds the copies in memory, of which the newest always stays. `lock_seconds` is how long to wait for
    another builder of the same kernel. `warn` receives each trouble once per process and `root`.
    """

    def __init__(
        self,
        root: Path,
        limit_bytes: int,
        warn: Callable[[str], None] = warn_user,
        *,
        memory_bytes: int = 256 << 20,
        lock_seconds: float = 120.0,
    ) -> None:
        if limit_bytes < 0 or memory_bytes < 0 or not lock_seconds >= 0:
            raise ValueError("the limits of a cache are not negative")
        self._store = Store(root.absolute())
        self._limit_bytes = limit_bytes
        self._warn = warn
        self._lock_seconds = lock_seconds
        self._writable = limit_bytes > 0
        self._credit = 0
        self._memory = Memory(memory_bytes)
        self._turns = Turns(lock_seconds)
        _alive.add(self)

    @property
    def path(self) -> Path:
        """The directory of this cache, whether or not it exists yet."""
        return self._store.root

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, from memory or else from disk, where every byte is checked; None if absent.

        ValueError: `key` is not made by `content_key`.
        """
        check_names(key, {})
        return self._from_memory(key) or self._from_disk(key)

    def put(self, key: str, files: Mapping[str, bytes], note: Mapping[str, JSON]) -> Entry:
        """Keep `files` under `key`, in place of an older entry, and bring the directory within its limit.

        The entry is good even where nothing could be written: its `path` is None then. File names are
        letters, digits and `_.+-` without folders; "manifest.json" is taken. ValueError: a name is none of
        these, or `key` is not made by `content_key`. TypeError, ValueError: the note is not JSON.
        """
        entry = self._checked(key, files, note)
        entry = replace(entry, path=self._write(entry))
        self._memory.keep(replace(entry, origin="memory"))
        return entry

    def get_or_build(self, key: str, build: Callable[[], Built]) -> Entry:
        """The entry of `key`; if there is none, what `build()` returns, stored for the next time.

        Of several threads and processes that ask at once, one builds and the others take its result. Errors
        of `build` pass through, and the next to ask builds again. Raises what `put` raises, and RuntimeError
        when `build` itself asks for `key`.
        """
        check_names(key, {})
        if found := self._from_memory(key):
            return found
        with self._turns.take(key) as in_time:
            if not in_time:
                return self._build_unshared(key, build)
            if found := self.get(key):
                return found
            return self._build_once(key, build)

    def entries(self) -> list[EntryInfo]:
        """What lies on disk in the present format, the latest use first. Files are not checked for this."""
        found = [item for item in self._store.walk() if item.path == self._store.path_of(item.key)]
        found.sort(key=lambda item: (-item.last_use, item.key))
        note_of = self._store.note_of
        return [EntryInfo(item.key, item.bytes, item.last_use, note_of(item.key)) for item in found]

    def clear(self) -> int:
        """Forget every entry, in memory and on disk, of every format; the number of bytes freed on disk."""
        self._memory.clear()
        freed = sum(item.bytes for item in self._store.walk() if remove_entry(item.path))
        self._store.sweep(older_than=0.0)
        return freed

    def prune(self) -> int:
        """Remove entries, the oldest use first, until the directory is within its limit; the bytes freed.

        Entries of other formats count and go like all others; those being built in this process stay.
        """
        return self._prune(frozenset())

    def _prune(self, kept: frozenset[str]) -> int:
        """Bring the directory within its limit, then allow this process a quarter of the room that is left
        before it walks over the directory again: other processes may be filling it too."""
        kept |= self._turns.keys()
        self._store.sweep()
        found = sorted(self._store.walk(), key=lambda item: (item.last_use, item.key))
        total, freed = sum(item.bytes for item in found), 0
        for item in found:
            if total <= self._limit_bytes:
                break
            if item.key in kept:
                continue
            removed = remove_entry(item.path)
            freed += item.bytes if removed else 0
            if removed or not item.path.exists():  # gone by another process' hand is gone as well
                total -= item.bytes
        self._credit = (self._limit_bytes - total) // 4
        return freed

    def _from_memory(self, key: str) -> Entry | None:
        found = self._memory.find(key)
        if found is None:
            return None
        entry, stamp_is_old = found
        if stamp_is_old:  # else an entry that a long run keeps using would look forgotten
            self._store.touch(key)
        return entry

    def _from_disk(self, key: str) -> Entry | None:
        try:
            content = self._store.read(key)
        except Damaged as damage:
            self._say(
                "damaged",
                f"the kernel cache at {self.path} holds a damaged entry ({damage}): "
                "it is removed and built again",
            )
            remove_entry(self._store.path_of(key))
            return None
        except OSError as error:
            self._say(
                "disk",
                f"the kernel cache at {self.path} cannot be read ({_reason(error)}): kernels are built again",
            )
            return None
        if content is None:
            return None
        files, note = content
        path = self._store.path_of(key)
        self._store.touch(key)
        entry = Entry(key, MappingProxyType(files), MappingProxyType(note), path, "disk")
        self._memory.keep(replace(entry, origin="memory"))
        return entry

    def _build_once(self, key: str, build: Callable[[], Built]) -> Entry:
        """Build under the lock file of `key`, unless the process that had it before has built it."""
        if not self._writable:
            return self.put(key, *build())
        try:
            lock = filelock.FileLock(self._store.lock_path(key), timeout=self._lock_seconds, mode=0o600)
            lock.acquire()
        except filelock.Timeout:
            return self._build_unshared(key, build)
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError):
                self._stop_writing(error)
            return self.put(key, *build())
        try:
            return self._from_disk(key) or self.put(key, *build())
        finally:
            with suppress(OSError):
                lock.release()

    def _build_unshared(self, key: str, build: Callable[[], Built]) -> Entry:
        """Build for this process alone, because another builder does not come to an end."""
        self._say(
            f"lock {key}",
            f"another builder has held kernel {key[:12]} in the cache at {self.path} for over "
            f"{self._lock_seconds:g} s: it is built here as well and kept in memory only",
        )
        entry = self._checked(key, *build())
        self._memory.keep(replace(entry, origin="memory"))
        return entry

    def _checked(self, key: str, files: Mapping[str, bytes], note: Mapping[str, JSON]) -> Entry:
        check_names(key, files)
        content = {name: bytes(data) for name, data in files.items()}
        return Entry(key, MappingProxyType(content), MappingProxyType(plain_note(note)), None, "built")

    def _write(self, entry: Entry) -> Path | None:
        """Write the entry to disk; None where that is not possible, after saying so."""
        if not self._writable:
            return None
        manifest = manifest_bytes(entry.key, entry.files, entry.note)
        size = entry.size + len(manifest)
        if size > self._limit_bytes:
            self._say(
                "large",
                f"a kernel of {size} bytes is larger than the limit of the cache at {self.path} "
                f"({self._limit_bytes} bytes) and is kept in memory only",
            )
            return None
        try:
            path = self._store.write(entry.key, entry.files, manifest)
        except OSError as error:
            self._stop_writing(error)
            return None
        self._credit -= size
        if self._credit < 0:
            self._prune(frozenset((entry.key,)))
        return path

    def _stop_writing(self, error: OSError) -> None:
        self._writable = False
        self._say(
            "disk",
            f"the kernel cache at {self.path} cannot be written ({_reason(error)}): "
            "kernels are kept in memory until this process ends",
        )

    def _say(self, trouble: str, message: str) -> None:
        token = object()
        if _said.setdefault((str(self.path), trouble), token) is token:
            self._warn(message)

    def forget_locks(self) -> None:
        """In a forked child: no lock is held, for the threads that held them stayed with the parent."""
        self._turns.forget()
        self._memory.forget_locks()


def _reason(error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename} is not a directory"
    return error.strerror or str(error)


_alive: weakref.WeakSet[Cache] = weakref.WeakSet()


def _after_fork() -> None:
    for cache in list(_alive):
        cache.forget_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
