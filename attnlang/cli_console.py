"""What the commands print: tables and progress for people, JSON for programs, sizes and times in plain units."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TextIO, cast

from attnlang.settings import options

PLAIN_WIDTH = 110
"""Columns of a table that is written to a file or a pipe."""

Step = Callable[[str], None]
"""Says what is being done now."""


def rich_console(stream: TextIO) -> Any:
    """A rich console on `stream`: colours on a terminal only, and none where NO_COLOR is set."""
    from rich.console import Console

    terminal = stream.isatty()
    return Console(
        file=stream,
        no_color=not options().color,
        width=None if terminal else PLAIN_WIDTH,
        highlight=False,
        soft_wrap=not terminal,
    )


def say(text: str) -> None:
    """A line on standard output, as it is."""
    print(text)


def complain(text: str) -> None:
    """A line on standard error, as it is."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON object on standard output; numbers that JSON does not have become null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if value - value == 0 else None
        case dict():
            return {str(key): _plain(item) for key, item in cast("dict[Any, Any]", value).items()}
        case list() | tuple() | set() | frozenset():
            return [_plain(item) for item in cast("Iterable[Any]", value)]
        case _:
            return str(value)


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, and whether it holds numbers (set to the right)."""

    head: str
    number: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.head, justify="right" if column.number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    rich_console(sys.stdout).print(table)


@contextmanager
def progress(first: str) -> Generator[Step]:
    """A line with a spinner and the time on standard error while something takes long; only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=rich_console(sys.stderr),
        transient=True,
        redirect_stdout=False,  # rich would send it to standard error, wherever it was meant to go
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task(first, total=None)
        yield lambda text: bar.update(task, description=text)


def counted(number: int, what: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size_text(count: float) -> str:
    """`1.5 MB` of 1572864 bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """`12.3 ms` of 0.0123 seconds; three digits."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds:.0f} {unit}"
    return f"{seconds * 1e9:.3g} ns" if seconds else "0 s"


def age_text(seconds: float) -> str:
    """`5 minutes ago`."""
    for length, unit in ((86400.0, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"
