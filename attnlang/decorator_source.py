"""Where a user's Python code is: the span of the expression that Python is evaluating right now."""

from __future__ import annotations

import inspect
import linecache
import os
from itertools import islice
from types import FrameType

from attnlang.source import Source, Span

FILES_OF_THE_TRACER = {__file__}
"""Frames of these files are ours; the first one that is not is the user's line."""


def source_of(file: str) -> Source:
    """The Python file as reports name it: relative to the working directory where it lies below."""
    relative = os.path.relpath(file) if os.path.isabs(file) else file
    name = file if relative.startswith(os.pardir) else relative
    return Source(name, "".join(linecache.getlines(file)))


def here() -> Span:
    """The Python expression that is being evaluated outside of the tracer."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename in FILES_OF_THE_TRACER:
        frame = frame.f_back
    if frame is None:
        return Span(Source("<python>", ""), 0, 0)
    return span_in(frame)


def span_in(frame: FrameType) -> Span:
    """What a frame is evaluating; its whole line where Python keeps no columns."""
    source = source_of(frame.f_code.co_filename)
    positions = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), (None,) * 4)
    line, last_line, first, last = positions
    line = line or frame.f_lineno
    if line > len(source.line_starts) or not source.text:
        blank = Source(source.name, "\n" * (line - 1))
        return Span(blank, line - 1, line - 1)
    text = source.line_text(line)
    if first is None or last is None or last_line is None or last_line > len(source.line_starts):
        start = source.line_starts[line - 1] + len(text) - len(text.lstrip())
        return Span(source, start, source.line_starts[line - 1] + len(text))
    return Span(source, _offset(source, line, first), _offset(source, last_line, last))


def _offset(source: Source, line: int, column: int) -> int:
    """Python counts columns in bytes of UTF-8."""
    return source.line_starts[line - 1] + len(
        source.line_text(line).encode()[:column].decode(errors="ignore")
    )
