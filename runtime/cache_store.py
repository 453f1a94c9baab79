"""Compiled kernels on disk: one directory an entry, written aside and renamed, checked in full on reading.

    ROOT/v1/3f/3f09…c2/kernel.cubin     the files of the entry
    ROOT/v1/3f/3f09…c2/manifest.json    their digests and the note; its time of change is the entry's last use
    ROOT/v1/3f/.writing-…               an entry that is being written, or that a crash left behind
    ROOT/v1/locks/3f09…c2.lock          held by the process that builds the entry

An entry becomes visible by one rename, so a reader sees all of it or nothing. Nothing is flushed to the
device: what a power cut truncates fails its digest and is built again.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from .cache_manifest import (
    JSON,
    KEY,
    MANIFEST,
    MANIFEST_LIMIT,
    Damaged,
    digest_of,
    parse_manifest,
)
from .key import CACHE_FORMAT

LEFTOVER_SECONDS = 3600.0

_NO_PLAIN_FILE = (errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENXIO)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EACCES)
_OPEN_FLAGS: int = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)


@dataclass(frozen=True)
class Found:
    """One entry directory as a walk over the store sees it, unchecked; `last_use` in seconds since 1970."""

    key: str
    path: Path
    bytes: int
    last_use: float


@dataclass(frozen=True)
class Store:
    """The directory `root` as a shelf of entries. Every method may raise OSError unless it says otherwise."""

    root: Path

    @property
    def folder(self) -> Path:
        """Where entries of this format stand."""
        return self.root / f"v{CACHE_FORMAT}"

    def path_of(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def lock_path(self, key: str) -> Path:
        """The lock file of `key`; its directory exists afterwards."""
        self._make_folder(self.folder / "locks")
        return self.folder / "locks" / f"{key}.lock"

    def read(self, key: str) -> tuple[dict[str, bytes], dict[str, JSON]] | None:
        """The files and the note of `key`, every byte checked; None when there is no such entry.

        Damaged: something is missing, altered or not a plain file.
        """
        for _ in range(8):
            identity = self._identity(key)
            if identity is None:
                return None
            try:
                return self._read(key)
            except Damaged:
                if self._identity(key) == identity:
                    raise
        return None  # each time it was replaced or evicted by another process while it was read here

    def _identity(self, key: str) -> tuple[int, int] | None:
        """What changes when another directory takes the entry's place; None when there is none."""
        try:
            self._check_private()
            status = os.lstat(self.path_of(key))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_ino, status.st_mtime_ns

    def _read(self, key: str) -> tuple[dict[str, bytes], dict[str, JSON]]:
        path = self.path_of(key)
        if path.is_symlink():
            raise Damaged("the entry is a link")
        try:
            digests, note = parse_manifest(key, read_plain_file(path / MANIFEST, MANIFEST_LIMIT))
            return {name: _read_checked(path / name, *digests[name]) for name in digests}, note
        except FileNotFoundError as error:
            raise Damaged(f"{Path(error.filename).name} is missing") from error

    def write(self, key: str, files: Mapping[str, bytes], manifest: bytes) -> Path:
        """Put an entry in place, instead of an older one if there is one; its directory."""
        for _ in range(7):
            with suppress(FileNotFoundError):  # the store was cleared while it was written to
                return self._write(key, files, manifest)
        return self._write(key, files, manifest)

    def _write(self, key: str, files: Mapping[str, bytes], manifest: bytes) -> Path:
        final = self.path_of(key)
        self._make_folder(final.parent)
        aside = Path(tempfile.mkdtemp(prefix=f".writing-{key[:8]}-", dir=final.parent))
        try:
            for name, content in files.items():
                create_file(aside / name, content)
            create_file(aside / MANIFEST, manifest)
            _move_into_place(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return final

    def touch(self, key: str) -> None:
        """Record that `key` was used now. Never fails: a store that is only readable keeps its old stamps."""
        with suppress(OSError):
            os.utime(self.path_of(key) / MANIFEST)

    def walk(self) -> Iterator[Found]:
        """Every entry of every format, in no order. Never fails: what cannot be read is left out."""
        for shard in self._shards():
            for path in _children(shard):
                if KEY.fullmatch(path.name):
                    yield Found(path.name, path, *_size_and_use(path))

    def note_of(self, key: str) -> dict[str, JSON]:
        """The note of `key` without checking the files; empty when it cannot be read."""
        try:
            return parse_manifest(key, read_plain_file(self.path_of(key) / MANIFEST, MANIFEST_LIMIT))[1]
        except (Damaged, OSError):
            return {}

    def sweep(self, older_than: float = LEFTOVER_SECONDS) -> None:
        """Remove what crashes left behind: half-written and half-removed entries and unused lock files that
        did not change for `older_than` seconds. Never fails."""
        now = time.time()
        for shard in self._shards():
            for path in _children(shard):
                if path.name.startswith(".trash-"):
                    _remove(path)
                elif path.name.startswith(".writing-") and abs(now - _changed(path, now)) >= older_than:
                    remove_entry(path)  # by a rename: its writer may be about to rename it, too
        for version in self._versions():
            for path in _children(version / "locks"):
                if path.suffix == ".lock" and abs(now - _changed(path, now)) >= older_than:
                    _remove_unheld_lock(path)

    def _versions(self) -> list[Path]:
        return [path for path in _children(self.root) if re.fullmatch(r"v\d+", path.name)]

    def _shards(self) -> list[Path]:
        below = (path for version in self._versions() for path in _children(version))
        return [path for path in below if re.fullmatch(r"[0-9a-f]{2}", path.name)]

    def _make_folder(self, folder: Path) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._check_private()
        folder.mkdir(mode=0o700, exist_ok=True)

    def _check_private(self) -> None:
        """Kernels are code: nobody but this user may have put them there. (Windows keeps the cache directory
        private by itself.)  PermissionError: the directory is another user's, or others may write to it."""
        if os.name != "posix":
            return
        status = os.lstat(self.folder)
        if not stat.S_ISDIR(status.st_mode):
            raise OSError(errno.ENOTDIR, "not a directory", str(self.folder))
        if status.st_uid != os.getuid():
            raise PermissionError(errno.EACCES, "belongs to another user", str(self.folder))
        if status.st_mode & 0o077:
            try:
                self.folder.chmod(0o700)
            except OSError:
                if status.st_mode & 0o022:
                    raise


def remove_entry(path: Path) -> bool:
    """Take the entry out of sight by one rename and delete it; False when there was none, or no right to."""
    trash = path.with_name(f".trash-{secrets.token_hex(8)}")
    try:
        path.rename(trash)
    except OSError:
        return False
    _remove(trash)
    return True


def read_plain_file(path: Path, limit: int) -> bytes:
    """The content of a plain file of at most `limit` bytes: never through a link, never waiting on a pipe.

    Damaged: it is something else, or larger.
    """
    try:
        handle = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        if error.errno in _NO_PLAIN_FILE:
            raise Damaged(f"{path.name} is not a plain file") from error
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{path.name} is not a plain file")
        if status.st_size > limit:
            raise Damaged(f"{path.name} has {status.st_size} bytes instead of at most {limit}")
        with open(handle, "rb", closefd=False) as stream:
            return stream.read(limit + 1)
    finally:
        os.close(handle)


def _read_checked(path: Path, size: int, digest: str) -> bytes:
    content = read_plain_file(path, size)
    if len(content) != size:
        raise Damaged(f"{path.name} has {len(content)} bytes instead of {size}")
    if digest_of(content) != digest:
        raise Damaged(f"{path.name} was altered")
    return content


def create_file(path: Path, content: bytes) -> None:
    """Write a new file that only this user may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)


def _move_into_place(aside: Path, final: Path) -> None:
    for _ in range(8):
        try:
            aside.rename(final)
            return
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            remove_entry(final)
    aside.rename(final)


def _children(folder: Path) -> list[Path]:
    """What stands in a real directory; nothing when it is none, or a link to one."""
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return []
        return sorted(folder.iterdir())
    except OSError:
        return []


def _changed(path: Path, otherwise: float) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return otherwise


def _size_and_use(path: Path) -> tuple[int, float]:
    """Bytes in the entry, and when it was last used: 0.0, longer ago than any, where there is no manifest."""
    size, last_use = 0, 0.0
    if path.is_symlink():
        return size, last_use
    with suppress(OSError), os.scandir(path) as files:
        for file in files:
            status = file.stat(follow_symlinks=False)
            size += status.st_size
            if file.name == MANIFEST:
                last_use = status.st_mtime
    return size, last_use


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(OSError):
        path.unlink()


def _remove_unheld_lock(path: Path) -> None:
    lock = filelock.FileLock(path, timeout=0)
    with suppress(OSError, NotImplementedError), lock:
        path.unlink()
