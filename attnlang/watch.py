"""Watching the stages: ATTNLANG_DEBUG prints a topic to standard error, ATTNLANG_DUMP writes every stage to a file."""

from __future__ import annotations

import os
import sys

from attnlang.errors_driver import CannotDump
from attnlang.settings import Topic, options


def debug(topic: Topic, text: str) -> None:
    """Prints to standard error what ATTNLANG_DEBUG asks for."""
    if topic in options().debug:
        print(f"attnlang {topic}: {text.rstrip()}", file=sys.stderr)


def watching() -> bool:
    """Whether anybody wants to see how a kernel is made: then it is made, also where the cache has it."""
    return options().dump_directory is not None or bool(options().debug & {"plan", "kernel", "rules"})


def dump(pattern: str, stage: str, text: str) -> None:
    """Writes one stage, such as `3-pattern.txt`, below ATTNLANG_DUMP, in a folder named like the pattern."""
    folder = options().dump_directory
    if folder is None:
        return
    file = folder / pattern / stage
    try:
        os.makedirs(file.parent, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotDump(file=str(file), reason=error.strerror or type(error).__name__) from None
