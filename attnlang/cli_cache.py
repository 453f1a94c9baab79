"""`attnlang cache`: what was compiled before: list it, clear it, say where it lies."""

from __future__ import annotations

import argparse
import time
from typing import Any

from attnlang.cli_console import Column, age_text, print_json, print_table, say, size_text
from attnlang.cli_options import add_json

ACTIONS = ("ls", "clear", "path")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "action", choices=ACTIONS, help="list the entries, remove them all, or print the directory"
    )
    add_json(parser)


def run(action: str, as_json: bool) -> int:
    """List, clear or locate the cache of the current settings (ATTNLANG_CACHE_DIR)."""
    from attnlang.execute_programs import kernel_cache

    cache = kernel_cache()
    match action:
        case "ls":
            return _list(cache, as_json)
        case "clear":
            entries = len(cache.entries())
            freed = cache.clear()
            if as_json:
                print_json({"ok": True, "path": str(cache.path), "removed": entries, "bytes": freed})
            else:
                say(f"{cache.path}: removed {_many(entries)}, {size_text(freed)}")
        case _:
            if as_json:
                print_json({"ok": True, "path": str(cache.path)})
            else:
                say(str(cache.path))
    return 0


def _list(cache: Any, as_json: bool) -> int:
    entries = cache.entries()
    if as_json:
        listed = [
            {"key": entry.key, "bytes": entry.bytes, "last_use": entry.last_use, "note": dict(entry.note)}
            for entry in entries
        ]
        print_json({"ok": True, "path": str(cache.path), "entries": listed})
        return 0
    if entries:
        now = time.time()
        rows = [
            (
                str(entry.note.get("pattern", "")),
                str(entry.note.get("target", "")),
                str(entry.note.get("kind", "")),
                size_text(entry.bytes),
                age_text(now - entry.last_use),
                entry.key[:12],
            )
            for entry in entries
        ]
        columns = (
            Column("pattern"), Column("target"), Column("holds"), Column("size", number=True), Column("last use"),
            Column("key"),
        )  # fmt: skip
        print_table(columns, rows)
    say(f"{cache.path}: {_many(len(entries))}, {size_text(sum(entry.bytes for entry in entries))}")
    return 0


def _many(entries: int) -> str:
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}"
