"""The kernel cache: built once, found again, in one process or in many."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import cast

import filelock
import pytest
from cache_bench import (
    FILES,
    NOTE,
    A,
    B,
    Builder,
    C,
    OpenCache,
    entry_path,
    never,
    opener,
    script,
)

from attnlang.runtime import cache_store
from attnlang.runtime.cache import Built
from attnlang.runtime.cache_manifest import MANIFEST


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_cache(tmp_path: Path, said: list[str]) -> OpenCache:
    return opener(tmp_path / "cache", said)


# Finding again


def test_a_kernel_is_built_once_and_found_in_memory_and_on_disk(open_cache: OpenCache) -> None:
    first, build = open_cache(), Builder()
    assert first.get(A) is None
    origins = [first.get_or_build(A, build).origin for _ in range(2)]
    second = open_cache()
    from_disk = second.get(A)
    assert from_disk is not None
    assert (build.calls, [*origins, from_disk.origin]) == (1, ["built", "memory", "disk"])
    assert (dict(from_disk.files), dict(from_disk.note)) == (FILES, NOTE)
    assert from_disk.path is not None
    assert (from_disk.path / "kernel.cubin").read_bytes() == FILES["kernel.cubin"]


def test_memory_reads_no_file_and_disk_reads_each_file_once(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache().put(A, FILES, NOTE)
    plainly, names = cache_store.read_plain_file, list[str]()

    def counting(path: Path, limit: int) -> bytes:
        names.append(path.name)
        return plainly(path, limit)

    monkeypatch.setattr(cache_store, "read_plain_file", counting)
    cache = open_cache()
    assert cache.get_or_build(A, never).origin == "disk"
    assert sorted(names) == ["kernel.cubin", "kernel.py", MANIFEST]
    names.clear()
    assert cache.get_or_build(A, never).origin == "memory"
    assert names == []


def test_put_replaces_an_entry(open_cache: OpenCache) -> None:
    cache = open_cache()
    cache.put(A, FILES, NOTE)
    cache.put(A, {"tuned.cubin": b"faster"}, {})
    for found in (cache.get(A), open_cache().get(A)):
        assert found is not None
        assert dict(found.files) == {"tuned.cubin": b"faster"}


def test_entries_cannot_be_changed_through_what_was_handed_in_or_out(
    open_cache: OpenCache,
) -> None:
    cache, files = open_cache(), dict(FILES)
    entry = cache.put(A, files, NOTE)
    files["kernel.py"] = b"changed"
    assert entry.files["kernel.py"] == FILES["kernel.py"]
    with pytest.raises(TypeError):
        cast("dict[str, bytes]", entry.files)["kernel.py"] = b"changed"


def test_memory_is_bounded_but_keeps_the_newest(open_cache: OpenCache) -> None:
    cache = open_cache(limit_bytes=0, memory_bytes=10)
    for key in (A, B):
        cache.put(key, {"f": b"12345"}, {})
    assert cache.get(A) is not None  # so that B is the one used longest ago
    cache.put(C, {"f": b"12345"}, {})
    assert [cache.get(key) is not None for key in (A, B, C)] == [True, False, True]
    cache.put(B, {"f": b"x" * 50}, {})
    assert [cache.get(key) is not None for key in (A, B, C)] == [False, True, False]


# Building once


def test_eight_processes_build_a_kernel_once(tmp_path: Path) -> None:
    text = """
def build():
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    time.sleep(0.5)
    return {"kernel": b"code" * 1000}, {}
start = float(sys.argv[4])
time.sleep(max(0.0, start - time.time()))
print(len(Cache(root, 1 << 30).get_or_build(sys.argv[3], build).files["kernel"]))
"""
    log = tmp_path / "log"
    start = time.time() + 1.5
    running = [script(text, tmp_path / "cache", log, A, start) for _ in range(8)]
    answers = [process.communicate(timeout=120)[0].strip() for process in running]
    assert answers == ["4000"] * 8
    assert log.read_text() == "built\n"


def test_eight_threads_build_a_kernel_once(open_cache: OpenCache) -> None:
    cache, calls, found = open_cache(), list[int](), list[bytes]()
    together = threading.Barrier(8)

    def build() -> Built:
        calls.append(1)
        time.sleep(0.1)
        return FILES, NOTE

    def ask() -> None:
        together.wait()
        found.append(cache.get_or_build(A, build).files["kernel.py"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(calls), found) == (1, [FILES["kernel.py"]] * 8)


def test_a_builder_that_does_not_end_is_not_waited_for(open_cache: OpenCache, said: list[str]) -> None:
    cache = open_cache(lock_seconds=0.1)
    cache.put(B, FILES, NOTE)  # so that the cache has its directory
    lock = cache.path / "v1" / "locks" / f"{A}.lock"
    lock.parent.mkdir()
    with filelock.FileLock(lock):
        entry = cache.get_or_build(A, Builder())
    assert (dict(entry.files), entry.path, entry.origin) == (FILES, None, "built")
    assert not entry_path(cache, A).exists()
    assert cache.get_or_build(A, never).origin == "memory"
    assert len(said) == 1
    assert "kept in memory only" in said[0]


def test_a_thread_that_does_not_end_is_not_waited_for(open_cache: OpenCache, said: list[str]) -> None:
    cache, begun, end = open_cache(lock_seconds=0.1), threading.Event(), threading.Event()

    def slow() -> Built:
        begun.set()
        end.wait(30)
        return FILES, NOTE

    thread = threading.Thread(target=cache.get_or_build, args=(A, slow))
    thread.start()
    assert begun.wait(30)
    assert cache.get_or_build(A, Builder()).path is None
    end.set()
    thread.join(30)
    assert len(said) == 1
    assert open_cache().get_or_build(A, never).origin == "disk"


def test_a_failed_build_passes_its_error_on_and_leaves_no_lock(open_cache: OpenCache) -> None:
    cache = open_cache(lock_seconds=0.0)

    def fail() -> Built:
        raise OSError(errno.ENOSPC, "the compiler's own disk is full")

    with pytest.raises(OSError, match="the compiler's own"):
        cache.get_or_build(A, fail)
    entry = cache.get_or_build(A, Builder())
    assert entry.path is not None


def test_a_builder_that_asks_for_itself_is_told_so(open_cache: OpenCache) -> None:
    cache = open_cache()

    def ask_again() -> Built:
        cache.get_or_build(B, Builder())
        return cache.get_or_build(A, never).files, {}

    with pytest.raises(RuntimeError, match="asks the cache for this very kernel"):
        cache.get_or_build(A, ask_again)
    assert cache.get_or_build(A, Builder()).origin == "built"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_build_holds_no_lock(open_cache: OpenCache) -> None:
    cache, begun, end = open_cache(lock_seconds=0.2), threading.Event(), threading.Event()

    def slow() -> Built:
        begun.set()
        end.wait(30)
        return FILES, NOTE

    thread = threading.Thread(target=cache.get_or_build, args=(A, slow))
    thread.start()
    assert begun.wait(30)
    child = os.fork()
    if not child:
        shared = cache.get_or_build(B, Builder()).path is not None
        alone = cache.get_or_build(A, Builder()).path is None
        os._exit(0 if shared and alone else 1)
    _, status = os.waitpid(child, 0)
    end.set()
    thread.join(30)
    assert os.waitstatus_to_exitcode(status) == 0
    assert open_cache().get_or_build(A, never).origin == "disk"
