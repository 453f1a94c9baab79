"""The documentation is true: its Python runs, its links lead somewhere, its lists and outputs are current."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import attnlang
from attnlang.ir.plan import Specialization
from attnlang.passes.obstacles import obstacles
from attnlang.passes.specialize import specialize
from tests.docs_pages import DOCS, FENCE, PAGES, ROOT, blocks, script

# ---------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        other = page if not path else (page.parent / path).resolve()
        assert other.exists(), target
        if anchor:
            assert anchor in _anchors(other), target


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------------------------------------------------- lists


# Where one of these fails, the code has changed since a page was made: `python docs/generate.py` renews them all.


def test_the_prelude_of_the_reference_is_the_prelude() -> None:
    made = script("generate_prelude").page()
    assert made == (DOCS / "language.md").read_text(encoding="utf-8")


def test_system_has_a_line_for_every_source_file() -> None:
    described = re.findall(
        r"^\| `([^`]+)` \|", (DOCS / "system.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    folders = (
        "attnlang",
        "attnlang/elaborate",
        "attnlang/ir",
        "attnlang/passes",
        "grammar",
        "codegen",
        "runtime",
    )
    sources = {
        f"{folder}/{file.name}"
        for folder in folders
        for file in (ROOT / folder).iterdir()
        if file.suffix in (".py", ".lark", ".attn") and file.name != "__init__.py"
    }
    assert sorted(sources - set(described)) == []
    assert sorted(name for name in described if not (ROOT / name).exists()) == []
    assert len(described) == len(set(described))


# ------------------------------------------------------------------------------------------------- Python in the docs


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", DOCS / "language.md", DOCS / "tour.md"], ids=lambda page: page.stem
)
def test_python_of_the_docs_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").symlink_to(DOCS)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    found = [block for block in blocks("python", [page]) if not any("from=" in word for word in block.words)]
    assert found
    for number, block in enumerate(found):
        file = tmp_path / f"block_{number}.py"
        file.write_text(block.text, encoding="utf-8")
        exec(compile(block.text, str(file), "exec"), names)
    capsys.readouterr()


def test_the_picture_of_the_readme_is_drawn_from_its_lines() -> None:
    (first, *_) = blocks("attn", [ROOT / "README.md"])
    assert first.text == (DOCS / "widening.attn").read_text(encoding="utf-8")
    assert len(first.text.splitlines()) == 10
    assert (DOCS / "images" / "widening.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_outputs_of_the_tour_are_those_of_the_compiler() -> None:
    assert script("generate_tour").page() == (DOCS / "tour.md").read_text(encoding="utf-8")


def test_the_variables_of_the_readme_are_those_of_the_settings() -> None:
    from attnlang import settings

    named = set(re.findall(r"`(ATTNLANG_\w+)`", (ROOT / "README.md").read_text(encoding="utf-8")))
    read = set(re.findall(r"ATTNLANG_[A-Z_]+", Path(settings.__file__).read_text(encoding="utf-8")))
    assert named == read


def test_the_commands_of_the_readme_are_those_of_the_command_line() -> None:
    from attnlang.cli import COMMANDS

    text = "".join(block.text for block in blocks("sh", [ROOT / "README.md"]))
    assert set(re.findall(r"^attnlang (\w+)", text, re.MULTILINE)) == {command.name for command in COMMANDS}


def test_the_page_of_errors_is_the_generated_one() -> None:
    assert script("generate_errors").page() == (DOCS / "errors.md").read_text(encoding="utf-8")


def test_every_code_is_explained() -> None:
    text = (DOCS / "errors.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (E\d+):", text, re.MULTILINE) == list(script("generate_errors").codes())


def test_the_readme_counts_the_examples_that_have_a_kernel() -> None:
    patterns = [attnlang.load(file) for file in sorted((ROOT / "examples").glob("*.attn"))]
    specialization = Specialization("cuda:90", "bf16", 64, 64)
    kernels = [each for each in patterns if not obstacles(specialize(each.ir, 64, 64, {}), specialization)]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{len(kernels)} of the {len(patterns)} examples" in text
    assert f"{len(patterns)} published mechanisms" in text
