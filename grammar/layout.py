"""Logical lines: what the text says before grammar looks at it.

A logical line goes on while a bracket is open. Here are found the mistakes that would hide everything after
them (open brackets, open strings, tabs) and those that would exhaust the machine (nesting, length, digits).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from attnlang.errors import (
    BracketDoesNotMatch,
    BracketNeverClosed,
    BracketWithoutOpening,
    Diagnostic,
    MixedIndentation,
    NameTooLong,
    NestedTooDeep,
    NumberTooLong,
    StatementTooLong,
    StringNeverClosed,
)
from attnlang.source import Source, Span

MAX_NESTING = 100
MAX_STATEMENT = 10_000
MAX_DIGITS = 40
MAX_NAME = 100

STATEMENT_WORDS = (
    "import", "def", "pattern", "tensor", "grid", "blocks", "let", "scan", "select", "mask", "sparsity", "score",
    "weight", "reweight", "value", "output", "normalize", "branch", "state", "step", "require", "assert",
)  # fmt: skip
"""What a line may begin with."""

_PIECES = re.compile(
    r"""(?P<long>\"{3}(?:\\.|[^\\])*?\"{3})
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<open_string>\"{3}|"[^\n]*)
      | (?P<comment>\#[^\n]*)
      | (?P<opening>[(\[{])
      | (?P<closing>[)\]}])
      | (?P<newline>\n)
      | (?P<blank>[ \t\f]+)
      | (?P<word>[^"'\#()\[\]{}\s]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_STATEMENT_AHEAD = re.compile(
    rf"[ \t]*(?:{'|'.join(STATEMENT_WORDS)})[ ]+(?!(?:if|else|and|or|mod|for|in)\b)[A-Za-z_0-9]"
)
_LONG_NUMBER = re.compile(rf"(?<![A-Za-z_0-9])[0-9][0-9_.eE]{{{MAX_DIGITS},}}")
_LONG_NAME = re.compile(rf"(?<![A-Za-z_0-9])[A-Za-z_][A-Za-z_0-9]{{{MAX_NAME},}}")
_PARTNER = {")": "(", "]": "[", "}": "{"}


@dataclass
class LogicalLine:
    """One statement: its text without the comment behind it, its indentation, and the comments that belong to it.

    A comment `""` stands for a blank line. `broken` says that a mistake of it is already reported.
    """

    source: Source
    indent: int
    start: int
    end: int
    comments: tuple[str, ...] = ()
    trailing: str = ""
    broken: bool = False

    @property
    def text(self) -> str:
        """What grammar reads."""
        return self.source.text[self.start : self.end]

    @property
    def span(self) -> Span:
        """Where it stands."""
        return Span(self.source, self.start, self.end)

    def first_word(self) -> str:
        """The name it begins with, or nothing."""
        found = re.match(r"[A-Za-z_][A-Za-z_0-9]*", self.text)
        return found.group() if found else ""


@dataclass
class Layout:
    """All logical lines of a text, the comments after the last, and the mistakes found on the way."""

    lines: list[LogicalLine] = field(default_factory=list[LogicalLine])
    epilogue: tuple[str, ...] = ()
    mistakes: list[Diagnostic] = field(default_factory=list[Diagnostic])


def split(source: Source) -> Layout:
    """The logical lines of `source`, which must have `\\n` line ends (`reading.tidy`)."""
    return _Splitter(source).run()


class _Splitter:
    """Walks over the pieces of a text once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.layout = Layout()
        self.comments: list[str] = []
        self.line: LogicalLine | None = None
        self.brackets: list[int] = []
        self.empty = True  # nothing but blanks so far on this physical line
        self.indentation = ""  # the kind that the file uses

    def run(self) -> Layout:
        for piece in _PIECES.finditer(self.source.text):
            self.piece(piece.lastgroup or "", piece.start(), piece.end())
        self.finish_line()
        self.layout.epilogue = tuple(self.comments)
        return self.layout

    def piece(self, kind: str, start: int, end: int) -> None:
        if kind == "newline":
            self.newline(end)
        elif kind == "comment":
            self.comment(start, end)
        elif kind != "blank":
            self.empty = False
            line = self.line or self.begin_line(start)
            line.end = end
            if kind == "opening":
                self.brackets.append(start)
                self.check_nesting(line, start)
            elif kind == "closing":
                self.closing(line, start)
            elif kind == "open_string":
                self.report(line, StringNeverClosed(Span(self.source, start, end)))

    def begin_line(self, start: int) -> LogicalLine:
        margin = self.source.text[self.source.line_starts[self.source.line_of(start) - 1] : start]
        line = LogicalLine(self.source, len(margin.expandtabs(4)), start, start, tuple(self.comments))
        self.comments = []
        self.line = line
        if margin and not self.indentation:
            self.indentation = margin[0]
        if margin.strip(self.indentation) and not any(
            isinstance(m, MixedIndentation) for m in self.layout.mistakes
        ):
            self.layout.mistakes.append(MixedIndentation(Span(self.source, start - len(margin), start)))
        return line

    def comment(self, start: int, end: int) -> None:
        text = self.source.text[start:end].rstrip()
        if self.line is not None and not self.brackets:
            self.line.trailing = text
        elif self.line is not None:
            self.line.comments += (text,)
        else:
            self.comments.append(text)
        self.empty = False

    def newline(self, following: int) -> None:
        if self.line is None:
            if self.empty and (not self.comments or self.comments[-1]):
                self.comments.append("")
        elif not self.brackets or _STATEMENT_AHEAD.match(self.source.text, following):
            self.finish_line()
        self.empty = True

    def closing(self, line: LogicalLine, at: int) -> None:
        character = self.source.text[at]
        span = Span(self.source, at, at + 1)
        if not self.brackets:
            self.report(line, BracketWithoutOpening(span, bracket=character))
            return
        opening = self.source.text[self.brackets.pop()]
        if opening != _PARTNER[character]:
            self.report(line, BracketDoesNotMatch(span, bracket=character, opening=opening))

    def check_nesting(self, line: LogicalLine, at: int) -> None:
        if len(self.brackets) > MAX_NESTING and not line.broken:
            self.report(line, NestedTooDeep(Span(self.source, at, at + 1), limit=MAX_NESTING))

    def finish_line(self) -> None:
        line, self.line = self.line, None
        if line is None:
            return
        if self.brackets:
            at = self.brackets[0]
            self.report(line, BracketNeverClosed(Span(self.source, at, at + 1), bracket=self.source.text[at]))
            self.brackets.clear()
        self.check_sizes(line)
        self.layout.lines.append(line)

    def check_sizes(self, line: LogicalLine) -> None:
        text = line.text
        if (number := _LONG_NUMBER.search(text)) is not None:
            span = Span(self.source, line.start + number.start(), line.start + number.end())
            self.report(line, NumberTooLong(span, digits=len(number.group()), limit=MAX_DIGITS))
        elif (name := _LONG_NAME.search(text)) is not None and not text.startswith('"'):
            span = Span(self.source, line.start + name.start(), line.start + name.end())
            self.report(line, NameTooLong(span, length=len(name.group()), limit=MAX_NAME))
        elif len(text) > MAX_STATEMENT and not text.startswith('"'):
            span = Span(self.source, line.start, line.start + len(line.first_word()))
            self.report(line, StatementTooLong(span, length=len(text), limit=MAX_STATEMENT))

    def report(self, line: LogicalLine, mistake: Diagnostic) -> None:
        """One report a line: the first."""
        if not line.broken:
            self.layout.mistakes.append(mistake)
        line.broken = True
