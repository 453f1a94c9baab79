"""`attnlang fmt`: files in the canonical form, comments kept; what is wrong in a file stops that file only."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from attnlang import compiler
from attnlang.cli_console import complain, say
from attnlang.errors import AttnlangError, Diagnostic, NotText
from attnlang.source import Source

STDIN = "-"


class FileCannotBeWritten(Diagnostic):
    """The file that a command writes cannot be written."""

    code = "E603"
    message = "'{file}' cannot be written: {reason}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", metavar="FILE", nargs="+", help=".attn files, written in place; - reads and writes the standard streams")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file would change")
    how.add_argument("--diff", action="store_true", help="write nothing; print what would change")


def run(files: Sequence[str], check: bool, diff: bool) -> int:
    """Format each file; 1 where one has a mistake, or `check` finds one that would change."""
    failed = False
    changed = 0
    for name in files:
        try:
            source = _stdin() if name == STDIN else compiler.read_source(name)
            formatted = format_source(source)
            changed += _deliver(name, source, formatted, check=check, diff=diff)
        except AttnlangError as error:
            complain(str(error))
            failed = True
    if check and changed:
        complain(f"{changed} {'file' if changed == 1 else 'files'} would change: attnlang fmt writes them")
    return 1 if failed or (check and changed) else 0


def format_source(source: Source) -> str:
    """The canonical text. Raises Diagnostics where the text has mistakes of grammar."""
    tree = compiler.parse_file(source)
    formatted = compiler.format_file(tree)
    if compiler.parse_file(Source(source.name, formatted)) != tree:
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
        write_atomically(Path(name), formatted)
        say(f"{name}: formatted")
    return changed


def _stdin() -> Source:
    data = sys.stdin.buffer.read(compiler.MAX_FILE + 1)
    try:
        return Source("<stdin>", data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise NotText(file="<stdin>", reason=f"byte 0x{data[error.start]:02x} is not UTF-8", line=line) from None


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, its permissions kept; a link stays a link. Raises FileCannotBeWritten."""
    target = path.resolve()
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, target.stat().st_mode & 0o7777)
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise FileCannotBeWritten(file=str(path), reason=error.strerror or str(error)) from None
