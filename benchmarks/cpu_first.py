"""The first call in a new process: with an empty kernel cache and with a filled one, beyond imports.

    python benchmarks/cpu_first.py PATTERN TARGET N D [MODULES]

is the new process: it prints JSON. MODULES is a file that names the modules to import before the clock starts; it is
made by a first process, so that what is imported late is counted as an import too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def first_calls(pattern: str, target: str, tokens: int, features: int, repetitions: int) -> dict[str, Any]:
    """Seconds of a first call, cold and warm: medians, all runs, and how long with the late imports inside."""
    row: dict[str, Any] = {"case": pattern, "N": tokens, "D": features, "dtype": "float32"}
    with tempfile.TemporaryDirectory() as folder:
        root, names = Path(folder), Path(folder) / "modules.json"
        words = [pattern, target, str(tokens), str(features)]
        late = _process(words, root / "cache-0")
        if "failed" in late:
            return row | late
        names.write_text(json.dumps(late["modules"]), encoding="utf-8")
        row["with_late_imports"] = {"cold": late["call"], "warm": _process(words, root / "cache-0")["call"]}
        for number in range(1, repetitions + 1):
            for kind in ("cold", "warm"):
                done = _process([*words, str(names)], root / f"cache-{number}")
                row.setdefault(f"{kind}_runs", []).append(done["call"])
                row.setdefault(f"{kind}_loads", []).append(done["load"])
    for kind in ("cold", "warm"):
        row[kind] = round(median(row[f"{kind}_runs"]), 4)
        row[f"{kind}_load"] = round(median(row[f"{kind}_loads"]), 4)
    return row


def _process(words: list[str], cache: Path) -> dict[str, Any]:
    environment = os.environ | {"ATTNLANG_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, *words], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    return json.loads(done.stdout)


def main(pattern: str, target: str, tokens: str, features: str, modules: str | None = None) -> None:
    """The new process: imports, then the load of the pattern and its first call by the clock."""
    start = time.perf_counter()
    import torch

    import attnlang

    for name in json.loads(Path(modules).read_text(encoding="utf-8")) if modules else []:
        import_module(name)
    imported = time.perf_counter()
    q, k, v = (torch.randn(1, 8, int(tokens), int(features)) for _ in range(3))
    before = set(sys.modules)
    made = time.perf_counter()
    loaded = attnlang.load(ROOT / "examples" / f"{pattern}.attn")
    ready = time.perf_counter()
    loaded(q, k, v, target=target)
    end = time.perf_counter()
    late = [name for name in sys.modules if name not in before and _importable(name)]
    seconds = {"imports": imported - start, "load": ready - made, "call": end - ready}
    print(json.dumps({**{name: round(value, 4) for name, value in seconds.items()}, "modules": late}))


def _importable(name: str) -> bool:
    return getattr(sys.modules[name], "__spec__", None) is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
