"""Text to tree: logical lines one by one through the grammar, blocks by their indentation, all mistakes at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from attnlang import syntax
from attnlang.errors import (
    BranchInsideBranch,
    Diagnostic,
    Diagnostics,
    MisplacedDocstring,
    StatementInsidePattern,
    StatementOutsidePattern,
    TooManyMistakes,
    UnexpectedBlock,
    WrongIndentation,
)
from attnlang.source import Source, Span

from .build import Builder, Built, Docstring
from .layout import Layout, LogicalLine, split
from .machine import Refused, read
from .mistakes import Opens, explain, opened_by
from .reading import read_source, tidy

__all__ = ["parse_expression", "parse_file", "read_source"]

MAX_MISTAKES = 100

Item = syntax.Import | syntax.Definition | syntax.PatternDefinition
AnyStatement = TypeVar("AnyStatement", bound=syntax.Statement)


def parse_file(source: Source) -> syntax.File:
    """The tree of a whole file. Raises Diagnostics with every mistake of reading and grammar."""
    try:
        source = tidy(source)
    except Diagnostic as mistake:
        raise Diagnostics([mistake]) from None
    layout = split(source)
    reader = _Reader(layout)
    items = reader.items()
    tree = syntax.File(tuple(items), reader.loose + layout.epilogue, span=Span(source, 0, len(source.text)))
    if reader.mistakes:
        raise Diagnostics(_at_most(reader.mistakes), partial=tree)
    return tree


def parse_expression(source: Source) -> syntax.Expr:
    """The tree of one expression. Raises Diagnostics."""
    try:
        source = tidy(source)
        layout = split(source)
        if layout.mistakes:
            raise Diagnostics(layout.mistakes)
        whole = LogicalLine(source, 0, 0, len(source.text.rstrip()))
        return _built_expression(whole)
    except Diagnostic as mistake:
        raise Diagnostics([mistake]) from None


def _built_expression(line: LogicalLine) -> syntax.Expr:
    builder = Builder(line.source, line.start)
    try:
        part = read(line.text, "expr")
    except Refused as refused:
        raise explain(line, refused, statement=False).mistake from None
    builder.check_depth(part)
    return builder.expr(part)


def _at_most(mistakes: list[Diagnostic]) -> list[Diagnostic]:
    """The first mistakes of a text, and one that says that there are more."""
    if len(mistakes) <= MAX_MISTAKES:
        return mistakes
    first = Diagnostics(mistakes).errors[:MAX_MISTAKES]
    return [*first, TooManyMistakes(first[-1].span, limit=MAX_MISTAKES)]


class _Reader:
    """Reads the lines of a layout in order and goes on after every mistake."""

    def __init__(self, layout: Layout) -> None:
        self.lines = layout.lines
        self.position = 0
        self.mistakes = list(layout.mistakes)
        self.loose: tuple[str, ...] = ()  # comments of docstrings: they go to the statement that follows

    # ------------------------------------------------------------------------------------------- blocks

    def items(self) -> list[Item]:
        """Everything at the left margin."""
        found: list[Item] = []
        margin = self.lines[0].indent if self.lines else 0
        while self.position < len(self.lines):
            line, built, opens = self.take()
            self.check_margin(line, margin)
            match built:
                case syntax.PatternDefinition():
                    head = self.commented(built, line)
                    doc, body = self.block(line.indent, "pattern")
                    found.append(replace(head, doc=doc, body=body))
                case syntax.Import() | syntax.Definition():
                    found.append(self.commented(built, line))
                case None if opens == "foreign":
                    self.skip(line.indent)
                case None:
                    self.block(line.indent, opens or "pattern")
                case Docstring():
                    self.report(line, MisplacedDocstring(line.span))
                case _:
                    self.outside(line)
        return found

    def outside(self, line: LogicalLine) -> None:
        """Statements at the left margin: one report for all that follow each other, and their own mistakes."""
        self.report(line, StatementOutsidePattern(_first_word(line), keyword=line.first_word()))
        while self.position < len(self.lines) and self.lines[self.position].first_word() not in _ITEM_WORDS:
            _, _, opens = self.take()
            if opens == "foreign":
                self.skip(line.indent)

    def block(self, outer: int, kind: Opens) -> tuple[str | None, tuple[syntax.AnyStatement, ...]]:
        """The docstring and the statements of the lines that are indented deeper than `outer`."""
        doc: str | None = None
        body: list[syntax.AnyStatement] = []
        wanted: int | None = None
        odd: int | None = None  # an indentation that was reported: no second report for the lines below it
        broken: int | None = None  # that of the last line, where it had a mistake: it may have opened a block
        while self.position < len(self.lines) and self.lines[self.position].indent > outer:
            line, built, opens = self.take()
            wanted = line.indent if wanted is None else wanted
            silent = line.indent == odd or (broken is not None and line.indent > broken)
            if line.indent != wanted and not silent:
                self.report(line, _misplaced(line, wanted))
                odd = line.indent
            if not silent or line.indent == wanted:
                broken = line.indent if line.broken else None
            match built:
                case Docstring():
                    doc = self.docstring(line, built, allowed=kind == "pattern" and doc is None and not body)
                case syntax.Branch() if kind == "branch":
                    self.report(line, BranchInsideBranch(_first_word(line)))
                    broken = line.indent
                case syntax.Branch():
                    head = self.commented(built, line)
                    _, statements = self.block(line.indent, "branch")
                    body.append(replace(head, body=statements))
                case syntax.PatternDefinition() | syntax.Definition() | syntax.Import():
                    self.report(
                        line, StatementInsidePattern(_first_word(line), keyword=line.first_word(), block=kind)
                    )
                    broken = line.indent
                case None:
                    if opens == "foreign":
                        self.skip(line.indent)
                case _:
                    body.append(self.commented(built, line))
        return doc, tuple(body)

    def docstring(self, line: LogicalLine, text: Docstring, *, allowed: bool) -> str:
        """A docstring where it may stand; its comments go to the statement that follows."""
        if not allowed:
            self.report(line, MisplacedDocstring(line.span))
        self.loose += tuple(comment for comment in (*line.comments, line.trailing) if comment)
        return str(text)

    def skip(self, outer: int) -> None:
        """Passes over a block of another language."""
        while self.position < len(self.lines) and self.lines[self.position].indent > outer:
            self.position += 1

    def check_margin(self, line: LogicalLine, margin: int) -> None:
        """Whether a line of the file stands where the first one does."""
        if line.indent > margin:
            self.report(line, UnexpectedBlock(_first_word(line)))
        elif line.indent < margin:
            self.report(line, _misplaced(line, margin))

    # -------------------------------------------------------------------------------------------- lines

    def take(self) -> tuple[LogicalLine, Built | None, Opens]:
        """The next line, what it says, and the block that it opens where it says nothing."""
        line = self.lines[self.position]
        self.position += 1
        if line.broken:
            word = line.first_word()
            return line, None, opened_by(word)
        builder = Builder(line.source, line.start)
        try:
            part = read(line.text, "line")
            builder.check_depth(part)
            return line, builder.line(part), ""
        except Refused as refused:
            advice = explain(line, refused)
            self.report(line, advice.mistake)
            return line, None, advice.opens
        except Diagnostic as mistake:
            self.report(line, mistake)
            return line, None, ""

    def commented(self, statement: AnyStatement, line: LogicalLine) -> AnyStatement:
        """The statement with the comments that belong to it."""
        comments = self.loose + line.comments
        self.loose = ()
        if not comments and not line.trailing:
            return statement
        return replace(statement, comments=comments, trailing=line.trailing)

    def report(self, line: LogicalLine, mistake: Diagnostic) -> None:
        """One report a line: the first."""
        if not line.broken:
            self.mistakes.append(mistake)
        line.broken = True


_ITEM_WORDS = ("pattern", "def", "import")


def _first_word(line: LogicalLine) -> Span:
    return Span(line.source, line.start, line.start + max(1, len(line.first_word())))


def _misplaced(line: LogicalLine, wanted: int) -> Diagnostic:
    if line.indent > wanted:
        return UnexpectedBlock(_first_word(line))
    return WrongIndentation(_first_word(line), found=line.indent, wanted=wanted, column=wanted + 1)
