"""What the kernel cache keeps: its limit, listing, clearing, and what may be stored at all."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cache_bench import (
    FILES,
    HOURS_AGO,
    NOTE,
    A,
    B,
    Builder,
    C,
    OpenCache,
    entry_path,
    kept,
    last_use,
    never,
    opener,
)

from attnlang.runtime import cache_store
from attnlang.runtime.cache import Built, default_root
from attnlang.runtime.cache_manifest import MANIFEST
from attnlang.runtime.key import content_key


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_cache(tmp_path: Path, said: list[str]) -> OpenCache:
    return opener(tmp_path / "cache", said)


# The limit


def test_the_oldest_use_goes_first(open_cache: OpenCache) -> None:
    cache = open_cache()
    for age, key in enumerate((A, B, C)):
        cache.put(key, {"kernel": bytes(1000)}, {})
        last_use(cache, key, seconds_ago=300 - 100 * age)
    assert open_cache().get(A) is not None  # used again: now B is the oldest
    assert [info.key for info in cache.entries()] == [A, C, B]
    total = sum(info.bytes for info in cache.entries())
    small = open_cache(limit_bytes=total - 1)
    assert small.prune() == total // 3
    assert kept(small) == {A, C}
    assert small.prune() == 0


def test_put_keeps_the_directory_within_its_limit(open_cache: OpenCache) -> None:
    one = open_cache()
    one.put(A, {"kernel": bytes(1000)}, {})
    size = one.entries()[0].bytes
    last_use(one, A, HOURS_AGO)
    cache = open_cache(limit_bytes=3 * size)
    for number in range(8):
        key = content_key({"number": number})
        entry = cache.put(key, {"kernel": bytes(1000)}, {})
        assert entry.path is not None
        assert entry.path.exists()
        last_use(cache, key, seconds_ago=1000 - number)
        assert sum(info.bytes for info in cache.entries()) <= 3 * size
    assert kept(cache) == {content_key({"number": number}) for number in (5, 6, 7)}


def test_a_kernel_larger_than_the_limit_stays_in_memory(open_cache: OpenCache, said: list[str]) -> None:
    cache = open_cache(limit_bytes=2000)
    cache.put(A, {"kernel": bytes(100)}, {})
    assert [cache.put(key, {"kernel": bytes(2000)}, {}).path for key in (B, C)] == [None, None]
    assert cache.get(B) is not None
    assert (kept(cache), len(said)) == ({A}, 1)


def test_a_limit_of_nothing_writes_nothing(open_cache: OpenCache, said: list[str]) -> None:
    cache, build = open_cache(limit_bytes=0), Builder()
    assert [cache.get_or_build(A, build).path for _ in range(2)] == [None, None]
    assert (build.calls, said, cache.path.exists()) == (1, [], False)


def test_what_another_process_evicts_meanwhile_counts_as_gone(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    for age, key in enumerate((A, B, C)):
        cache.put(key, {"kernel": bytes(1000)}, {})
        last_use(cache, key, seconds_ago=300 - 100 * age)

    def too_late(path: Path) -> bool:
        cache_store.remove_entry(path)
        return False

    monkeypatch.setattr("attnlang.runtime.cache.remove_entry", too_late)
    total = sum(info.bytes for info in cache.entries())
    assert open_cache(limit_bytes=total - 1).prune() == 0
    assert kept(cache) == {B, C}


def test_the_directory_is_not_walked_over_for_every_kernel(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk, walks = cache_store.Store.walk, list[int]()

    def counting(store: cache_store.Store) -> Iterator[cache_store.Found]:
        walks.append(1)
        return walk(store)

    monkeypatch.setattr(cache_store.Store, "walk", counting)
    cache = open_cache()
    for number in range(10):
        cache.put(content_key({"number": number}), FILES, NOTE)
    assert len(walks) == 1


def test_an_entry_that_is_being_built_is_not_evicted(open_cache: OpenCache) -> None:
    other = open_cache()
    other.put(B, {"kernel": bytes(1000)}, {})
    cache = open_cache(limit_bytes=int(1.5 * other.entries()[0].bytes))

    def build() -> Built:
        other.put(A, {"kernel": bytes(1000)}, {})
        last_use(other, A, seconds_ago=HOURS_AGO)
        cache.prune()
        assert kept(other) == {A}
        return {"kernel": bytes(1000)}, {}

    assert cache.get_or_build(A, build).path is not None


def test_entries_of_an_older_format_count_and_go(open_cache: OpenCache) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    old = cache.path / "v0" / B[:2] / B
    old.mkdir(parents=True)
    (old / "kernel").write_bytes(bytes(5000))
    assert cache.get(B) is None
    assert kept(cache) == {A}
    assert open_cache(limit_bytes=4000).prune() == 5000
    assert (old.exists(), kept(cache)) == (False, {A})


# Listing and clearing


def test_entries_tell_what_lies_there(open_cache: OpenCache) -> None:
    cache = open_cache()
    before = time.time()
    entry = cache.put(A, FILES, NOTE)
    assert entry.path is not None
    (info,) = cache.entries()
    assert (info.key, info.note) == (A, NOTE)
    assert info.bytes == sum(path.stat().st_size for path in entry.path.iterdir())
    assert before - 5 <= info.last_use <= time.time() + 5


def test_clear_removes_what_the_cache_made_and_nothing_else(open_cache: OpenCache) -> None:
    cache = open_cache()
    cache.get_or_build(A, Builder())
    cache.put(B, FILES, NOTE)
    (cache.path / "v1" / A[:2] / ".writing-crashed").mkdir()
    mine = [cache.path / "letters", cache.path / "v1" / "letters", cache.path / "v1" / A[:2] / "letters"]
    for path in mine:
        path.write_text("kept")
    size = sum(info.bytes for info in cache.entries())
    assert (cache.clear(), cache.entries(), cache.get(A)) == (size, [], None)
    assert sorted(path for path in cache.path.rglob("*") if path.is_file()) == sorted(mine)
    assert not (cache.path / "v1" / A[:2] / ".writing-crashed").exists()
    assert cache.clear() == 0
    assert cache.get_or_build(A, Builder()).path is not None


def test_clear_does_not_follow_links(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    precious = tmp_path / "precious" / C
    precious.mkdir(parents=True)
    (precious / "letters").write_text("kept")
    (cache.path / "v1" / C[:2]).symlink_to(precious.parent)
    entry_path(cache, A).parent.joinpath(B).symlink_to(precious)
    cache.clear()
    assert (precious / "letters").read_text() == "kept"
    assert not entry_path(cache, A).exists()


def test_clearing_while_another_writes_loses_nothing(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    cache, create = open_cache(), cache_store.create_file
    cleared = list[int]()

    def clearing(path: Path, content: bytes) -> None:
        if path.name == MANIFEST and not cleared:
            cleared.append(open_cache().clear())
        create(path, content)

    monkeypatch.setattr(cache_store, "create_file", clearing)
    assert cache.put(A, FILES, NOTE).path is not None
    assert (cleared, said, open_cache().get_or_build(A, never).origin) == ([0], [], "disk")


# What may be stored


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../kernel", "a/b", "a\\b", "/etc/passwd", ".hidden", "-f", "a\0b", "a\n", "naïve",
     "x" * 300, "manifest.json", "Manifest.JSON", "ends."],
)  # fmt: skip
def test_unsafe_file_names_are_refused(open_cache: OpenCache, name: str) -> None:
    cache = open_cache()
    with pytest.raises(ValueError, match="cannot hold a file called"):
        cache.put(A, {name: b""}, {})
    assert not cache.path.exists()


def test_names_that_differ_only_in_case_are_refused(open_cache: OpenCache) -> None:
    with pytest.raises(ValueError, match="cannot hold a file called"):
        open_cache().put(A, {"kernel": b"", "Kernel": b""}, {})


@pytest.mark.parametrize("key", ["", "../../etc", A.upper(), A[:-1], A + "0", A[:-1] + "\n"])
def test_only_content_keys_are_keys(open_cache: OpenCache, key: str) -> None:
    cache = open_cache()
    for use in (
        lambda: cache.get(key),
        lambda: cache.put(key, {}, {}),
        lambda: cache.get_or_build(key, never),
    ):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            use()


def test_a_note_is_json_of_moderate_size(open_cache: OpenCache) -> None:
    cache = open_cache()
    with pytest.raises(ValueError, match="Out of range float"):
        cache.put(A, FILES, {"seconds": float("inf")})
    with pytest.raises(ValueError, match="bytes"):
        cache.put(A, FILES, {"text": "x" * (2 << 20)})
    assert cache.put(A, FILES, {"shape": (1, 2)}).note == {"shape": [1, 2]}


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert default_root() == tmp_path / "attnlang"

    def homeless(*_: object, **__: object) -> str:
        return "~/.cache/attnlang"

    monkeypatch.setattr("platformdirs.user_cache_dir", homeless)
    assert default_root().is_absolute()  # a user without a home gets no directory called "~"
