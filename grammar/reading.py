"""Files to sources: what is no readable text is refused here, before anything large is loaded."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from attnlang.errors import (
    ControlCharacter,
    FileCannotBeRead,
    FileIsDirectory,
    FileIsEmpty,
    FileNotFound,
    FileTooLarge,
    NotText,
)
from attnlang.source import Source, Span

MAX_FILE = 1_000_000
"""Bytes of the largest file that is read."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")


def read_source(path: str | Path) -> Source:
    """The text of a file as a `Source` named by the path as it was given.

    Raises a Diagnostic: file missing, a directory, unreadable, over MAX_FILE bytes, empty, binary.
    """
    name = str(path)
    try:
        kind = os.stat(name).st_mode
        if stat.S_ISDIR(kind):
            raise FileIsDirectory(file=name)
        if not stat.S_ISREG(kind):
            raise FileCannotBeRead(file=name, reason="it is no regular file")
        with open(name, "rb") as file:
            data = file.read(MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFound(file=name) from None
    except OSError as error:
        raise FileCannotBeRead(file=name, reason=error.strerror or type(error).__name__) from None
    except ValueError:
        raise FileNotFound(file=name.replace("\0", "\\0")) from None
    if len(data) > MAX_FILE:
        raise FileTooLarge(file=name, limit=MAX_FILE)
    if not data.removeprefix(b"\xef\xbb\xbf").strip():
        raise FileIsEmpty(file=name)
    if b"\x00" in data:
        raise NotText(
            file=name, reason="it has a zero byte", line=data[: data.index(b"\x00")].count(b"\n") + 1
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise NotText(file=name, reason=reason, line=data[: error.start].count(b"\n") + 1) from None
    return tidy(Source(name, text))


def tidy(source: Source) -> Source:
    """The same source without a byte order mark and with `\\n` line ends.

    Raises a Diagnostic on more than MAX_FILE characters and on control characters.
    """
    text = source.text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if len(text) > MAX_FILE:
        raise FileTooLarge(file=source.name, limit=MAX_FILE)
    tidied = source if text == source.text else Source(source.name, text)
    if (found := _CONTROL.search(text)) is not None:
        span = Span(tidied, found.start(), found.end())
        raise ControlCharacter(span, character=f"U+{ord(found.group()):04X}")
    return tidied
