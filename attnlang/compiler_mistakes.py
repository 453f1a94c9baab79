"""A text with mistakes of grammar: what its sound lines say wrong is reported in the same go."""

from __future__ import annotations

import re

from attnlang import syntax
from attnlang.elaborate import elaborate
from attnlang.errors import Diagnostic, Diagnostics

# Mistakes that lie in one line, so that a broken line elsewhere did not cause them.
LOCAL = frozenset({"E203", "E204", "E205", "E206", "E207", "E208", "E209", "E212", "E217", "E232", "E234"})


def with_meaning(mistakes: Diagnostics, prelude: syntax.File) -> Diagnostics:
    """The mistakes of grammar, and those of meaning in the lines that could be read.

    Left out: what speaks of a name that stands on a broken line, which may have declared it; files with imports.
    """
    partial = mistakes.partial
    if not isinstance(partial, syntax.File) or any(isinstance(item, syntax.Import) for item in partial.items):
        return mistakes
    broken = {error.span.line for error in mistakes.errors if error.span is not None}
    words = {word for line in broken for word in re.findall(r"\w+", partial.span.source.line_text(line))}
    found: dict[tuple[int, str], Diagnostic] = {}
    for item in partial.items:
        if isinstance(item, syntax.PatternDefinition):
            for error in _mistakes_of(partial, item.name, prelude):
                named = {str(value) for value in error.fields.values()}
                local = error.span is not None and error.code in LOCAL and error.span.line not in broken
                if error.span is not None and local and not named & words:
                    found[error.span.start, error.code] = error
    return Diagnostics([*mistakes.errors, *found.values()])


def _mistakes_of(file: syntax.File, name: str, prelude: syntax.File) -> list[Diagnostic]:
    try:
        elaborate(file, name, {}, prelude)
    except Diagnostics as mistakes:
        return mistakes.errors
    return []
