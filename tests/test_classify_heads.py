"""Heads that differ by a shift or a guard: found to be of one form, looked at together, and as right as one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from attnlang import parse
from attnlang.passes import boxes_refine
from attnlang.passes import classify as module
from attnlang.passes.boxes import COLUMN, ROW, Graph
from attnlang.passes.boxes_alike import families
from attnlang.passes.classify import Work, classify
from tests.test_classify import compare, only_attention

SHIFTED = "(k // 8 + h) mod 5 == 0"
PATTERNS = {
    "a stride that begins elsewhere": f"pattern p():\n    mask causal\n    sparsity q - k < 19 or {SHIFTED}\n",
    "columns of its own": "pattern p():\n    sparsity abs(q - k) < 6 or k mod 16 == 3 * h\n",
    "rows of its own": "pattern p():\n    sparsity k <= q and ((q + 2 * h) mod 7 < 3 or q - k < 9)\n",
    "flags": "pattern p():\n    tensor flag[h, n]: bool\n    mask causal\n    sparsity q - k < 8 or flag[h, k]\n",
    "numbers on both sides": "pattern p():\n    sparsity (q * (h + 1)) mod 11 >= (k * 3 + h) mod 13\n",
    "beyond": f"pattern p():\n    sparsity q - k < 7 or (q * (k * ((h + 1) * {1 << 45}))) mod 9 < 4\n",
}
HEADS = 6


@pytest.mark.parametrize("text", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("at_once", [1 << 15, 5])
def test_heads_of_one_form(text: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes_refine, "AT_ONCE", at_once)
    monkeypatch.setattr(boxes_refine, "TILES_AT_ONCE", 4 * at_once)
    pattern = parse(text, "p")
    tensors = {"flag": np.random.default_rng(2).random((HEADS, 90)) < 0.1} if "flag" in text else {}
    given: dict[str, Any] = {name: torch.from_numpy(each) for name, each in tensors.items()}
    symbols = {"NQ": 90, "NK": 90, "H": HEADS, "HK": HEADS, "B": 1, "q_offset": 0}
    work = Work(only_attention(pattern.ir), symbols, tensors, ())
    _, roots = work.classes()
    assert len(roots) > 1 and len(families(roots)) == 1
    seen = pattern.mask(90, 90, heads=HEADS, **given).numpy()
    for tile in ((4, 4), (16, 8), (7, 30)):
        loose, together = compare(pattern.ir, symbols, tensors, seen, tile)
        assert loose == 0 or str(1 << 45) in text  # numbers too large to be looked at
        with monkeypatch.context() as one_by_one:
            one_by_one.setattr(module, "MOST_OPEN", 1)
            alone = classify(only_attention(pattern.ir), symbols, tensors, *tile)
        for head in range(HEADS):
            assert alone.map(head).counts.empty <= together.map(head).counts.empty


def test_windows_of_different_lengths_are_of_different_forms() -> None:
    pattern = parse("pattern p():\n    sparsity q - k < 10 * (h + 1)\n", "p")
    symbols = {"NQ": 90, "NK": 90, "H": 3, "HK": 3, "B": 1, "q_offset": 0}
    _, roots = Work(only_attention(pattern.ir), symbols, None, ()).classes()
    assert [family.members for family in families(roots)] == [(0,), (1,), (2,)]


def test_one_node_cannot_stand_for_two() -> None:
    """f(k) − f(k) of one head is no form of f(k) − g(k) of another."""
    graph = Graph()
    q, k = graph.index(ROW), graph.index(COLUMN)
    two, three = (graph.apply("mod", [k, graph.const(number)]) for number in (2, 3))

    def both(one: Any, other: Any) -> Any:
        first = graph.apply("lt", [graph.apply("mul", [q, one]), graph.const(7)])
        return graph.either(first, graph.apply("gt", [graph.apply("mul", [q, other]), graph.const(9)]))

    assert len(families([both(two, two), both(two, three)])) == 2
    assert len(families([both(two, three), both(three, two)])) == 1
    assert len(families([both(two, three), both(two, two)])) == 1


def test_what_heads_share_is_lowered_and_kept_once() -> None:
    pattern = parse(PATTERNS["a stride that begins elsewhere"], "p")
    symbols = {"NQ": 4096, "NK": 4096, "H": HEADS, "HK": HEADS, "B": 1, "q_offset": 0}
    tiles = classify(only_attention(pattern.ir), symbols, None, 64, 64)
    assert len(tiles.maps) == 5
    assert len({id(each.intervals) for each in tiles.maps}) == 1
    shared = tiles.maps[0].intervals
    assert shared is not None
    assert tiles.nbytes < 5 * (tiles.maps[0].nbytes + shared.nbytes) * 0.7
