"""Lists of visited tiles, by query tile and by key tile, against the kind of every tile."""

from __future__ import annotations

import numpy as np
import pytest

from attnlang.ir.pattern import Let, Stage
from attnlang.passes import tile_lists
from attnlang.passes.boxes_runs import EMPTY, FULL, PARTIAL
from attnlang.passes.classify import Tiles, classify
from attnlang.passes.tile_lists import Lists, lists, transposed_lists
from tests.test_classify import example, only_attention

NAMES = ("full", "causal", "sliding_window", "streaming", "dilated_window", "strided_blocks", "sharded",
         "shifted_groups", "temporal_latent", "local_block", "short_long_heads", "diagonal_masked")  # fmt: skip
SIZES = ((1000, 1000, 48, 64), (129, 640, 16, 48), (64, 64, 64, 64), (1, 77, 8, 16))


def tiles_of(name: str, size: tuple[int, int, int, int], heads: int = 4) -> Tiles:
    """The tiles of a pattern without tensors."""
    queries, keys, rows, columns = size
    symbols = {"B": 2, "H": heads, "HK": heads, "NQ": queries, "NK": keys, "q_offset": keys - queries}
    symbols |= {each.name: each.default for each in example(name).parameters if each.default is not None}
    stages: tuple[Stage, ...] = tuple(stage for stage in example(name).stages if isinstance(stage, Let))
    return classify(only_attention(example(name)), symbols, None, rows, columns, stages)


def check(found: Lists, maps: list[np.ndarray]) -> None:
    """Every row of every map, entry by entry."""
    assert found.starts.dtype == found.columns.dtype == found.heavy.dtype == np.int32
    assert found.starts.shape == (len(maps), len(maps[0]), 3)
    assert found.heavy.shape == (len(maps), len(maps[0]))
    assert len(found.columns) == sum(int((dense != EMPTY).sum()) for dense in maps)
    assert found.nbytes == 4 * (found.starts.size + found.columns.size + found.heavy.size)
    for dense, starts, heavy in zip(maps, found.starts, found.heavy, strict=True):
        for row, (begin, middle, end) in zip(dense, starts, strict=True):
            assert found.columns[begin:middle].tolist() == np.flatnonzero(row == FULL).tolist()
            assert found.columns[middle:end].tolist() == np.flatnonzero(row == PARTIAL).tolist()
        visited = (dense != EMPTY).sum(1).tolist()
        assert heavy.tolist() == sorted(range(len(dense)), key=lambda row, by=visited: (-by[row], row))


def ends_masked(dense: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Kinds of tiles [row tiles, others], where full tiles that are cut off count as partial."""
    return np.where((dense == FULL) & cut, PARTIAL, dense)


@pytest.mark.parametrize("name", NAMES)
def test_lists_say_what_the_tiles_are(name: str) -> None:
    for size in SIZES:
        tiles = tiles_of(name, size)
        check(lists(tiles), [ends_masked(each.dense(), each.widths < tiles.columns) for each in tiles.maps])
        turned = [ends_masked(each.dense().T, each.heights < tiles.rows) for each in tiles.maps]
        check(transposed_lists(tiles), turned)


@pytest.mark.parametrize("name", NAMES)
def test_a_transposed_map_is_the_map_with_its_axes_swapped(name: str) -> None:
    for size in SIZES:
        for each in tiles_of(name, size).maps:
            turned = each.transposed()
            assert turned.dense().tolist() == each.dense().T.tolist()
            assert (turned.counts, turned.pairs) == (each.counts, each.pairs)
            assert turned.transposed().dense().tolist() == each.dense().tolist()
            assert (turned.heights.tolist(), turned.widths.tolist()) == (
                each.widths.tolist(),
                each.heights.tolist(),
            )


def test_a_transposed_window_stays_small() -> None:
    tiles = tiles_of("sliding_window", (1 << 16, 1 << 16, 128, 128), heads=1)
    (one,) = tiles.maps
    assert one.transposed().nbytes <= 2 * one.nbytes


def test_no_queries_no_lists() -> None:
    tiles = tiles_of("causal", (0, 64, 16, 16))
    found, turned = lists(tiles), transposed_lists(tiles)
    assert found.starts.shape == (1, 0, 3) and turned.starts.tolist() == [[[0, 0, 0]] * 4]
    assert len(found.columns) == len(turned.columns) == 0


def test_more_tiles_than_numbers_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tile_lists, "MOST", 5)
    with pytest.raises(ValueError, match="6 visited tiles"):
        lists(tiles_of("causal", (48, 48, 16, 16)))
