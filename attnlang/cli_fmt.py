"""`attnlang fmt`: files in the canonical form, comments kept; what is wrong in a file stops that file only."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

from attnlang import compiler
from attnlang.cli_console import complain, counted, say
from attnlang.cli_write import write_file
from attnlang.errors import AttnlangError, FileTooLarge, NotText
from attnlang.source import Source

STDIN = "-"
MOST_STDIN = 1_000_000
"""Bytes, as of a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    about = ".attn files, written in place; - reads standard input and writes standard output"
    parser.add_argument("files", metavar="FILE", nargs="+", help=about)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file would change")
    how.add_argument("--diff", action="store_true", help="write nothing; print what would change")


def run(files: Sequence[str], check: bool, diff: bool) -> int:
    """Format each file; 1 where one has a mistake, or `check` finds one that would change."""
    failed = False
    changed = 0
    for name in files:
        try:
            source = _stdin() if name == STDIN else compiler.source_of(name)
            formatted = format_source(source)
            changed += _deliver(name, source, formatted, check=check, diff=diff)
        except AttnlangError as error:
            complain(str(error))
            failed = True
    if check and changed:
        complain(f"{counted(changed, 'file')} would change: attnlang fmt writes them")
    return 1 if failed or (check and changed) else 0


def format_source(source: Source) -> str:
    """The canonical text. Raises Diagnostics where the text has mistakes of grammar."""
    tree = compiler.tree_of(source)
    formatted = compiler.text_of(tree)
    if compiler.tree_of(Source(source.name, formatted)) != tree:
        raise AssertionError(f"the canonical form of {source.name} means something else")
    return formatted


def _deliver(name: str, source: Source, formatted: str, *, check: bool, diff: bool) -> bool:
    """Write, compare or show; whether the text changed."""
    original = source.text if name == STDIN else Path(name).read_bytes().decode("utf-8", errors="replace")
    changed = original != formatted
    if diff:
        before, after = original.splitlines(keepends=True), formatted.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(before, after, f"{source.name} (as it is)", source.name))
    elif check:
        if changed:
            say(source.name)
    elif name == STDIN:
        sys.stdout.write(formatted)
    elif changed:
        write_file(Path(name), formatted)
        say(f"{name}: formatted")
    return changed


def _stdin() -> Source:
    data = sys.stdin.buffer.read(MOST_STDIN + 1)
    if len(data) > MOST_STDIN:
        raise FileTooLarge(file="<stdin>", limit=MOST_STDIN)
    try:
        return Source("<stdin>", data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise NotText(
            file="<stdin>", reason=f"byte 0x{data[error.start]:02x} is not UTF-8", line=line
        ) from None
