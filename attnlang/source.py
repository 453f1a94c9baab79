"""A text and the places in it: lines, columns and the excerpt with carets that every report shows."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Source:
    """A named text. `name` is what reports print: a path as the user wrote it, or `<text>`."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offset of the first character of every line."""
        starts = [0]
        for offset, character in enumerate(self.text):
            if character == "\n":
                starts.append(offset + 1)
        return tuple(starts)

    def line_of(self, offset: int) -> int:
        """The 1-based line that holds `offset`."""
        return bisect_right(self.line_starts, offset)

    def line_text(self, line: int) -> str:
        """The text of a 1-based line, without its end."""
        start = self.line_starts[line - 1]
        end = self.line_starts[line] - 1 if line < len(self.line_starts) else len(self.text)
        return self.text[start:end].rstrip("\r")


@dataclass(frozen=True)
class Span:
    """A half-open range of characters of a source. It rides along with nodes, outside their equality."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """1-based line of the first character."""
        return self.source.line_of(self.start)

    @property
    def column(self) -> int:
        """1-based column of the first character."""
        return self.start - self.source.line_starts[self.line - 1] + 1

    @property
    def text(self) -> str:
        """The characters it covers."""
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """From the start of this one to the end of the other."""
        return Span(self.source, self.start, max(self.end, other.end))

    def location(self) -> str:
        """`name:line:column`."""
        return f"{self.source.name}:{self.line}:{self.column}"

    def excerpt(self, hint: str | None = None, width: int = 100) -> list[str]:
        """The line with carets under the span, and the hint beside them; long lines are cut around the span."""
        line = self.source.line_text(self.line).replace("\t", " ")
        first = self.column - 1
        length = max(1, min(self.end - self.start, len(line) - first))
        if len(line) > width:
            cut = max(0, min(first - width // 3, len(line) - width))
            line = ("…" if cut else "") + line[cut : cut + width] + ("…" if cut + width < len(line) else "")
            first = first - cut + (1 if cut else 0)
            length = max(1, min(length, len(line) - first))
        gutter = str(self.line)
        blank = " " * len(gutter)
        carets = " " * first + "^" * length + (f" {hint}" if hint else "")
        return [f"{blank} |", f"{gutter} | {line}", f"{blank} | {carets}"]


NOWHERE = Span(Source("<built in>", ""), 0, 0)
