"""A small pretty printer: documents that know where they may be broken, laid out within a width (after Wadler)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Line:
    """A place to break: `flat` where its group fits on one line, a line end where it does not."""

    flat: str = ""


@dataclass(frozen=True)
class Indent:
    """Breaks inside go four columns deeper."""

    inner: Document


@dataclass(frozen=True)
class Group:
    """All breaks of a group are line ends, or none is; those of inner groups decide for themselves."""

    inner: Document


@dataclass(frozen=True)
class WhenBroken:
    """A text that appears only where the group around it is broken."""

    text: str


Document: TypeAlias = str | Line | Indent | Group | WhenBroken | tuple["Document", ...]

SOFT = Line()
SPACE = Line(" ")


def join(separator: Document, documents: Iterable[Document]) -> Document:
    """The documents with a separator between each two."""
    parts: list[Document] = []
    for document in documents:
        if parts:
            parts.append(separator)
        parts.append(document)
    return tuple(parts)


def layout(document: Document, width: int, column: int = 0, indent: int = 0) -> str:
    """The text of a document that begins at `column`; broken lines begin at `indent` or deeper."""
    pieces: list[str] = []
    pending: list[tuple[int, bool, Document]] = [(indent, False, document)]
    while pending:
        depth, broken, part = pending.pop()
        match part:
            case str():
                pieces.append(part)
                column += len(part)
            case Line(flat):
                pieces.append("\n" + " " * depth if broken else flat)
                column = depth if broken else column + len(flat)
            case Indent(inner):
                pending.append((depth + 4, broken, inner))
            case WhenBroken(text):
                if broken:
                    pending.append((depth, True, text))
            case Group(inner):
                fits = _fits(inner, pending, width - column)
                pending.append((depth, not fits, inner))
            case _:
                pending += [(depth, broken, inner) for inner in reversed(part)]
    return "".join(pieces)


def _fits(document: Document, following: list[tuple[int, bool, Document]], room: int) -> bool:
    """Whether a document, flat, and what follows it up to the next possible break, fit into `room` columns."""
    pending: list[tuple[bool, bool, Document]] = [(False, False, document)]
    rest = len(following)
    while room >= 0:
        if not pending:
            if rest == 0:
                return True
            rest -= 1
            pending.append((True, *following[rest][1:]))
            continue
        follows, broken, part = pending.pop()
        match part:
            case str():
                room -= len(part)
            case Line(flat):
                if broken:
                    return True
                room -= len(flat)
            case Indent(inner):
                pending.append((follows, broken, inner))
            case Group(inner):
                pending.append((follows, follows, inner))
            case WhenBroken(text):
                room -= len(text) if broken else 0
            case _:
                pending += [(follows, broken, inner) for inner in reversed(part)]
    return False
