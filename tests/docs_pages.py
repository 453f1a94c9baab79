"""The pages of the documentation, the blocks in them, and calls with random arguments for their patterns."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import attnlang
from attnlang.samples import random_inputs, random_tensors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "decisions").glob("*.md"))]
BY_HAND = [page for page in PAGES if page.name != "errors.md"]
SIZES = {"B": 2, "H": 4, "HK": 2, "NQ": 12, "NK": 12, "D": 8, "DV": 6}
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
        for match in FENCE.finditer(text):
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
