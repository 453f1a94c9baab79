"""Every report to the letter: `tests/errors/*.attn` beside the `.txt` that it must give, one code at least a file."""

from __future__ import annotations

from pathlib import Path

import pytest

import attnlang
from attnlang.errors import Diagnostic, Diagnostics
from attnlang.grammar.parser import parse_file
from attnlang.source import Source

FOLDER = Path(__file__).parent / "errors"
FILES = sorted(FOLDER.glob("*.attn"))
OF_FILES = ("E101", "E102", "E103", "E104", "E105", "E106")
"""Codes of the reading of files and of what is too large: test_grammar.py and test_reading.py hold them."""
OF_SIZES = ("E119", "E141")


def report_of_grammar(path: Path) -> str:
    """What the parser says about a file."""
    with pytest.raises(Diagnostics) as caught:
        parse_file(Source(path.name, path.read_text(encoding="utf-8")))
    return str(caught.value)


def report_of_door(path: Path) -> str:
    """What `attnlang.parse` says about the text, under the name of the file."""
    with pytest.raises(Diagnostics) as caught:
        attnlang.parse(path.read_text(encoding="utf-8"))
    lines = str(caught.value).split("\n")
    return "\n".join(line.replace("<text>:", f"{path.name}:", 1) for line in lines)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_report_is_exact(path: Path) -> None:
    wanted = path.with_suffix(".txt").read_text(encoding="utf-8").rstrip("\n")
    if path.name.startswith("E1"):
        assert report_of_grammar(path) == wanted
    assert report_of_door(path) == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_named_by_a_code_that_it_shows(path: Path) -> None:
    code = path.name[:4]
    assert code in Diagnostic.registry
    assert f"error[{code}]" in path.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_report_has_its_file() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == {path.stem for path in FILES}


def test_every_code_of_the_grammar_has_a_file() -> None:
    shown = {path.name[:4] for path in FILES}
    codes = {code for code in Diagnostic.registry if code.startswith("E1")}
    assert codes - shown == {*OF_FILES, *OF_SIZES}


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.name.startswith("E1")], ids=lambda path: path.stem
)
def test_one_report_a_line(path: Path) -> None:
    with pytest.raises(Diagnostics) as caught:
        parse_file(Source(path.name, path.read_text(encoding="utf-8")))
    lines = [error.span.line for error in caught.value.errors if error.span is not None]
    assert len(lines) == len(set(lines)) == len(caught.value.errors)
