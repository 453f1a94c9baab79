"""Lines and blocks of generated text."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager


class Lines:
    """Text under construction; `block` indents what is added inside it."""

    def __init__(self, indent: str = "    ") -> None:
        self.rows: list[str] = []
        self.indent = indent
        self.depth = 0

    def add(self, *rows: str) -> None:
        """Appends lines at the current depth."""
        self.rows += [self.indent * self.depth + row if row else "" for row in rows]

    @contextmanager
    def block(self, head: str) -> Generator[None]:
        """A line, and what follows one step further in."""
        self.add(head)
        self.depth += 1
        yield
        self.depth -= 1

    def text(self) -> str:
        """Everything, with one newline at the end."""
        return "\n".join(self.rows) + "\n"
