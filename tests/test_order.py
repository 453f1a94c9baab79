"""Orders of tokens: every token once, no tile unsound, fewer tiles where there is something to gain, none elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from attnlang.passes import order as module
from attnlang.passes import order_search, order_tiles
from attnlang.passes.boxes_map import TileMap
from attnlang.passes.boxes_runs import EMPTY, FULL, PARTIAL
from attnlang.passes.classify import BUDGET, Tiles, Work, classify
from attnlang.passes.order import Ordered, find_order
from attnlang.passes.order_places import FREE, Order
from attnlang.passes.order_search import Search
from attnlang.passes.order_standing import Standing
from attnlang.passes.order_tiles import classified
from attnlang.passes.summaries import Summary
from tests.catalogue import call, example, seen
from tests.definitions import cases
from tests.test_classify import MASKED, only_attention

TILES = ((4, 4), (8, 5), (1, 3))
Mask = NDArray[np.bool_]


def check(tiles: TileMap, order: Order, mask: Mask, tile: tuple[int, int]) -> int:
    """Fails where a token is missing or a tile is unsound; else the number of tiles called partial that are not."""
    for places, size, side in zip((order.queries, order.keys), mask.shape, tile, strict=True):
        assert places.dtype == np.int32
        assert len(places) % side == 0
        assert (np.sort(places[places != FREE]) == np.arange(size)).all()
    (rows, columns), found = tile, tiles.dense()
    by_tile = (len(order.queries) // rows, rows, len(order.keys) // columns, columns)
    assert found.shape == by_tile[::2]
    taken = np.outer(order.queries != FREE, order.keys != FREE)
    shown = mask[order.queries][:, order.keys] & taken
    pairs, visible = (part.reshape(by_tile).sum((1, 3)) for part in (taken, shown))
    free = (order.keys == FREE).reshape(-1, columns).any(1)
    assert not ((found == FULL) & ((visible < pairs) | free)).any(), (
        "a hidden pair or free key in a full tile"
    )
    assert not ((found == EMPTY) & (visible > 0)).any(), "a visible pair in an empty tile"
    assert not ((found != EMPTY) & (pairs == 0)).any(), "a tile without pairs is visited"
    assert (tiles.heights == (order.queries != FREE).reshape(-1, rows).sum(1)).all()
    assert (tiles.widths == (order.keys != FREE).reshape(-1, columns).sum(1)).all()
    true = np.where(visible == 0, EMPTY, np.where((visible == pairs) & ~free, FULL, PARTIAL))
    return int((found != true).sum())


def check_candidates(work: Work, mask: Mask, tile: tuple[int, int]) -> tuple[int, int]:
    """All candidates of all heads: how many there were, and how many of their tiles are called partial that are not.
    `mask`: [B, H, NQ, NK]."""
    queries, keys = Standing(work.queries, tile[0]), Standing(work.keys, tile[1])
    classes, roots = work.classes()
    amount = loose = 0
    for place, root in enumerate(roots):
        search = Search(work.graph, root, queries, keys)
        search.best()
        b, h = np.argwhere(classes == place)[0]
        for candidate, cost in search.costs.items():
            if cost < np.inf:
                order = Order(queries.places(candidate.queries), keys.places(candidate.keys))
                sides = queries.placed(order.queries), keys.placed(order.keys)
                loose += check(classified(work.graph, root, *sides, *tile, BUDGET), order, mask[b, h], tile)
                amount += 1
    return amount, loose


def check_cases(name: str) -> int:
    """Tiles of all candidates in all cases of a pattern that are called partial and are not."""
    loose = 0
    for case in cases(name):
        given = case.make_inputs(0)
        inputs = call(case, given)
        tensors = {key: value.numpy() for key, value in inputs.tensors.items()}
        for tile in TILES:
            symbols, stages = {**inputs.sizes, **inputs.scalars}, example(name).stages
            work = Work(only_attention(example(name)), symbols, tensors, stages)
            loose += check_candidates(work, seen(case, given).numpy(), tile)[1]
    return loose


@pytest.mark.parametrize("name", MASKED)
def test_no_candidate_is_unsound(name: str) -> None:
    assert check_cases(name) == 0


@pytest.mark.parametrize("name", MASKED)
def test_from_large_boxes_to_small(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_tiles, "MOST_AT_FIRST", 4)
    assert check_cases(name) == 0


@pytest.mark.parametrize("name", ["hash_buckets", "dropped"])
def test_by_what_tensors_hold(name: str) -> None:
    assert check_cases(name) == 0


def test_blocks_of_which_extremes_are_known() -> None:
    buckets = np.random.default_rng(0).integers(0, 5, (1, 1, 16)).repeat(4, axis=2)
    blocks = buckets.reshape(1, 1, 8, 8)
    known = Summary(blocks.min(3), blocks.max(3), (1, 1, 8), buckets.shape)
    symbols = {"B": 1, "H": 1, "HK": 1, "NQ": 64, "NK": 64, "q_offset": 0}
    mask = np.tri(64, dtype=np.bool_) & (buckets[0, 0][:, None] == buckets[0, 0][None])
    work = Work(only_attention(example("hash_buckets")), symbols, {"bucket": known}, ())
    assert check_candidates(work, mask[None, None], (4, 4))[0] > 0


# ------------------------------------------------------------------------------------------- at real sizes


def found_for(
    name: str, length: int, tile: tuple[int, int], heads: int = 1, tensors: Any = None, **given: Any
) -> tuple[Ordered | None, Tiles]:
    """The order of an example, and its tiles in row-major order."""
    symbols: dict[str, Any] = {"B": 1, "H": heads, "HK": heads, "NQ": length, "NK": length, "q_offset": 0}
    symbols |= {each.name: given.get(each.name, each.default) for each in example(name).parameters}
    arguments = only_attention(example(name)), symbols, tensors, *tile, example(name).stages
    return find_order(*arguments), classify(*arguments)


def visited(tiles: Tiles) -> int:
    """Tiles that a kernel works on."""
    return tiles.counts.full + tiles.counts.partial


@pytest.mark.parametrize("tile", [(128, 64), (64, 64)])
@pytest.mark.parametrize(
    ("name", "tokens", "given"),
    [
        ("neighborhood_2d", 1 << 16, {"height": 256, "width": 256, "window_y": 13, "window_x": 13}),
        ("dilated_window", 1 << 14, {"window": 512, "dilation": 8}),
    ],
)
def test_a_third_of_the_tiles(name: str, tokens: int, given: dict[str, int], tile: tuple[int, int]) -> None:
    ordered, natural = found_for(name, tokens, tile, **given)
    assert ordered is not None
    assert ordered.natural == natural.counts
    assert 3 * visited(ordered.tiles) <= visited(natural)
    order = ordered.orders[0]
    assert (np.sort(order.queries[order.queries != FREE]) == np.arange(tokens)).all()
    assert (np.sort(order.keys[order.keys != FREE]) == np.arange(tokens)).all()


def test_heads_with_orders_of_their_own() -> None:
    temporal = {"is_temporal": np.array([False, True, True])}
    ordered, natural = found_for("spatial_temporal_heads", 4096, (64, 64), 3, temporal, frames=16, tokens=256)
    assert ordered is not None
    space, time = (ordered.orders[int(ordered.tiles.classes[0, head])] for head in (0, 1))
    assert (space.keys == np.arange(4096)).all()
    assert (time.keys[:17] == [*range(0, 4096, 256), 1]).all()
    assert ordered.tiles.map(head=0).counts == natural.map(head=0).counts
    assert visited(ordered.tiles) < visited(natural)
    assert ordered.choice == "tokens as they are stored; or queries by q mod 256, keys by k mod 256"


def test_buckets_of_a_call() -> None:
    buckets = np.random.default_rng(0).integers(0, 16, (1, 2, 2048))
    ordered, natural = found_for("hash_buckets", 2048, (64, 64), 2, {"bucket": buckets})
    assert ordered is not None
    assert 4 * visited(ordered.tiles) < visited(natural)
    causal = np.tri(2048, dtype=np.bool_)
    for head in (0, 1):
        same = buckets[0, head][:, None] == buckets[0, head][None]
        order = ordered.orders[int(ordered.tiles.classes[0, head])]
        assert check(ordered.tiles.map(head), order, causal & same, (64, 64)) == 0
    assert len({(len(order.queries), len(order.keys)) for order in ordered.orders}) == 1


def test_cells_begin_with_tiles_where_that_pays() -> None:
    ordered, natural = found_for("space", 1600, (64, 64), frames=16, tokens=100)
    assert ordered is not None
    assert "each cell begins with a tile" in ordered.choice
    assert len(ordered.orders[0].keys) == 16 * 128
    assert visited(ordered.tiles) == 16 * 4 < visited(natural)


@pytest.mark.parametrize(
    "name", ["sliding_window", "causal", "streaming", "full", "local_block", "short_long_heads"]
)
def test_nothing_to_gain(name: str) -> None:
    assert found_for(name, 8192, (128, 64), heads=2)[0] is None


def test_an_index_costs_more_than_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INDEXED", 20.0)
    assert found_for("time", 1024, (64, 64), frames=16, tokens=64)[0] is None
    monkeypatch.setattr(module, "INDEXED", 1.0)
    assert found_for("time", 1024, (64, 64), frames=16, tokens=64)[0] is not None


def test_few_tokens_have_no_order() -> None:
    assert found_for("time", 64, (64, 64), frames=16, tokens=4)[0] is None


def test_long_grids_have_boxes_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_search, "MOST_TOKENS", 0)
    grid = {"height": 128, "width": 128, "window_y": 13, "window_x": 13}
    ordered, natural = found_for("neighborhood_2d", 128 * 128, (64, 64), **grid)
    assert ordered is not None
    assert 2 * visited(ordered.tiles) < visited(natural)
    assert ordered.choice.startswith("queries in boxes of 8 × 8 by q // 128, q mod 128")
