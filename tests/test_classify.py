"""Tiles of the catalogue's patterns against every pair, and what the classification hands out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from attnlang.ir.pattern import Attention, Pattern
from attnlang.passes import boxes_tables
from attnlang.passes import classify as module
from attnlang.passes.boxes_lower import MissingNumber
from attnlang.passes.boxes_runs import EMPTY, FULL, PARTIAL
from attnlang.passes.classify import Tiles, classify
from attnlang.passes.summaries import Summary
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
    tensors: Mapping[str, np.ndarray | Summary],
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


# --------------------------------------------------------------------------------------------- what is handed out


def tiles_of(name: str, tokens: int, tile: int = 128, heads: int = 1, **given: Any) -> Tiles:
    """The tiles of a pattern without tensors at `tokens` queries and keys."""
    symbols: dict[str, Any] = {"B": 2, "H": heads, "HK": heads, "NQ": tokens, "NK": tokens, "q_offset": 0}
    symbols |= {each.name: given.get(each.name, each.default) for each in example(name).parameters}
    return classify(only_attention(example(name)), symbols, None, tile, tile, example(name).stages)


def test_a_window_over_a_million_tokens_is_small() -> None:
    tiles = tiles_of("sliding_window", 1 << 20, heads=4)
    rows, reach = 1 << 13, 1024 // 128  # tiles before the diagonal one that a row of tiles meets
    met = sum(min(row, reach) + 1 for row in range(rows))
    assert tiles.counts.full + tiles.counts.partial == met * 8
    assert tiles.counts.partial == (rows + rows - reach) * 8
    assert tiles.counts.full + tiles.counts.partial + tiles.counts.empty == rows * rows * 8
    assert len(tiles.maps) == 1 and tiles.nbytes < 1 << 20


def test_a_grid_of_a_quarter_million_places() -> None:
    tiles = tiles_of("neighborhood_2d", 1 << 18, height=512, width=512)
    interior = 3 + 3 + 1  # rows of the image, 4 tiles each; a window of 7 touches at most 3 tiles of a row
    assert 0 < tiles.counts.partial <= (1 << 11) * 2 * interior * 3 and tiles.counts.full == 0


def test_heads_that_see_alike_share() -> None:
    tiles = tiles_of("short_long_heads", 512, 64, heads=6)
    assert tiles.classes.tolist() == [[0, 0, 0, 0, 1, 1]]
    assert tiles.map(head=5).counts.full > tiles.map(head=0).counts.full
    assert len(tiles_of("sharded", 2048, 64, heads=4, period=2).maps) == 2


@pytest.mark.parametrize("name", ["streaming", "strided_blocks", "temporal_latent"])
def test_counts_and_density_are_those_of_the_tiles(name: str) -> None:
    tiles = tiles_of(name, 1000, 48, heads=2)
    one = tiles.map(head=1)
    pointers, columns, found = one.csr()
    dense = one.dense()
    assert one.counts.full == int((dense == FULL).sum()) == int((found == FULL).sum())
    assert one.counts.partial == int((dense == PARTIAL).sum())
    assert one.counts.empty == int((dense == EMPTY).sum())
    for row in range(len(dense)):
        part = columns[pointers[row] : pointers[row + 1]]
        assert part.tolist() == np.flatnonzero(dense[row]).tolist()
    area = one.heights[:, None] * one.widths[None, :]
    full, visited = (int(area[places].sum()) for places in (dense == FULL, dense != EMPTY))
    assert one.pairs == (full, visited)
    low, high = tiles.density
    assert 0 <= low <= high <= 1


def test_what_reads_an_unknown_tensor_is_partial() -> None:
    tiles = tiles_of("document", 256, 64)
    assert tiles.map().dense().tolist() == np.tril(np.ones((4, 4), int)).tolist()


def test_sorted_documents_by_their_first_and_last_tokens() -> None:
    ids = np.repeat(np.arange(8), 128)[None]
    symbols = {"B": 1, "H": 1, "HK": 1, "NQ": 1024, "NK": 1024, "q_offset": 0}
    tiles = classify(only_attention(example("document")), symbols, {"ids": ids}, 64, 64)
    diagonal, below = np.eye(16), np.diag(np.arange(15) % 2 == 0, -1)
    assert tiles.map().dense().tolist() == (diagonal * PARTIAL + below * FULL).tolist()


def test_a_missing_number_is_named() -> None:
    attention = only_attention(example("sliding_window"))
    symbols = {"B": 1, "H": 1, "HK": 1, "NQ": 8, "NK": 8, "q_offset": 0}
    with pytest.raises(MissingNumber, match="'window'"):
        classify(attention, symbols, None, 4, 4)


def test_no_queries_no_tiles() -> None:
    symbols = {"B": 1, "H": 1, "HK": 1, "NQ": 0, "NK": 8, "q_offset": 8}
    tiles = classify(only_attention(example("causal")), symbols, None, 4, 4)
    assert (tiles.counts.full, tiles.counts.partial, tiles.counts.empty) == (0, 0, 0)
    assert tiles.map().dense().shape == (0, 2) and tiles.density == (0.0, 0.0)
