"""The documentation is true: its patterns run, its Python runs, its links lead somewhere, its lists are complete."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import attnlang
from attnlang.cli_inputs import random_inputs, random_tensors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "decisions").glob("*.md"))]
BY_HAND = [page for page in PAGES if page.name != "errors.md"]
SIZES = {"B": 2, "H": 4, "HK": 2, "NQ": 12, "NK": 12, "D": 8, "DV": 6}
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words behind it, its text and where it stands."""

    page: Path
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{self.page.stem}:{self.line}"

    def numbers(self) -> dict[str, int]:
        """`NK=12 height=3` behind the language."""
        pairs = (word.split("=") for word in self.words if "=" in word)
        return {name: int(value) for name, value in pairs if value.isdigit()}


def blocks(language: str, pages: list[Path]) -> list[Block]:
    """The fenced blocks of a language."""
    found: list[Block] = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(page, line, language, tuple(match[2].split()), match[3]))
    return found


def script(name: str) -> ModuleType:
    """A script in docs/ as a module."""
    spec = spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def patterns_of(text: str, folder: Path) -> list[attnlang.Pattern]:
    """Every pattern of a text."""
    file = folder / "block.attn"
    file.write_text(text, encoding="utf-8")
    return list(attnlang.load_all(file).values())


@dataclass(frozen=True)
class Call:
    """Random arguments of a pattern at small sizes."""

    sizes: dict[str, int]
    inputs: dict[str, torch.Tensor]
    arguments: dict[str, Any]

    @staticmethod
    def of(pattern: attnlang.Pattern, numbers: dict[str, int], dtype: torch.dtype = torch.float32) -> Call:
        sizes = {name: numbers.get(name, default) for name, default in SIZES.items()}
        given = {name: value for name, value in numbers.items() if name in pattern.params}
        defaults = {name: each.default for name, each in pattern.params.items() if each.default is not None}
        symbols = {**sizes, "q_offset": sizes["NK"] - sizes["NQ"], **defaults, **given}
        inputs = random_inputs(pattern.ir, sizes, dtype, 0)
        tensors = random_tensors(pattern.ir, symbols, 0)
        made = {name: each.to(dtype) if each.is_floating_point() else each for name, each in tensors.items()}
        return Call(sizes, inputs, {**given, **made})

    def __call__(self, run: Callable[..., torch.Tensor]) -> torch.Tensor:
        return run(self.inputs["q"], self.inputs["k"], self.inputs["v"], **self.arguments)


# ------------------------------------------------------------------------------------------- attnlang in the docs


@pytest.mark.parametrize("block", blocks("attn", BY_HAND), ids=str)
def test_patterns_of_the_docs_run(block: Block, tmp_path: Path) -> None:
    patterns = patterns_of(block.text, tmp_path)
    assert patterns
    for pattern in patterns:
        assert attnlang.parse(str(pattern), pattern.name) == pattern
        call = Call.of(pattern, block.numbers())
        wanted = call(pattern.reference)
        assert wanted.dtype == torch.float64 and bool(wanted.isfinite().all())
        assert wanted.abs().sum() > 0
        found = call(lambda *q, **more: pattern(*q, target="eager", **more))
        torch.testing.assert_close(found.double(), wanted, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("block", blocks("attn", BY_HAND), ids=str)
def test_patterns_marked_eager_are_those_without_kernel(block: Block, tmp_path: Path) -> None:
    if block.page.name != "language.md":
        pytest.skip("only the reference marks them")
    for pattern in patterns_of(block.text, tmp_path):
        numbers = {name: value for name, value in block.numbers().items() if name not in SIZES}
        length = numbers.get("height", 16) * numbers.get("width", 1)
        heads = block.numbers().get("HK", 2)
        plan = pattern.plan(length, length, heads=4, kv_heads=heads, head_dim=8, target="cuda:90", **numbers).to_dict()
        assert bool(plan["obstacles"]) == ("[eager]" in block.text), plan["obstacles"]


# ---------------------------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
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
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# ---------------------------------------------------------------------------------------------------------- lists


def test_the_prelude_of_the_reference_is_the_prelude() -> None:
    made = script("generate_prelude").page()
    assert made == (DOCS / "language.md").read_text(encoding="utf-8")


def test_system_has_a_line_for_every_source_file() -> None:
    described = re.findall(r"^\| `([^`]+)` \|", (DOCS / "system.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    folders = ("attnlang/", "grammar/", "codegen/", "runtime/")
    sources = {
        name for name in listed
        if name.startswith(folders) and (ROOT / name).is_file()
        and name.endswith((".py", ".lark", ".attn")) and not name.endswith("__init__.py")
    }  # fmt: skip
    assert sorted(sources - set(described)) == []
    assert sorted(name for name in described if not (ROOT / name).exists()) == []
    assert len(described) == len(set(described))


# ------------------------------------------------------------------------------------------------ FlexAttention's idioms


def _pairs() -> list[tuple[Block, Block]]:
    """Each of FlexAttention's functions with the pattern below it."""
    page = [DOCS / "from-flexattention.md"]
    return list(zip(blocks("python", page), blocks("attn", page), strict=True))


@pytest.mark.parametrize(("theirs", "ours"), _pairs(), ids=str)
def test_a_pattern_is_what_stands_beside_it(theirs: Block, ours: Block) -> None:
    from torch.nn.attention.flex_attention import create_mask, flex_attention

    made: dict[str, Any] = {"torch": torch}
    exec(theirs.text, made)
    pattern = attnlang.parse(ours.text)
    call = Call.of(pattern, {**ours.numbers(), "DV": 8})
    call.arguments.update({name: made[name] for name in pattern.tensors})
    q, k, v = (call.inputs[name] for name in ("q", "k", "v"))
    found = pattern.reference(q, k, v, **call.arguments).float()
    sizes = (call.sizes["B"], call.sizes["H"], call.sizes["NQ"], call.sizes["NK"])
    wanted: Any
    if "mask_mod" in made:
        seen = create_mask(made["mask_mod"], *sizes, device="cpu")
        torch.testing.assert_close(seen, pattern.mask(12, 12, heads=4, batch=2, **call.arguments).expand(sizes))
        groups = call.sizes["H"] // call.sizes["HK"]
        keys, values = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        wanted = torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=seen)
    else:
        wanted = flex_attention(q, k, v, score_mod=made["score_mod"], enable_gqa=True)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------- papers beside patterns


def _definitions() -> list[tuple[Block, Block]]:
    """Each pattern with its definition in PyTorch."""
    page = [DOCS / "from-paper-to-file.md"]
    return list(zip(blocks("attn", page), blocks("python", page), strict=True))


@pytest.mark.parametrize(("ours", "definition"), _definitions(), ids=str)
def test_a_pattern_is_its_definition(ours: Block, definition: Block) -> None:
    made: dict[str, Any] = {"torch": torch}
    exec(definition.text, made)
    pattern = attnlang.parse(ours.text)
    call = Call.of(pattern, {}, torch.float64)
    groups = call.sizes["H"] // call.sizes["HK"]
    keys, values = (call.inputs[name].repeat_interleave(groups, 1) for name in ("k", "v"))
    wanted = made["definition"](call.inputs["q"], keys, values, **call.arguments)
    torch.testing.assert_close(call(pattern.reference), wanted, rtol=1e-9, atol=1e-9)


def test_the_page_on_papers_says_which_have_kernels() -> None:
    page = DOCS / "from-paper-to-file.md"
    plans = [attnlang.parse(block.text).plan(64, 64, target="cuda:90") for block in blocks("attn", [page])]
    kernels = [number for number, plan in enumerate(plans, 1) if not plan.obstacles]
    eager = [number for number, plan in enumerate(plans, 1) if plan.obstacles]
    said = f"{_list(kernels)} have Triton kernels; {_list(eager)} run as dense PyTorch"
    assert said in page.read_text(encoding="utf-8")


def _list(numbers: list[int]) -> str:
    *first, last = map(str, numbers)
    return f"{', '.join(first)} and {last}"


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
