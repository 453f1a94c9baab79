"""Strings between quotes and what they say: escapes, and the margins of docstrings."""

from __future__ import annotations

import re

_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def unquote(token: str) -> str:
    """`"a\\"b"` or its triple-quoted form  ->  `a"b`."""
    inner = token[3:-3] if token.startswith('"""') else token[1:-1]
    return re.sub(r'\\([nt"\\])', lambda found: _ESCAPES[found.group(1)], inner)


def escape(text: str) -> str:
    """The inverse of `unquote` between quotes, but for line ends, which stay."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def quote(text: str) -> str:
    """`a"b`  ->  `"a\\"b"` on one line."""
    return '"' + escape(text).replace("\n", "\\n").replace("\t", "\\t") + '"'


def clean(doc: str) -> str:
    """A docstring without margins, blank edges, trailing blanks and control characters, as `inspect.cleandoc` does."""
    lines = [re.sub(r"[\x00-\x1f\x7f]", " ", line).rstrip() for line in doc.expandtabs(4).split("\n")]
    margins = [len(line) - len(line.lstrip(" ")) for line in lines[1:] if line]
    margin = min(margins, default=0)
    lines = [lines[0].lstrip(), *(line[margin:] for line in lines[1:])]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return "\n".join(lines).lstrip()
