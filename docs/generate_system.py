"""Fills the tables of docs/system.md in: a line for every file of a folder, from the first sentence of the file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PAGE = DOCS / "system.md"
MARK = re.compile(r"<!-- files of (\S+) -->\n.*?<!-- end -->\n", re.DOTALL)
SUFFIXES = (".py", ".lark", ".attn")


def summary(file: Path) -> str:
    """What the first line of a file says it is for."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        first = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
    else:
        first = text.split("\n")[0].lstrip("#/ ")
    return first.rstrip(".:").replace("|", "\\|")


def table(folder: str) -> str:
    """The table of one folder, without what is only a package's mark."""
    files = [file for file in sorted((ROOT / folder).iterdir()) if file.suffix in SUFFIXES]
    named = [file for file in files if file.name != "__init__.py" or folder == "attnlang"]
    lines = [f"| `{folder}/{file.name}` | {summary(file)} |\n" for file in named]
    return "".join(["| file | what it is for |\n", "| --- | --- |\n", *lines])


def page() -> str:
    """The page with its tables as they are now."""

    def filled(match: re.Match[str]) -> str:
        return f"<!-- files of {match[1]} -->\n\n{table(match[1])}\n<!-- end -->\n"

    return MARK.sub(filled, PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
