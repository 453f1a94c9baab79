"""Writes the table of the standard library into docs/language.md, from attnlang/prelude.attn and its comments."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "language.md"
PRELUDE = DOCS.parent / "attnlang" / "prelude.attn"
BEGIN = "<!-- prelude: made by docs/generate_prelude.py -->\n"
END = "<!-- end of prelude -->\n"


def rows() -> list[tuple[str, str]]:
    """The signature and the meaning of every definition that has a comment, or stands beside one that has."""
    found: list[tuple[str, str]] = []
    comment: list[str] = []
    for line in PRELUDE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            comment = [] if line.startswith("# ---") else [*comment, line.lstrip("# ")]
        elif match := re.match(r"def (\w+(?:\(.*?\))?) = (.*)", line):
            body = match[2] if not match[2].endswith("(") else ""
            meaning = " ".join(comment) or (f"`{body}`" if body else "")
            if meaning:
                found.append((match[1], meaning))
            comment = []
        elif not line:
            comment = []
    return found


def table() -> str:
    """The table in Markdown."""
    lines = [f"| `{signature}` | {meaning.replace('|', chr(92) + '|')} |\n" for signature, meaning in rows()]
    return "".join(["| definition | meaning |\n", "| --- | --- |\n", *lines])


def page() -> str:
    """The page with the table as it should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
