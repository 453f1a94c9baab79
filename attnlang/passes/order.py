"""In which order tokens should stand so that few tiles are visited, found from the predicate and weighed.

ordered = find_order(attention, {"NQ": 16384, …, "window": 512, "dilation": 8}, None, 128, 64)
ordered.orders[0].keys, ordered.tiles.maps[0].csr(), ordered.choice
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attnlang.ir.pattern import Attention, Stage
from attnlang.passes.boxes_map import Counts, TileMap
from attnlang.passes.classify import BUDGET, Tiles, Work, classify
from attnlang.passes.order_places import Order, lengthened
from attnlang.passes.order_search import Candidate, Search
from attnlang.passes.order_standing import Side, Standing
from attnlang.passes.order_text import described
from attnlang.passes.order_tiles import CUT, classified

INDEXED = 1.08
"""A tile whose tokens are loaded through an index costs so many whose tokens stand side by side."""
STORED = Candidate(Side((), False), Side((), False))
"""Tokens as they are stored."""
MOST_SAID = 3
COUNTED = 1 << 17
"""How many boxes inside of tiles are looked at for one head to count what row-major order visits."""


@dataclass(frozen=True, eq=False)
class Ordered:
    """An attention's tiles in an order of its own for each class of heads that see alike.

    `tiles.maps[i]` is over the places of `orders[i]`; all orders have the same lengths. EMPTY tiles have no visible
    pair; FULL ones no hidden pair and no free place among their keys (rows may be free, and are not stored).
    `choice`, `reason` and `alternative` are the words of the plan; `natural` counts what row-major order would visit.
    """

    tiles: Tiles
    orders: tuple[Order, ...]
    choice: str
    reason: str
    alternative: str
    natural: Counts


def find_order(
    attention: Attention,
    symbols: Mapping[str, bool | int | float],
    tensors: Mapping[str, Any] | None,
    rows: int,
    columns: int,
    stages: Iterable[Stage] = (),
    natural: Tiles | None = None,
) -> Ordered | None:
    """The order of tokens that makes tiles of `rows` queries × `columns` keys few; None where row-major order is best.

    Arguments as for `classify`; `natural`: its answer, where it is at hand. Sound as `classify` is.
    Raises MissingNumber for a size or parameter without value.
    """
    work = Work(attention, symbols, tensors, stages)
    if not (work.queries.size > rows and work.keys.size > columns):
        return None
    classes, roots = work.classes()
    queries, keys = Standing(work.queries, rows), Standing(work.keys, columns)
    searches = [Search(work.graph, root, queries, keys) for root in roots]
    if not any(search.hopeful for search in searches):
        return None
    if natural is None:
        natural = classify(attention, symbols, tensors, rows, columns, stages, COUNTED)
    chosen = [_chosen(search, seen) for search, seen in zip(searches, natural.maps, strict=True)]
    if all(candidate == STORED for candidate in chosen):
        return None
    orders = _orders(chosen, queries, keys)
    maps = tuple(
        classified(
            work.graph, root, queries.placed(order.queries), keys.placed(order.keys), rows, columns, BUDGET
        )
        for root, order in zip(roots, orders, strict=True)
    )
    tiles = Tiles(rows, columns, classes, maps, work.heads, work.batch)
    if INDEXED * _cost(tiles.counts) >= _cost(natural.counts):
        return None
    names = attention.rows[-1].name, attention.over.name
    said = dict.fromkeys(described(candidate, queries, keys, names) for candidate in chosen)
    return Ordered(
        tiles, orders, _choice(list(said)), *_weighed(tiles.counts, natural.counts), natural.counts
    )


def _chosen(search: Search, seen: TileMap) -> Candidate:
    """The best order of one map, if it is worth the loads through an index."""
    found = search.best() if search.hopeful else None
    return STORED if found is None or INDEXED * found[1] >= _cost(seen.counts) else found[0]


def _cost(counts: Counts) -> float:
    """What the visited tiles cost, in full ones."""
    return counts.full + CUT * counts.partial


def _orders(chosen: list[Candidate], queries: Standing, keys: Standing) -> tuple[Order, ...]:
    """The places of all maps, as many for each."""
    found = [(queries.places(candidate.queries), keys.places(candidate.keys)) for candidate in chosen]
    down, across = (max(len(pair[side]) for pair in found) for side in (0, 1))
    return tuple(Order(lengthened(rows, down), lengthened(columns, across)) for rows, columns in found)


def _choice(said: list[str]) -> str:
    more = len(said) - MOST_SAID
    return "; or ".join(said[:MOST_SAID]) + (f"; or one of {more} more, by head" if more > 0 else "")


def _weighed(ordered: Counts, natural: Counts) -> tuple[str, str]:
    """Why, and what else."""
    visited, before = (counts.full + counts.partial for counts in (ordered, natural))
    percent = round(100 * (INDEXED - 1))
    reason = (
        f"{visited:,} tiles are visited instead of {before:,}; loads through an index cost about {percent} %"
    )
    return reason, f"tokens as they are stored, {before:,} tiles"
