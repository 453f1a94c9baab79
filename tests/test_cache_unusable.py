"""A cache directory that cannot be used gives one warning and is not in the way."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from pathlib import Path

import pytest
from cache_bench import (
    FILES,
    NOTE,
    ROOM,
    A,
    B,
    Builder,
    C,
    OpenCache,
    kept,
    never,
    opener,
)

from attnlang.runtime import cache_store
from attnlang.runtime.cache import Cache, CacheWarning


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_cache(tmp_path: Path, said: list[str]) -> OpenCache:
    return opener(tmp_path / "cache", said)


def stand_in_the_way(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(b"a file, not a directory")


@pytest.mark.parametrize("place", ["", "v1", f"v1/{A[:2]}", "v1/locks"])
def test_a_file_in_place_of_a_directory_gives_one_warning_and_memory(
    open_cache: OpenCache, said: list[str], place: str
) -> None:
    stand_in_the_way(open_cache().path / place)
    for cache in (open_cache(), open_cache()):  # two caches, one process: still one warning
        build = Builder()
        for key in (A, A, B):
            assert dict(cache.get_or_build(key, build).files) == FILES
        assert build.calls == 2
        assert [entry for key in (A, B) if (entry := cache.get(key)) and entry.path] == []
    assert len(said) == 1
    assert "is not a directory" in said[0]
    assert (open_cache().path / place).read_bytes() == b"a file, not a directory"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_gives_one_warning_and_memory(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str], number: int
) -> None:
    cache, build = open_cache(), Builder()
    cache.put(C, FILES, NOTE)

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:10])
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(cache_store, "create_file", full)
    for key in (A, A, B, B):
        entry = cache.get_or_build(key, build)
        assert (dict(entry.files), entry.path) == (FILES, None)
    assert build.calls == 2
    assert len(said) == 1
    assert os.strerror(number) in said[0]
    assert kept(cache) == {C}
    assert list(cache.path.glob("v1/*/.writing-*")) == []
    assert open_cache().get_or_build(C, never).origin == "disk"


def test_a_directory_that_is_only_readable_is_read(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    open_cache().put(A, FILES, NOTE)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for function in ("mkdir", "rename", "utime", "chmod"):
        monkeypatch.setattr(os, function, refuse)
    cache = open_cache()
    assert cache.get_or_build(A, never).origin == "disk"
    assert said == []
    assert cache.get_or_build(B, Builder()).path is None
    assert cache.get_or_build(C, Builder()).path is None
    assert len(said) == 1
    assert "Read-only file system" in said[0]


def test_an_unreadable_entry_is_built_again(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    open_cache().put(A, FILES, NOTE)

    def refuse(path: Path, limit: int) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(cache_store, "read_plain_file", refuse)
    cache, build = open_cache(), Builder()
    assert [dict(cache.get_or_build(A, build).files) for _ in range(2)] == [FILES, FILES]
    assert (build.calls, len(said)) == (1, 1)


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")
def test_what_another_user_owns_is_not_believed(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    open_cache().put(A, FILES, NOTE)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    cache, build = open_cache(), Builder({"other": b"built here"})
    assert cache.get_or_build(A, build).path is None
    assert cache.get_or_build(B, build).path is None
    assert build.calls == 2
    assert len(said) == 1
    assert "belongs to another user" in said[0]


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX")
def test_the_directory_is_private(open_cache: OpenCache) -> None:
    cache = open_cache()
    entry = cache.get_or_build(A, Builder())
    assert entry.path is not None
    for path in (cache.path, cache.path / "v1", entry.path.parent, entry.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in entry.path.iterdir()} == {0o600}
    (cache.path / "v1").chmod(0o777)
    assert open_cache().get(A) is not None
    assert stat.S_IMODE((cache.path / "v1").stat().st_mode) == 0o700


def test_a_directory_that_the_user_shares_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Cache(tmp_path, ROOM).put(A, FILES, NOTE)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_trouble_is_a_cache_warning_by_default(tmp_path: Path) -> None:
    stand_in_the_way(tmp_path / "root")
    with pytest.warns(CacheWarning, match="cannot be written"):
        Cache(tmp_path / "root", ROOM).put(A, FILES, NOTE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Cache(tmp_path / "root", ROOM).put(A, FILES, NOTE)
