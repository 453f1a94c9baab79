"""What a plan says beyond its kernels: tiles that are visited though nothing in them is seen."""

from pathlib import Path
from typing import Any

import pytest
import torch

import attnlang

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def unused(name: str, length: int, **parameters: Any) -> list[str]:
    plan = attnlang.load(EXAMPLES / f"{name}.attn").plan(length, length, heads=2, **parameters)
    return [decision.choice for decision in plan.decisions if decision.subject == "sparsity"]


def test_tiles_without_a_visible_pair_are_told() -> None:
    (choice,) = unused("neighborhood_2d", 1024, height=32, width=32)
    mask = attnlang.load(EXAMPLES / "neighborhood_2d.attn").mask(1024, 1024, heads=2, height=32, width=32)
    plan = attnlang.load(EXAMPLES / "neighborhood_2d.attn").plan(1024, 1024, heads=2, height=32, width=32)
    (count,) = plan.tiles
    blocks = mask[0, 0].unflatten(0, (-1, count.rows)).unflatten(-1, (-1, count.columns))
    needed = 2 * int(torch.einsum("aibj->ab", blocks.int()).bool().sum())
    assert choice == f"{count.visited:,} tiles visited, {needed:,} may hold visible pairs"
    assert needed < count.visited


@pytest.mark.parametrize("name", ["causal", "sliding_window", "streaming"])
def test_nothing_is_told_where_the_ranges_are_exact(name: str) -> None:
    assert unused(name, 1024) == []
