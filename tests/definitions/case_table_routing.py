"""The cases of section E, and their ties."""

from collections.abc import Iterable
from dataclasses import replace

from .case_shapes import BEFORE_END, CHUNK, DECODE, EMPTY, ODD, OFFSET, Shape, spread, square

SQUARE = (*square(37, 50, 61), replace(ODD, label="same-features", DV=24))
TIES = replace(ODD, label="ties", NQ=48, NK=48, D=16, lattice=True)


def equal_heads(shapes: Iterable[Shape]) -> tuple[Shape, ...]:
    """The same with HK = H."""
    return tuple(replace(shape, HK=shape.H) for shape in shapes)


def lengths(N: int, *shapes: Shape) -> tuple[Shape, ...]:
    """The same with NQ = NK = N."""
    return tuple(replace(shape, NQ=N, NK=N, q_offset=None) for shape in shapes)


ROUTING: dict[str, Iterable[Shape]] = {
    "block_topk": (
        *spread(
            BEFORE_END,
            {"block": 5, "keep": 3},
            {"block": 8, "keep": 2},
            {"block": 4, "keep": 1},
            {"block": 16, "keep": 200},
            {"block": 3, "keep": 4},
            {},
        ),
        replace(TIES, params={"block": 4, "keep": 4}),
    ),
    "tile_topk": (
        *spread(
            lengths(36, ODD, CHUNK), {"tile": 6, "keep": 2}, {"tile": 9, "keep": 1}, {"tile": 4, "keep": 3}
        ),
        *spread(lengths(64, OFFSET, EMPTY), {"tile": 16, "keep": 2}, {}),
        replace(TIES, params={"tile": 4, "keep": 5}),
    ),
    "native_sparse": spread(
        BEFORE_END,
        {"block": 4, "keep": 3, "window": 6},
        {"block": 8, "keep": 4, "window": 16},
        {"block": 5, "keep": 2, "window": 1},
        {"block": 6, "keep": 200, "window": 9},
        {"block": 3, "keep": 4, "window": 4},
        {},
    ),
    "antidiagonal": (
        *spread(
            lengths(48, ODD, CHUNK),
            {"stride": 4, "block": 8},
            {"stride": 2, "block": 8, "threshold": 0.5},
            {"stride": 8, "block": 16, "threshold": 0.7},
        ),
        *spread(
            lengths(60, OFFSET, EMPTY),
            {"stride": 3, "block": 6, "threshold": 0.6},
            {"stride": 5, "block": 5, "threshold": 0.8},
            {"stride": 1, "block": 4, "threshold": 0.3},
        ),
    ),
    "region_routing": (
        replace(ODD, NQ=48, NK=48, params={"height": 6, "width": 8, "region": 2, "keep": 3}),
        replace(CHUNK, NQ=54, NK=54, params={"height": 9, "width": 6, "region": 3}, scale=0.3),
        replace(OFFSET, NQ=64, NK=64, q_offset=None, params={"height": 8, "width": 8}),
        replace(EMPTY, NQ=32, NK=32, params={"height": 4, "width": 8, "region": 4, "keep": 1}),
        replace(TIES, params={"height": 12, "width": 4, "region": 2, "keep": 3}),
    ),
    "learned_gate": spread(
        SQUARE,
        {"block": 5, "keep": 3},
        {"block": 8, "keep": 2},
        {"block": 4, "keep": 1},
        {"block": 3, "keep": 200},
        {"block": 16, "keep": 2},
        {},
    ),
    "dynamic_mask": spread(BEFORE_END, {"keep": 7}, {"keep": 16}, {"keep": 1}, {"keep": 12}, {"keep": 5}, {}),
    "expert_choice": spread(
        BEFORE_END, {"keep": 9}, {"keep": 60}, {"keep": 40}, {"keep": 1}, {"keep": 12}, {}
    ),
    "routing": (
        *spread(
            equal_heads(BEFORE_END),
            {"clusters": 3, "keep": 11},
            {"clusters": 4, "keep": 20},
            {"clusters": 5, "keep": 6},
            {"clusters": 1, "keep": 16},
            {"keep": 4},
            {},
        ),
    ),
    "hash_buckets": spread(BEFORE_END),
    "dropped": spread((*BEFORE_END, replace(ODD, label="one-head", H=1, HK=1))),
    "page_topk": (
        *spread(
            (*BEFORE_END, replace(DECODE, label="group-of-four", B=1, H=8, HK=2)),
            {"page": 4, "keep": 3, "sinks": 2, "near": 5},
            {"page": 8, "keep": 2, "near": 16},
            {"page": 5, "keep": 2, "sinks": 0, "near": 1},
            {"page": 3, "keep": 4, "sinks": 1, "near": 0},
            {"page": 16, "keep": 1, "sinks": 3, "near": 4},
            {"page": 2, "keep": 200, "near": 3},
            {},
        ),
        replace(TIES, params={"page": 4, "keep": 2, "sinks": 4, "near": 4}),
    ),
}

TABLE: dict[str, tuple[Shape, ...]] = {name: tuple(shapes) for name, shapes in ROUTING.items()}
