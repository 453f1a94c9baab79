"""Tiles of the catalogue's patterns against every pair, and what the classification hands out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from attnlang.ir.pattern import Attention, Pattern
from attnlang.passes import boxes_tables
from attnlang.passes import classify as module
from attnlang.passes.boxes_runs import EMPTY, FULL, PARTIAL
from attnlang.passes.classify import Tiles, classify
from tests.catalogue import call, example, seen
from tests.definitions import DEFINITIONS, cases

MASKED = [
    name
    for name, definition in DEFINITIONS.items()
    if definition.section in "AB"
    and (definition.section == "A" or name in ("alibi", "cosine", "music", "variate"))
]
TILES = ((4, 4), (8, 5), (16, 16), (1, 3))


def kinds(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """EMPTY, PARTIAL or FULL for every tile of a bool array [NQ, NK], pair by pair."""
    tops, lefts = np.arange(0, mask.shape[0], rows), np.arange(0, mask.shape[1], columns)
    visible = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), tops, 0), lefts, 1)
    pairs = np.add.reduceat(np.add.reduceat(np.ones_like(mask, np.int64), tops, 0), lefts, 1)
    return np.where(visible == 0, EMPTY, np.where(visible == pairs, FULL, PARTIAL))


def only_attention(pattern: Pattern) -> Attention:
    """The one attention of a pattern."""
    (attention,) = (stage for stage in pattern.stages if isinstance(stage, Attention))
    return attention


def compare(
    pattern: Pattern,
    symbols: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    mask: np.ndarray,
    tile: tuple[int, int],
) -> tuple[int, Tiles]:
    """Fails where a tile is unsound; else the number of tiles called partial that are not, and the tiles."""
    tiles = classify(only_attention(pattern), symbols, tensors, *tile, pattern.stages)
    loose = 0
    for b in range(mask.shape[0]):
        for h in range(mask.shape[1]):
            found, true = tiles.map(h, b).dense(), kinds(mask[b, h], *tile)
            assert found.shape == true.shape
            assert not ((found == FULL) & (true != FULL)).any(), "a hidden pair in a full tile"
            assert not ((found == EMPTY) & (true != EMPTY)).any(), "a visible pair in an empty tile"
            loose += int((found != true).sum())
    return loose, tiles


def check_cases(name: str, tile: tuple[int, int]) -> int:
    """Tiles called partial that are not, over all cases of a pattern."""
    loose = 0
    for case in cases(name):
        given = case.make_inputs(0)
        inputs = call(case, given)
        tensors = {key: value.numpy() for key, value in inputs.tensors.items()}
        symbols = {**inputs.sizes, **inputs.scalars}
        loose += compare(example(name), symbols, tensors, seen(case, given).numpy(), tile)[0]
    return loose


@pytest.mark.parametrize("name", MASKED)
def test_every_tile_is_what_its_pairs_say(name: str) -> None:
    for tile in TILES:
        assert check_cases(name, tile) == 0, f"tiles of {tile}"


@pytest.mark.parametrize("name", ["hash_buckets", "dropped", "key_driven_groups"])
def test_choices_in_tensors(name: str) -> None:
    assert check_cases(name, (8, 5)) == 0


@pytest.mark.parametrize("name", MASKED)
def test_from_large_boxes_to_small(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way that only long sequences take, on short ones."""
    monkeypatch.setattr(module, "MOST_OPEN", 4)
    monkeypatch.setattr(boxes_tables, "SPARSE_TABLE", 4)
    assert check_cases(name, (4, 3)) == 0
    monkeypatch.setattr(boxes_tables, "MOST_READ", 0)
    monkeypatch.setattr(boxes_tables, "BLOCK", 4)
    monkeypatch.setattr(module, "MOST_BOXES", 8)
    check_cases(name, (4, 3))


@pytest.mark.parametrize("name", ["neighborhood_2d", "radial", "swin"])
def test_without_a_budget_it_is_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUDGET", 0)
    for tile in TILES:
        check_cases(name, tile)
