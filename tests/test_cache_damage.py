"""The kernel cache never believes what was damaged: one warning, and it is built again."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import filelock
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
    never,
    opener,
    script,
)

from attnlang.runtime import cache_store
from attnlang.runtime.cache_manifest import MANIFEST, manifest_bytes


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_cache(tmp_path: Path, said: list[str]) -> OpenCache:
    return opener(tmp_path / "cache", said)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def link(path: Path) -> None:
    elsewhere = path.parents[4] / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [flip, truncate, lengthen, empty, Path.unlink, link, folder, pipe])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_damaged_file_gives_one_warning_and_a_rebuild(
    open_cache: OpenCache, said: list[str], name: str, harm: Callable[[Path], None]
) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    harm(entry_path(cache, A) / name)
    build = Builder()
    entry = open_cache().get_or_build(A, build)
    assert (build.calls, entry.origin, dict(entry.files)) == (1, "built", FILES)
    assert len(said) == 1
    assert name in said[0]
    assert open_cache().get_or_build(A, never).origin == "disk"


def test_many_damaged_entries_give_one_warning(open_cache: OpenCache, said: list[str]) -> None:
    cache = open_cache()
    for key in (A, B, C):
        cache.put(key, FILES, NOTE)
        flip(entry_path(cache, key) / "kernel.cubin")
    cache = open_cache()
    assert [cache.get(key) for key in (A, B, C)] == [None, None, None]
    assert len(said) == 1
    assert kept(cache) == set()


@pytest.mark.parametrize(
    "manifest",
    [b"[]", b"null", b"\xff\xfe", b"{" * 200_000, b"[" * 200_000, b'{"seal": 1' + b"0" * 10_000 + b"}"],
    ids=["list", "null", "binary", "braces", "brackets", "digits"],
)
def test_a_manifest_of_nonsense_is_damage(open_cache: OpenCache, said: list[str], manifest: bytes) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    (entry_path(cache, A) / MANIFEST).write_bytes(manifest)
    assert [info.note for info in cache.entries()] == [{}]
    assert open_cache().get(A) is None
    assert len(said) == 1


def test_a_note_that_was_edited_is_damage(open_cache: OpenCache, said: list[str]) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    path = entry_path(cache, A) / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["body"]["note"]["target"] = "cpu"
    path.write_text(json.dumps(manifest))
    assert open_cache().get(A) is None
    assert "altered" in said[0]


def test_an_entry_under_the_wrong_key_is_damage(open_cache: OpenCache, said: list[str]) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    entry_path(cache, B).parent.mkdir(exist_ok=True)
    entry_path(cache, A).rename(entry_path(cache, B))
    assert open_cache().get(B) is None
    assert len(said) == 1


def test_a_manifest_cannot_name_files_outside_its_entry(
    open_cache: OpenCache, tmp_path: Path, said: list[str]
) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    (tmp_path / "secret").write_bytes(b"secret")
    files = {"../../../../secret": b"secret"}
    (entry_path(cache, A) / MANIFEST).write_bytes(manifest_bytes(A, files, {}))
    assert open_cache().get(A) is None
    assert (tmp_path / "secret").exists()
    assert len(said) == 1


@pytest.mark.parametrize("stray", ["file", "link"])
def test_a_stray_thing_in_place_of_an_entry_is_replaced(
    open_cache: OpenCache, tmp_path: Path, said: list[str], stray: str
) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    elsewhere = tmp_path / "elsewhere"
    entry_path(cache, A).rename(elsewhere)
    if stray == "file":
        entry_path(cache, A).write_bytes(b"stray")
    else:
        entry_path(cache, A).symlink_to(elsewhere)
    assert open_cache().get_or_build(A, Builder()).path is not None
    assert len(said) == 1
    assert open_cache().get_or_build(A, never).origin == "disk"
    assert (elsewhere / "kernel.py").read_bytes() == FILES["kernel.py"]


def test_a_crash_before_the_rename_leaves_nothing_to_see(open_cache: OpenCache) -> None:
    text = """
pathlib.Path.rename = lambda *_: os._exit(9)
Cache(root, 1 << 30).get_or_build(sys.argv[2], lambda: ({"kernel": b"code"}, {}))
"""
    cache = open_cache(lock_seconds=0.0)
    assert script(text, cache.path, A).wait(60) == 9
    (leftover,) = cache.path.glob("v1/*/.writing-*")
    assert sorted(path.name for path in leftover.iterdir()) == ["kernel", MANIFEST]
    assert (cache.get(A), cache.entries()) == (None, [])
    assert cache.get_or_build(A, Builder()).path is not None  # the lock died with its process
    assert leftover.exists()  # it could still belong to a living writer
    stamp = time.time() - HOURS_AGO
    os.utime(leftover, (stamp, stamp))
    cache.prune()
    assert not leftover.exists()
    assert cache.get(A) is not None


def test_old_lock_files_are_removed_unless_held(open_cache: OpenCache) -> None:
    cache = open_cache()
    for key in (A, B, C):
        cache.get_or_build(key, Builder())
    locks = {key: cache.path / "v1" / "locks" / f"{key}.lock" for key in (A, B, C)}
    stamp = time.time() - HOURS_AGO
    for key in (A, B):
        os.utime(locks[key], (stamp, stamp))
    with filelock.FileLock(locks[B]):
        os.utime(locks[B], (stamp, stamp))
        cache.prune()
    assert [locks[key].exists() for key in (A, B, C)] == [False, True, True]


def test_an_entry_that_is_replaced_while_it_is_read_is_read_again(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    open_cache().put(A, FILES, NOTE)
    plainly, other = cache_store.read_plain_file, open_cache()
    replaced = list[str]()

    def replacing(path: Path, limit: int) -> bytes:
        content = plainly(path, limit)
        if not replaced:
            replaced.append(path.name)
            other.put(A, {"kernel.py": b"another"}, {})
        return content

    monkeypatch.setattr(cache_store, "read_plain_file", replacing)
    found = open_cache().get(A)
    assert found is not None
    assert (dict(found.files), said, replaced) == ({"kernel.py": b"another"}, [], [MANIFEST])


def test_sweeping_never_takes_half_of_an_entry(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The writer's rename may come between the sweeper's look and its deed."""
    cache = open_cache()
    removing = cache_store.remove_entry

    def late(path: Path) -> bool:
        if path.name.startswith(".writing-"):
            path.rename(entry_path(cache, A))
        return removing(path)

    cache.put(A, FILES, NOTE)
    entry_path(cache, A).rename(entry_path(cache, A).with_name(".writing-slow"))
    monkeypatch.setattr(cache_store, "remove_entry", late)
    cache_store.Store(cache.path).sweep(older_than=0.0)
    found = open_cache().get(A)
    assert found is not None
    assert (dict(found.files), said) == (FILES, [])


def test_an_entry_that_vanishes_while_it_is_read_is_simply_absent(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    plainly = cache_store.read_plain_file

    def evicting(path: Path, limit: int) -> bytes:
        content = plainly(path, limit)
        if path.name == MANIFEST:
            cache_store.remove_entry(path.parent)
        return content

    monkeypatch.setattr(cache_store, "read_plain_file", evicting)
    assert open_cache().get(A) is None
    assert said == []
