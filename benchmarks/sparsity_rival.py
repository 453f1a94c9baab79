"""FlexAttention's `create_block_mask`, eager and compiled, beside our tiles of the same predicate: time, peak memory.

Each runs in a process of its own, through rising lengths until it fails or passes a limit; then it is ended. One batch
entry, one head, 128 × 128 tiles, on the CPU. Times are the least of a few calls after one that warms up (`first_ms`,
where a compiler runs); memory is what the process held at most beyond what it held before the first call.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from benchmarks.sparsity_tiles import ROOT, load, tiles_of, timed

NAMES = ("causal", "sliding_window", "streaming", "document")
MODES = ("eager", "compiled", "ours")
LENGTHS = tuple(1 << power for power in range(10, 21))
DOCUMENT = 105
"""Tokens of a document, about: 10,000 documents in 1,048,576 tokens."""
GIBIBYTE = 1 << 30


def rival(seconds: float, gibibytes: float, longest: int) -> list[dict[str, Any]]:
    """Every predicate and mode, through all lengths that stay within the limits."""
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        for mode in MODES:
            rows += watched(name, mode, seconds, gibibytes, longest)
    return rows


def watched(name: str, mode: str, seconds: float, gibibytes: float, longest: int) -> list[dict[str, Any]]:
    """One worker; ended where a length takes more than the limits, with a row that says so."""
    command = [sys.executable, "-m", "benchmarks.sparsity_rival", name, mode, str(longest)]
    worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rows: list[dict[str, Any]] = []
    errors: list[str] = []
    readers = [
        Thread(target=_collect, args=(worker.stdout, lambda line: rows.append(json.loads(line)))),
        Thread(target=_collect, args=(worker.stderr, errors.append)),
    ]
    for reader in readers:
        reader.start()
    reason, seen, since = "", 0, time.monotonic()
    while worker.poll() is None:
        if len(rows) > seen:
            seen, since = len(rows), time.monotonic()
        if time.monotonic() - since > seconds:
            reason = f"more than {seconds:g} s"
        if _resident(worker.pid) > gibibytes * GIBIBYTE:
            reason = f"more than {gibibytes:g} GiB"
        if reason:
            worker.kill()
            break
        time.sleep(0.02)
    worker.wait()
    for reader in readers:
        reader.join()
    rows = [{"pattern": name, "mode": mode, **row} for row in rows]
    if worker.returncode and not reason:
        reason = errors[-1].strip() if errors else f"ended with {worker.returncode}"
    if reason:
        length = rows[-1]["tokens"] * 2 if rows else LENGTHS[0]
        rows.append({"pattern": name, "mode": mode, "tokens": length, "stopped": reason})
    for row in rows:
        print(row, flush=True)
    return rows


def _collect(stream: Any, use: Callable[[str], object]) -> None:
    for line in stream:
        if line.strip():
            use(line)


def _resident(process: int) -> int:
    """The memory a process holds, in bytes; 0 once it is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


# ------------------------------------------------------------------------------------------------- the worker


def work(name: str, mode: str, longest: int) -> None:
    """Prints one line of JSON for each length."""
    call = _ours(name) if mode == "ours" else _theirs(name, mode == "compiled")
    torch.zeros(1)
    before = _held()
    for tokens in LENGTHS:
        if tokens > longest:
            return
        action = call(tokens)
        first = timed(action)
        repeats = 5 if first < 200 else 1
        best = min(timed(action) for _ in range(repeats))
        memory = round(max(_held() - before, 0) / 2**20, 1)
        row = {"tokens": tokens, "first_ms": round(first, 2), "ms": round(best, 2), "peak_MiB": memory}
        print(json.dumps(row), flush=True)


def _held() -> int:
    """The most memory this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _documents(tokens: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, max(tokens // DOCUMENT, 1), (1, tokens), generator=draw).sort(-1).values


def _ours(name: str) -> Callable[[int], Callable[[], object]]:
    pattern = load(name)

    def call(tokens: int) -> Callable[[], object]:
        tensors = {"ids": _documents(tokens).numpy()} if name == "document" else {}
        return lambda: tiles_of(pattern, tokens, tokens, 1, (128, 128), tensors).counts

    return call


def _theirs(name: str, compiled: bool) -> Callable[[int], Callable[[], object]]:
    from torch.nn.attention.flex_attention import create_block_mask

    make: Any = torch.compile(create_block_mask) if compiled else create_block_mask

    def causal(b: Any, h: Any, q: Any, k: Any) -> Any:
        return q >= k

    def sliding_window(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & (q - k < 1024)

    def streaming(b: Any, h: Any, q: Any, k: Any) -> Any:
        return (q >= k) & ((q - k < 1024) | (k < 4))

    def call(tokens: int) -> Callable[[], object]:
        ids = _documents(tokens)[0]

        def document(b: Any, h: Any, q: Any, k: Any) -> Any:
            return (q >= k) & (ids[q] == ids[k])

        predicates = (causal, sliding_window, streaming, document)
        predicate = next(each for each in predicates if each.__name__ == name)
        return lambda: make(predicate, 1, 1, tokens, tokens, device="cpu")

    return call


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
