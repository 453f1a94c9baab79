"""The cases of sections A and B."""

from collections.abc import Iterable
from dataclasses import replace

from .case_shapes import BEFORE_END, DECODE, EMPTY, FREE, INSIDE, ODD, OFFSET, Shape, on_grid, spread

HW = ("height", "width")
THW = ("frames", "height", "width")
FT = ("frames", "tokens")
ALONE = replace(ODD, label="one-head", H=1, HK=1)
MANY = replace(ODD, label="many-heads", B=1, H=6, HK=3)

STATIC: dict[str, Iterable[Shape]] = {
    "full": spread(FREE),
    "causal": spread(FREE),
    "sliding_window": spread(FREE, {"window": 7}, {"window": 16}, {"window": 1}, {"window": 200}, {}),
    "local": spread(FREE, {"radius": 5}, {"radius": 16}, {"radius": 0}, {"radius": 200}, {"radius": 3}),
    "dilated_window": spread(
        FREE,
        {"window": 5, "dilation": 3},
        {"window": 8, "dilation": 2},
        {"window": 1, "dilation": 4},
        {"window": 6, "dilation": 1},
        {},
    ),
    "streaming": spread(
        FREE,
        {"window": 6, "sinks": 3},
        {"window": 16, "sinks": 4},
        {"window": 1, "sinks": 0},
        {"window": 5, "sinks": 1},
        {"window": 3, "sinks": 200},
    ),
    "longformer": spread((*INSIDE, ALONE), {"radius": 3}, {"radius": 8}, {"radius": 0}, {"radius": 2}, {}),
    "strided_blocks": spread(
        (*FREE, MANY),
        {"block": 5, "near": 2, "stride": 3},
        {"block": 8, "near": 1, "stride": 4},
        {"block": 1, "near": 3, "stride": 5},
        {"block": 4, "near": 0, "stride": 16},
    ),
    "sharded": spread(
        (*FREE, MANY),
        {"block": 4, "near": 2, "period": 4},
        {"block": 8, "near": 1, "period": 8},
        {"block": 3, "near": 1, "period": 16},
        {"block": 5, "near": 2, "period": 2},
    ),
    "shifted_groups": spread(
        (*INSIDE, ALONE, MANY), {"group": 8}, {"group": 16}, {"group": 10}, {"group": 2}, {}
    ),
    "prefix_lm": spread(FREE),
    "document": spread((*BEFORE_END, ALONE)),
    "region": spread((*INSIDE, ALONE)),
    "diagonal_masked": spread(FREE),
    "visual_isolated": spread((*BEFORE_END, ALONE)),
    "short_long_heads": spread(
        (*FREE, MANY),
        {"window": 5, "short": 2},
        {"window": 16, "short": 1},
        {"window": 1, "short": 0},
        {"window": 7, "short": 3},
        {"window": 4},
    ),
    "neighborhood_1d": on_grid(
        {"length": 41},
        {"length": 37, "window": 8, "stride": 3, "dilation": 2},
        {"length": 50, "window": 5, "stride": 2, "dilation": 3, "causal": True},
        {"length": 45, "window": 1},
        {"length": 30, "window": 30, "stride": 30},
        {"length": 35, "window": 6, "stride": 6, "causal": True},
        {"length": 24, "window": 4, "stride": 4, "dilation": 5},
        {"length": 28, "window": 2, "stride": 2, "dilation": 14},
        extents=("length",),
    ),
    "neighborhood_2d": on_grid(
        {"height": 7, "width": 9},
        {"height": 8, "width": 11, "window_y": 3, "window_x": 4, "stride_x": 2, "causal_y": True},
        {"height": 10, "width": 7, "window_y": 5, "window_x": 3, "dilation_y": 2, "dilation_x": 2},
        {"height": 9, "width": 8, "window_y": 1, "window_x": 8, "stride_x": 8},
        {
            **{"height": 9, "width": 10, "window_y": 4, "window_x": 5, "stride_y": 3, "stride_x": 2},
            **{"dilation_y": 2, "dilation_x": 2, "causal_y": True, "causal_x": True},
        },
        {"height": 6, "width": 13, "window_y": 2, "window_x": 6, "stride_y": 2, "causal_x": True},
        extents=HW,
    ),
    "neighborhood_3d": on_grid(
        {"frames": 3, "height": 4, "width": 7, "window_t": 3, "window_y": 3, "window_x": 5},
        {
            **{"frames": 4, "height": 5, "width": 4, "window_t": 2, "window_y": 3, "window_x": 2},
            **{"stride_t": 2, "stride_y": 2, "causal_t": True},
        },
        {
            **{"frames": 4, "height": 4, "width": 6, "window_t": 2, "window_y": 2, "window_x": 3},
            **{"dilation_t": 2, "dilation_y": 2, "dilation_x": 2, "stride_x": 3},
        },
        {
            **{"frames": 2, "height": 5, "width": 6, "window_t": 1, "window_y": 4, "window_x": 3},
            **{"causal_t": True, "causal_y": True, "causal_x": True, "stride_y": 3},
        },
        {"frames": 5, "height": 2, "width": 7, "window_y": 2},
        extents=THW,
    ),
    "inward_window": on_grid(
        {"frames": 2, "height": 5, "width": 9, "radius_y": 1, "radius_x": 2},
        {"frames": 1, "height": 8, "width": 7},
        {"frames": 3, "height": 4, "width": 6, "radius_y": 0, "radius_x": 1},
        {"frames": 2, "height": 6, "width": 7, "radius_y": 2, "radius_x": 9},
        extents=THW,
    ),
    "swin": on_grid(
        {"height": 8, "width": 12, "window": 4, "shift": 2},
        {"height": 6, "width": 9, "window": 3, "shift": 1},
        {"height": 8, "width": 8, "window": 4, "shift": 0},
        {"height": 8, "width": 8},
        {"height": 6, "width": 4, "window": 2, "shift": 1},
        {"height": 3, "width": 5, "window": 1, "shift": 0},
        extents=HW,
    ),
    "halo": on_grid(
        {"height": 7, "width": 10, "block": 3, "halo": 1},
        {"height": 8, "width": 6, "block": 4, "halo": 2},
        {"height": 5, "width": 9, "block": 2, "halo": 0},
        {"height": 9, "width": 9},
        {"height": 6, "width": 11, "block": 1, "halo": 3},
        extents=HW,
    ),
    "space": on_grid(
        {"frames": 5, "tokens": 9},
        {"frames": 7, "tokens": 8},
        {"frames": 1, "tokens": 30},
        {"frames": 20, "tokens": 1},
        {"frames": 4, "tokens": 16},
        extents=FT,
    ),
    "time": on_grid(
        {"frames": 5, "tokens": 9},
        {"frames": 7, "tokens": 8},
        {"frames": 1, "tokens": 30},
        {"frames": 20, "tokens": 1},
        {"frames": 4, "tokens": 16},
        extents=FT,
    ),
    "radial": on_grid(
        {"frames": 6, "tokens": 11},
        {"frames": 9, "tokens": 8, "sink": False},
        {"frames": 24, "tokens": 3, "sink": False},
        {"frames": 12, "tokens": 5},
        {"frames": 40, "tokens": 2, "sink": False},
        {"frames": 30, "tokens": 1, "sink": False},
        {"frames": 1, "tokens": 20, "sink": False},
        extents=FT,
    ),
    "spatial_temporal_heads": on_grid(
        {"frames": 5, "tokens": 9, "near_tokens": 2},
        {"frames": 7, "tokens": 8, "near_frames": 2, "near_tokens": 0},
        {"frames": 6, "tokens": 10, "near_frames": 0, "near_tokens": 3},
        {"frames": 4, "tokens": 12},
        extents=FT,
    ),
    "unidirectional_blocks": on_grid(
        {"height": 7, "width": 10, "block": 3},
        {"height": 8, "width": 6, "block": 2},
        {"height": 5, "width": 9, "block": 1},
        {"height": 9, "width": 9},
        extents=HW,
    ),
    "temporal_latent": spread(FREE, {}, {"stride": 3}, {"stride": 1}, {"stride": 7}, {"stride": 200}),
    "local_block": spread(FREE, {"block": 5}, {"block": 16}, {"block": 1}, {"block": 7}, {"block": 4}, {}),
}

SCORES: dict[str, Iterable[Shape]] = {
    "alibi": spread(FREE),
    "music": spread(FREE, {"reach": 9}, {"reach": 16}, {"reach": 1}, {"reach": 100}),
    "t5": spread(
        FREE,
        {"buckets": 8, "max_distance": 20},
        {"buckets": 32, "max_distance": 64},
        {},
        {"buckets": 5, "max_distance": 54},
        {"buckets": 2, "max_distance": 2},
        {"buckets": 16, "max_distance": 9},
        {"buckets": 3, "max_distance": 1000},
    ),
    "distance_bias": spread((*INSIDE, ALONE)),
    "low_rank_bias": spread(FREE, {}, {"rank": 1}, {"rank": 5}, {"rank": 16}),
    "pair_bias": spread(FREE),
    "softcap": spread(FREE, {}, {"cap": 0.8}, {"cap": 3.0}, {"cap": 1.5}),
    "selective": spread(FREE),
    "cosine": on_grid(
        {"height": 8, "width": 12, "window": 4},
        {"height": 6, "width": 9, "window": 3},
        {"height": 8, "width": 8},
        {"height": 3, "width": 5, "window": 1},
        {"height": 4, "width": 10, "window": 2},
        extents=HW,
    ),
    "gaussian_mixture": on_grid(
        {"height": 5, "width": 9},
        {"height": 8, "width": 6, "components": 3},
        {"height": 7, "width": 7, "components": 1},
        {"height": 1, "width": 30},
        extents=HW,
    ),
    "gated_positional": on_grid(
        {"height": 5, "width": 9},
        {"height": 8, "width": 6},
        {"height": 7, "width": 7},
        {"height": 1, "width": 30},
        extents=HW,
    ),
    "universal_rpe": spread(FREE, {"reach": 9}, {"reach": 16}, {"reach": 1}, {"reach": 100}),
    "variate": spread(
        (ODD, DECODE, OFFSET, EMPTY, ALONE),
        {"channels": 5, "near": 3},
        {"channels": 4, "near": 2},
        {"channels": 7},
        {"channels": 3, "near": 0},
        {"channels": 1, "near": 6},
    ),
    "additive": spread(FREE),
}

TABLE: dict[str, tuple[Shape, ...]] = {name: tuple(shapes) for name, shapes in {**STATIC, **SCORES}.items()}
