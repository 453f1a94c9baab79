"""Fills the outputs of docs/tour.md in: a fenced block with `from=FILE` is what the compiler writes to ATTNLANG_DUMP.

`part="# comment"` takes the lines from that comment to the next empty line or comment at the same depth, `lines=N` the
first N lines, `containing=WORD` the first line with the word, cut to the width of a page.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path

import attnlang
from attnlang.settings import override

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "tour.md"
EXAMPLE = DOCS.parent / "examples" / "sliding_window.attn"
FENCE = re.compile(r"^```(\w+) ([^\n]*from=[^\n]*)\n.*?^```$", re.MULTILINE | re.DOTALL)
WIDTH = 118


def stages(folder: Path) -> dict[str, str]:
    """Every stage of the example on its way to PTX for cuda:90, by the name of its file."""
    with override(dump_directory=folder / "dump", cache_directory=folder / "cache"):
        pattern = attnlang.load(EXAMPLE)
        pattern.compile(target="cuda:90", head_dim=64, dtype="bf16", window=1024)
    return {
        file.name: file.read_text(encoding="utf-8") for file in (folder / "dump" / pattern.name).iterdir()
    }


def excerpt(text: str, options: dict[str, str]) -> str:
    """The lines of a stage that a block asks for."""
    rows = text.rstrip().split("\n")
    if "part" in options:
        first = next(place for place, row in enumerate(rows) if row.strip() == options["part"])
        depth = len(rows[first]) - len(rows[first].lstrip())
        ends = (place for place in range(first + 1, len(rows)) if _ends(rows[place], depth))
        rows = [row[depth:] for row in rows[first : next(ends, len(rows))]]
    if "lines" in options:
        rows = rows[: int(options["lines"])]
    if "containing" in options:
        rows = [next(row.strip() for row in rows if options["containing"] in row)]
    return "\n".join(row if len(row) <= WIDTH else row[: WIDTH - 2] + " …" for row in rows)


def _ends(row: str, depth: int) -> bool:
    return not row.strip() or row.startswith(" " * depth + "#")


def page() -> str:
    """The page with its outputs as they are now."""
    with tempfile.TemporaryDirectory() as folder:
        made = stages(Path(folder))

    def filled(match: re.Match[str]) -> str:
        options = dict(word.split("=", 1) for word in shlex.split(match[2]) if "=" in word)
        return f"```{match[1]} {match[2]}\n{excerpt(made[options['from']], options)}\n```"

    return FENCE.sub(filled, PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
