"""Every diagnostic: one class, one code, one message template, one hint.

The codes tell the stage: E1 reading and grammar, E2 names, types and axes, E3 the arguments of a call,
E4 what has no lowering yet, E5 the machine (cache, compilers, devices).
"""

from __future__ import annotations

from typing import Any, ClassVar

from attnlang.source import Span


class AttnlangError(Exception):
    """Base of everything attnlang raises on purpose; `str()` is the report that a user reads."""


class Diagnostic(AttnlangError):
    """One mistake at one place. Subclasses give `code`, `message` and perhaps `hint`, all filled from keywords.

    `Diagnostic(span, hint=…, **fields)`: `span` may be None where there is no text to point at.
    """

    code: ClassVar[str] = ""
    message: ClassVar[str] = ""
    hint: ClassVar[str] = ""
    registry: ClassVar[dict[str, type[Diagnostic]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.code:
            known = Diagnostic.registry.setdefault(cls.code, cls)
            if known is not cls and known.__qualname__ != cls.__qualname__:
                raise TypeError(f"code {cls.code} is taken by {known.__name__}")

    def __init__(self, span: Span | None = None, hint: str | None = None, **fields: Any) -> None:
        self.span = span
        self.fields = fields
        self.text = self.message.format(**fields)
        self.advice = hint if hint is not None else self.hint.format(**fields)
        super().__init__(self.report())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.span, self.advice, self.fields)

    def report(self) -> str:
        """`place: error[code]: message`, then the line with carets and the hint."""
        if self.span is None:
            tail = f"\n  {self.advice}" if self.advice else ""
            return f"error[{self.code}]: {self.text}{tail}"
        lines = [f"{self.span.location()}: error[{self.code}]: {self.text}"]
        return "\n".join(lines + [f"  {line}" for line in self.span.excerpt(self.advice or None)])

    def to_dict(self) -> dict[str, Any]:
        """For editors: code, message, hint, file and 1-based line and column ranges."""
        place: dict[str, Any] = {}
        if self.span is not None:
            place = {
                "file": self.span.source.name,
                "line": self.span.line,
                "column": self.span.column,
                "start": self.span.start,
                "end": self.span.end,
            }
        return {"code": self.code, "message": self.text, "hint": self.advice, **place}


def _rebuild(cls: type[Diagnostic], span: Span | None, hint: str, fields: dict[str, Any]) -> Diagnostic:
    return cls(span, hint, **fields)


class Diagnostics(AttnlangError):
    """All mistakes of one text, in the order of their places."""

    def __init__(self, errors: list[Diagnostic]) -> None:
        self.errors = sorted(errors, key=lambda e: (e.span.source.name, e.span.start) if e.span else ("", -1))
        super().__init__("\n".join(error.report() for error in self.errors))

    def __reduce__(self) -> tuple[Any, ...]:
        return Diagnostics, (self.errors,)


def nearest(name: str, candidates: list[str]) -> str | None:
    """The candidate a typing mistake away from `name`, if there is one."""
    from difflib import get_close_matches

    found = get_close_matches(name, candidates, n=1, cutoff=0.6)
    return found[0] if found else None
